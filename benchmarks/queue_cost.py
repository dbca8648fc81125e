"""What one more push costs while others wait, and what looking through all of them costs.

    python benchmarks/queue_cost.py [--pushes 1000]

No Hub is there: nothing is sent. Each push is a checkpoint of ten files that are written anew for it. The last
part is a run whose every save takes over the one before, with all of their futures waiting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

from common import work_folder

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests/support"))

FILES = 10
LARGE = 200_000
"""Bytes of a file that is linked, not copied."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pushes", type=int, default=1000)
    options = parser.parse_args()
    from hub_callbacks.outbox.queue import Outbox
    from hub_callbacks.pushing.files import disk_of
    from hub_callbacks.pushing.schedule import Known, Room, giving_way, taken_over
    from outboxes import put

    with work_folder() as folder:
        outbox = Outbox(folder / "_hub_sync")
        costs = []
        for number in range(options.pushes):
            checkpoint = folder / f"checkpoint-{number}"
            checkpoint.mkdir()
            for file in range(FILES):
                (checkpoint / str(file)).write_bytes(b"x" * (LARGE if file < 3 else 1000))
            slots = {f"checkpoint-{number}/{file}": checkpoint / str(file) for file in range(FILES)}
            started = time.perf_counter()
            put(outbox, {"model": checkpoint / "0"} | slots)
            costs.append(1000 * (time.perf_counter() - started))
        _compare("one more push", costs)
        reader = Outbox(outbox.root)
        pending = _timed(f"{options.pushes} manifests read", reader.pending)
        _timed("listed again", reader.pending)
        known = {push.id: Known() for push in pending}
        _timed("who takes over what", lambda: taken_over(pending, known, {}))
        room = Room(10**12, _timed("what is on the disk", lambda: disk_of(pending)))
        _timed("what gives way to max_pending_bytes (nothing)", lambda: giving_way(pending, room))
        _compare("one more save of a run, all futures waiting", _saves(folder / "run", options.pushes))


def _saves(output_dir: Path, number: int) -> list[float]:
    """What each save of a run costs the training thread while the Hub is away."""
    os.environ.update(HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="none")
    from hub_callbacks.settings import resolve
    from hub_callbacks.training.engine import Engine
    from hub_callbacks.training.plan import plan_save

    engine = Engine(resolve(overrides={"output_dir": output_dir, "finish_timeout": 0}))
    costs = []
    for step in range(number):
        checkpoint = output_dir / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_bytes(b"x" * LARGE)
        started = time.perf_counter()
        plan = plan_save("every_save", checkpoint, step, f"step {step}")
        assert plan is not None
        engine.push(plan)
        costs.append(1000 * (time.perf_counter() - started))
        time.sleep(0.01)  # the pusher has a look at each
    engine.close(grace=0)
    return costs


def _compare(what: str, costs: list[float]) -> None:
    share = max(1, len(costs) // 10)
    for name, part in (("first", costs[:share]), ("last", costs[-share:])):
        print(f"{what}, {name} {share}: median {statistics.median(part):.2f} ms, most {max(part):.2f} ms")


def _timed(what: str, work):  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    result = work()
    print(f"{what}: {1000 * (time.perf_counter() - started):.1f} ms")
    return result


if __name__ == "__main__":
    main()
