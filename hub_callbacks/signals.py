"""What a pusher is told from outside while it runs, and what it tells."""

from __future__ import annotations

import threading
import time


class Signals:
    """Told by nobody: a pusher with these sends until there is nothing left that can be sent.

    Attributes:
        stop: Leave now; what is not sent stays in the outbox.
        drain: Leave as soon as nothing is left that can be sent.
    """

    def __init__(self, drain: bool = True) -> None:
        self.stop = False
        self.drain = drain
        self._bell = threading.Event()

    def ring(self) -> None:
        """Something was queued, or changed here."""
        self._bell.set()

    def sleep(self, seconds: float, *, until_new: bool = True) -> None:
        """Waits; less when told to stop or to drain, or, with `until_new`, when the bell rings."""
        until = time.monotonic() + seconds
        was_draining = self.drain
        while not self.stop and (left := until - time.monotonic()) > 0:
            if self._bell.wait(min(left, 1.0)):
                self._bell.clear()
                if until_new:
                    return
            if self.drain and not was_draining:
                return

    def report(self) -> None:
        """The ledger has grown."""
