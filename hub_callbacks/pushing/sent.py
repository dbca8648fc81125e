"""What came of an attempt to send a push."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..hub.repository import CommitInfo


@dataclass(frozen=True)
class Sent:
    """
    Args:
        repo_id: The repository with its owner.
        commit: `None` for a push that makes none, or of which nothing was left.
        slots: What of the push is on the Hub now.
        size: Bytes of the files in the commit.
        notes: What was changed or left out on the way, for people.
        left_out: What of it was damaged before it could be sent, and is not there.
        foreign: The run whose model was found there, if it is another one.
        private: Visibility of the repository, where it was asked for.
        user: Whose token it was, where that was asked for.
        passed_over: Whether the main process does not wait for these files any more.
    """

    repo_id: str
    commit: CommitInfo | None = None
    slots: frozenset[str] = frozenset()
    size: int = 0
    notes: list[str] = field(default_factory=list)
    left_out: frozenset[str] = frozenset()
    foreign: str | None = None
    private: bool | None = None
    user: str | None = None
    passed_over: bool = False
