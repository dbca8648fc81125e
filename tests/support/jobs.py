"""Training jobs of several processes, on one node or on several that share this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.distributed import TCPStore

import interpreters

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import leaving; leaving.begin()
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


class Agent:
    """The processes of a job on one node, as torchrun starts them: with the variables that it sets, and one log.

    The one process of a job that has no other is a plain script, without the variables.

    Args:
        arguments: As they come after `python`.
        log: Where what they say goes; what is in it stays.
        processes: How many.
        node: This node's number.
        nodes: How many the job has.
        store: Where the processes of the job meet; has to be given if there are several nodes.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        log: Path,
        processes: int,
        node: int = 0,
        nodes: int = 1,
        store: TCPStore | None = None,
    ) -> None:
        self.log = log
        self.store = store or meeting_place()  # there as long as the processes, as torchrun's own is
        log.parent.mkdir(parents=True, exist_ok=True)
        shared = {
            "MASTER_ADDR": self.store.host,
            "MASTER_PORT": self.store.port,
            "TORCHELASTIC_USE_AGENT_STORE": True,
            "WORLD_SIZE": nodes * processes,
            "LOCAL_WORLD_SIZE": processes,
            "GROUP_WORLD_SIZE": nodes,
            "GROUP_RANK": node,
        }
        self.ranks = []
        with log.open("a") as file:
            for number in range(processes):
                own = {"LOCAL_RANK": number, "RANK": node * processes + number}
                variables = {name: str(value) for name, value in (shared | own).items() if nodes * processes > 1}
                rank = interpreters.start(
                    arguments, env=os.environ | variables, stdout=file, stderr=subprocess.STDOUT
                )
                self.ranks.append(rank)

    def wait(self, timeout: float = 240) -> int:
        """0 when all have ended well; when one has failed, its status, and the others were ended."""
        until = time.monotonic() + timeout
        while True:
            statuses = [rank.poll() for rank in self.ranks]
            if failed := [status for status in statuses if status]:
                self.kill_ranks()
                return failed[0]
            if None not in statuses:
                return 0
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired([rank.args for rank in self.ranks], timeout)
            time.sleep(0.02)

    def kill_ranks(self) -> None:
        """Ends the processes; their pushers go on."""
        for rank in self.ranks:
            interpreters.kill_group(rank.pid)
        for rank in self.ranks:
            rank.wait()

    def kill(self) -> None:
        """Ends the processes and their pushers, as the end of a machine would."""
        for rank in self.ranks:
            for child in _descendants(rank.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        self.kill_ranks()

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


def meeting_place() -> TCPStore:
    """A store for the processes of one job."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@contextlib.contextmanager
def nodes_of(script: Path, output_dirs: list[Path], processes: int = 1) -> Iterator[list[Agent]]:
    """A job on several nodes that share nothing but the meeting place (and the Hub); ended with the block."""
    store = meeting_place()
    agents = [
        Agent([script, folder], _log_of(folder), processes, node, len(output_dirs), store)
        for node, folder in enumerate(output_dirs)
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
    with nodes_of(script, [output_dir], processes) as (agent,):
        assert agent.wait() == 0, agent.output[-4000:]
    return agent


def _log_of(output_dir: Path) -> Path:
    return output_dir.parent / f"{output_dir.name}-{os.urandom(4).hex()}.log"


def _descendants(process: int) -> list[int]:
    """The processes that a process has started, and they in turn."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found
