"""What became of each push: one JSON object a line, only ever appended to.

It is the one channel from the pusher back to the training process, and what `hub-callbacks status` shows.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from . import reserve
from .durable import flush
from .push import make

QUEUED = "queued"
RUNNING = "running"
DONE = "done"
SUPERSEDED = "superseded"
WAITING = "waiting"  # failed for now, is tried again
WAITING_FOR_NODES = "waiting-for-nodes"  # what other nodes of the job send with it is not there yet
REFUSED = "refused"  # will not work until somebody does something
LOST = "lost"  # could not be put into the outbox, or its files were changed before they could be read
DROPPED = "dropped"  # taken out by a person

FINAL = frozenset({DONE, SUPERSEDED, LOST, DROPPED})
"""States in which nothing of a push is left to be sent."""


@dataclass(frozen=True)
class Entry:
    """One event in the life of a push.

    Args:
        push: Number of the push in the outbox.
        state: One of the constants of this module.
        time: Seconds since the epoch.
        message: Title of its commit.
        commit: Identifier of the commit (`done`).
        url: Its address (`done`), or the repository's.
        repo_id: The repository with its owner, once the Hub has said it.
        seconds: How long the attempt took (`done`).
        size: Bytes of the files in the commit (`done`).
        by: Number of the push that took over (`superseded`).
        why: What happened and what to do (`waiting`, `refused`, `lost`).
        next_try: Seconds since the epoch (`waiting`).
        notes: What was changed or left out on the way, for people.
        place: Repository and branch that it went to (`done`).
        slots: What of it is there (`done`): an older push must not write that any more.
        foreign: The run whose model was found there, if it is another one.
        private: Visibility of the repository, and
        user: whose token it was, where a training has asked.
        left_out: What of it was damaged before it could be sent (`done`, `lost`), and is not there.
    """

    push: str
    state: str
    time: float = 0.0
    message: str = ""
    commit: str | None = None
    url: str | None = None
    repo_id: str | None = None
    seconds: float | None = None
    size: int | None = None
    by: str | None = None
    why: str | None = None
    next_try: float | None = None
    notes: tuple[str, ...] = ()
    place: str | None = None
    slots: tuple[str, ...] = ()
    foreign: str | None = None
    private: bool | None = None
    user: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def is_loss(self) -> bool:
        """Whether something of the push will not arrive."""
        return self.state == LOST or bool(self.left_out)

    def counts_after(self, known: Entry | None) -> bool:
        """Whether it says more than what was known. What is over stays over, whatever a process notes that had
        looked before; the same number begins again in an outbox that was deleted and made anew."""
        return known is None or known.state not in FINAL or self.state in (*FINAL, QUEUED)

    def is_on(self, hub: str) -> bool:
        """Whether it is a commit on the Hub with this address; one that does not say where it is may be."""
        is_elsewhere = self.url is not None and not self.url.startswith(f"{hub}/")
        return self.state == DONE and self.commit is not None and not is_elsewhere


class Ledger:
    """The ledger file. Several processes may append to it; a line that a crash cut off is passed over.

    A state in which nothing of a push is left to be sent is on the disk before anybody can read it: what it says
    is not known from anywhere else once the push's files are gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def append(self, entry: Entry) -> None:
        """
        Raises:
            OSError: when the disk cannot take it; nothing can be read of it then.
        """
        values = {k: v for k, v in asdict(entry).items() if v not in (None, "", ()) or k == "push"}
        values["time"] = entry.time or time.time()
        line = json.dumps(values, ensure_ascii=False).encode()
        is_final = entry.state in FINAL
        while True:
            try:
                return self._append(line, is_final)
            except OSError as error:
                is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not (is_final and is_full and reserve.give(self.path.parent)):
                    raise

    def _append(self, line: bytes, is_final: bool) -> None:
        with self._open() as (file, is_alone):
            start = os.lseek(file, 0, os.SEEK_END)
            # Another's line may be without its end yet, or for good.
            line = line if is_alone and self._ends_well(file, start) else b"\n" + line
            try:
                if is_final:
                    _write(file, line)
                    flush(self.path)
                    flush(self.path.parent)
                    line = b""
                _write(file, line + b"\n")  # only a line with its end is read
            except OSError:
                if is_alone:
                    os.ftruncate(file, start)  # else the next line would be its end
                raise

    def end_line(self) -> None:
        """Has a last line count that a crash kept from its end. For the one that sends, at its start.

        Raises:
            OSError: when the disk cannot take it.
        """
        if self.path.exists():
            with self._open() as (file, _):
                if not self._ends_well(file, os.lseek(file, 0, os.SEEK_END)):
                    _write(file, b"\n")

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[int, bool]]:
        """The file, and whether no other process or thread is at its end.

        Who holds the lock may wait for the disk, and the training must not wait for that: lines are whole without
        the lock, too, as each is written at once and begins anew.
        """
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            yield file, _lock(file)
        finally:
            os.close(file)

    @staticmethod
    def _ends_well(file: int, end: int) -> bool:
        return not end or os.pread(file, 1, end - 1) == b"\n"

    def new_entries(self) -> list[Entry]:
        """The entries that came since the last call on this object, oldest first."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset = 0  # somebody has deleted the folder, and there is a new one
                file.seek(self._offset)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [entry for line in whole.splitlines() if (entry := _parse(line)) is not None]

    def all_entries(self) -> list[Entry]:
        return Ledger(self.path).new_entries()

    def latest(self) -> dict[str, Entry]:
        """Push → its newest entry that counts."""
        latest: dict[str, Entry] = {}
        for entry in self.all_entries():
            if entry.counts_after(latest.get(entry.push)):
                latest[entry.push] = entry
        return latest


def _lock(file: int) -> bool:
    """Whether nobody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held, or the file system has no locks
        return False
    return True


def _write(file: int, data: bytes) -> None:
    if os.write(file, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _parse(line: bytes) -> Entry | None:
    try:
        values = json.loads(line)
        lists = {name: tuple(values.get(name, ())) for name in ("notes", "slots", "left_out")}
        return make(Entry, values, **lists)
    except (ValueError, TypeError, AttributeError):
        return None
