"""A push as it stands on disk: what its `manifest.json` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..checkpoints.manifest import Origin
from ..checkpoints.retention import Retention
from ..training.plan import CARD, Meeting
from .snapshot import Frozen

_T = TypeVar("_T")

FORMAT = 1
MANIFEST = "manifest.json"
CARD_FACTS = "card.json"
"""What the card is rendered from."""
LOCAL_CARD = "readme"
"""Where in it the README.md of `output_dir`, or of the checkpoint, is as it was when the push was made."""


@dataclass(frozen=True)
class Target:
    """Where pushes of a run go.

    Args:
        repo_id: `"owner/name"`, or `"name"` for a repository of the token's user.
        revision: Branch; `None` is `main`.
        private: Visibility if the repository has to be created; `None` takes the Hub's default.
        from_scratch: Whether a branch that has to be made begins at the first commit, without what is on `main`.
        create: Whether the repository is created when it is missing.
    """

    repo_id: str
    revision: str | None = None
    private: bool | None = None
    from_scratch: bool = False
    create: bool = True

    @property
    def place(self) -> str:
        """Repository and branch, as one word."""
        return f"{self.repo_id}@{self.revision or 'main'}"


@dataclass(frozen=True)
class PushPart:
    """A `plan.Part` with its files frozen.

    Args:
        files: Path in the repository → the frozen file.
    """

    slot: str
    files: dict[str, Frozen]
    prefix: str = ""
    whole_folder: bool = False
    meeting: Meeting | None = None


@dataclass(frozen=True)
class Push:
    """One commit to be, complete on disk.

    Args:
        id: Its number in the outbox, which is the order of pushes, with leading zeros.
        folder: Where its files are.
        run: Identifier of the run that made it.
        created: Seconds since the epoch.
        step: Optimizer step that the files belong to.
        message: Title of the commit.
        description: Text of the commit below the title.
        has_card: Whether the model card goes along.
        keep: Whether a newer push may not take over parts of it (`hub_always_push`).
        urgent: Whether it goes ahead of the others.
        origin: What the training process knows of the checkpoints in it.
        retention: Which older checkpoints go when this one comes.
        asks_whose: Whether the pusher is to say if another run's model is there.
        node: The node whose files these are, where they go to a meeting.
        removes_branch: Whether the branch that it goes to is removed.
        tags: Git tags that are set on its commit; moved there if they exist.
        replaces: Whether the repository that is there is deleted first (`delete_existing_repo`).
        boot: The start of the machine that it was written after (`durable.boot`).
    """

    id: str
    folder: Path
    run: str
    created: float
    target: Target
    step: int
    message: str
    description: str = ""
    parts: tuple[PushPart, ...] = ()
    has_card: bool = False
    keep: bool = False
    urgent: bool = False
    origin: Origin = field(default_factory=Origin)
    retention: Retention = field(default_factory=Retention)
    asks_whose: bool = False
    node: int | None = None
    removes_branch: bool = False
    tags: tuple[str, ...] = ()
    replaces: bool = False
    boot: str = ""

    @property
    def meeting(self) -> Meeting | None:
        """Where the files of other nodes are, which come with this commit."""
        return next((part.meeting for part in self.parts if part.meeting), None)

    @property
    def slots(self) -> frozenset[str]:
        slots = {part.slot for part in self.parts}
        return frozenset(slots | {CARD} if self.has_card else slots)

    @property
    def size(self) -> int:
        """Bytes that the push keeps on disk; a file that goes to two places counts once."""
        return sum({frozen.stored: frozen.size for frozen in self.frozen()}.values())

    def frozen(self) -> Iterator[Frozen]:
        for part in self.parts:
            yield from part.files.values()

    def without(self, slots: frozenset[str]) -> Push:
        """The same push without the parts that a newer one has taken over."""
        return replace(
            self,
            parts=tuple(part for part in self.parts if part.slot not in slots),
            has_card=self.has_card and CARD not in slots,
        )


def dump(push: Push) -> str:
    values = asdict(push)
    del values["id"], values["folder"]
    return json.dumps({"format": FORMAT, **values}, ensure_ascii=False)


class OtherFormat(ValueError):
    """A push that another version of this package wrote, and can send."""


def load(folder: Path) -> Push:
    """Reads the push in `folder`; what a newer version has added to it is passed over.

    Raises:
        OtherFormat: when it is of a format that this version does not know.
        ValueError: when it is none, with why.
        OSError: when it cannot be read.
    """
    values: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{MANIFEST} is damaged")
    if (number := values.get("format")) != FORMAT:
        kind = OtherFormat if isinstance(number, int) else ValueError
        raise kind(f"{MANIFEST} is of format {number}, and this version reads format {FORMAT}")
    try:
        parts = tuple(
            _make(
                PushPart,
                part,
                files={path: _make(Frozen, file) for path, file in part["files"].items()},
                meeting=_meeting(part.get("meeting")),
            )
            for part in values["parts"]
        )
        push = _make(
            Push,
            values,
            id=folder.name,
            folder=folder,
            target=_make(Target, values["target"]),
            origin=_make(Origin, values.get("origin", {})),
            retention=_make(Retention, values.get("retention") or {}),
            parts=parts,
            tags=tuple(values.get("tags", ())),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error!r}") from None
    for frozen in push.frozen():
        if Path(frozen.stored).is_absolute() or ".." in Path(frozen.stored).parts:
            raise ValueError(f"{MANIFEST} names a file outside of the push: {frozen.stored!r}")
    return push


def _make(kind: type[_T], values: dict[str, Any], **changes: Any) -> _T:
    known = {name.name for name in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known} | changes)


def _meeting(values: Any) -> Meeting | None:
    return Meeting(values["branch"], tuple(values["nodes"])) if values else None
