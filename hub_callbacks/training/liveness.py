"""Whether a training is still under way.

The Trainer tells no callback of one that Ctrl-C or an exception has ended, and its own `is_in_train` stays true.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any


def is_under_way(args: Any) -> bool:
    """Whether `Trainer.train` is at work with these arguments, in whatever thread.

    Args:
        args: The `TrainingArguments` of the Trainer.
    """
    return trainer_at_work(args) is not None


def trainer_at_work(args: Any) -> Any | None:
    """The Trainer whose `train` is at work with these arguments; callbacks are handed all but the Trainer itself.

    Returns:
        `None` where there is none, and where a library's Trainer has a loop of its own.
    """
    from transformers import Trainer

    # None where a library has put something else there that does not say what it stands for.
    train = getattr(inspect.unwrap(Trainer.train), "__code__", None)
    for frame in list(sys._current_frames().values()):
        while frame is not None:
            trainer = frame.f_locals.get("self") if frame.f_code is train else None
            if getattr(trainer, "args", None) is args:
                return trainer
            frame = frame.f_back  # type: ignore[assignment]
    return None
