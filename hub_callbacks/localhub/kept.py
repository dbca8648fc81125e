"""What was found out about content that never changes, kept as long as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """A memory of limited size for all threads; what was not asked for the longest is forgotten first.

    Args:
        room: For all values together, in the unit of the sizes that come with them.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def find(self, key: Hashable) -> Value | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def keep(self, key: Hashable, value: Value, size: int) -> Value:
        """Returns the value itself."""
        with self._lock:
            self._room += self._values.pop(key, (value, 0))[1] - size
            self._values[key] = value, size
            while self._room < 0:
                self._room += self._values.popitem(last=False)[1][1]
        return value
