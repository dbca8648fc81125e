"""Time to commit a checkpoint of several parts: each part from a process of its own, against one that pushes all.

    python benchmarks/nodes.py [--megabytes 100] [--parts 4] [--rounds 3] [--link 25]

The parts are files of random bytes. The processes stand for nodes: each has an outbox and a pusher, and sends by a
link of its own, at `--link` MB/s, as machines do; the process that pushes all has one such link. Both go to the
same embedded Hub, and each round makes a new checkpoint. What is timed is from the moment that all have queued
their files to the commit. `--link 0` takes the limit away: then it is this machine's processors that are
measured, which all of it runs on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from common import hub_process, work_folder

BRANCH = "hub-callbacks-parts-benchmark"


class Link(threading.Thread):
    """A relay to the Hub that lets so many bytes a second pass to it."""

    def __init__(self, hub: str, bytes_per_second: float) -> None:
        super().__init__(daemon=True)
        self._hub = urlsplit(hub)
        self._rate = bytes_per_second
        self._free_at = 0.0
        self._ready = threading.Event()
        self.endpoint = ""
        self.start()
        self._ready.wait()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        async with server:
            await server.serve_forever()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_hub, to_hub = await asyncio.open_connection(self._hub.hostname, self._hub.port)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pass(reader, to_hub, self._rate), self._pass(from_hub, writer, 0))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
        while data := await reader.read(1 << 16):
            if rate:
                now = asyncio.get_running_loop().time()
                self._free_at = max(self._free_at, now) + len(data) / rate
                await asyncio.sleep(self._free_at - now)
            writer.write(data)
            await writer.drain()
        writer.close()


def serve_a_part(number: int, folder: Path, nodes: int) -> None:
    """What each process does: gets ready, queues its files when told, and waits for them.

    Args:
        number: 0 for the main process.
        nodes: How many others there are.
    """
    from hub_callbacks.outbox.push import OtherNodes, Target
    from hub_callbacks.settings import resolve
    from hub_callbacks.training.engine import Engine
    from hub_callbacks.training.plan import plan_node_files, plan_save, with_other_nodes

    settings = resolve(overrides={"output_dir": folder, "hub_model_id": folder.parent.name})
    sync = Engine(settings)
    branch = Target(settings.hub_model_id, BRANCH)
    sync.start(branch if number else None)
    for line in sys.stdin:
        step = int(line)
        checkpoint = folder / f"checkpoint-{step}"
        if number:
            future = sync.push(plan_node_files(checkpoint, step, number, has_copies=False), target=branch)
        else:
            plan = plan_save("all_checkpoints", checkpoint, step, f"step {step}")
            assert plan is not None
            plan = with_other_nodes(plan, OtherNodes(BRANCH, tuple(range(1, nodes + 1)))) if nodes else plan
            future = sync.push(plan)
        future.result()
        print(step, flush=True)
    sync.close()


@contextlib.contextmanager
def processes(folder: Path, count: int, link: float) -> Iterator[list[subprocess.Popen[str]]]:
    found = []
    for number in range(count):
        endpoint = Link(os.environ["HF_ENDPOINT"], link * 1e6).endpoint
        command = [sys.executable, __file__, "--part", str(number), str(folder / f"node-{number}"), str(count - 1)]
        found.append(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"HF_ENDPOINT": endpoint},
            )
        )
    yield found
    for process in found:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def measure(folder: Path, count: int, parts: int, megabytes: int, rounds: int, link: float) -> list[float]:
    """Seconds from the files' being there to the commit, for each round."""
    seconds = []
    with processes(folder, count, link) as all_of_them:
        for step in range(rounds + 1):
            for part in range(parts):
                checkpoint = folder / f"node-{part % count}" / f"checkpoint-{step}"
                checkpoint.mkdir(parents=True, exist_ok=True)
                (checkpoint / f"optimizer_{part}.bin").write_bytes(os.urandom(megabytes * 1_000_000))
            if step == 0:
                time.sleep(10)  # the pushers have started by then
            started = time.perf_counter()
            for process in all_of_them:
                assert process.stdin is not None
                process.stdin.write(f"{step}\n")
                process.stdin.flush()
            for process in all_of_them:
                assert process.stdout is not None
                assert process.stdout.readline().strip() == str(step)
            seconds.append(time.perf_counter() - started)
    return seconds[1:]  # the first one creates the repository


def main() -> None:
    if sys.argv[1:2] == ["--part"]:
        return serve_a_part(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100, help="of each part")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link", type=float, default=25, help="MB/s of each process; 0 for no limit")
    options = parser.parse_args()
    with work_folder() as folder, hub_process(folder / "hub"):
        sizes = (options.parts, options.megabytes, options.rounds, options.link)
        one = measure(folder / "one", 1, *sizes)
        each = measure(folder / "each", options.parts, *sizes)
    limit = f"{options.link:g} MB/s each" if options.link else "no limit"
    print(f"{options.parts} parts of {options.megabytes} MB, {limit}, {options.rounds} rounds, in seconds:")
    for name, seconds in (("one process", one), (f"{options.parts} processes", each)):
        print(f"  {name:<12} median {statistics.median(seconds):6.1f}  ({min(seconds):.1f} to {max(seconds):.1f})")
    print(f"  ratio {statistics.median(one) / statistics.median(each):.2f}")


if __name__ == "__main__":
    main()
