"""What the Hub shows beside a card's text: results on benchmarks, tags, a dashboard; and what it lacks."""

from __future__ import annotations

import contextvars
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSync, HubSyncCallback, SettingsError
from models import Sentences, arguments, classifier, language_model
from runs import download, train

RESULTS = ".eval_results/hub_callbacks.yaml"
EVALUATED = {"eval_strategy": "steps", "eval_steps": 2}
BENCHMARK = {"accuracy": ("local/benchmark", "default")}
OF_ONE = [{"dataset": {"id": "owner/own", "task_id": "default"}, "value": 1}]
KNOWS_BENCHMARKS = pytest.mark.skipif(not hasattr(huggingface_hub, "EvalResultEntry"), reason="an older client")


def card_of(tmp_path, repo):
    return ModelCard.load(download(tmp_path, repo) / "README.md")


def there(api, repo):
    return {file for file in api.list_repo_files(f"local/{repo}") if file.startswith(".eval_results/")}


@KNOWS_BENCHMARKS
@pytest.mark.parametrize("strategy", ["end", "every_save"])
def test_what_the_weights_scored_on_a_benchmark_is_beside_them(hub, api, repo, tmp_path, strategy):
    best = {"load_best_model_at_end": True, "metric_for_best_model": "accuracy"}
    changes = EVALUATED | best | {"hub_strategy": strategy}
    trainer, _, _ = train(tmp_path, repo, callback={"eval_results": BENCHMARK}, **changes)
    (entry,) = yaml.safe_load((download(tmp_path, repo) / RESULTS).read_text())
    assert entry["dataset"] == {"id": "local/benchmark", "task_id": "default"}
    rows = {row["step"]: row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row}
    assert entry["value"] == rows[trainer.state.best_global_step]


@KNOWS_BENCHMARKS
def test_what_was_measured_on_other_weights_goes_with_them(hub, api, repo, tmp_path):
    changes = EVALUATED | {"hub_strategy": "every_save", "hub_always_push": True}
    train(tmp_path, repo, callback={"eval_results": BENCHMARK}, max_steps=4, **changes)
    assert there(api, repo) == {RESULTS}
    changes |= {"eval_strategy": "no", "max_steps": 6}
    train(
        tmp_path,
        repo,
        callback={"eval_results": BENCHMARK},
        resume=str(tmp_path / repo / "checkpoint-4"),
        **changes,
    )
    assert there(api, repo) == set()


@pytest.mark.parametrize("by", ["the end", "a script", "a loop"])
def test_results_on_benchmarks_that_a_person_wrote_are_pushed(hub, api, repo, tmp_path, by):
    folder = tmp_path / repo / ".eval_results"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(yaml.safe_dump(OF_ONE))
    (folder / "notes.txt").write_text("stays here")
    if by == "the end":
        train(tmp_path, repo, max_steps=2)
    elif by == "a loop":
        (tmp_path / repo / "model.safetensors").write_bytes(b"weights")
        sync = HubSync(output_dir=tmp_path / repo)
        sync.push_to_hub()
        sync.close()
    else:
        callback = HubSyncCallback()
        args = arguments(tmp_path / repo)
        Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback]).push_to_hub()
        callback.close()
    assert there(api, repo) == {".eval_results/own.yaml"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"accuracy": "local/benchmark"}, "eval_results has"),
        ({"accuracy": ("local/benchmark",)}, "eval_results has"),
        ({"accuracy": ("no repository", "default")}, "no dataset on the Hub"),
    ],
)
def test_a_benchmark_that_is_none_is_said_before_training(tmp_path, value, says):
    with pytest.raises(SettingsError, match=says):
        HubSync(output_dir=tmp_path, eval_results=value)


def test_tags_that_another_callback_sets_later_are_on_the_card(hub, repo, tmp_path):
    class Tags(TrainerCallback):
        def on_train_end(self, args, state, control, model=None, **kwargs):
            model.model_tags = ["set-later"]

    callback = HubSyncCallback()
    args = arguments(tmp_path / repo, max_steps=2)
    Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[Tags(), callback]).train()
    callback.close()
    assert "set-later" in card_of(tmp_path, repo).data.tags


def logging_to(monkeypatch, space, run):
    variables = {"current_space_id": space, "current_run": run}
    made = {name: contextvars.ContextVar(name, default=value) for name, value in variables.items()}
    monkeypatch.setitem(sys.modules, "trackio.context_vars", SimpleNamespace(**made))


def test_a_run_that_logs_to_a_space_of_trackio_has_its_dashboard(hub, repo, tmp_path, monkeypatch):
    """trackio keeps the Space of the run in a context variable, which the Trainer's integration reads, too."""
    logging_to(monkeypatch, "local/dashboard", run=object())
    train(tmp_path, repo, max_steps=2)
    card = card_of(tmp_path, repo)
    assert {"trackio", "trackio:https://huggingface.co/spaces/local/dashboard"} <= set(card.data.tags)
    assert "(https://huggingface.co/spaces/local/dashboard)" in card.text


def test_git_tags_that_name_a_commit_are_none_of_the_card(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    (tmp_path / repo / "model.safetensors").write_bytes(b"weights")
    sync = HubSync(output_dir=tmp_path / repo)
    names = {"v1.0.0", "2.1", "step-500", "robust"}
    sync.push_to_hub(tags=list(names))
    sync.close()
    assert set(card_of(tmp_path, repo).data.tags) == {"generated_from_trainer", "robust"}
    assert {tag.name for tag in api.list_repo_refs(f"local/{repo}").tags} == {
        "v1.0.0",
        "2.1",
        "step-500",
        "robust",
    }


def test_what_only_a_person_can_add_is_said_once_at_the_end(hub, repo, tmp_path, caplog):
    callback = HubSyncCallback()
    args = arguments(tmp_path / repo, max_steps=2)
    trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback])
    trainer.train()
    trainer.train()
    callback.close()
    (said,) = [record.getMessage() for record in caplog.records if "which only you know" in record.getMessage()]
    assert (
        f"local/{repo} lacks license, datasets, language, intended use" in said and 'license="apache-2.0"' in said
    )


def test_nothing_is_said_of_a_card_that_lacks_nothing(hub, repo, tmp_path, caplog):
    (tmp_path / repo).mkdir()
    front = "---\nlicense: mit\nlanguage: en\ndatasets: [local/data]\n---\n"
    (tmp_path / repo / "README.md").write_text(f"{front}# Mine\n\n## Intended use\n\nNone.\n")
    train(tmp_path, repo, max_steps=2)
    assert "which only you know" not in caplog.text


def test_a_script_that_pushes_at_its_end_is_told_after_it(hub, repo, tmp_path, caplog):
    callback = HubSyncCallback()
    args = arguments(tmp_path / repo, max_steps=2, push_to_hub=True)
    trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback])
    trainer.train()
    assert "which only you know" not in caplog.text
    trainer.push_to_hub(license="mit", language="en", dataset_tags="local/data")
    callback.close()
    assert "lacks intended use, which only you know. Your own text" in caplog.text


@KNOWS_BENCHMARKS
def test_no_weights_are_given_the_score_of_others(hub, api, repo, tmp_path):
    scores = iter([0.1, 0.2, 0.3])
    callback = HubSyncCallback(eval_results=BENCHMARK)
    args = arguments(tmp_path / repo, max_steps=4, hub_strategy="every_save", **EVALUATED)
    trainer = Trainer(
        classifier(),
        args,
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        compute_metrics=lambda prediction: {"accuracy": next(scores)},
        callbacks=[callback],
    )
    trainer.train()
    trainer._push_from_checkpoint(str(tmp_path / repo / "checkpoint-2"))
    trainer.evaluate()  # of step 4, which is not what is there now
    callback.close()
    (entry,) = yaml.safe_load((download(tmp_path, repo) / RESULTS).read_text())
    card = card_of(tmp_path, repo).text
    assert entry["value"] == 0.1 and "| 10.00 % |" in card and "30.00 %" not in card


@KNOWS_BENCHMARKS
def test_who_goes_back_to_an_older_checkpoint_has_its_score(hub, api, repo, tmp_path):
    keywords = {"eval_results": BENCHMARK}
    trainer, _, _ = train(tmp_path, repo, callback=keywords, max_steps=8, **EVALUATED)
    saved = str(tmp_path / repo / "checkpoint-4")  # where an epoch ends: nothing is left to train up to it
    train(tmp_path, repo, callback=keywords, resume=saved, max_steps=4, **EVALUATED)
    (entry,) = yaml.safe_load((download(tmp_path, repo) / RESULTS).read_text())
    rows = {row["step"]: row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row}
    assert entry["value"] == rows[4]
    assert "**Length:** 4 steps" in card_of(tmp_path, repo).text


def test_odd_entries_among_the_results_on_benchmarks_stop_nothing(hub, api, repo, tmp_path):
    folder = tmp_path / repo / ".eval_results"
    (folder / "folder.yaml").mkdir(parents=True)
    (folder / "link.yaml").symlink_to("nowhere")
    (folder / "hub_callbacks.yaml").write_text("[] # of other weights, from a download")
    train(tmp_path, repo, max_steps=2)
    assert there(api, repo) == set() and "model.safetensors" in api.list_repo_files(f"local/{repo}")


def test_a_space_of_trackio_that_the_run_does_not_log_to_is_none_of_its_card(hub, repo, tmp_path, monkeypatch):
    logging_to(monkeypatch, "local/of-a-run-before", run=None)
    train(tmp_path, repo, max_steps=2)
    assert "of-a-run-before" not in card_of(tmp_path, repo).text


@pytest.mark.parametrize("own", ["method", "function"])
def test_a_loss_of_ones_own_has_no_perplexity(hub, repo, tmp_path, own):
    class Own(Trainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return (loss[0] / 2, loss[1]) if isinstance(loss, tuple) else loss / 2

    def lower(outputs, labels, num_items_in_batch=None):
        return outputs["logits"].square().mean()

    rows = [row | {"labels": row["input_ids"]} for row in Sentences(8)]
    data = {"train_dataset": rows, "eval_dataset": rows, "compute_metrics": None}
    options = data | ({"compute_loss_func": lower} if own == "function" else {})
    kind = Own if own == "method" else Trainer
    train(
        tmp_path,
        repo,
        model=language_model(),
        trainer_class=kind,
        trainer_options=options,
        max_steps=2,
        **EVALUATED,
    )
    assert "Perplexity" not in card_of(tmp_path, repo).text and "| Loss |" in card_of(tmp_path, repo).text
