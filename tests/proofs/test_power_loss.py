"""A loss of power: what had been promised arrives, and nothing half is taken for whole."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

import hub_callbacks.outbox.durable
from crash_states import MODELS, Crash, build
from file_operations import Resize, Write, has_strace
from hub_callbacks.hub.repository import Repository
from hub_callbacks.localhub import LocalHub
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.control import Control, Orders
from hub_callbacks.outbox.durable import DURABLE, has_hole, make_durable, may_be_torn
from hub_callbacks.outbox.push import CARD_FACTS, MANIFEST, MODEL, Target
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.pushing.card import card_files
from hub_callbacks.pushing.files import is_intact
from hub_callbacks.pushing.pusher import Pusher
from hub_callbacks.settings import OUTBOX_NAME, resolve
from hub_callbacks.training.engine import Engine
from hub_callbacks.training.plan import plan_save
from outboxes import put
from power_cut import Run, after_a_restart, record_run, recover, states
from savers import CARD, wait_until

needs_strace = pytest.mark.skipif(not has_strace(), reason="strace is not installed")
SIZE = 300_000


# -- a recorded run


@pytest.fixture
def hub(shared_hub: LocalHub) -> LocalHub:
    """That of all tests: none is stopped here."""
    return shared_hub


@pytest.fixture(scope="module")
def recorded(hub_server: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run with its folder as it was at its end."""
    output_dir = tmp_path_factory.mktemp("power") / "power-loss"
    return record_run("queue", output_dir, hub_server), output_dir


@needs_strace
def test_a_recording_in_which_nothing_is_lost_makes_the_folder_itself(recorded, tmp_path):
    run, output_dir = recorded
    operations = run.recording.operations
    build(operations, Crash(len(operations), tuple(range(len(operations)))), tmp_path / "again")
    assert _contents(tmp_path / "again") == _contents(output_dir)
    assert {"README.md", f"{OUTBOX_NAME}/ledger.jsonl"} < _contents(output_dir).keys()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_strace
@pytest.mark.parametrize("model", MODELS)
def test_what_was_promised_survives_a_power_cut_and_nothing_half_arrives(recorded, hub, tmp_path, model):
    run, _ = recorded
    chance = random.Random(0)
    promised = 0
    with after_a_restart():
        for crash in states(run, model, 15, chance):
            promised += sum(push.is_promised(crash.instant) for push in run.pushes.values())
            recover(run, crash, chance.random() < 0.5, tmp_path / "state")
    assert promised > 10


@needs_strace
def test_weights_of_which_only_the_size_had_reached_the_disk_do_not_reach_the_hub(recorded, hub, tmp_path):
    """As safetensors writes them: enlarged to the final size first."""
    run, _ = recorded
    operations = run.recording.operations
    enlarged = [operation.node for operation in operations if isinstance(operation, Resize)]
    instant = 1 + max(push.queued for push in run.pushes.values() if "model.safetensors" in push.files)
    lost = [
        n for n, operation in enumerate(operations) if isinstance(operation, Write) and operation.node in enlarged
    ]
    kept = tuple(n for n in range(instant) if n != max(n for n in lost if n < instant))
    with after_a_restart():
        assert recover(run, Crash(instant, kept), False, tmp_path / "state")["torn"] >= 1


# -- holes and marks


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "run" / OUTBOX_NAME)


class Sender:
    """Sends from an outbox to a repository as `hub-callbacks sync` does."""

    def __init__(self, outbox: Outbox, repo: str, api: HfApi) -> None:
        self.outbox = outbox
        self.target = Target(f"local/{repo}")
        self.api = api

    def put(self, content: bytes | Path, **more):
        return put(self.outbox, {MODEL: content}, target=self.target, **more)

    def pusher(self, drain: bool = True) -> Pusher:
        control = Control(drain=drain, orders=Orders(longest_wait=0.05))
        return Pusher(Outbox(self.outbox.root), Repository(), control)

    def send(self) -> None:
        self.pusher().run()

    def weights(self) -> bytes:
        return Path(hf_hub_download(self.target.repo_id, "weights.bin")).read_bytes()

    def states(self) -> dict[str, str]:
        return {push: entry.state for push, entry in self.outbox.ledger.latest().items()}


@pytest.fixture
def sender(outbox, hub, api, repo):
    return Sender(outbox, repo, api)


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A file as a power cut leaves one that safetensors wrote: of its final size, half of it never written."""
    file = tmp_path / "torn.safetensors"
    with file.open("wb") as opened:
        opened.truncate(2 * SIZE)
        opened.write(os.urandom(SIZE))
    if not has_hole(file):
        pytest.skip("this file system has no holes")
    return file


def test_a_push_is_marked_when_all_of_it_was_flushed_and_its_way_from_the_root(outbox, monkeypatch):
    flushed: list[str] = []

    def note(path) -> None:
        flushed.append(str(path))
        assert not (push.folder / DURABLE).exists() or str(path) == str(push.folder)

    push = put(outbox)
    outbox.run_id()
    monkeypatch.setattr(hub_callbacks.outbox.durable, "flush", note)
    make_durable(push)
    assert (push.folder / DURABLE).exists()
    inside = [str(path) for path in push.folder.rglob("*") if path.name != DURABLE]
    above = [str(path) for path in push.folder.parents]
    assert {*inside, *above, str(outbox.root / "run"), str(outbox.ledger.path)} <= {*flushed}
    first = [flushed.index(path) for path in (str(push.folder / "files/0"), str(push.folder / "files"), *above)]
    assert first == sorted(first), "from the inside out"


def test_what_has_holes_is_whole_until_the_machine_restarts_or_when_it_was_marked(outbox, torn):
    plain, marked = put(outbox, {MODEL: torn}), put(outbox, {MODEL: torn})
    make_durable(marked)
    assert not may_be_torn(plain) and is_intact(plain), "what one process writes, another reads"
    with after_a_restart():
        assert may_be_torn(plain) and not is_intact(plain)
        assert not may_be_torn(marked) and is_intact(marked), "zeros may be holes"
        make_durable(plain)
        assert may_be_torn(plain), "too late to know"


def test_weights_with_holes_are_not_pushed_and_are_set_aside_with_a_warning(sender, torn, caplog):
    push = sender.put(torn)
    with after_a_restart():
        sender.send()
    assert sender.states() == {push.id: ledger.LOST}
    assert "the machine went down" in caplog.text
    assert len(list(sender.outbox.set_aside_folder.glob(f"*/{push.id}/files/*"))) == 1
    assert not sender.api.file_exists(sender.target.repo_id, "weights.bin")


def test_an_older_push_that_is_whole_arrives_where_the_newer_one_is_torn(sender, torn):
    older, newer = sender.put(b"whole"), sender.put(torn)
    make_durable(older)
    with after_a_restart():
        sender.send()
    assert sender.weights() == b"whole"
    assert sender.states() == {older.id: ledger.DONE, newer.id: ledger.LOST}


def test_what_is_whole_of_a_torn_push_arrives(sender, torn):
    push = put(sender.outbox, {MODEL: b"whole", "checkpoint-1": torn}, target=sender.target)
    with after_a_restart():
        sender.send()
    assert sender.weights() == b"whole"
    assert sender.states() == {push.id: ledger.DONE}
    assert not sender.api.file_exists(sender.target.repo_id, "checkpoint-1/weights.bin")
    assert len(list(sender.outbox.set_aside_folder.glob(f"*/{push.id}"))) == 1


# -- what may not be deleted yet


def test_a_push_stays_until_the_one_that_takes_it_over_is_on_the_disk(sender, hub, monkeypatch):
    older, newer = sender.put(b"older"), sender.put(b"newer")
    disk = threading.Event()

    def wait_for_the_disk(push) -> None:
        if push.id == newer.id:
            disk.wait()

    monkeypatch.setattr("hub_callbacks.pushing.pusher.make_durable", wait_for_the_disk)
    pusher = sender.pusher(drain=False)
    sending = threading.Thread(target=pusher.run)
    sending.start()
    try:
        wait_until(lambda: newer.id in pusher._known and pusher._known[older.id].is_durable)
        assert [push.id for push in sender.outbox.pending()] == [older.id, newer.id]
        assert [push.id for push in pusher._keep_house()] == [newer.id], "it is not sent, either"
        assert older.folder.exists()
        disk.set()
        wait_until(lambda: sender.outbox.pending() == [])
    finally:
        disk.set()
        pusher.control.stop = True
        pusher.control.ring()
        sending.join()
    assert sender.states() == {older.id: ledger.SUPERSEDED, newer.id: ledger.DONE}


def test_a_push_with_an_older_one_behind_it_is_on_the_disk_before_it_is_sent(sender, hub, monkeypatch):
    """Else the older one would go on top of it, if the power failed when it had arrived."""
    sender.put(b"older"), sender.put(b"newer")
    events: list[str] = []

    def note(push) -> None:
        if threading.current_thread().name == f"hub_callbacks-push-{push.id}":
            events.append(f"flushed {push.id}")

    monkeypatch.setattr("hub_callbacks.pushing.pusher.make_durable", note)
    monkeypatch.setattr(
        "hub_callbacks.pushing.pusher.send", lambda push, *args: events.append(f"sent {push.id}") or 1 / 0
    )
    pusher = sender.pusher(drain=False)
    for push in pusher.outbox.pending():
        with pytest.raises(ZeroDivisionError):
            pusher._start(push).result()
    assert events == ["sent 000001", "flushed 000002", "sent 000002"]


def test_what_became_of_a_push_is_on_the_disk_before_it_can_be_read(tmp_path, monkeypatch):
    book = ledger.Ledger(tmp_path / "ledger.jsonl")
    flushed: list[Path] = []

    def look(path) -> None:
        flushed.append(path)
        assert book.all_entries() == []

    monkeypatch.setattr(ledger, "flush", look)
    book.append(ledger.Entry("000001", ledger.DONE))
    assert flushed == [book.path, tmp_path]
    assert [entry.state for entry in book.all_entries()] == [ledger.DONE]
    book.append(ledger.Entry("000002", ledger.QUEUED))
    assert len(flushed) == 2, "the training waits for no disk"


def test_a_state_that_was_on_the_disk_but_for_the_end_of_its_line_counts_after_a_crash(sender):
    """What was sent is not sent again, on top of something newer that the crash took from this machine."""
    push = sender.put(b"sent")
    sender.outbox.record(ledger.Entry(push.id, ledger.DONE))
    book = sender.outbox.ledger.path
    book.write_bytes(book.read_bytes()[:-1])
    sender.send()
    assert sender.states() == {push.id: ledger.DONE}
    assert not sender.api.repo_exists(sender.target.repo_id)
    assert sender.outbox.pending() == []


def test_a_push_that_gives_up_a_part_has_its_new_manifest_on_the_disk_before_the_old_one_goes(outbox, monkeypatch):
    push = put(outbox, {MODEL: b"m", "checkpoint-1": b"c"})
    old = (push.folder / MANIFEST).read_bytes()
    seen: list[tuple[str, bool]] = []

    def look(path) -> None:
        seen.append((Path(path).name, (push.folder / MANIFEST).read_bytes() == old))

    monkeypatch.setattr(hub_callbacks.outbox.durable, "flush", look)
    outbox.give_up(push, frozenset({"checkpoint-1"}))
    assert seen == [(f"{MANIFEST}.new", True), (push.folder.name, False)]


def test_no_repository_is_deleted_for_a_push_that_is_torn(sender, torn):
    sender.put(b"there")
    sender.send()
    before = sender.api.model_info(sender.target.repo_id).created_at
    sender.put(torn, replaces=True, keep=True)
    with after_a_restart():
        sender.send()
    assert sender.api.model_info(sender.target.repo_id).created_at == before
    assert sender.weights() == b"there"
    assert "was not deleted" in str(sender.outbox.ledger.all_entries())


def test_a_repository_is_deleted_only_for_a_push_that_is_on_the_disk(sender, monkeypatch):
    sender.put(b"there")
    sender.send()
    push = sender.put(b"new", replaces=True, keep=True)
    marked: list[bool] = []
    delete = Repository.delete

    def look(repository: Repository, repo_id: str) -> None:
        marked.append((push.folder / DURABLE).exists())
        delete(repository, repo_id)

    monkeypatch.setattr("hub_callbacks.pushing.pusher.make_durable", lambda push: None)
    monkeypatch.setattr(Repository, "delete", look)
    sender.send()
    assert marked == [True]
    assert sender.weights() == b"new"


# -- small files


def test_half_of_what_a_person_wrote_is_not_pushed(hub, api, repo, tmp_path):
    """It is kept in one file with the facts of the card, which cannot be read when it is cut short."""
    checkpoint = tmp_path / repo / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    readme = tmp_path / "README.md"
    readme.write_text("Begin. " * 100 + "End.")
    plan = plan_save("every_save", checkpoint, 1, "step 1")
    sync = Engine(resolve(overrides={"output_dir": tmp_path / repo}))
    sync._pusher.stop()  # it is not to be sent
    sync.push(plan, card=CARD, readme=readme)
    sync.close(grace=0)
    outbox = sync.outbox
    (push,) = outbox.pending()
    text = (push.folder / CARD_FACTS).read_text()
    repository = Repository()
    remote = repository.look(Target(f"local/{repo}"))
    assert b"End." in card_files(push, repository, outbox, remote, [], [])["README.md"]
    for length in (0, 1, len(text) // 2, text.index("Begin") + 50, len(text) - 1):
        (push.folder / CARD_FACTS).write_text(text[:length])
        notes: list[str] = []
        assert card_files(push, repository, outbox, remote, [], notes) == {}
        assert "could not be made" in notes[0]


@pytest.mark.parametrize("content", [b"", b"\0" * 12, b"\xff\xfe\x00"])
def test_a_damaged_identifier_of_the_run_is_made_anew(outbox, content):
    outbox.root.mkdir(parents=True)
    (outbox.root / "run").write_bytes(content)
    run = outbox.run_id()
    assert len(run) == 12 and run.isalnum()
    assert Outbox(outbox.root).run_id() == run


HUB = "https://hub"


def test_the_cards_memory_is_the_old_or_the_new_text(sender, monkeypatch):
    """Cut short, it would make the card on the Hub look as if a person had changed it."""
    from hub_callbacks.pushing.card import remember

    push = sender.put(b"1")
    place = sender.outbox.card_memory(push.target, HUB)
    remember(push, HUB, sender.outbox, b"old")
    monkeypatch.setattr(
        hub_callbacks.outbox.durable,
        "flush",
        lambda path: Path(path).suffix == ".new" and seen.append(place.read_bytes()),
    )
    seen: list[bytes] = []
    remember(push, HUB, sender.outbox, b"new")
    assert (seen, place.read_bytes()) == ([b"old"], b"new")
