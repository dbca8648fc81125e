"""The engines of this process: those of one outbox share the process that pushes and hear the same news, and all
are closed when the interpreter ends."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
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


_shared: dict[tuple[int, str], SharedPusher] = {}
_busy: set[Engine] = set()
_lock = threading.RLock()  # news come from other threads, and engines are collected wherever Python sees fit


def join(engine: Engine, orders: Orders) -> tuple[PusherProcess, Callable[[], object]]:
    """The pusher of an engine's outbox, and what lets go of it: at the engine's end, or when it is called.

    Args:
        orders: Told to the pusher; a token that another engine has given stays if there is none among them.
    """
    key = os.getpid(), os.path.realpath(engine.outbox.root)  # a forked process has a pusher of its own
    with _lock:
        shared = _shared.get(key)
        if shared is None:
            shared = _shared[key] = SharedPusher(Outbox(engine.outbox.root), orders)
        else:
            token = orders.token or shared.process.orders.token
            shared.process.tell(replace(orders, token=token))
        shared.users += 1
        shared.engines.add(engine)
    collected = weakref.finalize(engine, _leave, key, shared)
    collected.atexit = False  # there `_close_all` first waits for what is under way

    def leave() -> None:
        if collected.detach() is not None:
            _leave(key, shared)

    return shared.process, leave


def _leave(key: tuple[int, str], shared: SharedPusher) -> None:
    with _lock:
        shared.users -= 1
        if shared.users:
            return
        if _shared.get(key) is shared:
            del _shared[key]
    shared.process.stop()


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
