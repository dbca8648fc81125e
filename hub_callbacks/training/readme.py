"""README.md of `output_dir`: what a person wrote there stays, though the library's Trainer writes its own over it.

TRL writes a card into `output_dir` before each save, sentence-transformers one into each checkpoint and, with the
model, into `output_dir`. Such a card is merged into the text that was there; the next one takes its place, and
what a person changed in between stays, for the file is looked at just before the library writes over it. Which
lines were the last one's is noted in the file (`State.local`).
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..card.document import normalize, parse
from ..card.edits import combine_edits
from ..card.reading import Unreadable, text_of
from ..outbox.push import SET_ASIDE
from ..settings import OUTBOX_NAME

logger = logging.getLogger(__name__)

NAME = "README.md"
GENERATED = "generated_from_trainer"
"""The tag that Trainers set in the cards that they write."""


class Readme:
    """README.md of one folder.

    Args:
        folder: The `output_dir`.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._stamp = _stamp(self.path)
        self._text: str | None = None
        self._unreadable: bytes | None = None
        try:
            self._text = _read(self.path)
        except Unreadable as error:
            self._leave_alone(error)
        self._before = self._text if is_librarys(self._text) else None

    def look(self) -> None:
        """Takes what a person has written since the last push, before a library writes over it."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        try:
            text = _read(self.path)
        except Unreadable as error:
            self._leave_alone(error)
            return
        except OSError as error:
            logger.warning("%s could not be read: %s", self.path, error)
            return
        # No text and half of one look alike to an editor that has just begun to write.
        if text is not None and text.strip() and not is_librarys(text):
            self._stamp, self._text, self._unreadable = stamp, text, None

    def _leave_alone(self, error: Unreadable) -> None:
        """Remembers the bytes of what cannot be merged, for a library may write over it."""
        self._stamp = _stamp(self.path)
        self._text, self._unreadable = None, self.path.read_bytes()
        say_left_alone(self.path, str(error))

    def bring_up(self, source: Path) -> Path | None:
        """The README.md to merge the card of a push into, with what a library has written since the last push.

        Args:
            source: The folder that the push takes its files from.

        Returns:
            `None` where it cannot be read: the card is then merged into the one on the Hub alone.
        """
        try:
            return self._bring_up(source / NAME)
        except Exception as error:
            logger.warning("%s could not be merged with what the Trainer wrote", self.path, exc_info=error)
            return self.path if os.access(self.path, os.R_OK) else None

    def _bring_up(self, beside: Path) -> Path | None:
        try:
            there = _read(self.path)
        except Unreadable as error:
            self._leave_alone(error)
            return None
        if there is None:
            return beside
        if self._unreadable is not None and is_librarys(there):
            _replace(self.path, self._unreadable)
            return None
        text = there
        if self._before not in (None, there) and is_librarys(there):
            self._set_aside(self._before)
        if there != self._text and is_librarys(there):
            text = combine_edits(there, None if is_librarys(self._text) else self._text, None) or there
        elif beside != self.path and is_librarys(written := _read(beside)):
            text = combine_edits(written, there, None) or there
        if text != there:
            _replace(self.path, text.encode())
        self._stamp, self._text, self._unreadable = _stamp(self.path), text, None
        return self.path

    def _set_aside(self, text: str) -> None:
        """What a library wrote before this training, and a person may have written into since; nobody can tell."""
        aside = self.path.parent / OUTBOX_NAME / SET_ASIDE / NAME
        aside.parent.mkdir(parents=True, exist_ok=True)
        _replace(aside, text.encode())
        self._before = None
        logger.warning(
            "The Trainer has written its own card over %s. What was there is in %s: a text of yours in it can be "
            "put into the new one, and stays then.",
            self.path,
            aside,
        )


def is_librarys(text: str | None) -> bool:
    """Whether a library wrote this card and nothing was merged into it since."""
    if text is None or GENERATED not in text:
        return False
    card = parse(normalize(text))
    tags = next((entry.value for entry in card.front or [] if entry.key == "tags"), None)
    return card.state is None and isinstance(tags, list) and GENERATED in tags


def write_librarys(trainer: Any, options: Mapping[str, Any], hub_model_id: str) -> None:
    """Has a Trainer whose class has a `create_model_card` of its own write that card into `output_dir`.

    `Trainer.push_to_hub` does so, too. Whatever goes wrong in it leaves the card out.

    Args:
        options: What the script says about the model; keywords that the method does not take are left out.
        hub_model_id: The repository, which these cards name in their examples.
    """
    method = trainer.create_model_card
    if method.__module__.partition(".")[0] in ("transformers", __name__.partition(".")[0]):
        return
    card_data: Any = getattr(trainer.model, "model_card_data", None)
    if hasattr(card_data, "set_model_id") and not getattr(card_data, "model_id", None) and "/" in hub_model_id:
        card_data.set_model_id(hub_model_id)  # sentence-transformers would take the model's name for it
    trainer.hub_model_id = hub_model_id
    wanted = {"model_name": hub_model_id.rpartition("/")[2]} | {k: v for k, v in options.items() if v}
    parameters = inspect.signature(method).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    try:
        method(**{name: value for name, value in wanted.items() if takes_all or name in parameters})
    except Exception as error:
        logger.warning("%s.create_model_card failed", type(trainer).__name__, exc_info=error)


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written: its time, in nanoseconds, and its size."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def read_text(path: Path) -> str | None:
    """The text of a README.md; `None` where there is none, or, said once, where it is none that can be merged."""
    try:
        return _read(path)
    except Unreadable as error:
        say_left_alone(path, str(error))
        return None


@functools.cache
def say_left_alone(path: Path, what_it_is: str) -> None:
    logger.warning(
        "%s %s, so it stays as it is, and the model card is made without it. "
        "Put a text in UTF-8 in its place to have it in the card.",
        path,
        what_it_is,
    )


def _read(path: Path) -> str | None:
    return text_of(path.read_bytes()) if path.is_file() else None


def _replace(path: Path, content: bytes) -> None:
    """Writes a file wholly or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
