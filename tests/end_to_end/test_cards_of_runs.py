"""Of each kind of run: the numbers on its card are those of the model that the card's own code loads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy
import pytest
import torch
from card.runs import Images, vit
from huggingface_hub import HfApi, ModelCard
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    ViTImageProcessor,
)

from cards import how_to_use, loaded_by
from hub_callbacks import HubSync, HubSyncCallback
from hub_callbacks.card.formatting import measure, metric_name
from models import Sentences, accuracy, arguments, classifier, configured, language_model, tokenizer

from .test_card_truth import Judge, card_of, headline, trainer_of

NO_METRIC = ("_runtime", "_per_second", "_time", "_num_tokens")
"""Ends of what is no measure of weights."""


def numbers(card: str) -> dict[str, str]:
    """Metric → value at the top of a card with one data set; many metrics stand below each other."""
    shown = headline(card)
    if set(shown) == {""}:
        return shown[""]
    return {name: cells["Value"] for name, cells in shown.items()}


def worded(measured: dict[str, float]) -> dict[str, str]:
    """What `evaluate` returned as it stands on a card."""
    names = {key: key[5:] for key in measured if key.startswith("eval_") and not key.endswith(NO_METRIC)}
    return {metric_name(name): measure(name, measured[key]) for key, name in names.items()}


def with_perplexity(measured: dict[str, float]) -> dict[str, float]:
    return measured | {"eval_perplexity": math.exp(measured["eval_loss"])}


def agrees(repo: str, measured: dict[str, float], revision: str | None = None) -> None:
    """The table at the top and the results in the metadata say what was measured, and nothing else."""
    card = card_of(repo, revision)
    assert numbers(card) == worded(measured)
    for result in ModelCard(card).data.eval_results or []:
        assert result.metric_value == pytest.approx(measured[f"eval_{result.metric_type}"], abs=1e-4)


class Kind(NamedTuple):
    """How a model of a kind is made, and a Trainer that trains it, or evaluates one that was loaded."""

    model: Callable[[Path, str], Any]
    trainer: Callable[..., Trainer]
    module: type | None = None
    is_language_model: bool = False


EVALUATES = {"eval_strategy": "steps", "eval_steps": 2, "learning_rate": 1e-2, "max_steps": 4}


def plainly(
    train: Any, evaluation: Any, processor: Any = None, metrics: Any = None, **changes: Any
) -> Callable[..., Trainer]:
    def make(model: Any, output_dir: Path, *callbacks: Any) -> Trainer:
        return Trainer(
            model,
            arguments(output_dir, **(EVALUATES | changes), label_names=["labels"]),
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=processor and processor(),
            compute_metrics=metrics,
            callbacks=list(callbacks),
        )

    return make


class Tokens(Sentences):
    """Each token is labelled by `label`."""

    def __init__(self, length: int, label: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(length)
        self.label = label

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = super().__getitem__(index)
        return row | {"labels": self.label(row["input_ids"])}


def tokens(label: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Tokens, Tokens]:
    return Tokens(16, label), Tokens(8, label)


def entities(prediction: Any) -> dict[str, float]:
    """As run_ner.py returns them: over all, and of each entity."""
    found, true = prediction.predictions.argmax(-1), prediction.label_ids
    values = {"accuracy": float((found == true).mean())}
    for number, name in enumerate(("PER", "LOC", "ORG")):
        hits = float(((found == number) & (true == number)).sum())
        precision, recall = hits / max(1, (found == number).sum()), hits / max(1, (true == number).sum())
        f1 = 2 * precision * recall / max(1e-9, precision + recall)
        values |= {f"{name}_precision": precision, f"{name}_recall": recall, f"{name}_f1": f1}
    return values


def bert(kind: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return kind(BertConfig(vocab_size=64, max_position_embeddings=32, **sizes, **changes))


def masking() -> Any:
    made = tokenizer()
    made.mask_token = "w63"
    return made


def image_processor() -> Any:
    return ViTImageProcessor(size={"height": 8, "width": 8})


def t5(place: Path, repo: str) -> Any:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


def generated(prediction: Any) -> dict[str, float]:
    return {"gen_len": float(numpy.mean([(row != 0).sum() for row in prediction.predictions]))}


def seq2seq(model: Any, output_dir: Path, *callbacks: Any) -> Trainer:
    values = EVALUATES | {
        "save_steps": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_steps": 1,
    }
    train, evaluation = tokens(lambda ids: ids[:4])
    return Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(str(output_dir), predict_with_generate=True, generation_max_length=6, **values),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=tokenizer(),
        compute_metrics=generated,
        callbacks=list(callbacks),
    )


def adapted(**changes: Any) -> Callable[[Path, str], Any]:
    def make(place: Path, repo: str) -> Any:
        HfApi().create_repo(f"local/{repo}-base")
        language_model().push_to_hub(f"local/{repo}-base")
        base = AutoModelForCausalLM.from_pretrained(f"local/{repo}-base")
        config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        return get_peft_model(base, config, **changes)

    return make


def sft(model: Any, output_dir: Path, *callbacks: Any) -> Trainer:
    trl = pytest.importorskip("trl")
    words = tokenizer()
    words.eos_token = "[CLS]"
    rows = [{"text": f"w{i} w4 w5 w6"} for i in range(3, 9)]
    return trl.SFTTrainer(
        model,
        configured(trl.SFTConfig, output_dir, bf16=False, eval_strategy="steps", eval_steps=2),
        train_dataset=datasets.Dataset.from_list(rows[:4]),
        eval_dataset=datasets.Dataset.from_list(rows[4:]),
        processing_class=words,
        callbacks=list(callbacks),
    )


def embedder(place: Path, repo: str) -> Any:
    st = pytest.importorskip("sentence_transformers")
    from transformers import BertModel

    bert(BertModel).save_pretrained(place / "backbone")
    tokenizer().save_pretrained(place / "backbone")
    return st.SentenceTransformer(str(place / "backbone"), device="cpu")


def embedding(model: Any, output_dir: Path, *callbacks: Any) -> Trainer:
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    rows = [{"a": f"w{i} w4", "b": f"w{i + 1} w5", "score": (i % 4) / 4} for i in range(3, 15)]
    return st.SentenceTransformerTrainer(
        model,
        configured(st.SentenceTransformerTrainingArguments, output_dir, eval_strategy="steps", eval_steps=2),
        train_dataset=datasets.Dataset.from_list(rows[:8]),
        eval_dataset=datasets.Dataset.from_list(rows[8:]),
        loss=CosineSimilarityLoss(model),
        callbacks=list(callbacks),
    )


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(64, 8)
        self.out = torch.nn.Linear(8, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, labels: Any = None) -> dict[str, Any]:
        logits = self.out(self.embed(input_ids).mean(1))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


SAME = tokens(lambda ids: ids)
KINDS = {
    "classification": Kind(lambda *_: classifier(), plainly(Sentences(16), Sentences(8), tokenizer, accuracy)),
    "entities": Kind(
        lambda *_: bert(BertForTokenClassification, num_labels=3),
        plainly(*tokens(lambda ids: ids % 3), tokenizer, entities),
    ),
    "causal": Kind(lambda *_: language_model(), plainly(*SAME, tokenizer), is_language_model=True),
    "masked": Kind(
        lambda *_: bert(BertForMaskedLM),
        plainly(*tokens(lambda ids: ids.where(ids % 3 == 0, -100)), masking),
        is_language_model=True,
    ),
    "seq2seq": Kind(t5, seq2seq),
    "image": Kind(
        lambda *_: vit(),
        plainly(
            Images(16), Images(8, seed=1), lambda: ViTImageProcessor(size={"height": 8, "width": 8}), accuracy
        ),
    ),
    "lora": Kind(adapted(), plainly(*SAME, tokenizer, learning_rate=0.1), is_language_model=True),
    "named-lora": Kind(
        adapted(adapter_name="poems"), plainly(*SAME, tokenizer, learning_rate=0.1), is_language_model=True
    ),
    "sft": Kind(lambda *_: language_model(), sft, is_language_model=True),
    "sentence-transformer": Kind(embedder, embedding),
    "plain": Kind(lambda *_: Net(), plainly(Sentences(16), Sentences(8), None, accuracy), Net),
}


def of_the_card(repo: str, module: type | None = None) -> Any:
    """The model that the code on the card loads, with a plain module of that class where one has to be made."""
    code = how_to_use(repo)[1]
    return loaded_by(code.replace("Net(...)", "Net()"), Net=module)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "green").save("image.png")
    return tmp_path


@pytest.mark.parametrize("name", KINDS)
def test_what_the_card_says_is_what_the_loaded_model_scores(hub: Any, repo: str, place: Path, name: str) -> None:
    kind, callback = KINDS[name], HubSyncCallback(hub_model_id=f"local/{repo}")
    trainer = kind.trainer(kind.model(place, repo), place / "run", callback)
    trainer.train()
    callback.close()
    losses = [measure("loss", row["eval_loss"]) for row in trainer.state.log_history if "eval_loss" in row]
    assert len(losses) == 2 and losses[0] != losses[1]
    measured = kind.trainer(of_the_card(repo, kind.module), place / "judge").evaluate()
    agrees(repo, with_perplexity(measured) if kind.is_language_model else measured)


def judged(repo: str, place: Path, metrics: Any = None) -> dict[str, float]:
    model = of_the_card(repo)
    return Trainer(
        model, arguments(place / "judge"), eval_dataset=Sentences(8), compute_metrics=metrics
    ).evaluate()


def test_a_loop_without_a_trainer(hub: Any, repo: str, place: Path) -> None:
    sync = HubSync(output_dir=place / "run", hub_model_id=f"local/{repo}", hub_strategy="every_save")
    model, batch = classifier(), torch.utils.data.default_collate(list(Sentences(16)))
    sync.describe(model=model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 4):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            evaluation = model.eval()(**torch.utils.data.default_collate(list(Sentences(8)))).loss
        sync.log({"eval_loss": evaluation.item()}, step)
        model.train().save_pretrained(place / "run" / f"checkpoint-{step}")
        sync.push_from_checkpoint(place / "run" / f"checkpoint-{step}")
    sync.close()
    agrees(repo, judged(repo, place))


def test_a_resumed_run(hub: Any, repo: str, place: Path) -> None:
    plain = {"load_best_model_at_end": False, "metric_for_best_model": None, "greater_is_better": None}
    trainer, callback = trainer_of(place, repo, accuracy, **plain, max_steps=4)
    trainer.train()
    callback.close()
    trainer, callback = trainer_of(place, repo, accuracy, **plain, max_steps=6)
    trainer.train(resume_from_checkpoint=True)
    callback.close()
    assert "resumed from step 4" in card_of(repo) and "Measured after step 6" in card_of(repo)
    agrees(repo, judged(repo, place, accuracy))


def test_the_best_step_of_a_run_was_not_saved(hub: Any, repo: str, place: Path) -> None:
    trainer, callback = trainer_of(place, repo, Judge(2, 3, every=1), eval_steps=1, save_steps=2, max_steps=4)
    trainer.train()
    callback.close()
    assert trainer.state.best_global_step == 3
    agrees(repo, judged(repo, place, accuracy) | {"eval_goal": 0.5})
