"""What the card of a run is made from, collected in the training process as the Trainer tells it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..card import (
    CardOptions,
    gather_evaluation_data,
    gather_progress,
    gather_setup,
    merge_card,
    model_card,
    render_card,
    said_by_library,
    try_template,
    with_repository,
)
from ..card.jsonsafe import json_safe
from ..card.surroundings import dashboard_tags, hardware
from ..errors import SettingsError
from .readme import NAME as README
from .readme import read_text

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from ..card.benchmarks import Benchmark

OPTIONS = tuple(field.name for field in dataclasses.fields(CardOptions))
"""Parameters of `create_model_card`, in order; the Trainer's own does not have the last."""


def read_template(path: Path | None) -> str | None:
    """The text of a user's own Jinja template for the card, if there is one, tried out.

    Raises:
        SettingsError: when it makes no card.
    """
    if path is None:
        return None
    from jinja2 import TemplateSyntaxError

    try:
        text = path.read_text(encoding="utf-8")
        try_template(text)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"card_template cannot be read: {error}") from None
    except TemplateSyntaxError as error:
        raise SettingsError(f"card_template {path} is no Jinja template: line {error.lineno}: {error}") from None
    except Exception as error:  # whatever the template does
        raise SettingsError(
            f"card_template {path} makes no card of typical facts: {type(error).__name__}: {error}. The package's "
            "own, hub_callbacks/card/template.md.jinja, shows what can be used."
        ) from None
    return text


class CardFacts:
    """The facts of one run.

    Args:
        template: Text of the user's own Jinja template for the card.
        benchmarks: Which metrics are results on which benchmarks.
        options: What the user said about the model, by any of the calls that take the options of
            `Trainer.create_model_card`.

    Attributes:
        setup: What does not change during the training; empty before it is known.
        resumed_from_step: Optimizer step of the checkpoint that the training goes on from, if it does.
    """

    def __init__(
        self,
        template: str | None,
        benchmarks: Sequence[Benchmark] = (),
        options: dict[str, Any] | None = None,
    ) -> None:
        self.template = template
        self.benchmarks = benchmarks
        self.options = options or {}
        self.setup: dict[str, Any] = {}
        self.resumed_from_step: int | None = None
        self._model: Callable[[], Any] = lambda: None
        self._dashboard: list[str] = []

    def begin(self) -> CardFacts:
        """The facts of another training, or of another place: what the user said stays."""
        return CardFacts(self.template, self.benchmarks, self.options)

    def learn(self, args: Any, repo_id: str, revision: str | None, seen: dict[str, Any]) -> None:
        """Gathers what does not change.

        Args:
            args: The `TrainingArguments`.
            repo_id: The repository.
            revision: Its branch.
            seen: What the Trainer hands to callbacks: `model`, `processing_class`, `train_dataloader`,
                `eval_dataloader`, `optimizer`, `lr_scheduler`; and `trainer`, where it is known.
        """
        self.setup = gather_setup(
            args=args,
            model=seen.get("model"),
            processing_class=seen.get("processing_class"),
            train_dataset=seen.get("train_dataloader"),
            eval_dataset=seen.get("eval_dataloader"),
            repo_id=repo_id,
            revision=revision,
            accelerator_state=accelerator_state(),
            resumed_from_step=self.resumed_from_step,
            optimizer=seen.get("optimizer"),
            lr_scheduler=seen.get("lr_scheduler"),
            has_own_loss=_has_own_loss(seen.get("trainer")),
        )
        with contextlib.suppress(TypeError):  # a model that knows of no weak references stays as it was
            self._model = weakref.ref(seen.get("model"))

    def was_evaluated(self, seen: dict[str, Any]) -> None:
        """Takes in what was evaluated on: the Trainer makes that loader only then, and another for each data set.

        Args:
            seen: What the Trainer hands to callbacks: `metrics`, `eval_dataloader`.
        """
        prefixes = [key.removesuffix("_runtime") for key in seen.get("metrics") or {} if key.endswith("_runtime")]
        if self.setup and prefixes and prefixes[0] != "train":
            name = "" if prefixes[0] == "eval" else prefixes[0].removeprefix("eval_")
            found = gather_evaluation_data(seen.get("eval_dataloader"))
            known = self.setup.setdefault("datasets", {}).get("eval") or {}
            self.setup["datasets"]["eval"] = known | ({name: found} if found else {})

    def look_around(self, args: Any) -> None:
        """Gathers anew what the training runs on: another `Accelerator` was made."""
        self.setup["hardware"] = json_safe(hardware(args, accelerator_state()))

    def say(self, options: Mapping[str, Any]) -> None:
        """Takes what the user says about the model; other keywords (TRL has some) are left alone."""
        self.options |= {name: json_safe(value) for name, value in options.items() if name in OPTIONS and value}

    def add_tags(self, tags: Iterable[str]) -> None:
        """Adds tags to those that the user has given so far."""
        said = self.options.get("tags") or []
        self.say({"tags": list(dict.fromkeys([*([said] if isinstance(said, str) else said), *tags]))})

    def at(
        self, state: Any, weights_step: int | None = None, is_stopped: bool = False, is_loaded: bool = True
    ) -> dict[str, Any]:
        """The facts at this moment, ready for JSON.

        Args:
            state: The `TrainerState`.
            weights_step: The step whose weights go along, where it is not the newest.
            is_stopped: Whether the training came to no end of its own, and is under way no more.
            is_loaded: Whether they are those that the model holds, and that were measured after the training.
        """
        progress = gather_progress(state, weights_step=weights_step, is_stopped=is_stopped)
        if not is_loaded:
            progress.pop("afterwards", None)
        return {
            "setup": self._with_tags(),
            "progress": progress,
            "options": self.options,
            "template": self.template,
            "benchmarks": self.benchmarks,
        }

    def _with_tags(self) -> dict[str, Any]:
        """What does not change, with the tags that other callbacks have given to the model since."""
        model = self.setup.get("model") or {}
        tags = json_safe(list(getattr(self._model(), "model_tags", None) or model.get("tags") or ()))
        self._dashboard = dashboard_tags() or self._dashboard
        if not any(str(tag).startswith("trackio:") for tag in tags):
            tags += [tag for tag in self._dashboard if tag not in tags]
        return self.setup | {"model": model | {"tags": tags}} if tags else self.setup

    def write(
        self, folder: Path, state: Any, weights_step: int | None = None, is_stopped: bool = False
    ) -> ModelCard:
        """Renders the card now, merges it with the README.md that is in `folder`, and writes it there.

        One that cannot be merged stays as it is: the card is then only returned.
        """
        readme = folder / README
        there = read_text(readme)
        existing = with_repository(there, self.setup.get("repo_id") or "")
        rendered = render_card(
            self._with_tags(),
            gather_progress(state, weights_step=weights_step, is_stopped=is_stopped),
            CardOptions(**self.options),
            template=self.template,
            said=said_by_library(existing, self.setup),
        )
        text = merge_card(rendered.text, existing)
        if there is not None or not readme.is_file():
            readme.write_bytes(text.encode())
            for name, picture in rendered.pictures.items():
                (folder / name).write_bytes(picture)
        return model_card(text)


def _has_own_loss(trainer: Any) -> bool:
    """Whether a script or a library computes the loss in its own way; where the Trainer is not known, it may."""
    kind = getattr(type(trainer), "compute_loss", None)
    is_known = getattr(kind, "__module__", "").partition(".")[0] in ("transformers", "trl")
    return not is_known or getattr(trainer, "compute_loss_func", None) is not None


def accelerator_state() -> Any:
    """What accelerate knows of processes and precision, once an `Accelerator` was made in this process."""
    accelerate = sys.modules.get("accelerate.state")
    return accelerate.AcceleratorState() if accelerate is not None and accelerate.is_initialized() else None
