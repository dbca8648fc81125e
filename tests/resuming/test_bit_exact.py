"""A run that was killed and continued from the Hub ends in what it would have been, bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers
from huggingface_hub import HfApi
from packaging.version import Version

import interpreters
from hub_callbacks import cli
from hub_callbacks.checkpoints.files import list_files
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.settings import OUTBOX_NAME
from jobs import nodes_of, run_on_one_node
from killing import _pusher_of
from savers import wait_until

STEPS = 40
two_processes = pytest.param(
    2,
    marks=pytest.mark.skipif(
        int(transformers.__version__.split(".")[0]) < 5,
        reason="transformers 4 loads no optimizer on several CPU processes: it maps it to the device cpu:0",
    ),
)
shuffles_alike = pytest.mark.skipif(
    Version(accelerate.__version__) < Version("1.15"),
    reason="accelerate shuffles anew where a training goes on in the middle of an epoch, with or without a Hub",
)
SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import leaving; leaving.begin()
from models import *
from transformers import Trainer, TrainerCallback
from hub_callbacks import HubSyncCallback, latest_checkpoint

class Slow(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        time.sleep({pause})

args = arguments(sys.argv[1], max_steps={steps}, save_steps=5, hub_strategy="checkpoint", hub_model_id={repo!r})
trainer = Trainer(
    classifier(), args, train_dataset=Sentences(48), callbacks=[Slow(), HubSyncCallback(finish_timeout=60)]
)
trainer.train(resume_from_checkpoint=latest_checkpoint(args))
leaving.well()
"""


def write_script(output_dir: Path, repo: str, pause: float = 0.0) -> Path:
    script = output_dir.parent / f"train-{pause}.py"
    tests = str(Path(__file__).parents[1] / "support")
    script.write_text(SCRIPT.format(tests=tests, steps=STEPS, pause=pause, repo=repo))
    return script


def train_to_the_end(output_dir: Path, repo: str, processes: int) -> tuple[dict[str, Any], str]:
    """Everything that the last checkpoint holds, and what the processes have said."""
    agent = run_on_one_node(write_script(output_dir, repo), output_dir, processes)
    return held_by(output_dir / f"checkpoint-{STEPS}"), agent.output


def train_in_an_interpreter_of_its_own(output_dir: Path, repo: str) -> dict[str, Any]:
    """The same with one process, and nothing of it, the seed of its hashes for one, shared with another run."""
    done = interpreters.run([write_script(output_dir, repo), output_dir], start=interpreters.start_anew)
    assert done.returncode == 0, done.stderr[-3000:]
    return held_by(output_dir / f"checkpoint-{STEPS}")


def held_by(checkpoint: Path) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for file in list_files(checkpoint):
        if file.endswith((".pt", ".pth")):
            held[file] = torch.load(checkpoint / file, weights_only=False)
        elif file.endswith(".safetensors"):
            held[file] = (checkpoint / file).read_bytes()
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    return held | {"log_history": state["log_history"], "epoch": state["epoch"], "flos": state["total_flos"]}


def same(one: Any, other: Any) -> bool:
    """Whether two structures of tensors and numbers are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if hasattr(one, "tobytes"):
        return bool(one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.fixture(scope="session")
def uninterrupted(hub_server, tmp_path_factory):
    """Number of processes → what a run without interruption ends in."""
    ends: dict[int, Any] = {}

    def run(processes: int) -> Any:
        if processes not in ends:
            folder, repo = tmp_path_factory.mktemp("whole") / "run", f"whole-{processes}"
            if processes == 1:
                ends[processes] = train_in_an_interpreter_of_its_own(folder, repo)
            else:
                ends[processes], _ = train_to_the_end(folder, repo, processes)
        return ends[processes]

    return run


def interrupt(output_dir: Path, repo: str, processes: int, chance: random.Random, cut_off: bool, hub: Any) -> None:
    """Trains to step 20, kills at an instant after that, and deletes the folder when what waited was sent.

    Args:
        cut_off: Whether the pusher is killed too, in the middle of an upload.
    """
    with nodes_of(write_script(output_dir, repo, pause=0.05), [output_dir], processes) as (agent,):
        wait_until((output_dir / "checkpoint-20" / "trainer_state.json").exists, 200)
        pusher = next(filter(None, (_pusher_of(rank.pid) for rank in agent.ranks)))
        if cut_off:
            wait_until(lambda: _has_checkpoint(hub, repo), 60)
            hub.throttle(50_000)
        signal_after = chance.uniform(0.0, 0.8)
        with contextlib.suppress(subprocess.TimeoutExpired):
            agent.wait(signal_after)
        agent.kill_ranks()
    if cut_off:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pusher, signal.SIGKILL)
        hub.throttle(None)
    else:
        cli.drain(Outbox(output_dir / OUTBOX_NAME), patience=60, quiet=True)
    wait_until(lambda: not _is_running(pusher), 60)
    shutil.rmtree(output_dir)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _has_checkpoint(hub: Any, repo: str) -> bool:
    api = HfApi(token=hub.token)
    return api.repo_exists(f"local/{repo}") and api.file_exists(f"local/{repo}", "last-checkpoint/optimizer.pt")


def check(hub: Any, repo: str, tmp_path: Path, whole: Any, processes: int, cut_off: bool, seed: int) -> None:
    interrupt(tmp_path / "run", repo, processes, random.Random(seed), cut_off, hub)
    continued, said = train_to_the_end(tmp_path / "run", repo, processes)
    assert "comes from last-checkpoint" in said, "it did not begin anew"
    assert [key for key in whole if not same(whole[key], continued.get(key))] == []
    assert whole.keys() == continued.keys()


@shuffles_alike
@pytest.mark.parametrize(
    ("processes", "cut_off"),
    [(1, False), (1, True), pytest.param(2, False, marks=two_processes.marks)],
    ids=["one process", "one process, the last push was cut off", "two processes"],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(hub, repo, tmp_path, uninterrupted, processes, cut_off):
    check(hub, repo, tmp_path, uninterrupted(processes), processes, cut_off, seed=random.randrange(1 << 30))


@shuffles_alike
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("processes", [1, two_processes])
def test_it_does_so_whenever_it_is_killed(hub, repo, tmp_path, uninterrupted, processes, seed):
    check(hub, repo, tmp_path, uninterrupted(processes), processes, cut_off=seed % 2 == 1, seed=seed)
