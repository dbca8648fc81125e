"""The engines of this process: those of one outbox share the process that pushes and hear the same news, and all
are closed when the interpreter ends."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from ..errors import PushNotSent
from ..outbox.control import Orders
from ..outbox.queue import Outbox
from .pusher_process import PusherProcess

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """What is asked of an engine here."""

    outbox: Outbox
    wait_at_exit: bool

    def read_news(self) -> None: ...

    def close(self, grace: float | None = None) -> None: ...


EXIT_GRACE = 15.0
"""Seconds that an interpreter which ends before its training has ended gives to what waits."""


class SharedPusher:
    """The one pusher of an outbox, with the engines that use it. It ends with the last of them."""

    def __init__(self, outbox: Outbox, orders: Orders) -> None:
        self.engines: weakref.WeakSet[Engine] = weakref.WeakSet()
        self.users = 0
        self.process = PusherProcess(outbox, orders, self._spread_news)

    def _spread_news(self) -> None:
        """The ledger has grown."""
        with _lock:
            engines = list(self.engines)
        for engine in engines:
            engine.read_news()


_shared: dict[str, SharedPusher] = {}
_busy: set[Engine] = set()
_lock = threading.RLock()  # news come from other threads; nothing else is locked while it is held
_collected: queue.SimpleQueue[SharedPusher] = queue.SimpleQueue()
_janitor: threading.Thread | None = None


def join(engine: Engine, orders: Orders) -> tuple[PusherProcess, Callable[[], object]]:
    """The pusher of an engine's outbox, and what lets go of it: at the engine's end, or when it is called.

    Args:
        orders: Told to the pusher; a token that another engine has given stays if there is none among them.
    """
    key = os.path.realpath(engine.outbox.root)
    with _lock:
        _start_janitor()
        is_new = key not in _shared
        if is_new:
            _shared[key] = SharedPusher(Outbox(engine.outbox.root), orders)
        shared = _shared[key]
        shared.users += 1
        shared.engines.add(engine)
    if not is_new:
        shared.process.join(orders)
    # An engine is collected wherever Python sees fit, in the middle of what holds a lock, too.
    collected = weakref.finalize(engine, _collected.put, shared)
    collected.atexit = False  # there `_close_all` first waits for what is under way

    def leave() -> None:
        if collected.detach() is not None:
            _leave(shared)

    return shared.process, leave


def _leave(shared: SharedPusher) -> None:
    with _lock:
        shared.users -= 1
        if shared.users:
            return
        for key in [key for key, other in _shared.items() if other is shared]:
            del _shared[key]
    shared.process.stop()


def _start_janitor() -> None:
    """A thread that lets go of pushers for engines that were collected."""
    global _janitor
    if _janitor is None:
        _janitor = threading.Thread(target=_clean, args=(_collected,), name="hub_callbacks-janitor", daemon=True)
        _janitor.start()


def _clean(collected: queue.SimpleQueue[SharedPusher]) -> None:
    while True:
        _leave(collected.get())


def _forget_all() -> None:
    """In a forked process: the pushers, and threads that may have held the lock, are its parent's."""
    global _lock, _collected, _janitor
    _lock, _collected, _janitor = threading.RLock(), queue.SimpleQueue(), None
    _shared.clear()
    _busy.clear()


os.register_at_fork(after_in_child=_forget_all)


def keep(engine: Engine) -> None:
    """Has it live on while its pushes are on their way: a script's function that made the Trainer may return."""
    with _lock:
        _busy.add(engine)


def let_go(engine: Engine) -> None:
    """Has it go when nobody else holds it."""
    with _lock:
        _busy.discard(engine)


@atexit.register
def _close_all() -> None:
    grace = EXIT_GRACE
    with _lock:
        engines = [engine for shared in _shared.values() for engine in shared.engines]
    for engine in engines:
        try:
            engine.close(None if engine.wait_at_exit and grace else grace)
        except PushNotSent as error:
            logger.error("%s", error)
        except KeyboardInterrupt:  # what is left was named; nobody wants to wait any more
            grace = 0.0
