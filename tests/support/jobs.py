"""Training jobs of several processes, on one node or on several that are agents of torchrun on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import leaving
from accelerate import PartialState
from accelerate.utils import DistributedType
from models import *
from transformers import Trainer
from hub_callbacks import HubSyncCallback

args = arguments(sys.argv[1], **({{"hub_strategy": "checkpoint", "push_to_hub": True}} | dict({changes})))
if args.fsdp:
    # accelerate leaves FSDP out, and trains with DDP, where it sees no GPU; FSDP itself can do without.
    assert args.device.type == "cpu"
    PartialState().distributed_type = DistributedType.MULTI_GPU
trainer = Trainer(
    classifier({model}),
    args,
    train_dataset=Sentences(32),
    eval_dataset=Sentences(8),
    callbacks=[HubSyncCallback({callback})],
)
{train}
trainer.evaluate()  # a collective after training: no rank may still be waiting for the network
leaving.well()
"""


def write_script(
    folder: Path, changes: str = "", callback: str = "", train: str = "trainer.train()", model: str = ""
) -> Path:
    """
    Args:
        changes: Keywords of `TrainingArguments`, as Python has them in a call.
        callback: Keywords of `HubSyncCallback`.
    """
    script = folder / "script.py"
    tests = str(Path(__file__).parent)
    script.write_text(SCRIPT.format(tests=tests, changes=changes, callback=callback, train=train, model=model))
    return script


def run_to_its_end(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """What a command has said and how it ended; where it hangs, all of its processes are killed.

    Args:
        options: As for `subprocess.Popen`.
    """
    values: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **(values | options))
    try:
        output, errors = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the ranks, too
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


class Agent:
    """One agent of torchrun with its processes: a job on one node, or one node of a job."""

    def __init__(self, script: Path, output_dir: Path, processes: int, *options: str) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", *options]
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        self.log = output_dir.parent / f"{output_dir.name}-{os.urandom(4).hex()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(script), str(output_dir)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, timeout: float = 240) -> int:
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Ends the agent, its ranks and their pushers, as the end of a machine would."""
        for child in _descendants(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


@contextlib.contextmanager
def nodes_of(script: Path, output_dirs: list[Path], processes: int = 1) -> Iterator[list[Agent]]:
    """A job on several nodes that share nothing but the rendezvous (and the Hub); ended with the block."""
    port = _free_port()
    agents = [
        Agent(
            script,
            output_dir,
            processes,
            f"--nnodes={len(output_dirs)}",
            f"--node_rank={number}",
            "--master_addr=127.0.0.1",
            f"--master_port={port}",
        )
        for number, output_dir in enumerate(output_dirs)
    ]
    try:
        yield agents
    finally:
        for agent in agents:
            agent.kill()


def run_on_nodes(script: Path, output_dirs: list[Path], processes: int = 1) -> list[Agent]:
    """A whole job on several nodes; all its processes have to end well."""
    with nodes_of(script, output_dirs, processes) as agents:
        for agent in agents:
            assert agent.wait() == 0, agent.output[-4000:]
    return agents


def run_on_one_node(script: Path, output_dir: Path, processes: int) -> Agent:
    """A whole job on one node; all its processes have to end well."""
    agent = Agent(script, output_dir, processes, "--standalone")
    try:
        assert agent.wait() == 0, agent.output[-4000:]
    finally:
        agent.kill()
    return agent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _descendants(process: int) -> list[int]:
    """The processes that a process has started, and they in turn."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found
