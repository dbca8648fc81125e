"""Real training processes that are killed at random instants, and what has to be on the Hub afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

import interpreters
from hub_callbacks import cli
from hub_callbacks.checkpoints.files import is_training_state
from hub_callbacks.localhub import LocalHub
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.settings import OUTBOX_NAME
from savers import digests, on_hub, wait_until

VICTIMS = ("trainer", "group", "pusher", "both")
STRATEGIES = ("all_checkpoints", "checkpoint")
STEPS = 8
LONGEST_RUN = 1.0
"""Seconds, about, from the first save to the end of training; kills come anywhere in it."""


@dataclass(frozen=True)
class Kill:
    """
    Args:
        victim: One of `VICTIMS`.
        strategy: `hub_strategy`.
        after: Seconds between the first save and the kill.
        bytes_per_second: How fast uploads are; `None` as fast as they can.
    """

    victim: str
    strategy: str
    after: float
    bytes_per_second: float | None

    @classmethod
    def at_random(cls, chance: random.Random) -> Kill:
        return cls(
            chance.choice(VICTIMS),
            chance.choice(STRATEGIES),
            chance.uniform(0.0, LONGEST_RUN),
            chance.choice([None, None, 3e6, 1e6]),
        )


def run_and_kill(kill: Kill, hub: LocalHub, folder: Path) -> int:
    """Trains, kills, sends what is left, and compares.

    Returns:
        How many saves were queued before the end.

    Raises:
        AssertionError: The Hub does not hold what it has to.
    """
    output_dir = folder / "model"
    hub.throttle(kill.bytes_per_second)
    trainer = _start_training(output_dir, kill.strategy, hub)
    wait_until((output_dir / "saved-1.json").exists)
    time.sleep(kill.after)
    pusher = _pusher_of(trainer.pid)
    for victim in {
        "trainer": [trainer.pid],
        "group": [-trainer.pid],
        "pusher": [pusher],
        "both": [pusher, trainer.pid],
    }[kill.victim]:
        if victim:
            with contextlib.suppress(ProcessLookupError):  # it was done before
                os.kill(victim, signal.SIGKILL)
    status = trainer.wait(120)
    assert status in ((0,) if kill.victim == "pusher" else (0, -signal.SIGKILL)), status
    hub.throttle(None)
    outbox = Outbox(output_dir / OUTBOX_NAME)
    if outbox.root.exists():
        cli.drain(outbox, patience=60, quiet=True)
    wait_until(lambda: not (pusher and Path(f"/proc/{pusher}").exists()), 60)
    return check(kill.strategy, output_dir, hub, folder / "cache")


def _start_training(output_dir: Path, strategy: str, hub: LocalHub) -> subprocess.Popen[Any]:
    variables = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(output_dir.parent / "hf-home"),
        "HF_TOKEN": hub.token,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = "import sys; from pathlib import Path; from killing import train; train(Path(sys.argv[1]), sys.argv[2])"
    with output_dir.with_suffix(".log").open("w") as log:
        return interpreters.start(
            ["-c", code, output_dir, strategy], env=os.environ | variables, stdout=log, stderr=log
        )


def check(strategy: str, output_dir: Path, hub: LocalHub, cache: Path) -> int:
    """Compares the Hub with what the run had saved; see `run_and_kill`."""
    outbox = Outbox(output_dir / OUTBOX_NAME)
    entries = outbox.ledger.all_entries()
    # A kill between the appearance of a push and its line in the ledger leaves the push, which counts.
    messages = {entry.push: entry.message for entry in entries if entry.message}
    steps = sorted(int(m[1]) for text in messages.values() if (m := re.search(r"step (\d+)", text)))
    assert outbox.pending() == [], "everything was sent"
    states = {entry.state for entry in outbox.ledger.latest().values()}
    assert states <= {ledger.DONE, ledger.SUPERSEDED}, states
    if not steps:
        return 0
    repo = f"local/{output_dir.parent.name}-{output_dir.name}"
    there = on_hub(hub, repo, cache)
    saved = {step: json.loads((output_dir / f"saved-{step}.json").read_text()) for step in steps}
    last = saved[steps[-1]]
    wanted = {path: digest for path, digest in last.items() if not is_training_state(path)}
    if strategy == "checkpoint":
        wanted |= {f"last-checkpoint/{path}": digest for path, digest in last.items()}
    else:
        for step in steps:
            wanted |= {f"checkpoint-{step}/{path}": digest for path, digest in saved[step].items()}
    assert there == wanted, f"differs: {sorted(there.items() ^ wanted.items())[:6]}"
    _assert_no_commit_twice(HfApi(endpoint=hub.endpoint, token=hub.token), repo)
    return len(steps)


def _assert_no_commit_twice(api: HfApi, repo: str) -> None:
    before: set[tuple[str, str]] | None = None
    titles = []
    for commit in api.list_repo_commits(repo):
        tree: Any = api.list_repo_tree(repo, recursive=True, revision=commit.commit_id)
        content = {(entry.path, entry.blob_id) for entry in tree if hasattr(entry, "blob_id")}
        assert content != before, f"{commit.title} changed nothing"
        before = content
        titles.append(commit.title)
    assert len(titles) == len(set(titles)), titles


def _pusher_of(trainer: int) -> int | None:
    """The child of a process that is the pusher: it leads a session."""
    try:
        children = Path(f"/proc/{trainer}/task/{trainer}/children").read_text().split()
    except FileNotFoundError:
        return None
    return next((int(child) for child in children if os.getsid(int(child)) == int(child)), None)


# ---------------------------------------------------------------------------------- in the training process


def train(output_dir: Path, strategy: str) -> None:
    from transformers import Trainer, TrainerCallback

    from hub_callbacks import HubSyncCallback
    from models import Sentences, arguments, classifier

    class Notes(TrainerCallback):
        """Notes each save before the callback under test hears of it."""

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            saved = digests(output_dir / f"checkpoint-{state.global_step}")
            new = output_dir / "saved.new"
            new.write_text(json.dumps(saved))
            new.replace(output_dir / f"saved-{state.global_step}.json")

    output_dir.mkdir(parents=True, exist_ok=True)
    args = arguments(
        output_dir,
        max_steps=STEPS,
        save_steps=1,
        save_total_limit=1,
        hub_strategy=strategy,
        hub_model_id=f"{output_dir.parent.name}-{output_dir.name}",
    )
    Trainer(
        classifier(), args, train_dataset=Sentences(), callbacks=[Notes(), HubSyncCallback(finish_timeout=60)]
    ).train()
