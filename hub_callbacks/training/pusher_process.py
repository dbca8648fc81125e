"""The pusher's process, as the training process holds it; `pushing.process` is what runs in it.

It is in a session of its own, so that Ctrl-C reaches the training only. If it dies it is started again, a
bounded number of times; where no process can be started, the same loop runs in a thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from ..outbox.control import LOG, STALLED, Control, Orders
from ..outbox.queue import Outbox
from ..pushing.process import note_all, push_all

logger = logging.getLogger(__name__)

RESTARTS = 3
"""How often it is started again within `RESTARTS_WITHIN` seconds."""
RESTARTS_WITHIN = 3600.0

# Not `-m`: the working directory of a training script must not shadow what the pusher imports.
_START = (
    "import sys; sys.path[:1] = [p for p in sys.path[:1] if p]; sys.path.append(sys.argv[1]); "
    "from hub_callbacks.pushing.process import main; main(sys.argv[2])"
)


class PusherProcess:
    """A process that sends from an outbox; started again if it dies, a few times.

    Args:
        outbox: The outbox to send from.
        orders: What it is told.
        on_news: Called from another thread when the ledger has grown or the process has ended.

    Attributes:
        orders: What it was told last.
        sent: Bytes that the push under way has sent so far.
    """

    def __init__(self, outbox: Outbox, orders: Orders, on_news: Callable[[], None]) -> None:
        self._outbox = outbox
        self.orders = orders
        self._on_news = on_news
        self.sent = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._noting: threading.Thread | None = None
        self._control = _ThreadControl(on_news, orders)
        self._lock = threading.Lock()
        self._deaths: list[float] = []
        self._stopping = False
        self._owner = os.getpid()
        self._token_in_environment = os.environ.get("HF_TOKEN")

    @property
    def is_alive(self) -> bool:
        if self._thread is not None:
            return self._thread.is_alive()
        return self._process is not None and self._process.poll() is None

    @property
    def is_given_up(self) -> bool:
        """Whether it died too often of late to be started again."""
        return not self.is_alive and self._died_too_often

    @property
    def _died_too_often(self) -> bool:
        return sum(time.monotonic() - death < RESTARTS_WITHIN for death in self._deaths) > RESTARTS

    @property
    def _is_foreign(self) -> bool:
        """Whether this is the copy in a forked process (a DataLoader's worker): the pusher is not its own."""
        return os.getpid() != self._owner

    def ring(self) -> None:
        """Says that a push was queued; starts the pusher if there is none."""
        if self._is_foreign:
            return
        with self._lock:
            if self._may_start():
                self._start()
            self._tell(b"new\n")
        if self.is_given_up:
            self._note_what_waits()

    def _note_what_waits(self) -> None:
        """Nobody sends what waits, perhaps for long: what is in it is noted from here, aside from the training."""
        if self._noting is None or not self._noting.is_alive():
            self._noting = threading.Thread(target=note_all, args=(self._outbox.root,), daemon=True)
            self._noting.start()

    def _may_start(self) -> bool:
        return not (self.is_alive or self._stopping or self._died_too_often)

    def tell(self, orders: Orders) -> None:
        """Gives new orders, another token for one."""
        if self._is_foreign:
            return
        with self._lock:
            self.orders = orders
            self._control.orders = orders
            self._tell(_line(orders))

    def hurry(self) -> None:
        """Says that somebody waits for the pushes: what waits for the Hub to come back is tried now."""
        if self._is_foreign:
            return
        with self._lock:
            if self._thread is not None:
                self._control.hurry = True
            self._tell(b"hurry\n")

    def join(self, orders: Orders) -> None:
        """Another engine uses it from now on, too.

        Args:
            orders: Those of that engine. Where it has no token of its own, one that was set in the environment
                since the process was started counts; else the one that the process has.
        """
        token = os.environ.get("HF_TOKEN")
        newer = token if token != self._token_in_environment else None
        self._deaths.clear()  # whoever comes may have mended what they came from
        memory = min(orders.max_upload_memory, self.orders.max_upload_memory)
        self.tell(replace(orders, token=orders.token or newer or self.orders.token, max_upload_memory=memory))

    def stop(self, grace: float = 2.0) -> None:
        """Ends the pusher; an upload that is under way is cut off, and stays in the outbox.

        Args:
            grace: Seconds that it has before it is killed.
        """
        if self._is_foreign:
            return
        with self._lock:
            self._stopping = True
            if self._thread is not None:
                self._control.stop = True
                self._control.ring()
                self._thread.join(grace)
                return
            process = self._process
            if process is None:
                return
            self._tell(b"stop\n")
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            assert process.stdin is not None
            process.stdin.close()

    def _start(self) -> None:
        try:
            with _open_log(self._outbox.root / LOG) as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", _START, str(Path(__file__).parents[2]), str(self._outbox.root)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env=_environment(),
                )
        except OSError as error:
            logger.warning("No process can be started for the pushes (%s); they go by a thread.", error)
            self._thread = threading.Thread(
                target=push_all, args=(self._outbox, self._control), name="hub_callbacks-pusher", daemon=True
            )
            self._thread.start()
            return
        assert process.stdin is not None and process.stdout is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._process = process
        self._tell(_line(self.orders))
        threading.Thread(
            target=self._listen, args=(process, process.stdout), name="hub_callbacks-news", daemon=True
        ).start()

    def _tell(self, line: bytes) -> None:
        if self._thread is not None:
            self._control.ring()
            return
        if self._process is None or self._process.stdin is None:
            return
        # It may be busy, and will look by itself; or gone, and `_listen` sees to that.
        with contextlib.suppress(OSError, ValueError):
            os.write(self._process.stdin.fileno(), line)

    def _listen(self, process: subprocess.Popen[bytes], news: IO[bytes]) -> None:
        with news:
            for line in iter(news.readline, b""):
                self._hear(line.strip())
        status = process.wait()
        self.sent = 0
        if status not in (0, STALLED):
            self._deaths.append(time.monotonic())
        has_left = status == 0 and not Outbox(self._outbox.root).pending()  # the outbox was deleted
        if self._stopping or process is not self._process or has_left:
            pass
        elif not self._died_too_often:
            logger.warning("The process that pushes has ended (status %s); it is started again.", status)
            time.sleep(min(2.0 ** (len(self._deaths) - 1), 10))
            with self._lock:
                if self._may_start():
                    self._start()
        else:
            logger.warning(
                "The process that pushes has ended %s times (status %s; see %s). Training goes on, and what is "
                "saved waits in %s; `hub-callbacks sync` sends it.",
                len(self._deaths),
                status,
                self._outbox.root / LOG,
                self._outbox.root,
            )
            self._note_what_waits()
        self._hear(b"")

    def _hear(self, line: bytes) -> None:
        """What else is printed there, before the pusher has taken that over, is not for us."""
        if line and not line.isdigit():
            return
        self.sent = int(line or 0)
        if not self.sent:
            try:
                self._on_news()
            except Exception:  # whatever it is: without this thread nobody starts the pusher again
                logger.exception("What became of the pushes could not be told. This looks like a bug.")


def _open_log(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError:  # a disk that cannot be written to
        return open(os.devnull, "ab")


def _environment() -> dict[str, str]:
    """This process's, with the Hub's address as the client has it here: it reads `HF_ENDPOINT` only once."""
    from ..hub.client import address

    return os.environ | {"HF_ENDPOINT": address(), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _line(orders: Orders) -> bytes:
    return json.dumps(asdict(orders)).encode() + b"\n"


class _ThreadControl(Control):
    """What a pusher in the training process is told, where no process can be started."""

    def __init__(self, on_news: Callable[[], None], orders: Orders) -> None:
        super().__init__(drain=False, orders=orders)
        self._on_news = on_news

    def report(self) -> None:
        self._on_news()

    def stalled(self, why: str) -> None:
        """Nothing: the training's process is not to be ended for it."""
