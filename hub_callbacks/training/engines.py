"""The engines of this process: each hears the news of its outbox, and is closed when the interpreter ends."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PushNotSent

if TYPE_CHECKING:
    from .engine import HubSync

logger = logging.getLogger(__name__)

EXIT_GRACE = 15.0
"""Seconds that an interpreter which ends before its training has ended gives to what waits."""

_all: weakref.WeakSet[HubSync] = weakref.WeakSet()
_busy: set[HubSync] = set()
_lock = threading.Lock()  # news come from other threads


def add(engine: HubSync) -> None:
    with _lock:
        _all.add(engine)


def of(outbox: Path) -> list[HubSync]:
    """Those that use an outbox."""
    with _lock:
        engines = list(_all)
    return [engine for engine in engines if engine.outbox.root == outbox]


def keep(engine: HubSync) -> None:
    """Has it live on while its pushes are on their way: a script's function that made the Trainer may return."""
    with _lock:
        _busy.add(engine)


def let_go(engine: HubSync) -> None:
    """Has it go when nobody else holds it."""
    with _lock:
        _busy.discard(engine)


def spread_news(outbox: Path) -> None:
    """The ledger of an outbox has grown, whichever engine's pusher wrote to it."""
    for engine in of(outbox):
        engine.read_news()


@atexit.register
def _close_all() -> None:
    grace = EXIT_GRACE
    for engine in list(_all):
        try:
            engine.close(None if engine.wait_at_exit and grace else grace)
        except PushNotSent as error:
            logger.error("%s", error)
        except KeyboardInterrupt:  # what is left was named; nobody wants to wait any more
            grace = 0.0
