"""Which repository the pushes of this outbox go to, found out once.

A name without an owner means another repository after `hf auth switch`, and a repository may be renamed or
deleted. What a run has begun with is where it goes on.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .durable import replace_file
from .push import make

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A repository as it was seen last.

    Args:
        repo_id: `"owner/name"`.
        private: Its visibility; `None` where the Hub does not say it.
        created: When it was made; another one of the same name has another time.
        is_deleted: Whether it was deleted on purpose, so that it is made again.
    """

    repo_id: str
    private: bool | None = None
    created: str | None = None
    is_deleted: bool = False


class Places:
    """
    Args:
        path: The file that they are remembered in; `None` for as long as this object lives.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Place] = {}

    def get(self, hub: str, name: str) -> Place | None:
        """The repository that a name stood for when it was asked first.

        Args:
            hub: Address of the Hub.
            name: As a push names it, with an owner or without.
        """
        return self._read().get(f"{hub}/{name}")

    def name_of(self, hub: str, name: str) -> str:
        """The same with its owner, if that is known."""
        known = self.get(hub, name)
        return name if known is None else known.repo_id

    def note(self, hub: str, name: str, place: Place) -> None:
        """Remembers what a name stands for. A disk that cannot take it is said, and stops nothing."""
        if self.get(hub, name) != place:
            self._write({**self._read(), f"{hub}/{name}": place})

    def delete(self, hub: str, repo_id: str) -> None:
        """Notes that a repository is deleted on purpose."""
        known = self._read()
        gone = {
            n: replace(p, is_deleted=True) for n, p in known.items() if n.startswith(hub) and p.repo_id == repo_id
        }
        self._write(known | gone)

    def _read(self) -> dict[str, Place]:
        if not self._known and self._path is not None:
            try:
                values = json.loads(self._path.read_text(encoding="utf-8"))
                self._known = {name: make(Place, place) for name, place in values.items()}
            except FileNotFoundError:
                pass
            except (OSError, ValueError, TypeError, AttributeError) as error:
                logger.warning("%s cannot be read: %s", self._path, error)
        return self._known

    def _write(self, known: dict[str, Place]) -> None:
        self._known = known
        if self._path is None:
            return
        try:
            replace_file(self._path, json.dumps({name: asdict(place) for name, place in known.items()}).encode())
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error)
