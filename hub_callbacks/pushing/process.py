"""What runs in the pusher's process.

It speaks with the training process over its standard input and what was its standard output, a line each (what
others print goes to its log):

- in, first and whenever it changes: a JSON object with the token and limits (never in arguments or on
  disk); `new` when a push was queued, `hurry` when somebody waits for the pushes, `stop` to leave. The end of the
  input means that the training process is gone: the pusher goes on until the outbox is empty, nothing left can be
  sent, or `ORPHAN_SECONDS` are over.
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

from ..outbox import ledger
from ..outbox.content import note_content
from ..outbox.control import LOG, STALLED, Control, Orders
from ..outbox.queue import Outbox
from .redaction import hide

logger = logging.getLogger(__name__)

ORPHAN_SECONDS = 3600.0
"""How long the pusher tries on after the training process is gone."""
NICENESS = 10
"""Of a core that training wants too it gets a tenth; with 19 it would starve where all cores are busy."""
TERMINATION_GRACE = 25.0
"""Seconds that it goes on after SIGTERM: batch systems and containers kill what is there after 30."""
LOG_SIZE = 1_000_000
"""Bytes after which the log begins anew; the one before is kept."""


class _Told(Control):
    """What the pusher process is told on its standard input.

    Args:
        lines: That.
        news: Descriptor that it answers on.
    """

    def __init__(self, lines: IO[bytes], news: int) -> None:
        self._news = news
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

    def _say(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody may listen any more
            os.write(self._news, line)

    def _listen(self, lines: IO[bytes]) -> None:
        for line in iter(lines.readline, b""):
            if line.startswith(b"{"):
                self.orders = Orders(**json.loads(line))
            self.hurry = self.hurry or line.strip() == b"hurry"
            self.stop = line.strip() == b"stop"
            self.ring()
            if self.stop:
                time.sleep(0.5)
                os._exit(0)  # in the middle of an upload; sending a push again is safe
        self._orphan_since = time.monotonic()
        self.ring()


def main(outbox: str) -> None:
    """The pusher process."""
    _handle_signals()
    news = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # hf_xet logs there, too, where it has no file for that
    control = _Told(sys.stdin.buffer, news)
    _log_to(Path(outbox) / LOG, control)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    from ..hub.client import bound_uploads

    status = 0
    try:
        bound_uploads(control.orders.max_upload_memory)
        push_all(Outbox(outbox), control)
    except Exception as error:
        logger.critical("the pusher has ended", exc_info=error)
        _say_why(Outbox(outbox), error, control)
        status = 1
    logging.shutdown()
    os._exit(status)  # without waiting for an upload that was told to stop


def _handle_signals() -> None:
    """A batch system tells all processes of a job what is meant for the training: that a time limit is near, or
    that it has to end. The pusher goes on then, as long as it is let."""
    for name in ("SIGPIPE", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGALRM", "SIGXCPU"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    # With older clients hf_xet puts a handler of its own there, and its next upload aborts the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])

    def end(number: int, frame: object) -> None:
        last = threading.Timer(TERMINATION_GRACE, os._exit, [128 + number])
        last.daemon = True
        last.start()

    signal.signal(signal.SIGTERM, end)


def _say_why(outbox: Outbox, error: Exception, control: Control) -> None:
    """Has all that waits say why no pusher sends it."""
    token = control.orders.token
    why = hide(
        f"The process that pushes has ended ({type(error).__name__}: {error}). What was saved stays in the "
        f"outbox; {outbox.root / LOG} says more.",
        [token, os.environ.get("HF_TOKEN")],
    )
    try:
        for push in outbox.pending():
            outbox.record(ledger.Entry(push.id, ledger.WAITING, message=push.message, why=why))
    except OSError as trouble:  # of the disk; it may be what has ended the pusher
        logger.warning("what waits could not be looked at: %s", trouble)
    control.report()


def note_all(root: Path) -> None:
    """Notes what is in all pushes of an outbox, where no pusher runs that does."""
    for push in Outbox(root).pending():
        try:
            note_content(push)
        except OSError as error:  # it was sent by somebody, or the disk is full
            logger.warning("what is in push %s cannot be noted: %s", push.id, error)


def push_all(outbox: Outbox, control: Control) -> None:
    """Runs a pusher until it is told to leave."""
    from ..hub.repository import Repository
    from .pusher import Pusher

    outbox = Outbox(outbox.root)
    repository = Repository(lambda: control.orders.token, control.orders.request_timeout, outbox.places)
    Pusher(outbox, repository, control).run()


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
