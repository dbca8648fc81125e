"""The queue on disk: what a kill, a foreign hand, a full disk or a second process cannot do to it."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import Timeout

from hub_callbacks.errors import OutboxError
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.push import MANIFEST
from hub_callbacks.outbox.queue import ABANDONED_AFTER, CRASHED_AFTER, Outbox
from outboxes import OUTBOX_CODE, put, target
from savers import wait_until


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "_hub_sync")


def test_pushes_come_out_in_the_order_in_which_they_went_in(outbox):
    ids = [put(outbox, {"a.txt": b"%d" % n}).id for n in range(12)]
    assert ids == [f"{n:06d}" for n in range(1, 13)]
    again = Outbox(outbox.root)
    assert [push.id for push in again.pending()] == ids
    assert again.pending()[3] == outbox.pending()[3]


def test_nothing_is_written_before_the_first_push(outbox):
    assert outbox.pending() == []
    assert not outbox.root.exists()


def test_a_push_that_fails_on_the_way_leaves_nothing(outbox):
    with pytest.raises(RuntimeError), outbox.stage() as staged:
        (staged / "file").write_text("half")
        raise RuntimeError
    assert outbox.pending() == []
    assert list(outbox.staging.iterdir()) == []


def test_numbers_are_never_used_twice(outbox):
    first = put(outbox)
    outbox.record(ledger.Entry(first.id, ledger.DONE))
    outbox.remove(first.id)
    assert put(Outbox(outbox.root)).id == "000002"
    assert put(outbox).id == "000003"


def test_two_processes_never_get_the_same_number(outbox):
    other = Outbox(outbox.root)
    ids = [put(box).id for _ in range(5) for box in (outbox, other)]
    assert ids == sorted(set(ids))


def test_a_kill_at_any_instant_leaves_no_half_push(outbox, tmp_path, monkeypatch):
    """A process that only submits is killed; each push that is to be seen is whole."""
    monkeypatch.setattr("hub_callbacks.outbox.queue.CRASHED_AFTER", 0.0)
    instant = random.Random(1)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    seen: set[str] = set()
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", OUTBOX_CODE, str(outbox.root)], env=env, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(instant.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        reader = Outbox(outbox.root)
        for push in reader.pending(tidy=True):
            assert all(frozen.is_unchanged(push.folder) for frozen in push.frozen())
            assert sum(1 for _ in push.frozen()) == 20
        assert not reader.set_aside_folder.exists()
        now = {push.id for push in reader.pending()}
        assert now > seen
        seen = now
        reader.sweep()
        assert list(reader.staging.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    {
        "torn": lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:50]),
        "empty": lambda folder: (folder / MANIFEST).write_text(""),
        "no manifest": lambda folder: (folder / MANIFEST).unlink(),
        "not text": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\x00"),
        "no format": lambda folder: (folder / MANIFEST).write_text('{"format": null}'),
        "a list": lambda folder: (folder / MANIFEST).write_text("[]"),
        "missing fields": lambda folder: (folder / MANIFEST).write_text('{"format": 1, "parts": []}'),
        "a path outside": lambda folder: (folder / MANIFEST).write_text(
            (folder / MANIFEST).read_text().replace("files/0", "../../0")
        ),
        "a copy": lambda folder: folder.rename(folder.parent / "000002 (copy)"),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_cannot_be_a_push_is_set_aside_and_stops_nothing_else(outbox, spoil, caplog):
    first, second, third = (put(outbox) for _ in range(3))
    spoil[1](second.folder)
    reader = Outbox(outbox.root)
    assert [push.id for push in reader.pending()] == [first.id, third.id]
    assert not reader.set_aside_folder.exists()  # only who sends moves anything
    assert [push.id for push in reader.pending(tidy=True)] == [first.id, third.id]
    assert "cannot be sent as it is" in caplog.text
    assert len(list(reader.set_aside_folder.glob("*/*"))) == 1
    assert [push.id for push in reader.pending()] == [first.id, third.id]
    assert put(reader).id == "000004"


def test_what_a_newer_version_has_added_to_a_push_is_passed_over(outbox):
    push = put(outbox)
    manifest = push.folder / MANIFEST
    values = json.loads(manifest.read_text())
    content = values["content"]
    for place in (values, values["target"], content, content["parts"][0], content["retention"], content["origin"]):
        place["new"] = 1
    manifest.write_text(json.dumps(values))
    assert Outbox(outbox.root).pending() == outbox.pending() == [push]


def test_a_push_of_another_format_stays_for_the_version_that_reads_it(outbox, caplog):
    push, other = put(outbox), put(outbox)
    (other.folder / MANIFEST).write_text('{"format": 99}')
    assert [found.id for found in outbox.pending(tidy=True)] == [push.id]
    assert other.folder.exists() and "format 99" in caplog.text


def test_foreign_files_and_folders_are_set_aside(outbox, caplog):
    push = put(outbox)
    (outbox.pushes / "notes.txt").write_text("mine")
    (outbox.pushes / "000077").mkdir()
    (outbox.pushes / ".DS_Store").write_text("a system's own")
    assert [found.id for found in outbox.pending(tidy=True)] == [push.id]
    assert {path.name for path in outbox.set_aside_folder.glob("*/*")} == {"notes.txt", "000077"}
    assert (outbox.pushes / ".DS_Store").exists()


def test_trouble_of_the_disk_does_not_set_a_push_aside(outbox, monkeypatch, caplog):
    push = put(outbox)
    reader = Outbox(outbox.root)

    def refuse(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("hub_callbacks.outbox.queue.load", refuse)
        assert reader.pending() == [] == reader.pending()
    assert caplog.text.count("cannot be read now") == 1
    assert [found.id for found in reader.pending()] == [push.id]


def test_what_finished_pushes_and_crashes_left_is_swept_away(outbox):
    waiting, done = put(outbox), put(outbox)
    outbox.record(ledger.Entry(done.id, ledger.DONE))  # and killed before the folder was removed
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    with outbox.stage() as mine:
        host = mine.name.split("~")[0]
        crashed = outbox.staging / f"{host}~{ended.stdout.strip()}~x"
        elsewhere, old = outbox.staging / "elsewhere~1~x", outbox.staging / "elsewhere~2~x"
        other = outbox.staging / f"{crashed.name}y"
        gone = outbox.staging / f"{host}~{ended.stdout.strip()}~gone-000001"
        for folder in (crashed, elsewhere, old, gone, other):
            folder.mkdir()
        for folder, age in ((old, ABANDONED_AFTER), (crashed, CRASHED_AFTER), (other, CRASHED_AFTER)):
            past = time.time() - age - 60
            os.utime(folder, (past, past))
        (other / "file").write_text("of a container of the same name, which is at it")
        os.utime(other, (past, past))
        outbox.sweep()
        assert {path.name for path in outbox.staging.iterdir()} == {mine.name, elsewhere.name, other.name}
    assert [push.id for push in outbox.pending()] == [waiting.id]


def test_only_one_process_can_hold_the_lock(outbox):
    with outbox.lock(), pytest.raises(Timeout):
        Outbox(outbox.root).lock().acquire(timeout=0)


@pytest.fixture
def no_flock(monkeypatch):
    """A file system without locks."""

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)


def test_where_there_are_no_locks_one_process_sends_all_the_same(outbox, no_flock):
    put(outbox)
    with outbox.lock():
        assert Outbox(outbox.root).is_being_sent()
        with pytest.raises(Timeout):
            Outbox(outbox.root).lock().acquire(timeout=0)
    assert not Outbox(outbox.root).is_being_sent()


def test_the_lease_of_one_that_died_on_another_machine_ends(outbox, no_flock, monkeypatch):
    monkeypatch.setattr("hub_callbacks.outbox.queue.LEASE", 1.0)
    put(outbox)
    held = outbox.lock()
    held.acquire()
    marker = (outbox.root / "drainer.lease").read_text()
    held.release()
    (outbox.root / "drainer.lease").write_text(marker.replace(socket.gethostname(), "another-machine"))
    waiting = Outbox(outbox.root).lock()
    with pytest.raises(Timeout):
        waiting.acquire(timeout=0)
    waiting.acquire(timeout=60)
    waiting.release()


def test_a_lease_that_is_lost_is_told(outbox, no_flock, monkeypatch):
    monkeypatch.setattr("hub_callbacks.outbox.queue.LEASE", 0.6)
    put(outbox)
    lost = []
    with outbox.lock(lost.append):
        (outbox.root / "drainer.lease").unlink()
        wait_until(lambda: lost)


def test_one_more_push_looks_at_none_of_those_that_wait(outbox, monkeypatch):
    for _ in range(20):
        put(outbox)

    def refuse(*args: object) -> None:
        raise AssertionError("it was looked at")

    monkeypatch.setattr("hub_callbacks.outbox.queue._listdir", refuse)
    monkeypatch.setattr("hub_callbacks.outbox.queue.load", refuse)
    read = outbox._seen._offset
    assert put(outbox).id == "000021"
    assert read > 0, "of the ledger, what is new is read"


def test_no_token_is_written(outbox, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    put(outbox)
    assert b"hf_xx" not in b"".join(path.read_bytes() for path in outbox.root.rglob("*") if path.is_file())


def test_a_full_disk_is_an_outbox_error_or_os_error_and_leaves_no_half_push(small_disk):
    outbox = Outbox(small_disk / "_hub_sync")
    kept = put(outbox, {"a.bin": b"x" * 200_000})
    with pytest.raises(OSError):
        for _ in range(20):
            put(outbox, {"a.bin": os.urandom(200_000)})
    assert all(push.frozen() for push in outbox.pending())
    assert outbox.pending()[0].id == kept.id
    assert list(outbox.staging.iterdir()) == []
    outbox.record(ledger.Entry(kept.id, ledger.DONE))  # the ledger may not grow; nothing is raised
    outbox.remove(kept.id)
    assert int(put(outbox).id) > int(kept.id)


def test_a_folder_that_cannot_be_written_to_is_an_outbox_error(tmp_path):
    (tmp_path / "_hub_sync").write_text("a file where the outbox should be")
    with pytest.raises(OutboxError, match="cannot be written to"):
        put(Outbox(tmp_path / "_hub_sync"))


def test_giving_up_a_part_frees_its_files_and_no_others(outbox):
    push = put(outbox, {"model": b"m" * 1000, "checkpoint-1": b"c" * 2000}, shared=b"s" * 500)
    rest = outbox.give_up(push, frozenset({"checkpoint-1"}))
    assert rest.slots == {"model"}
    assert outbox.pending() == [rest] == Outbox(outbox.root).pending()
    assert sum(path.stat().st_size for path in (push.folder / "files").iterdir()) == 1500


def test_the_manifest_is_readable_by_people(outbox):
    push = put(outbox, {"model": b"x"})
    values = json.loads((push.folder / MANIFEST).read_text())
    assert (values["format"], values["kind"], values["target"]["repo_id"]) == (2, "commit", target().repo_id)
