"""Which large files are being committed just now, so that none of them is deleted under a commit's feet."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Claims:
    """Commits claim what they name, from before they check that it is there until the ref has moved."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Held while files are deleted; nothing can be claimed meanwhile."""
        self._held: Counter[str] = Counter()
        self._watches: list[set[str]] = []

    @contextmanager
    def holding(self) -> Iterator[Callable[[str], None]]:
        """Gives the function that claims a sha256; all claims end with the block."""
        mine: list[str] = []

        def claim(sha256: str) -> None:
            with self.lock:
                self._held[sha256] += 1
                mine.append(sha256)
                for watch in self._watches:
                    watch.add(sha256)

        try:
            yield claim
        finally:
            with self.lock:
                self._held.subtract(mine)
                self._held = +self._held

    @contextmanager
    def watching(self) -> Iterator[set[str]]:
        """Gives the set of all that is claimed while the block runs, what was claimed before included."""
        with self.lock:
            watch = set(self._held)
            self._watches.append(watch)
        try:
            yield watch
        finally:
            with self.lock:
                self._watches.remove(watch)
