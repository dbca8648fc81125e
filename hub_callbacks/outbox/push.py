"""A push as it stands on disk: its kind, what that kind needs, and its file `manifest.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..checkpoints.manifest import Origin
from ..checkpoints.retention import Retention
from .snapshot import Frozen

_T = TypeVar("_T")

FORMAT = 2
FLAGS_FORMAT = 1
"""What version 0.1.0 wrote: flags in place of kinds. It is still read."""
MANIFEST = "manifest.json"
SET_ASIDE = "set-aside"
CARD_FACTS = "card.json"
"""What the card is rendered from."""
LOCAL_CARD = "readme"
"""Where in it the README.md of `output_dir`, or of the checkpoint, is as it was when the push was made."""

MODEL = "model"
CARD = "card"
CREATE = "create the repository"
LOOK = "look whose model is there"
"""Titles of what is asked of the Hub, which are nobody's saves."""
OUTPUTS = "outputs"
EVAL_RESULTS = ".eval_results"
"""Also the folder that they are in (https://huggingface.co/docs/hub/eval-results)."""
OWN_EVAL_RESULTS = "hub_callbacks.yaml"
"""The file there that is written from what a run has measured; what a person writes has another name."""
NODE_FILES = "node-files"
NODE_BRANCH = "hub-callbacks-parts"
"""Folder that the files of several nodes meet in, and how the branch begins that it is on."""
REPOSITORY = ""
"""The slot of what makes sure of the repository, and writes nothing to it."""


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
class OtherNodes:
    """Where files of a folder are that exist on other nodes only; they come with the same commit.

    Args:
        branch: Branch of the same repository.
        nodes: Numbers of the nodes that put files there.
    """

    branch: str
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class PushPart:
    """What a newer push with the same slot takes over as a whole.

    Args:
        slot: `MODEL`, `OUTPUTS`, `EVAL_RESULTS`, `NODE_FILES`, or the name of a checkpoint folder.
        files: Path in the repository → the frozen file.
        prefix: Folder of the repository that they go to; empty for the root.
        whole_folder: Whether files that stand under `prefix` and are not among `files` are deleted in the same
            commit.
        others: Where the folder's other files are, if some exist on other nodes only.
    """

    slot: str
    files: dict[str, Frozen]
    prefix: str = ""
    whole_folder: bool = False
    others: OtherNodes | None = None


@dataclass(frozen=True)
class CreateRepository:
    """Makes sure of repository and branch, and finds out whether they can be written to."""


@dataclass(frozen=True)
class LookForOtherRun:
    """The same, and says whether another run's model is there."""


@dataclass(frozen=True)
class RemoveBranch:
    """Removes the branch that it goes to, once no push takes files from there."""


@dataclass(frozen=True)
class NodeFiles:
    """Sends what exists on one node only to the branch where the main process finds it.

    Args:
        step: Optimizer step of the checkpoint.
        node: Number of the node.
        part: Its files.
        urgent: Whether it goes ahead of what is queued.
    """

    step: int
    node: int
    part: PushPart
    urgent: bool = False


@dataclass(frozen=True)
class Commit:
    """Makes one commit: a save, the final model, a card, what a script pushes.

    Args:
        step: Optimizer step that the files belong to.
        parts: The files; none where the card goes alone.
        has_card: Whether the model card goes along.
        description: Text of the commit below the title.
        keep: Whether a newer push may not take over parts of it (`hub_always_push`).
        urgent: Whether it goes ahead of what is queued: the machine may be gone soon.
        origin: What the training process knows of the checkpoints in it.
        retention: Which older checkpoints go when this one comes.
        tags: Git tags that are set on the commit; moved there if they exist.
        replaces: Whether the repository that is there is deleted first (`delete_existing_repo`).
        asked_for: Whether a person's call has made it: a repository that is gone is made again for that.
    """

    step: int
    parts: tuple[PushPart, ...] = ()
    has_card: bool = False
    description: str = ""
    keep: bool = False
    urgent: bool = False
    origin: Origin = field(default_factory=Origin)
    retention: Retention = field(default_factory=Retention)
    tags: tuple[str, ...] = ()
    replaces: bool = False
    asked_for: bool = False


Content = CreateRepository | LookForOtherRun | RemoveBranch | NodeFiles | Commit
KINDS: dict[str, type[Content]] = {
    "create": CreateRepository,
    "look": LookForOtherRun,
    "remove-branch": RemoveBranch,
    "node-files": NodeFiles,
    "commit": Commit,
}


@dataclass(frozen=True)
class Push:
    """One thing to be done on the Hub, complete on disk.

    Args:
        id: Its number in the outbox, which is the order of pushes, with leading zeros.
        folder: Where its files are.
        run_id: Identifier of the run that made it.
        created: Seconds since the epoch.
        target: Where it goes.
        message: Title of the commit, or what it does in words.
        content: Its kind, with what that kind needs.
        boot: The start of the machine that it was written after (`durable.boot`).
    """

    id: str
    folder: Path
    run_id: str
    created: float
    target: Target
    message: str
    content: Content
    boot: str = ""

    @property
    def kind(self) -> str:
        return next(name for name, kind in KINDS.items() if type(self.content) is kind)

    @property
    def parts(self) -> tuple[PushPart, ...]:
        if isinstance(self.content, Commit):
            return self.content.parts
        if isinstance(self.content, NodeFiles) and self.content.part.files:
            return (self.content.part,)
        return ()

    @property
    def slots(self) -> frozenset[str]:
        """What it writes, in units that a newer push takes over."""
        slots = {part.slot for part in self.parts}
        if isinstance(self.content, Commit):
            return frozenset(slots | {CARD} if self.content.has_card else slots)
        return frozenset(slots or {REPOSITORY})

    @property
    def step(self) -> int | None:
        """Optimizer step that its files belong to."""
        return self.content.step if isinstance(self.content, Commit | NodeFiles) else None

    @property
    def keep(self) -> bool:
        """Whether no newer push takes over parts of it. What a node sends, the main process waits for."""
        return self.content.keep if isinstance(self.content, Commit) else isinstance(self.content, NodeFiles)

    @property
    def urgent(self) -> bool:
        return isinstance(self.content, Commit | NodeFiles) and self.content.urgent

    @property
    def others(self) -> OtherNodes | None:
        """Where files of other nodes are that it waits for."""
        parts = self.content.parts if isinstance(self.content, Commit) else ()
        return next((part.others for part in parts if part.others), None)

    @property
    def size(self) -> int:
        """Bytes that the push keeps on disk; a file that goes to two places counts once."""
        return sum({frozen.stored: frozen.size for frozen in self.frozen()}.values())

    @property
    def set_aside(self) -> Path:
        """The folder for what of it can neither be sent nor thrown away."""
        return self.folder.parents[1] / SET_ASIDE

    def frozen(self) -> Iterator[Frozen]:
        for part in self.parts:
            yield from part.files.values()

    def without(self, slots: frozenset[str]) -> Push:
        """The same push without the parts that a newer one has taken over."""
        commit = self.content
        if isinstance(commit, NodeFiles) and commit.part.slot in slots:
            return replace(self, content=replace(commit, part=replace(commit.part, files={})))
        if not slots or not isinstance(commit, Commit):
            return self
        left = tuple(part for part in commit.parts if part.slot not in slots)
        return replace(self, content=replace(commit, parts=left, has_card=commit.has_card and CARD not in slots))


def _fields(value: Any) -> dict[str, Any]:
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is no part of a push")
    return vars(value)


def dump(push: Push) -> str:
    """The text of `manifest.json`; number and folder of a push are where it lies."""
    values = {name: value for name, value in vars(push).items() if name not in ("id", "folder")}
    return json.dumps({"format": FORMAT, "kind": push.kind, **values}, ensure_ascii=False, default=_fields)


class OtherFormat(ValueError):
    """A push that another version of this package wrote, and can send."""


def load(folder: Path) -> Push:
    """Reads the push in `folder`; what a newer version has added to it is passed over.

    Raises:
        OtherFormat: when it is of a format or kind that this version does not know.
        ValueError: when it is none, with why.
        OSError: when it cannot be read.
    """
    values: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{MANIFEST} is damaged")
    number = values.get("format")
    if number not in (FORMAT, FLAGS_FORMAT):
        kind = OtherFormat if isinstance(number, int) else ValueError
        raise kind(f"{MANIFEST} is of format {number}, and this version reads format {FORMAT}")
    try:
        values = _with_kind(values) if number == FLAGS_FORMAT else values
        if values["kind"] not in KINDS:
            raise OtherFormat(f"{MANIFEST} is of the kind {values['kind']!r}, which this version does not know")
        push = make(
            Push,
            values,
            id=folder.name,
            folder=folder,
            target=make(Target, values["target"]),
            content=_content(KINDS[values["kind"]], values["content"]),
        )
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} is damaged: {error!r}") from None
    for frozen in push.frozen():
        if Path(frozen.stored).is_absolute() or ".." in Path(frozen.stored).parts:
            raise ValueError(f"{MANIFEST} names a file outside of the push: {frozen.stored!r}")
    return push


def _content(kind: type[Content], values: dict[str, Any]) -> Content:
    if kind is Commit:
        return make(
            Commit,
            values,
            parts=tuple(map(_part, values["parts"])),
            origin=make(Origin, values.get("origin", {})),
            retention=make(Retention, values.get("retention") or {}),
            tags=tuple(values.get("tags", ())),
        )
    if kind is NodeFiles:
        return make(NodeFiles, values, part=_part(values["part"]))
    return kind()  # type: ignore[call-arg]


def _part(values: dict[str, Any]) -> PushPart:
    others = values.get("others")
    return make(
        PushPart,
        values,
        files={path: make(Frozen, file) for path, file in values["files"].items()},
        others=OtherNodes(others["branch"], tuple(others["nodes"])) if others else None,
    )


def _with_kind(flags: dict[str, Any]) -> dict[str, Any]:
    """What version 0.1.0 wrote, as this version writes it."""
    parts = [{**part, "others": part.get("meeting")} for part in flags["parts"]]
    if flags.get("removes_branch"):
        kind, content = "remove-branch", {}
    elif flags.get("node") is not None:
        kind, content = "node-files", {**flags, "part": parts[0]}
    elif parts or flags.get("has_card"):
        kind, content = "commit", {**flags, "parts": parts}
    else:
        kind, content = "look" if flags.get("asks_whose") else "create", {}
    return {**flags, "run_id": flags["run"], "kind": kind, "content": content}


def make(kind: type[_T], values: dict[str, Any], **changes: Any) -> _T:
    """A dataclass of what JSON gave; what a newer version has added to it is passed over."""
    known = {name.name for name in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known} | changes)
