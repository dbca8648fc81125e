"""Trainer callbacks that put a training run on the Hugging Face Hub while it trains.

>>> from hub_callbacks import HubSyncCallback
>>> trainer = Trainer(..., callbacks=[HubSyncCallback()])  # doctest: +SKIP

Everything named here is imported when it is first touched: `import hub_callbacks` alone loads
neither torch nor transformers nor the embedded Hub.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .callback import HubSyncCallback
    from .errors import ForeignRun, HubSyncError, OutboxError, PushNotSent, ResumeError, SettingsError
    from .localhub import LocalHub
    from .loop import HubSync
    from .resume import latest_checkpoint
    from .settings import Settings
    from .trainer import HubSyncTrainer, HubSyncTrainerMixin

_WHERE = {
    "ForeignRun": ".errors",
    "HubSync": ".loop",
    "HubSyncCallback": ".callback",
    "HubSyncError": ".errors",
    "HubSyncTrainer": ".trainer",
    "HubSyncTrainerMixin": ".trainer",
    "LocalHub": ".localhub",
    "OutboxError": ".errors",
    "PushNotSent": ".errors",
    "ResumeError": ".errors",
    "Settings": ".settings",
    "SettingsError": ".errors",
    "latest_checkpoint": ".resume",
}

__all__ = [
    "ForeignRun",
    "HubSync",
    "HubSyncCallback",
    "HubSyncError",
    "HubSyncTrainer",
    "HubSyncTrainerMixin",
    "LocalHub",
    "OutboxError",
    "PushNotSent",
    "ResumeError",
    "Settings",
    "SettingsError",
    "__version__",
    "latest_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
