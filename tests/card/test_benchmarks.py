"""Results on benchmarks: those of the very weights that they stand beside, and no others."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml

from hub_callbacks.card import eval_results, gather_setup, missing, read_evaluations
from hub_callbacks.card.arguments import is_likelihood

KNOWS_BENCHMARKS = pytest.mark.skipif(not hasattr(huggingface_hub, "EvalResultEntry"), reason="an older client")
BENCHMARKS = [("accuracy", "owner/benchmark", "default"), ("eval_other_f1", "owner/other", "hard")]


def at(step, **metrics):
    return {"step": step, "metrics": metrics}


def written(progress):
    found = eval_results(BENCHMARKS, progress, read_evaluations({}, progress))
    return None if found is None else yaml.safe_load(found)


@KNOWS_BENCHMARKS
def test_what_the_weights_scored_is_written_as_the_hub_reads_it():
    evaluations = [at(2, eval_accuracy=0.25), at(4, eval_accuracy=0.5, eval_other_f1=0.75, eval_other_runtime=1.0)]
    assert written({"weights_step": 4, "step": 4, "evaluations": evaluations}) == [
        {"dataset": {"id": "owner/benchmark", "task_id": "default"}, "value": 0.5},
        {"dataset": {"id": "owner/other", "task_id": "hard"}, "value": 0.75},
    ]


@KNOWS_BENCHMARKS
@pytest.mark.parametrize(
    "progress",
    [
        {"weights_step": 6, "step": 6, "evaluations": [at(4, eval_accuracy=0.5)]},
        {"weights_step": None, "step": 4, "evaluations": [at(4, eval_accuracy=0.5)]},
        {"weights_step": 4, "step": 4, "evaluations": [at(4, eval_loss=0.5, eval_accuracy=float("nan"))]},
        {"weights_step": 4, "step": 4, "evaluations": []},
    ],
    ids=["other weights", "unknown weights", "no number", "nothing"],
)
def test_nothing_is_written_where_these_weights_were_not_measured(progress):
    assert written(progress) is None


def test_a_language_model_has_a_perplexity():
    progress = {"weights_step": 4, "step": 4, "evaluations": [at(4, eval_loss=2.0, eval_other_loss=3.0)]}
    setup = {"training": {"has_perplexity": True}, "datasets": {"eval": {"other": {}}}}
    found = read_evaluations(setup, progress)
    assert found.metrics == [("", "loss"), ("", "perplexity"), ("other", "loss"), ("other", "perplexity")]
    assert found.of_weights.get(("", "perplexity")) == pytest.approx(7.389, abs=1e-3)
    assert ("", "perplexity") not in read_evaluations({}, progress).metrics


def test_the_perplexity_that_a_script_has_measured_stays():
    progress = {"weights_step": 4, "step": 4, "evaluations": [at(4, eval_loss=2.0, eval_perplexity=5.0)]}
    assert (
        read_evaluations({"training": {"has_perplexity": True}}, progress).of_weights.get(("", "perplexity"))
        == 5.0
    )


def test_a_loss_that_is_no_language_models_has_none():
    progress = {"weights_step": 4, "step": 4, "evaluations": [at(4, eval_loss=800.0)]}
    assert read_evaluations({"training": {"has_perplexity": True}}, progress).metrics == [("", "loss")]


def test_whose_loss_is_a_likelihood(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Own(transformers.TrainingArguments):
        pass

    for kind in (transformers.TrainingArguments, transformers.Seq2SeqTrainingArguments, Own):
        assert is_likelihood(kind(tmp_path))
    assert not is_likelihood(transformers.TrainingArguments(tmp_path, label_smoothing_factor=0.1))
    trl = pytest.importorskip("trl")
    assert is_likelihood(trl.SFTConfig(tmp_path, bf16=False))
    assert not is_likelihood(trl.DPOConfig(tmp_path, bf16=False))


@pytest.mark.parametrize(
    ("text", "words", "keywords"),
    [
        ("# Bare\n", ["license", "datasets", "language", "intended use"], 3),
        ("---\nlicense: mit\npipeline_tag: image-classification\n---\n## Limitations\n", ["datasets"], 1),
        ("---\nlicense: mit\nlanguage: en\ndatasets: [a/b]\n---\n# Intended use\n", [], 0),
    ],
)
def test_what_only_a_person_can_add(text, words, keywords):
    found, calls = missing(text)
    assert found == words and len(calls) == keywords


def test_the_version_of_peft_is_that_of_an_adapter(monkeypatch):
    """transformers imports it wherever it is installed."""
    monkeypatch.setitem(sys.modules, "peft", SimpleNamespace(__version__="0.99"))

    adapted = SimpleNamespace(peft_config={"default": SimpleNamespace(peft_type="LORA")})
    assert "PEFT" not in gather_setup(model=object())["versions"]
    assert gather_setup(model=adapted)["versions"]["PEFT"] == "0.99"
