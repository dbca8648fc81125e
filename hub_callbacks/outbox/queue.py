"""The durable queue between the training process and the pusher: a folder in `output_dir`.

    _hub_sync/
        pushes/000001/      a push: manifest.json, files/, card.json; there as a whole or not at all
                            (after a loss of power if it has its mark, `durable`, too)
        staging/            pushes in the making; whatever a crash left here is swept away
        set-aside/          entries that nobody can read, and damaged files, kept for a person to look at
        ledger.jsonl        what became of each push
        places.json         which repository they go to
        cards/              the card as it was pushed last, for each repository and branch
        branches/           branches on the Hub that files of other nodes come by, to be removed at the end
        drainer.lock        held by the one process that sends (drainer.lease where there are no locks)
        reserve             room for the records of what is sent from a disk that is full
        sender              who that is
        run                 identifier of the run

A push is written under `staging/` and renamed, which is atomic; after a kill it is wholly there or not. No
token is ever written here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from filelock import BaseFileLock, FileLock, LeaseCompromise, SoftFileLease

from ..errors import OutboxError
from . import ledger, reserve
from .durable import boot, replace_file
from .places import Places
from .push import MANIFEST, SET_ASIDE, OtherFormat, Push, Target, dump, load

logger = logging.getLogger(__name__)

ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which what another machine left in staging counts as left by a crash."""
LEASE = 120.0
"""Seconds after which a lease that was not renewed is another's, where the file system has no locks. It is renewed
three times as often: a file server may be away for a minute."""
CRASHED_AFTER = 600.0
"""The same for a process of this machine that seems to be gone."""
_HOST = socket.gethostname().replace("~", "-")


class Outbox:
    """The outbox in the folder `root`, which is made when the first push comes.

    Attributes:
        other_formats: Number of a push that another version of this package can read → what it says of itself.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.pushes = self.root / "pushes"
        self.staging = self.root / "staging"
        self.set_aside_folder = self.root / SET_ASIDE
        self.cards = self.root / "cards"
        self.branches = self.root / "branches"
        self.ledger = ledger.Ledger(self.root / "ledger.jsonl")
        self.places = Places(self.root / "places.json")
        self._read: dict[str, Push] = {}
        self._newest: int | None = None
        self.other_formats: dict[str, str] = {}
        self._warned: set[str] = set()
        self._stuck: set[str] = set()
        self._seen = ledger.Ledger(self.ledger.path)

    def lock(self, on_lost: Callable[[LeaseCompromise], None] | None = None) -> BaseFileLock:
        """The lock of the one process that sends; not acquired yet.

        Where the file system has no `flock`, it is a lease: a file that says who has it, and that has to be
        renewed. Who has died, on whatever machine, loses it after `LEASE` seconds.

        Args:
            on_lost: Called, from another thread, when the lease could not be renewed: somebody else may send now.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = self.root / "drainer.lock"
        if _has_flock(self.root):
            return FileLock(lock)
        lock.touch()  # it is looked at by `identity`
        return SoftFileLease(
            self.root / "drainer.lease", lease_duration=LEASE, on_compromise=on_lost, thread_local=False
        )

    def note_sender(self) -> None:
        """Says that this process sends from here now: for who waits for it."""
        said = {"host": _HOST, "process": os.getpid(), "since": time.time()}
        with contextlib.suppress(OSError):  # it is for people alone
            (self.root / "sender").write_text(json.dumps(said), encoding="utf-8")

    def sender(self) -> str:
        """Who holds the lock and since when, in words."""
        try:
            said = json.loads((self.root / "sender").read_text(encoding="utf-8"))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(said["since"]))
            return f"process {said['process']} on {said['host']}, since {since}"
        except (OSError, ValueError, LookupError, TypeError):
            return "another process"

    def is_being_sent(self) -> bool:
        """Whether a process holds the lock; where nobody can tell, one may."""
        if not (self.root / "drainer.lock").exists():
            return False
        try:
            with self.lock().acquire(timeout=0):
                return False
        except OSError:  # Timeout is one, too
            return True

    def identity(self) -> tuple[int, int] | None:
        """Device and inode of the lock's file: it changes when the folder is deleted and made anew."""
        try:
            stat = (self.root / "drainer.lock").stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def run_id(self) -> str:
        """The identifier of the run that this outbox belongs to: the same after a restart in the same folder."""
        with contextlib.suppress(OSError, ValueError):
            known = (self.root / "run").read_text(encoding="ascii").strip()
            if known and known.isprintable():  # a loss of power can leave zeros
                return known
        new = uuid.uuid4().hex[:12]
        with contextlib.suppress(OSError):  # a disk that cannot take it is noticed at the first push
            self.adopt(new)
        return new

    def adopt(self, run: str) -> None:
        """Makes this outbox that of a run, which may have begun on another machine.

        Raises:
            OSError: when the disk cannot take it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        new = self.root / f"run.{os.getpid()}"
        new.write_text(run, encoding="ascii")
        new.replace(self.root / "run")

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """A folder to put the files of a push into; removed at the end unless `submit` has taken it.

        Raises:
            OutboxError: when the disk cannot take it.
        """
        try:
            for folder in (self.pushes, self.staging):
                folder.mkdir(parents=True, exist_ok=True)
            if not reserve.is_kept(self.root):
                reserve.keep(self.root)
            staged = Path(tempfile.mkdtemp(prefix=_mine(), dir=self.staging))
        except OSError as error:
            raise OutboxError(error.errno, f"{self.root} cannot be written to: {error.strerror}") from error
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def submit(self, staged: Path, push: Push) -> Push:
        """Makes a staged folder the newest push of the queue.

        Args:
            staged: The folder that `stage` gave, with all the files in it.
            push: What it is; `id` and `folder` are set here.

        Raises:
            OSError: when the disk cannot take it.
        """
        push = replace(push, boot=boot())
        (staged / MANIFEST).write_text(dump(push), encoding="utf-8")
        while True:
            number = self._newest_number() + 1
            folder = self.pushes / f"{number:06d}"
            try:
                staged.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                self._newest = number
                continue
            self._newest = number
            push = replace(push, id=folder.name, folder=folder)
            self.record(ledger.Entry(push.id, ledger.QUEUED, message=push.message))
            return push

    def pending(self, tidy: bool = False) -> list[Push]:
        """The pushes that have not been sent, oldest first, as far as they can be read.

        Args:
            tidy: Whether what cannot be a push is set aside. Only for the holder of the lock.
        """
        pushes = []
        for name in self._names():
            if name in self._stuck:
                continue
            if name not in self._read:
                try:
                    if not name.isdecimal():
                        raise ValueError("its name is not a number")
                    self._read[name] = load(self.pushes / name)
                except FileNotFoundError:
                    if tidy and (self.pushes / name).exists():
                        self.set_aside(name, f"{MANIFEST} is missing")
                    continue
                except OtherFormat as error:
                    self.other_formats[name] = str(error)
                    self._warn_once(f"{self.pushes / name} stays where it is: {error}. The others can be sent.")
                    continue
                except (ValueError, NotADirectoryError, IsADirectoryError) as error:
                    if tidy:
                        self.set_aside(name, str(error))
                    continue
                except OSError as error:  # the disk's trouble, not the push's
                    self._warn_once(f"{self.pushes / name} cannot be read now ({error}); the others can.")
                    continue
            pushes.append(self._read[name])
        return pushes

    def holds(self, push_id: str) -> bool:
        """Whether a push is in the queue."""
        return (self.pushes / push_id / MANIFEST).is_file()

    def remove(self, push_id: str) -> None:
        """Takes a push out of the queue; its files are gone with it."""
        try:
            gone = self._take_out(push_id)
        except OSError:
            gone = self.pushes / push_id
        shutil.rmtree(gone, ignore_errors=True)
        reserve.keep(self.root)  # before a save takes what is free now

    def _take_out(self, push_id: str) -> Path:
        """Moves a push away before its files go: half a push must never be seen in the queue."""
        self._read.pop(push_id, None)
        gone = self.staging / f"{_mine()}gone-{push_id}"
        self.staging.mkdir(exist_ok=True)
        return (self.pushes / push_id).rename(gone)

    def drop(self, push: Push) -> None:
        """Takes a push out for good, because a person says so.

        Raises:
            OSError: when it cannot be taken out; it is as it was then.
        """
        gone = self._take_out(push.id)
        self.record(ledger.Entry(push.id, ledger.DROPPED, message=push.message))
        shutil.rmtree(gone, ignore_errors=True)

    def give_up(self, push: Push, slots: frozenset[str]) -> Push:
        """Takes parts out of a push that waits, and frees their disk space.

        Raises:
            OSError: when the disk cannot take its new manifest; the push is as it was then.
        """
        rest = push.without(slots)
        replace_file(push.folder / MANIFEST, dump(rest).encode())
        self._read[push.id] = rest
        for stored in {f.stored for f in push.frozen()} - {f.stored for f in rest.frozen()}:
            (push.folder / stored).unlink(missing_ok=True)
        return rest

    def set_aside(self, name: str, why: str) -> None:
        """Moves what can neither be sent nor thrown away out of the way of the others. What cannot be
        moved stays where it is, and is no push any more."""
        try:
            self.set_aside_folder.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.set_aside_folder)) / name
            (self.pushes / name).rename(place)
        except OSError as error:
            self._warn_once(f"{self.pushes / name} cannot be sent as it is ({why}), nor moved away: {error}.")
            self._stuck.add(name)
            return
        logger.warning(
            "%s cannot be sent as it is (%s). It was moved to %s; the others are not affected.",
            self.pushes / name,
            why,
            place,
        )

    def record(self, entry: ledger.Entry) -> None:
        """Writes to the ledger; a disk that cannot take it is reported and stops nothing."""
        try:
            self.ledger.append(entry)
        except OSError as error:
            self._warn_once(f"{self.ledger.path} could not be written: {error}")

    def card_memory(self, target: Target, hub: str) -> Path:
        """Where the card is remembered as it was pushed last to the Hub with this address."""
        place = hashlib.sha256(f"{hub}/{target.repo_id}@{target.revision}".encode()).hexdigest()[:16]
        return self.cards / f"{place}.md"

    def note_branch(self, branch: str) -> None:
        """Remembers a branch that pushes of this outbox take files from, until its removal is queued."""
        try:
            self.branches.mkdir(parents=True, exist_ok=True)
            (self.branches / branch).touch()
        except OSError as error:
            self._warn_once(f"{self.branches} cannot be written to ({error}): {branch} will not be removed.")

    def noted_branches(self) -> list[str]:
        """Branches of this training, and of earlier ones that did not come to their end."""
        return sorted(_listdir(self.branches))

    def forget_branch(self, branch: str) -> None:
        (self.branches / branch).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what finished pushes and crashed processes left. Only for the holder of the lock."""
        with contextlib.suppress(OSError):
            self.ledger.end_line()
        latest = self.ledger.latest()
        for name in self._names():
            entry = latest.get(name)
            if entry is not None and entry.state in ledger.FINAL:
                self.remove(name) if not entry.left_out else self.set_aside(name, "a part of it is damaged")
        for staged in _listdir(self.staging):
            host, _, rest = staged.partition("~")
            process, _, what = rest.partition("~")
            quiet = ABANDONED_AFTER
            if host == _HOST and process.isdecimal():
                if _is_alive(int(process)):
                    continue
                # Containers may share a name, and know nothing of each other's processes.
                quiet = 0.0 if what.startswith("gone-") else CRASHED_AFTER
            if _age(self.staging / staged) >= quiet:
                shutil.rmtree(self.staging / staged, ignore_errors=True)

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)

    def _names(self) -> list[str]:
        return sorted((name for name in _listdir(self.pushes) if not name.startswith(".")), key=_number)

    def _newest_number(self) -> int:
        """The highest number ever given, by this process or another; only what is new is read."""
        if self._newest is None:
            self._newest = max(map(_number, self._names()), default=0)
        self._newest = max(self._newest, *(_number(entry.push) for entry in self._seen.new_entries()), 0)
        return self._newest


def _mine() -> str:
    """Start of the names of what this process puts into staging."""
    return f"{_HOST}~{os.getpid()}~"


def _has_flock(folder: Path) -> bool:
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
    finally:
        os.close(file)
    return True


def _age(folder: Path) -> float:
    """Seconds since something in it was last written to."""
    times = [0.0]
    for here, _, files in os.walk(folder):
        with contextlib.suppress(OSError):
            times += [os.stat(os.path.join(here, name)).st_mtime for name in (".", *files)]
    return time.time() - max(times)


def _listdir(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _number(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
