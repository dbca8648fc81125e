"""The callback hears of each event as the last of its Trainer's callbacks, wherever a script has put it.

What others write into a checkpoint in their `on_save` belongs to it, and whether a save or the end comes is known
when all have had their say in `on_step_end`. There is no public hook for that: `call_event` is wrapped.
"""

from __future__ import annotations

import functools
from typing import Any


def install(kind: type) -> None:
    """From now on a callback of a kind comes last in each Trainer that has one; the others keep their order.

    Args:
        kind: `HubSyncCallback`.
    """
    from transformers.trainer_callback import CallbackHandler

    original = CallbackHandler.call_event
    if hasattr(original, "_hub_callbacks_original"):
        return

    @functools.wraps(original)
    def call_event(self: Any, event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.callbacks.sort(key=lambda callback: isinstance(callback, kind))
        try:
            return original(self, event, args, state, control, **kwargs)
        except BaseException:  # of another one, which ends the training: what was saved is pushed all the same
            if event == "on_save":
                for callback in self.callbacks:
                    if isinstance(callback, kind):
                        callback.on_save(args, state, control)  # type: ignore[attr-defined]
            raise

    call_event._hub_callbacks_original = original  # type: ignore[attr-defined]
    CallbackHandler.call_event = call_event
