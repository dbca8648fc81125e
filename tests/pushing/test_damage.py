"""Files that change while their push waits: what is whole arrives, what is not is kept, and is said to be lost."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import outboxes
from hub_callbacks.checkpoints.files import LAST_CHECKPOINT
from hub_callbacks.cli import app
from hub_callbacks.localhub import Answer, Fault
from hub_callbacks.outbox import content, durable, ledger, reserve
from hub_callbacks.outbox.content import NOTED
from hub_callbacks.outbox.durable import DURABLE
from hub_callbacks.outbox.push import CARD, MODEL
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.outbox.snapshot import COPY_BELOW, freeze
from hub_callbacks.pushing import pusher
from hub_callbacks.pushing.files import changed_slots
from outboxes import put
from pushing.test_pusher import Sender, sha
from savers import wait_until

LARGE = COPY_BELOW + 1


@pytest.fixture
def sender(hub, api, repo, tmp_path) -> Sender:
    return Sender(tmp_path / "run" / "_hub_sync", repo, api)


@pytest.fixture
def large(tmp_path):
    """Files that are linked into the outbox, and then rotated away: it has the only name of them."""

    def write(content: bytes) -> Path:
        path = tmp_path / f"{content.decode()}.bin"
        path.write_bytes(content.ljust(LARGE, b"."))
        return path

    return write


def files_of(push) -> list[Path]:
    return [push.folder / frozen.stored for frozen in push.frozen()]


@contextmanager
def away(sender: Sender, hub, *pushes) -> Iterator[None]:
    """The Hub is away, a pusher runs beside, and has noted what is in the pushes; at the end all is sent."""
    pusher = sender.pusher()
    sending = threading.Thread(target=pusher.run)
    with hub.inject(Fault("*", Answer(503))):
        sending.start()
        wait_until(lambda: all((push.folder / NOTED).exists() for push in pushes))
        yield
    sending.join()


def exit_codes(sender: Sender) -> list[int]:
    return [CliRunner().invoke(app, [word, str(sender.outbox.root)]).exit_code for word in ("sync", "status")]


def test_a_changed_time_is_no_changed_file(sender, hub, large):
    path = large(b"whole")
    push = sender.put({MODEL: path, "checkpoint-1": large(b"other")})
    path.unlink()
    with away(sender, hub, push):
        for file in files_of(push):
            os.utime(file)
    assert sender.states() == {push.id: ledger.DONE}
    assert sender.there()["weights.bin"] == sha(b"whole".ljust(LARGE, b"."))
    assert exit_codes(sender) == [0, 0]


def test_what_a_full_disk_could_not_note_is_noted_when_it_can(sender, hub, large, monkeypatch):
    """Also while saves come more often than what was not noted is tried again."""
    real, is_full = content.replace_file, threading.Event()

    def full(path: Path, text: bytes) -> None:
        if path.name == NOTED and not is_full.is_set():
            is_full.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, text)

    monkeypatch.setattr(content, "replace_file", full)
    monkeypatch.setattr(pusher, "NOTE_AGAIN_EVERY", 1.0)
    monkeypatch.setattr(pusher, "TRY_NEW_AFTER", 0.05)  # between two looks at the house while the Hub is away
    push = sender.put({MODEL: large(b"whole")})
    saves = itertools.count()
    with away(sender, hub):
        wait_until(is_full.is_set)
        wait_until(lambda: sender.put({f"checkpoint-{next(saves)}": b"new"}) and (push.folder / NOTED).exists())
        for file in files_of(push):
            os.utime(file)
    assert set(sender.states().values()) == {ledger.DONE}
    assert exit_codes(sender) == [0, 0]


@pytest.mark.parametrize("is_noted", [True, False], ids=["noted", "not noted"])
def test_what_was_rewritten_is_kept_and_said_to_be_lost(sender, hub, large, is_noted):
    push = sender.put({MODEL: large(b"whole")})
    if is_noted:
        with away(sender, hub, push):
            files_of(push)[0].write_bytes(b"other".ljust(LARGE, b"."))
    else:
        files_of(push)[0].write_bytes(b"other".ljust(LARGE, b"."))
        sender.send()
    entry = sender.outbox.ledger.latest()[push.id]
    assert (entry.state, entry.left_out) == (ledger.LOST, (MODEL,))
    assert "set-aside" in entry.notes[0]
    (kept,) = sender.outbox.set_aside_folder.glob(f"*/{push.id}/files/0")
    assert kept.read_bytes().startswith(b"other")
    assert exit_codes(sender) == [3, 3]
    said = CliRunner().invoke(app, ["status", str(sender.outbox.root)], env={"COLUMNS": "500"}).output
    assert "model was left out" in said and "set-aside" in said


def test_a_small_file_that_is_linked_is_looked_into_whatever_its_time(sender, hub, tmp_path, monkeypatch):
    """One of thousands, which are not copied."""
    monkeypatch.setattr(outboxes, "freeze", functools.partial(freeze, copy_below=0))
    path = tmp_path / "part-00300.bin"
    path.write_bytes(b"whole")
    push = sender.put({MODEL: path})
    with away(sender, hub, push):
        stat = path.stat()
        path.write_bytes(b"other")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    entry = sender.outbox.ledger.latest()[push.id]
    assert (entry.state, entry.left_out) == (ledger.LOST, (MODEL,))


def test_what_was_lost_can_be_put_out_of_mind(sender, large):
    push = sender.put({MODEL: large(b"whole")})
    files_of(push)[0].unlink()
    sender.send()
    assert exit_codes(sender) == [3, 3]
    assert CliRunner().invoke(app, ["drop", str(sender.outbox.root), push.id, "--yes"]).exit_code == 0
    assert exit_codes(sender) == [0, 0]


def test_a_damaged_part_gives_back_what_it_took(sender):
    """`last-checkpoint` of the newer save is cut short: that of the older one is the newest that is whole."""
    older = sender.put({MODEL: b"model 1", LAST_CHECKPOINT: b"whole"}, has_card=False)
    newer = sender.put({MODEL: b"model 2", LAST_CHECKPOINT: b"cut short"}, has_card=False)
    files_of(newer)[1].write_bytes(b"cut")
    sender.send()
    assert sender.there() == {"weights.bin": sha(b"model 2"), "last-checkpoint/weights.bin": sha(b"whole")}
    assert sender.states() == {older.id: ledger.DONE, newer.id: ledger.DONE}
    assert sender.outbox.ledger.latest()[newer.id].left_out == (LAST_CHECKPOINT,)
    assert exit_codes(sender) == [3, 3]


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b""), Path.unlink], ids=["cut short", "gone"])
def test_a_whole_save_does_not_give_way_to_a_damaged_one(sender, damage):
    older, newer = sender.put({MODEL: b"whole"}), sender.put({MODEL: b"damaged"})
    damage(files_of(newer)[0])
    sender.send()
    assert sender.there() == {"weights.bin": sha(b"whole")}
    assert sender.states() == {older.id: ledger.DONE, newer.id: ledger.LOST}


def test_no_card_comes_without_the_model_that_it_is_of(sender):
    push = sender.put({MODEL: b"model", "checkpoint-1": b"checkpoint"}, has_card=True)
    files_of(push)[0].unlink()
    assert changed_slots(push) == {MODEL, CARD}


# -- a disk that does not take everything


def test_a_push_whose_end_cannot_be_recorded_stays_and_is_sent_once(sender, monkeypatch):
    push = sender.put({MODEL: b"model"})
    append, refused = ledger.Ledger.append, []

    def full(self, entry: ledger.Entry) -> None:
        if entry.state in ledger.FINAL and len(refused) < 2:
            refused.append(push.folder.exists())
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, entry)

    monkeypatch.setattr(ledger.Ledger, "append", full)
    sender.send()
    assert refused == [True, True]
    assert sender.states() == {push.id: ledger.DONE}
    assert len(sender.titles()) == 1
    assert not push.folder.exists()


def test_a_full_disk_is_emptied_by_what_is_sent(hub, api, repo, small_disk):
    """What waits has filled it, and each record of an end needs room before its push makes some."""
    sender = Sender(small_disk / "_hub_sync", repo, api)
    pushes = [sender.put({f"checkpoint-{n}": os.urandom(100_000)}) for n in range(5)]
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        sender.put({MODEL: os.urandom(100_000)})
    with contextlib.suppress(OSError):
        while True:  # the last block of the ledger, too
            sender.outbox.ledger.append(ledger.Entry(pushes[0].id, ledger.WAITING))
    sender.send()
    assert sender.states() == {push.id: ledger.DONE for push in pushes}
    assert list(sender.outbox.pushes.iterdir()) == []


def test_a_full_disk_that_stays_full_is_recorded_on_as_long_as_there_is_a_reserve(small_disk):
    outbox = Outbox(small_disk / "_hub_sync")
    push = put(outbox)
    fill(small_disk)
    for _ in range(20 * reserve.SIZE // reserve.STEP):
        outbox.ledger.append(ledger.Entry(push.id, ledger.DONE, message="x" * 300))
    with pytest.raises(OSError, match="No space left"):
        while True:
            outbox.ledger.append(ledger.Entry(push.id, ledger.DONE, message="x" * 300))


def fill(disk: Path) -> None:
    for size in (1 << 16, 1 << 12, 1):
        with contextlib.suppress(OSError), (disk / f"full-{size}").open("wb", buffering=0) as file:
            while file.write(bytes(size)):
                pass


def test_a_push_that_cannot_be_recorded_as_taken_over_stays(sender, monkeypatch):
    older, newer = sender.put({MODEL: b"older"}), sender.put({MODEL: b"newer"})
    append = ledger.Ledger.append

    def full(self, entry: ledger.Entry) -> None:
        if entry.state == ledger.SUPERSEDED:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, entry)

    monkeypatch.setattr(ledger.Ledger, "append", full)
    pusher = sender.pusher()
    pusher._keep_house()
    wait_until(lambda: pusher._known[newer.id].is_durable)
    assert [push.id for push in pusher._keep_house()] == [newer.id]
    assert files_of(older)[0].read_bytes() == b"older"


@pytest.fixture
def fail_one_flush_of(monkeypatch):
    """The disk cannot write one of the files of a push, once."""

    def fail(push) -> None:
        fsync, failed = os.fsync, []

        def broken(file: int) -> None:
            if not failed and os.readlink(f"/proc/self/fd/{file}").startswith(str(push.folder)):
                failed.append(file)
                raise OSError(errno.EIO, "Input/output error")
            fsync(file)

        monkeypatch.setattr(os, "fsync", broken)

    return fail


def test_a_flush_that_failed_makes_nothing_durable_nor_does_another_try(sender, fail_one_flush_of):
    older, newer = sender.put({MODEL: b"older"}), sender.put({MODEL: b"newer"})
    fail_one_flush_of(newer)
    pusher = sender.pusher()
    pusher._keep_house()
    wait_until(lambda: (newer.folder / NOTED).exists())
    assert (older.folder / DURABLE).exists() and not (newer.folder / DURABLE).exists()
    with pytest.raises(OSError, match="Input/output"):
        pusher._flush(newer)
    pusher._keep_house()
    assert older.folder.exists()


def test_after_a_failed_flush_both_saves_arrive(sender, fail_one_flush_of):
    older, newer = sender.put({MODEL: b"older"}), sender.put({MODEL: b"newer"})
    fail_one_flush_of(newer)
    sender.send()
    assert sender.states() == {older.id: ledger.DONE, newer.id: ledger.DONE}
    assert sender.there() == {"weights.bin": sha(b"newer")}


def test_a_flush_that_failed_is_known_to_another_process(sender, monkeypatch):
    def broken(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    push = sender.put({MODEL: b"weights"})
    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
        patched.setattr(
            durable, "_flush_all", lambda push: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output"))
        )
        durable.make_durable(push)
    with pytest.raises(OSError, match="could not write it before"):
        durable.make_durable(push)
    assert not (push.folder / DURABLE).exists()


def test_a_disk_that_does_not_say_how_a_file_is_loses_nothing(sender, large, monkeypatch):
    """ESTALE of a file server, for one."""
    push = sender.put({MODEL: large(b"whole")})
    stat, failed = Path.stat, []

    def stale(self, **options):
        if len(failed) < 3 and str(self).startswith(str(push.folder / "files")):
            failed.append(self)
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", stale)
    sender.send()
    assert len(failed) == 3 and sender.states() == {push.id: ledger.DONE}


def test_a_missing_file_costs_the_others_of_its_push_nothing(sender, hub, large):
    push = sender.put({MODEL: large(b"missing"), "checkpoint-1": large(b"whole")})
    missing, whole = files_of(push)
    missing.unlink()
    with away(sender, hub, push):
        os.utime(whole)
    assert sender.outbox.ledger.latest()[push.id].left_out == (MODEL,)
    assert list(sender.there()) == ["checkpoint-1/weights.bin"]


def test_what_cannot_be_set_aside_stays_and_is_not_sent_again_and_again(sender):
    push = sender.put({MODEL: b"whole", "checkpoint-1": b"x"})
    files_of(push)[0].write_bytes(b"cut")
    sender.outbox.set_aside_folder.write_text("a file: nothing can be moved there")
    sender.send()
    assert push.folder.exists()
    runs = [entry for entry in sender.outbox.ledger.all_entries() if entry.state == ledger.RUNNING]
    assert len(runs) == 1
