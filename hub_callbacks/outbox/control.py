"""What a pusher is told from outside while it runs, and what it tells: what its process and the training process
speak over the lines between them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ..errors import HubSyncError
from ..settings import MAX_UPLOAD_MEMORY

LOG = "pusher.log"
"""Where in the outbox its process says what went wrong."""
STALLED = 75
"""Exit status after an attempt that was dead (EX_TEMPFAIL of sysexits.h); it is started again then."""


class Stalled(HubSyncError):
    """An attempt to push that moves nothing, and that only the end of the process can end."""


@dataclass(frozen=True)
class Orders:
    """What a pusher is told at its start, and again when it changes.

    Args:
        token: The token that the user set, or `None`.
        request_timeout: Seconds that a request may go on without a byte in either direction.
        stall_timeout: Seconds that an attempt may go on without a byte on any connection or from any file.
        longest_wait: Seconds between two attempts, at most, unless the Hub asks for more.
        max_pending_bytes: What the pushes that wait may keep on disk that nothing else keeps; `None` is no limit.
        max_upload_memory: Bytes that it takes while it uploads, about. It counts at its start alone.
    """

    token: str | None = None
    request_timeout: float = 120.0
    stall_timeout: float = 600.0
    longest_wait: float = 300.0
    max_pending_bytes: int | None = None
    max_upload_memory: int = MAX_UPLOAD_MEMORY


class Control:
    """Told by nobody: a pusher with these sends until there is nothing left that can be sent.

    Attributes:
        stop: Leave now; what is not sent stays in the outbox.
        drain: Leave as soon as nothing is left that can be sent.
        orders: Token and limits.
        hurry: Try now what waits for the Hub to come back: somebody waits for it.
    """

    def __init__(self, drain: bool = True, orders: Orders | None = None) -> None:
        self.stop = False
        self.drain = drain
        self.hurry = False
        self.orders = orders or Orders()
        self._bell = threading.Event()

    def ring(self) -> None:
        """Something was queued, or changed here."""
        self._bell.set()

    def listen(self, seconds: float) -> bool:
        """Waits for the bell; returns whether it rang."""
        rang = self._bell.wait(seconds)
        if rang:
            self._bell.clear()
        return rang

    def sleep(self, seconds: float, *, until_new: bool = True) -> None:
        """Waits; less when told to stop or to drain, or, with `until_new`, when the bell rings."""
        until = time.monotonic() + seconds
        was_draining = self.drain
        while not self.stop and (left := until - time.monotonic()) > 0:
            if self.listen(min(left, 1.0)) and until_new:
                return
            if self.drain and not was_draining:
                return

    def report(self) -> None:
        """The ledger has grown."""

    def waits_for_turn(self, sender: str) -> None:
        """Another process sends from this outbox; said each time that it is looked.

        Args:
            sender: Which, in words.
        """

    def sent(self, size: int) -> None:
        """The push under way has sent `size` bytes so far."""

    def stalled(self, why: str) -> None:
        """The attempt under way is dead, and only the end of the process ends it.

        Raises:
            Stalled: unless there is something better to do about it.
        """
        raise Stalled(why)
