"""Which `checkpoint-N/` folders on the Hub are deleted when a newer one comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Retention:
    """
    Args:
        keep_last: Number of newest checkpoints that stay; `None` keeps the newest alone, if `keep_every` is set,
            else all.
        keep_every: Those whose step is a multiple of it stay, too.
        best: Step of the best checkpoint so far, which always stays, and which no newer push takes over.
        squash: Whether the history of the branch is dropped afterwards, so that their storage is freed.
    """

    keep_last: int | None = None
    keep_every: int | None = None
    best: int | None = None
    squash: bool = False


def retired(there: Iterable[int], newest: int, rule: Retention) -> list[int]:
    """The steps that are deleted in the commit of the checkpoint `newest`.

    Those beyond it are another run's, or were made before this one was begun anew: they are not touched.

    Args:
        there: Steps of the checkpoints on the branch.
    """
    if rule.keep_last is None and rule.keep_every is None:
        return []
    steps = sorted({step for step in there if step <= newest} | {newest})
    kept = {*steps[-(rule.keep_last or 1) :], rule.best}
    return [s for s in steps if s not in kept and not (rule.keep_every and s % rule.keep_every == 0)]
