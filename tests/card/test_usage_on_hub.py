"""The code on a card is run as it is printed there, on the embedded Hub, and loads what was trained."""

from __future__ import annotations

import stat
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    ViTImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Processor,
)

from cards import how_to_use, loaded_by
from hub_callbacks import HubSyncCallback
from models import arguments, configured, language_model, same_weights, tokenizer

from . import runs

IDS = torch.tensor([5, 6, 7, 8])
ROW = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def push(folder: Path, repo: str, model: Any, row: dict[str, Any], processor: Any = None, **settings: Any) -> Any:
    """One step of training; the model as it was pushed."""
    callback = HubSyncCallback(hub_model_id=f"local/{repo}", hub_strategy="end", **settings)
    trainer = Trainer(
        model,
        arguments(folder / "run", max_steps=1, save_steps=1, learning_rate=1e-2, label_names=["labels"]),
        train_dataset=[row] * 4,
        processing_class=processor,
        callbacks=[callback],
    )
    trainer.train()
    callback.close()
    return trainer.model.eval()


def same_answers(one: Any, other: Any, **inputs: torch.Tensor) -> bool:
    with torch.no_grad():
        return bool(one.eval()(**inputs).logits.equal(other.eval()(**inputs).logits))


# ------------------------------------------------------------------------------------------- whole models

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
LABELLED = ROW | {"labels": torch.tensor(1)}
EACH_LABELLED = ROW | {"labels": IDS}
SPOKEN = {"input_values": torch.randn(800)}


def bert(kind: Any, **changes: Any) -> Any:
    torch.manual_seed(0)
    return kind(BertConfig(vocab_size=64, max_position_embeddings=64, **SIZES, **changes))


def t5() -> Any:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )


def wav2vec(kind: Any) -> Any:
    torch.manual_seed(0)
    return kind(
        Wav2Vec2Config(
            vocab_size=6,
            conv_dim=(16, 16),
            conv_kernel=(10, 8),
            conv_stride=(5, 4),
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            classifier_proj_size=8,
            pad_token_id=0,
            ctc_zero_infinity=True,
            **SIZES,
        )
    )


def segformer() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_encoder_blocks": 1, "depths": [1], "sr_ratios": [1], "hidden_sizes": [8]}
    sizes |= {"patch_sizes": [3], "strides": [2], "num_attention_heads": [1], "mlp_ratios": [1]}
    return SegformerForSemanticSegmentation(SegformerConfig(decoder_hidden_size=8, **sizes))


def speech_processor(folder: Path) -> Any:
    (folder / "vocab.json").write_text('{"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "a": 5}')
    return Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(str(folder / "vocab.json")))


def words(**changes: Any) -> Any:
    made = tokenizer()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


CHAT = "{% for message in messages %}{{ message.content }} {% endfor %}"
KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any], Callable[[Path], Any], str]] = {
    "text-classification": (
        lambda: bert(BertForSequenceClassification),
        LABELLED,
        lambda _: words(),
        "pipe(",
    ),
    "no-tokenizer": (lambda: bert(BertForSequenceClassification), LABELLED, lambda _: None, "from_pretrained("),
    "token-classification": (
        lambda: bert(BertForTokenClassification),
        ROW | {"labels": IDS % 2},
        lambda _: words(),
        "pipe(",
    ),
    "question-answering": (
        lambda: bert(BertForQuestionAnswering),
        ROW | {"start_positions": torch.tensor(1), "end_positions": torch.tensor(2)},
        lambda _: words(),
        "decode(",
    ),
    "text-generation": (language_model, EACH_LABELLED, lambda _: words(), "pipe("),
    "chat": (language_model, EACH_LABELLED, lambda _: words(chat_template=CHAT), '"role": "user"'),
    "fill-mask": (
        lambda: bert(BertForMaskedLM),
        EACH_LABELLED,
        lambda _: words(mask_token="w63"),
        "mask_token",
    ),
    "fill-mask-without-mask": (
        lambda: bert(BertForMaskedLM),
        EACH_LABELLED,
        lambda _: words(),
        "AutoModelForMaskedLM.",
    ),
    "text-to-text": (
        t5,
        EACH_LABELLED,
        lambda _: words(),
        "generate(",
    ),
    "image-classification": (
        runs.vit,
        {"pixel_values": torch.randn(3, 8, 8), "labels": torch.tensor(1)},
        lambda _: ViTImageProcessor(size={"height": 8, "width": 8}),
        "pipe(",
    ),
    "segmentation": (
        segformer,
        {"pixel_values": torch.randn(3, 32, 32), "labels": torch.zeros(32, 32, dtype=torch.long)},
        lambda _: SegformerImageProcessor(size={"height": 32, "width": 32}),
        "pipe(",
    ),
    "audio-classification": (
        lambda: wav2vec(Wav2Vec2ForSequenceClassification),
        SPOKEN | {"labels": torch.tensor(1)},
        lambda _: Wav2Vec2FeatureExtractor(),
        "pipe(",
    ),
    "speech": (
        lambda: wav2vec(Wav2Vec2ForCTC),
        SPOKEN | {"labels": torch.tensor([5, 5])},
        speech_processor,
        "pipe(",
    ),
    "speech-without-words": (
        lambda: wav2vec(Wav2Vec2ForCTC),
        SPOKEN | {"labels": torch.tensor([5, 5])},
        lambda _: Wav2Vec2FeatureExtractor(),
        "AutoModelForCTC.",
    ),
    "next-sentence": (
        lambda: bert(BertForNextSentencePrediction),
        LABELLED,
        lambda _: words(),
        "BertForNextSentencePrediction.",
    ),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the code on a card reads, and with an ffmpeg, which a pipeline takes audio from."""
    from PIL import Image

    Image.new("RGB", (8, 8), "green").save(tmp_path / "image.png")
    with wave.open(str(tmp_path / "audio.wav"), "wb") as audio:
        audio.setparams((1, 2, 16000, 0, "NONE", ""))
        audio.writeframes(bytes(3200))
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdin.buffer.read()\nsys.stdout.buffer.write(bytes(6400))"
    )
    ffmpeg.chmod(ffmpeg.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_transformers(hub: Any, repo: str, files: Path, kind: str, capsys: Any) -> None:
    make, row, processor, shown = KINDS[kind]
    pushed = push(files, repo, make(), row, processor(files))
    before, code = how_to_use(repo)
    assert not before and shown in code
    capsys.readouterr()
    assert same_weights(loaded_by(code), pushed)
    assert bool(capsys.readouterr().out) == ("print(" in code)


def test_a_branch(hub: Any, api: HfApi, repo: str, files: Path) -> None:
    api.create_repo(f"local/{repo}")
    pushed = push(files, repo, language_model(), EACH_LABELLED, words(), hub_revision="run-2")
    code = how_to_use(repo, "run-2")[1]
    assert 'revision="run-2"' in code and "model.safetensors" not in api.list_repo_files(f"local/{repo}")
    assert same_weights(loaded_by(code), pushed)


class Weighted(BertForSequenceClassification):
    """Its name tells no task."""


class OwnConfig(BertConfig):
    model_type = "own"


class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig


@pytest.mark.parametrize(
    "make",
    [
        lambda: bert(Weighted),
        lambda: OwnForSequenceClassification(OwnConfig(vocab_size=64, max_position_embeddings=64, **SIZES)),
    ],
    ids=["class", "config"],
)
def test_a_class_of_a_persons_own(hub: Any, repo: str, files: Path, make: Callable[[], Any]) -> None:
    pushed = push(files, repo, make(), LABELLED, words())
    name = type(pushed).__name__
    before, code = how_to_use(repo)
    assert before == f"The model is a `{name}`, whose code is not part of this repository: import it first."
    assert same_weights(loaded_by(code, **{name: type(pushed)}), pushed)


# ----------------------------------------------------------------------------------------------- adapters


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(**({"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | changes))


@pytest.fixture
def base(hub: Any, api: HfApi, repo: str) -> str:
    """A language model that is on the Hub."""
    api.create_repo(f"local/{repo}-base")
    language_model().push_to_hub(f"local/{repo}-base")
    return f"local/{repo}-base"


def unnamed(model: Any) -> Any:
    return get_peft_model(model, lora())


def named(model: Any) -> Any:
    return get_peft_model(model, lora(), adapter_name="poems")


def second_of_two(model: Any) -> Any:
    both = get_peft_model(model, lora())
    both.add_adapter("poems", lora(r=4))
    both.set_adapter("poems")
    return both


def added(model: Any) -> Any:
    """As transformers itself puts an adapter on a model."""
    try:
        model.add_adapter(lora(task_type=None), adapter_name="poems")
    except ValueError as error:
        pytest.skip(str(error))  # this transformers wants a newer PEFT
    return model


def without_task(model: Any) -> Any:
    return get_peft_model(model, lora(task_type=None))


@pytest.mark.parametrize("adapt", [unnamed, named, second_of_two, added, without_task])
@pytest.mark.parametrize("revision", [None, "run-2"])
def test_an_adapter(
    hub: Any, api: HfApi, repo: str, base: str, files: Path, adapt: Callable[[Any], Any], revision: str | None
) -> None:
    api.create_repo(f"local/{repo}")
    model = adapt(AutoModelForCausalLM.from_pretrained(base))
    pushed = push(files, repo, model, EACH_LABELLED, words(), hub_revision=revision)
    before, code = how_to_use(repo, revision)
    assert not before and ('subfolder="poems"' in code) == (adapt in (named, second_of_two))
    found = loaded_by(code)
    assert same_answers(found, pushed, input_ids=IDS[None])
    assert not same_answers(found, language_model(), input_ids=IDS[None])


def test_an_adapter_for_a_classifier(hub: Any, api: HfApi, repo: str, files: Path) -> None:
    api.create_repo(f"local/{repo}-base")
    bert(BertModel).push_to_hub(f"local/{repo}-base")
    model = BertForSequenceClassification.from_pretrained(f"local/{repo}-base", num_labels=3)
    config = lora(target_modules=["query"], task_type="SEQ_CLS")
    pushed = push(files, repo, get_peft_model(model, config), LABELLED, words())
    found = loaded_by(how_to_use(repo)[1])
    assert same_answers(found, pushed, input_ids=IDS[None])


@pytest.mark.parametrize("adapt", [unnamed, named, added])
def test_an_adapter_for_a_model_from_a_folder(
    hub: Any, repo: str, files: Path, adapt: Callable[[Any], Any]
) -> None:
    folder = files / "private" / "small-llama"
    language_model().save_pretrained(folder)
    model = adapt(AutoModelForCausalLM.from_pretrained(folder))
    pushed = push(files, repo, model, EACH_LABELLED, words())
    before, code = how_to_use(repo)
    assert before.startswith(
        "The base model, a `LlamaForCausalLM`, came from a folder, `small-llama`, which is not"
    )
    card = Path(hf_hub_download(f"local/{repo}", "README.md")).read_text(encoding="utf-8")
    assert str(files) not in card and "private" not in card.partition("hub_callbacks:begin")[2]
    (files / "path").mkdir()
    (files / "path" / "to").symlink_to(folder.parent)  # what a person has to fill in
    assert same_answers(loaded_by(code), pushed, input_ids=IDS[None])


@pytest.mark.parametrize("adapt", [unnamed, named, added])
def test_an_adapter_for_a_model_that_came_from_nowhere(
    hub: Any, repo: str, files: Path, adapt: Callable[[Any], Any]
) -> None:
    pushed = push(files, repo, adapt(language_model()), EACH_LABELLED, words())
    before, code = how_to_use(repo)
    assert before.startswith("The base model is a `LlamaForCausalLM` that names no repository or folder")
    code = code.replace("LlamaForCausalLM(...)", "LlamaForCausalLM()")
    assert same_answers(loaded_by(code, LlamaForCausalLM=language_model), pushed, input_ids=IDS[None])


# ------------------------------------------------------------------------------------------ plain modules


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(64, 8)
        self.out = torch.nn.Linear(8, 64, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, labels: Any = None) -> dict[str, Any]:
        logits = self.out(self.embed(input_ids))
        return {
            "loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()),
            "logits": logits,
        }


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.out.weight = self.embed.weight


class SavesTied(Trainer):
    """The Trainer's own way cannot save weights that two names share."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from safetensors.torch import save_model

        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / "model.safetensors"))


@pytest.mark.parametrize("kind", [Net, Tied])
@pytest.mark.parametrize("revision", [None, "run-2"])
def test_a_plain_module(
    hub: Any, api: HfApi, repo: str, files: Path, kind: type[Net], revision: str | None
) -> None:
    api.create_repo(f"local/{repo}")
    callback = HubSyncCallback(hub_model_id=f"local/{repo}", hub_strategy="end", hub_revision=revision)
    trainer = SavesTied(
        kind(),
        arguments(files / "run", max_steps=1, save_steps=1),
        train_dataset=[EACH_LABELLED] * 4,
        callbacks=[callback],
    )
    trainer.train()
    callback.close()
    before, code = how_to_use(repo, revision)
    assert f"the state dict of the PyTorch module `{kind.__name__}`" in before
    code = code.replace(f"{kind.__name__}(...)", f"{kind.__name__}()")
    found = loaded_by(code, **{kind.__name__: kind})
    assert same_weights(found, trainer.model)


def test_an_adapter_for_a_plain_module(hub: Any, repo: str, files: Path) -> None:
    torch.manual_seed(0)
    pushed = push(files, repo, get_peft_model(Net(), LoraConfig(r=2, target_modules=["out"])), EACH_LABELLED)
    assert isinstance(pushed, PeftModel)
    before, code = how_to_use(repo)
    assert "The base model is a `Net`" in before

    def same_net() -> Net:
        torch.manual_seed(0)
        return Net()

    found = loaded_by(code.replace("Net(...)", "Net()"), Net=same_net)
    outputs = [model(IDS[None], labels=IDS[None])["logits"] for model in (found, pushed)]
    assert outputs[0].equal(outputs[1])


# ----------------------------------------------------------------------------------- sentence-transformers


@pytest.mark.parametrize("is_own", [False, True], ids=["the-librarys", "own"])
def test_a_sentence_transformer(hub: Any, repo: str, files: Path, is_own: bool) -> None:
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    bert(BertModel).save_pretrained(files / "backbone")
    words().save_pretrained(files / "backbone")
    kind = type("Own", (st.SentenceTransformer,), {}) if is_own else st.SentenceTransformer
    model = kind(str(files / "backbone"), device="cpu")
    rows = datasets.Dataset.from_list([{"anchor": f"w{i} w4", "positive": f"w{i} w5"} for i in range(3, 7)])
    callback = HubSyncCallback(hub_model_id=f"local/{repo}", hub_strategy="end")
    st.SentenceTransformerTrainer(
        model,
        configured(st.SentenceTransformerTrainingArguments, files / "run", max_steps=1, save_steps=1),
        train_dataset=rows,
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[callback],
    ).train()
    callback.close()
    code = how_to_use(repo)[1]
    assert "SentenceTransformer(" in code
    assert same_weights(loaded_by(code), model)


def test_a_cross_encoder(hub: Any, repo: str, files: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import cross_encoder
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    bert(BertForSequenceClassification, num_labels=1).save_pretrained(files / "backbone")
    words().save_pretrained(files / "backbone")
    model = cross_encoder.CrossEncoder(str(files / "backbone"), device="cpu")
    rows = datasets.Dataset.from_list([{"a": f"w{i} w4", "b": "w5", "label": float(i % 2)} for i in range(3, 7)])
    callback = HubSyncCallback(hub_model_id=f"local/{repo}", hub_strategy="end")
    cross_encoder.CrossEncoderTrainer(
        model,
        configured(cross_encoder.CrossEncoderTrainingArguments, files / "run", max_steps=1, save_steps=1),
        train_dataset=rows,
        loss=BinaryCrossEntropyLoss(model),
        callbacks=[callback],
    ).train()
    callback.close()
    assert same_weights(loaded_by(how_to_use(repo)[1]), model)
