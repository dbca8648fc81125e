"""The ledger: whole lines whatever happens, and what a reader has seen already."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hub_callbacks.outbox.ledger import DONE, FINAL, QUEUED, WAITING, Entry, Ledger


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


def test_what_was_written_is_read(ledger):
    entry = Entry("000001", DONE, 1.5, "größer", "c" * 40, notes=("a", "b"), place="a/b@main", slots=("m",))
    ledger.append(entry)
    assert ledger.all_entries() == [entry]


def test_each_reader_sees_each_entry_once(ledger):
    readers = [Ledger(ledger.path), Ledger(ledger.path)]
    ledger.append(Entry("000001", QUEUED))
    assert [len(reader.new_entries()) for reader in readers] == [1, 1]
    ledger.append(Entry("000001", DONE))
    assert [reader.new_entries()[0].state for reader in readers] == [DONE, DONE]
    assert [reader.new_entries() for reader in readers] == [[], []]


def test_the_newest_entry_of_each_push_counts(ledger):
    for push, state in (("000001", QUEUED), ("000002", QUEUED), ("000001", DONE)):
        ledger.append(Entry(push, state))
    assert {push: entry.state for push, entry in ledger.latest().items()} == {"000001": DONE, "000002": QUEUED}


@pytest.mark.parametrize("end", sorted(FINAL))
def test_what_is_over_stays_over(ledger, end):
    """A process that waits for its turn notes that of a push which the other one ends meanwhile."""
    for state in (QUEUED, end, WAITING):
        ledger.append(Entry("000001", state))
    assert ledger.latest()["000001"].state == end
    ledger.append(Entry("000001", QUEUED))  # the outbox was deleted and made anew
    assert ledger.latest()["000001"].state == QUEUED


def test_a_line_that_a_crash_cut_off_costs_that_line_alone(ledger):
    ledger.append(Entry("000001", DONE))
    whole = ledger.path.read_bytes()
    for cut in range(1, len(whole)):
        ledger.path.write_bytes(whole + whole[:cut])
        ledger.append(Entry("000002", WAITING))
        pushes = [entry.push for entry in ledger.all_entries()]
        assert pushes in (["000001", "000002"], ["000001", "000001", "000002"])


def test_a_line_in_the_making_is_read_when_it_is_whole(ledger):
    ledger.append(Entry("000001", QUEUED))
    line = ledger.path.read_bytes()
    ledger.path.write_bytes(line[:10])
    assert ledger.new_entries() == []
    ledger.path.write_bytes(line)
    assert len(ledger.new_entries()) == 1


WRITES = """
import sys
from pathlib import Path
from hub_callbacks.outbox.ledger import QUEUED, WAITING, Entry, Ledger
for n in range(500):
    Ledger(Path(sys.argv[1])).append(Entry(f"{sys.argv[2]}-{n}", (QUEUED, WAITING)[n % 2], why="x" * n))
"""


def test_several_processes_lose_no_line(ledger):
    writers = [subprocess.Popen([sys.executable, "-c", WRITES, str(ledger.path), str(n)]) for n in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert len({entry.push for entry in ledger.all_entries()}) == 2000
    assert len(list(filter(None, ledger.path.read_bytes().splitlines()))) == 2000


def test_who_writes_a_line_does_not_wait_for_one_that_waits_for_the_disk(ledger):
    ledger.append(Entry("000001", QUEUED))
    with ledger.path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(b'{"push": "000002", "state": "done"}')  # its end comes when it is on the disk
        held.flush()
        ledger.append(Entry("000003", QUEUED))
        held.write(b"\n")
    assert [entry.push for entry in ledger.all_entries()] == ["000001", "000002", "000003"]


@pytest.mark.parametrize("state", [DONE, QUEUED])
def test_what_the_disk_could_not_take_leaves_nothing_behind(small_disk, state):
    ledger = Ledger(small_disk / "ledger.jsonl")
    ledger.append(Entry("000001", QUEUED))
    before = ledger.path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        ledger.append(Entry("000002", state, why="x" * 2_000_000))
    assert ledger.path.read_bytes() == before
    ledger.append(Entry("000003", state))
    assert [entry.push for entry in ledger.all_entries()] == ["000001", "000003"]


def test_what_could_not_be_flushed_is_not_recorded(ledger, monkeypatch):
    def broken(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("hub_callbacks.outbox.ledger.flush", broken)
    with pytest.raises(OSError, match="Input/output"):
        ledger.append(Entry("000001", DONE))
    ledger.append(Entry("000002", QUEUED))
    assert [entry.push for entry in ledger.all_entries()] == ["000002"]


def test_what_a_newer_version_adds_is_passed_over(ledger):
    ledger.path.write_bytes(b'{"push": "000001", "state": "done", "new": 1}\n')
    assert ledger.all_entries() == [Entry("000001", DONE)]


@pytest.mark.parametrize("line", [b"\xff\xfe", b"null", b"[]", b"7", b'{"push": "1"}', b'{"notes": 3}'])
def test_foreign_lines_are_passed_over(ledger, line):
    ledger.path.write_bytes(line + b"\n")
    ledger.append(Entry("000002", DONE))
    assert [entry.push for entry in ledger.all_entries()] == ["000002"]


def test_several_writers_do_not_mix_their_lines(ledger):
    def write(name: str) -> None:
        own = Ledger(ledger.path)
        for _ in range(100):
            own.append(Entry(name, WAITING, why=name * 300))

    writers = [threading.Thread(target=write, args=(str(n),)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(ledger.all_entries()) == 400
