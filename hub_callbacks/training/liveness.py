"""Whether a training is still under way.

The Trainer tells no callback of one that Ctrl-C or an exception has ended, and its own `is_in_train` stays true.
"""

from __future__ import annotations

import sys
from typing import Any


def is_under_way(args: Any) -> bool:
    """Whether `Trainer.train` is at work with these arguments, in whatever thread.

    Args:
        args: The `TrainingArguments` of the Trainer.
    """
    from transformers import Trainer

    train = getattr(Trainer.train, "__code__", None)  # none where a library has put something else there
    for frame in list(sys._current_frames().values()):
        while frame is not None:
            if frame.f_code is train and frame.f_locals["self"].args is args:
                return True
            frame = frame.f_back  # type: ignore[assignment]
    return False
