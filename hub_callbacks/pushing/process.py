"""What runs in the pusher's process.

It speaks with the training process over its standard input and output, a line each:

- in, first and whenever it changes: a JSON object with the token and limits (never in arguments or on
  disk); `new` when a push was queued, `stop` to leave. The end of the input means that the training process
  is gone: the pusher goes on until the outbox is empty, nothing left can be sent, or `ORPHAN_SECONDS` are
  over.
- out: an empty line each time the ledger has grown (what happened stands there alone), and about every second
  a line with the bytes that the push under way has sent so far.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from ..outbox.control import LOG, STALLED, Control, Orders
from ..outbox.queue import Outbox
from .redaction import hide

logger = logging.getLogger(__name__)

ORPHAN_SECONDS = 3600.0
"""How long the pusher tries on after the training process is gone."""
NICENESS = 10
"""Of a core that training wants too it gets a tenth; with 19 it would starve where all cores are busy."""
LOG_SIZE = 1_000_000
"""Bytes after which the log begins anew; the one before is kept."""


class _Told(Control):
    """What the pusher process is told on its standard input."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._orphan_since: float | None = None
        self._parent = os.getppid()
        super().__init__(orders=Orders(**json.loads(lines.readline() or b"{}")))
        threading.Thread(target=self._listen, args=(lines,), daemon=True).start()

    @property
    def drain(self) -> bool:
        """Whether the training process is gone."""
        if self._orphan_since is None and os.getppid() != self._parent:
            self._orphan_since = time.monotonic()
        if self._orphan_since is not None and time.monotonic() - self._orphan_since > ORPHAN_SECONDS:
            self.stop = True
        return self._orphan_since is not None

    @drain.setter
    def drain(self, value: bool) -> None:
        """Nobody sets it."""

    def report(self) -> None:
        self._say(b"\n")

    def sent(self, size: int) -> None:
        self._say(b"%d\n" % size)

    def stalled(self, why: str) -> None:
        logger.warning(why)
        logging.shutdown()
        os._exit(STALLED)

    @staticmethod
    def _say(line: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody may listen any more
            os.write(sys.stdout.fileno(), line)

    def _listen(self, lines: IO[bytes]) -> None:
        for line in iter(lines.readline, b""):
            if line.startswith(b"{"):
                self.orders = Orders(**json.loads(line))
            self.stop = line.strip() == b"stop"
            self.ring()
            if self.stop:
                time.sleep(0.5)
                os._exit(0)  # in the middle of an upload; sending a push again is safe
        self._orphan_since = time.monotonic()
        self.ring()


def main(outbox: str) -> None:
    """The pusher process."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    control = _Told(sys.stdin.buffer)
    _log_to(Path(outbox) / LOG, control)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    try:
        push_all(Outbox(outbox), control)
    except BaseException as error:
        logger.critical("the pusher has ended", exc_info=error)
        raise
    finally:
        logging.shutdown()
    os._exit(0)  # without waiting for an upload that was told to stop


def push_all(outbox: Outbox, control: Control) -> None:
    """Runs a pusher until it is told to leave."""
    from ..hub.repository import Repository
    from .pusher import Pusher

    repository = Repository(lambda: control.orders.token, control.orders.request_timeout)
    Pusher(Outbox(outbox.root), repository, control).run()


class _WithoutTokens(logging.Formatter):
    def __init__(self, control: Control) -> None:
        super().__init__("%(asctime)s %(name)s %(message)s")
        self._control = control

    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record), [self._control.orders.token, os.environ.get("HF_TOKEN")])


def _log_to(path: Path, control: Control) -> None:
    try:
        handler: logging.Handler = RotatingFileHandler(path, maxBytes=LOG_SIZE, backupCount=1)
    except OSError:  # a disk that cannot be written to
        handler = logging.NullHandler()
    handler.setFormatter(_WithoutTokens(control))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
