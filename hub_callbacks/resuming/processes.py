"""What the processes of a job are to a search: who they are, and how they decide together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Processes(Protocol):
    """
    Attributes:
        is_main: Whether this is the main process of the world.
        is_local_main: Whether this is the main process of its node.
    """

    is_main: bool
    is_local_main: bool

    def exchange(self, value: T) -> list[T]:
        """What each process has given, in the order of their ranks. All of them have to call it."""

    def together(self, work: Callable[[], T]) -> list[T]:
        """What each process's work has given; work may take as long as it likes. All of them have to call it.

        Raises:
            ResumeError: on every process, when the work of another one has failed.
            Exception: what this process's own work has raised.
        """


class OneProcess:
    """A job of one process."""

    is_main = is_local_main = True

    def exchange(self, value: T) -> list[T]:
        return [value]

    def together(self, work: Callable[[], T]) -> list[T]:
        return [work()]
