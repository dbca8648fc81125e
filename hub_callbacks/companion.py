"""The pusher's process, as the training process holds it and as it is inside.

The two speak over the pusher's standard input and output, a line each:

- in, first and whenever it changes: a JSON object with the token and limits (never in arguments or on
  disk); `new` when a push was queued, `stop` to leave. The end of the input means that the training process
  is gone: the pusher goes on until the outbox is empty, nothing left can be sent, or `ORPHAN_SECONDS` are
  over.
- out: a line each time the ledger has grown. What happened stands in the ledger alone.

The process is in a session of its own, so that Ctrl-C reaches the training only, and has a lower priority.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from .outbox import Outbox
from .signals import Signals

logger = logging.getLogger(__name__)

ORPHAN_SECONDS = 3600.0
"""How long the pusher tries on after the training process is gone."""
NICENESS = 5
RESTARTS = 3
LOG = "pusher.log"

# Not `-m`: the working directory of a training script must not shadow what the pusher imports.
_START = (
    "import sys; sys.path[:1] = [p for p in sys.path[:1] if p]; sys.path.append(sys.argv[1]); "
    "from hub_callbacks.companion import main; main(sys.argv[2])"
)


@dataclass(frozen=True)
class Orders:
    """What the pusher is told at its start.

    Args:
        token: The token that the user set, or `None`.
        request_timeout: Seconds that a request may go on without a byte in either direction.
    """

    token: str | None = None
    request_timeout: float = 120.0


class Companion:
    """A pusher process for the outbox of a training process; started again if it dies, a few times.

    Args:
        outbox: The outbox to send from.
        orders: What it is told.
        on_news: Called from another thread when the ledger has grown or the process has ended.
    """

    def __init__(self, outbox: Outbox, orders: Orders, on_news: Callable[[], None]) -> None:
        self._outbox = outbox
        self._orders = orders
        self._on_news = on_news
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: _InThread | None = None
        self._lock = threading.Lock()
        self._starts = 0
        self._stopping = False

    @property
    def is_alive(self) -> bool:
        if self._thread is not None:
            return self._thread.is_alive()
        return self._process is not None and self._process.poll() is None

    @property
    def is_given_up(self) -> bool:
        """Whether it died too often to be started again."""
        return not self.is_alive and self._starts > RESTARTS

    def ring(self) -> None:
        """Says that a push was queued; starts the pusher if there is none."""
        with self._lock:
            if not self.is_alive and not self._stopping and self._starts <= RESTARTS:
                self._start()
            self._tell(b"new\n")

    def tell(self, orders: Orders) -> None:
        """Gives new orders, another token for one."""
        with self._lock:
            self._orders = orders
            if self._thread is not None:
                self._thread.orders = orders
            self._tell(_line(orders))

    def stop(self, grace: float = 2.0) -> None:
        """Ends the pusher; an upload that is under way is cut off, and stays in the outbox.

        Args:
            grace: Seconds that it has before it is killed.
        """
        with self._lock:
            self._stopping = True
            if self._thread is not None:
                self._thread.signals.stop = True
                self._thread.signals.ring()
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
        self._starts += 1
        try:
            self._outbox.root.mkdir(parents=True, exist_ok=True)
            with (self._outbox.root / LOG).open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", _START, str(Path(__file__).parents[1]), str(self._outbox.root)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env=_environment(),
                )
        except OSError as error:
            logger.warning("No process can be started for the pushes (%s); they go by a thread.", error)
            self._thread = _InThread(self._outbox, self._orders, self._on_news)
            self._thread.start()
            return
        assert process.stdin is not None and process.stdout is not None
        os.set_blocking(process.stdin.fileno(), False)
        self._process = process
        self._tell(_line(self._orders))
        threading.Thread(
            target=self._listen, args=(process, process.stdout), name="hub_callbacks-news", daemon=True
        ).start()

    def _tell(self, line: bytes) -> None:
        if self._thread is not None:
            self._thread.signals.ring()
            return
        if self._process is None or self._process.stdin is None:
            return
        # It may be busy, and will look by itself; or gone, and `_listen` sees to that.
        with contextlib.suppress(OSError, ValueError):
            os.write(self._process.stdin.fileno(), line)

    def _listen(self, process: subprocess.Popen[bytes], news: IO[bytes]) -> None:
        with news:
            for _ in iter(news.readline, b""):
                self._on_news()
        status = process.wait()
        if self._stopping or process is not self._process:
            self._on_news()
            return
        if self._starts <= RESTARTS:
            logger.warning("The process that pushes has ended (status %s); it is started again.", status)
            time.sleep(min(2.0 ** (self._starts - 1), 10))
            with self._lock:
                if not self._stopping:
                    self._start()
        else:
            logger.warning(
                "The process that pushes has ended %s times (status %s; see %s). Training goes on, and what is "
                "saved waits in %s; `hub-callbacks sync` sends it.",
                self._starts,
                status,
                self._outbox.root / LOG,
                self._outbox.root,
            )
        self._on_news()


def _environment() -> dict[str, str]:
    """This process's, with the Hub's address as the client has it here: it reads `HF_ENDPOINT` only once."""
    from huggingface_hub import constants

    return os.environ | {"HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def _line(orders: Orders) -> bytes:
    return json.dumps(asdict(orders)).encode() + b"\n"


class _InThread(threading.Thread):
    """The pusher in the training process, where no process can be started."""

    def __init__(self, outbox: Outbox, orders: Orders, on_news: Callable[[], None]) -> None:
        super().__init__(name="hub_callbacks-pusher", daemon=True)
        self.outbox = outbox
        self.orders = orders
        self.signals = Signals(drain=False)
        self.signals.report = on_news  # type: ignore[method-assign]

    def run(self) -> None:
        from .pusher import Pusher
        from .repository import Repository

        repository = Repository(lambda: self.orders.token, self.orders.request_timeout)
        Pusher(Outbox(self.outbox.root), repository, self.signals).run()


class _Told(Signals):
    """What the pusher process is told on its standard input."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._orphan_since: float | None = None
        self._parent = os.getppid()
        super().__init__()
        self.orders = Orders(**json.loads(lines.readline() or b"{}"))
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
        with contextlib.suppress(OSError):  # nobody may listen any more
            os.write(sys.stdout.fileno(), b"\n")

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
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    _shorten(Path(outbox) / LOG)
    signals = _Told(sys.stdin.buffer)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    from .pusher import Pusher
    from .repository import Repository

    repository = Repository(lambda: signals.orders.token, signals.orders.request_timeout)
    Pusher(Outbox(outbox), repository, signals).run()


def _shorten(log: Path, limit: int = 1_000_000) -> None:
    """Keeps the end of a log that has grown."""
    try:
        if log.stat().st_size > limit:
            os.truncate(log, 0)
    except OSError:
        pass
