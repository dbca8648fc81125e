"""A run whose power is cut: recorded once, cut at many instants, recovered from each as a user would do it.

`python power_cut.py queue OUTPUT_DIR` is the run: saves as a Trainer writes them, through the engine and its
pusher process; with `train`, a real Trainer. At first the Hub takes nothing, so that pushes wait and take over
from each other; then they arrive.

What the product promises, and what is checked after `hub-callbacks sync` in each state:

- a push that stands in the outbox with its mark (`durable.DURABLE`), or of which the ledger says that it is done,
  is on the Hub in the end, byte for byte, or what a later push has in its place;
- each file on the Hub is, as a whole, that of some push; so is each checkpoint folder, and the model in the root;
  what a person wrote is there as a whole; nothing older takes the place of something newer;
- the ledger says `done` of nothing that is not on the Hub, before and after;
- what cannot be read is set aside and stops nothing else; nothing that can be sent is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pygit2
from typer.testing import CliRunner

from crash_states import Crash, build
from file_operations import Enter, Move, Recording, Write, read_trace, record
from hub_callbacks import cli
from hub_callbacks.checkpoints.manifest import NAME
from hub_callbacks.localhub import Answer, Fault, LocalHub
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.durable import DURABLE
from hub_callbacks.outbox.push import MANIFEST, load
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.settings import OUTBOX_NAME

SAVES = 5
KEPT_AWAY = 3
"""Saves that are in the outbox before the Hub takes any."""
OF_THE_LAST_CHECKPOINT = (2, 3, 5)
"""Saves that take over the one before as a whole, where they may."""
PERSON = ("Begin of what a person wrote.", "End of what a person wrote.")
README = f"{PERSON[0]}\n\n" + "And a line of it.\n\n" * 400 + f"{PERSON[1]}\n"
MADE = re.compile(rf"\.gitattributes|README\.md|(.*/)?{re.escape(NAME)}|.*\.(png|svg)")
"""What is on the Hub without being a file of a push."""


# The run


def save_and_push(output_dir: Path) -> None:
    """The saves of a training, without one."""
    import numpy
    from safetensors.numpy import save_file

    from hub_callbacks.outbox.control import Orders
    from hub_callbacks.settings import resolve
    from hub_callbacks.training.engine import Engine
    from hub_callbacks.training.plan import plan_end, plan_save
    from savers import CARD

    chance = numpy.random.default_rng(0)
    (output_dir / "README.md").write_text(README)
    settings = resolve(overrides={"output_dir": output_dir, "hub_strategy": "all_checkpoints"})
    sync = Engine(settings, Orders(longest_wait=0.2))
    sync.start()
    for step in range(1, SAVES + 1):
        folder = output_dir / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "bert", "step": step}))
        save_file({"weights": chance.random((50_000,), "float32")}, folder / "model.safetensors")
        (folder / "optimizer.pt").write_bytes(chance.bytes(300_000))
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        strategy = "checkpoint" if step in OF_THE_LAST_CHECKPOINT else "all_checkpoints"
        plan = plan_save(strategy, folder, step, f"step {step}")
        assert plan is not None
        sync.push(plan, card=CARD, readme=output_dir / "README.md")
        shutil.rmtree(output_dir / f"checkpoint-{step - 1}", ignore_errors=True)
        keep_pace(output_dir, step)
    sync.push(plan_end(folder, SAVES), card=CARD, readme=output_dir / "README.md")
    sync.finish()
    sync.close()


def train(output_dir: Path) -> None:
    from transformers import Trainer, TrainerCallback

    from hub_callbacks import HubSyncCallback
    from models import Sentences, arguments, classifier

    class Pace(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            keep_pace(output_dir, state.global_step)

    (output_dir / "README.md").write_text(README)
    args = arguments(output_dir, max_steps=SAVES, save_steps=1, save_total_limit=1, hub_strategy="all_checkpoints")
    callbacks = [HubSyncCallback(finish_timeout=60), Pace()]
    Trainer(classifier(hidden=64), args, train_dataset=Sentences(), callbacks=callbacks).train()


def keep_pace(output_dir: Path, save: int) -> None:
    """Waits until the first saves are marked, and until the one after them is sent."""
    outbox = Outbox(output_dir / OUTBOX_NAME)
    newest = max(outbox.pushes.iterdir(), default=Path("0"), key=lambda path: int(path.name))
    if save <= KEPT_AWAY:
        _wait_until((newest / DURABLE).exists)
    if save == KEPT_AWAY:
        _hub_may_come(output_dir).touch()
    if save == KEPT_AWAY + 1:
        _wait_until(lambda: outbox.ledger.latest()[newest.name].state in ledger.FINAL)


def _hub_may_come(output_dir: Path) -> Path:
    return output_dir.with_name(f"{output_dir.name}-hub-may-come")


def _wait_until(condition: Callable[[], Any]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("nothing happens")


# What it did


@dataclass
class Pushed:
    """What a push held, and at which operations it came to the outbox, was marked, begun and done.

    Args:
        files: Path in the repository → sha256.
    """

    number: str
    files: dict[str, str]
    queued: int
    marked: int | None = None
    begun: int | None = None
    done: int | None = None
    commit: str | None = None

    def is_promised(self, instant: int) -> bool:
        return any(at is not None and at < instant for at in (self.marked, self.done))


@dataclass
class Run:
    """A recorded run, and what the Hub held at its end."""

    recording: Recording
    repository: pygit2.Repository
    history: list[str]
    pushes: dict[str, Pushed] = field(default_factory=dict)

    @property
    def instants(self) -> range:
        return range(1, len(self.recording.operations) + 1)

    def commits_at(self, instant: int, luck: bool) -> int:
        """How many commits the Hub has; with luck one that the run has not heard of."""
        there = 1
        for push in self.pushes.values():
            if push.commit and push.done is not None and push.done < instant:
                there = max(there, self.history.index(push.commit) + 1)
        following = {self.history[there]} if there < len(self.history) else set()
        begun = {p.commit for p in self.pushes.values() if p.begun is not None and p.begun < instant}
        return there + 1 if luck and following & begun else there


def record_run(kind: str, output_dir: Path, hub: LocalHub) -> Run:
    """Runs this module under strace and reads what it did.

    Args:
        kind: `"queue"` or `"train"`.
        output_dir: Of the run; not there yet.
    """
    output_dir.mkdir(parents=True)
    trace = output_dir.with_name(f"{output_dir.name}.trace")
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    fault = hub.inject(Fault("preupload", Answer(503)))
    release = threading.Thread(target=lambda: (_wait_until(_hub_may_come(output_dir).exists), fault.clear()))
    release.start()
    command = [sys.executable, __file__, kind, str(output_dir)]
    try:
        record(command, trace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.output.decode()) from error
    finally:
        _hub_may_come(output_dir).touch()
        release.join()
    recording = read_trace(trace, output_dir)
    trace.unlink()
    repository = pygit2.Repository(str(hub.root / "repos/models/local" / f"{output_dir.name}.git"))
    # What is on a branch is not cleared away while `main` stands elsewhere.
    tip = repository.references["refs/heads/main"].target
    repository.references.create("refs/heads/recorded", tip)
    history = [
        str(c.id) for c in repository.walk(tip, pygit2.enums.SortMode.TOPOLOGICAL | pygit2.enums.SortMode.REVERSE)
    ]
    run = Run(recording, repository, history)
    _read_pushes(run)
    return run


def _read_pushes(run: Run) -> None:
    """Follows the run once more, and looks at each push when it came."""
    now = Recording()
    now.contents = {op.node: bytearray() for op in run.recording.operations if isinstance(op, Enter)}
    folders: dict[int, Pushed] = {}
    known: set[tuple[str, str]] = set()
    for index, operation in enumerate(run.recording.operations):
        now.do(operation)
        pushes, book = now.find(f"{OUTBOX_NAME}/pushes"), now.find(f"{OUTBOX_NAME}/ledger.jsonl")
        if isinstance(operation, Move) and operation.to == pushes:
            push = Pushed(operation.new_name, _files_of(now, operation.node), index)
            folders[operation.node] = run.pushes[push.number] = push
        elif isinstance(operation, Enter) and operation.name == DURABLE and operation.folder in folders:
            folders[operation.folder].marked = index
        elif isinstance(operation, Write) and operation.node == book:
            for line in filter(None, bytes(now.contents[book]).splitlines()):
                entry = json.loads(line)
                key = entry["push"], entry["state"]
                if key in known or key[0] not in run.pushes:
                    continue
                known.add(key)
                if key[1] == ledger.RUNNING:
                    run.pushes[key[0]].begun = index
                elif key[1] == ledger.DONE:
                    run.pushes[key[0]].done = index
                    run.pushes[key[0]].commit = entry.get("commit")


def _files_of(now: Recording, folder: int) -> dict[str, str]:
    manifest = json.loads(now.contents[now.names[folder][MANIFEST]])
    stored = now.names.get(now.names[folder].get("files", -1), {})
    return {
        path: hashlib.sha256(now.contents[stored[Path(file["stored"]).name]]).hexdigest()
        for part in manifest["content"].get("parts", ())
        for path, file in part["files"].items()
    }


# Its recovery


def states(run: Run, model: str, number: int, chance: random.Random) -> list[Crash]:
    """States that differ in what is on the disk or in what was promised by then, at instants all over the run.

    Args:
        model: One of `crash_states.MODELS`.
        number: How many there are at most; the strong model leaves one to each instant.
    """
    found: dict[Any, Crash] = {}
    if model == "strong":
        instants = [*run.instants]
    else:
        in_danger = [n for push in run.pushes.values() for n in range(push.queued, push.marked or push.queued)]
        instants = [chance.choice(chance.choice([run.instants, in_danger])) for _ in range(2 * number)]
    for instant in instants:
        crash = Crash.at(run.recording.operations, instant, model, chance)
        promised = tuple(push.number for push in run.pushes.values() if push.is_promised(instant))
        found.setdefault((crash.kept, crash.torn, promised), crash)
    return chance.sample([*found.values()], min(number, len(found)))


def after_a_restart() -> contextlib.AbstractContextManager[Any]:
    """While it lasts, this machine has been started anew since the run."""
    return mock.patch("hub_callbacks.outbox.durable.boot", return_value="after the power cut")


def recover(run: Run, crash: Crash, luck: bool, folder: Path) -> Counter[str]:
    """Builds a state, sends what is in it, and compares the Hub with what was promised.

    Args:
        luck: Whether the Hub had made a commit that the run had not heard of.
        folder: Where to build it; removed at the end.

    Returns:
        How many pushes were set aside, as `torn` and as `unreadable`.

    Raises:
        AssertionError: when a promise is broken.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    build(run.recording.operations, crash, folder)
    try:
        there = run.commits_at(crash.instant, luck)
        run.repository.references["refs/heads/main"].set_target(run.history[there - 1])
        before = _on_hub(run.repository)
        promised = [push for push in run.pushes.values() if push.is_promised(crash.instant)]
        outbox = Outbox(folder / OUTBOX_NAME)
        _check_ledger(run, outbox, "before")
        result = CliRunner().invoke(cli.app, ["sync", str(folder), "--patience", "20"])
        if result.exit_code == 2 and not outbox.pushes.exists():
            assert not [push for push in promised if push.done is None or push.done >= crash.instant], "no outbox"
        else:
            is_lost = any(entry.is_loss for entry in outbox.ledger.latest().values())
            assert result.exit_code == (3 if is_lost else 0), f"{result.exception!r}: {result.output}"
            assert outbox.pending() == [], "something is left"
        _check_ledger(run, outbox, "after")
        _check_hub(run, promised, before, _on_hub(run.repository))
        return _set_aside(outbox)
    finally:
        shutil.rmtree(folder)


def _set_aside(outbox: Outbox) -> Counter[str]:
    found = Counter[str]()
    for folder in outbox.set_aside_folder.glob("*/*"):
        try:
            load(folder)
            found["torn"] += 1
        except (OSError, ValueError):
            found["unreadable"] += 1
    return found


def _check_ledger(run: Run, outbox: Outbox, when: str) -> None:
    tip = run.repository.references["refs/heads/main"].target
    on_hub = {str(commit.id) for commit in run.repository.walk(tip)}
    for entry in outbox.ledger.all_entries():
        if entry.state == ledger.DONE and entry.commit:
            assert entry.commit in on_hub, f"{when}, the ledger says done of what is not on the Hub: {entry}"


def _check_hub(run: Run, promised: list[Pushed], before: dict[str, str], after: dict[str, str]) -> None:
    pushes = sorted(run.pushes.values(), key=lambda push: int(push.number))
    for push in promised:
        for path, digest in push.files.items():
            later = {p.files[path] for p in pushes if path in p.files and int(p.number) >= int(push.number)}
            assert path in after, f"{path} of push {push.number} was safe, and is not on the Hub"
            assert digest == after[path] or after[path] in later, f"{path} of push {push.number} was safe"
    folders = {str(Path(path).parent) for path in after if not MADE.fullmatch(path)}
    for folder in folders:
        now = _below(folder, after)
        owners = [push for push in pushes if _below(folder, push.files) == now]
        assert owners, f"what is in {folder} on the Hub is that of no push: {now}"
        earlier = [push for push in pushes if _below(folder, push.files) == _below(folder, before) != {}]
        assert not earlier or int(owners[-1].number) >= int(earlier[-1].number), f"{folder} is older than before"
    readme = (
        run.repository.revparse_single("refs/heads/main:README.md").data.decode() if "README.md" in after else ""
    )
    assert (PERSON[0] in readme) == (PERSON[1] in readme), "half of what a person wrote is on the Hub"


def _below(folder: str, files: dict[str, str]) -> dict[str, str]:
    """The files of just this folder, but for those that are made on the way."""
    return {p: d for p, d in files.items() if str(Path(p).parent) == folder and not MADE.fullmatch(p)}


_POINTER = re.compile(rb"version https://git-lfs\S+\noid sha256:([0-9a-f]{64})\n")


def _on_hub(repository: pygit2.Repository) -> dict[str, str]:
    """Path → sha256 of all files of `main`."""
    found: dict[str, str] = {}

    def walk(tree: Iterable[Any], prefix: str) -> None:
        for entry in tree:
            if isinstance(entry, pygit2.Tree):
                walk(entry, f"{prefix}{entry.name}/")
            else:
                pointer = _POINTER.match(entry.data)
                found[prefix + entry.name] = (
                    pointer[1].decode() if pointer else hashlib.sha256(entry.data).hexdigest()
                )

    walk(repository.revparse_single("refs/heads/main").peel(pygit2.Tree), "")
    return found


if __name__ == "__main__":
    {"queue": save_and_push, "train": train}[sys.argv[1]](Path(sys.argv[2]))
