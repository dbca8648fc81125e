"""What one more push costs while others wait, and what looking through all of them costs.

    python benchmarks/queue_cost.py [--pushes 1000]

No Hub is there: nothing is sent. Each push is a checkpoint of ten files that are written anew for it.
"""

from __future__ import annotations

import argparse
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
    from hub_callbacks.pushing.newest_wins import giving_way, taken_over
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
        share = max(1, options.pushes // 10)
        for name, part in (("first", costs[:share]), ("last", costs[-share:])):
            print(
                f"one more push, {name} {share}: median {statistics.median(part):.2f} ms, most {max(part):.2f} ms"
            )

        reader = Outbox(outbox.root)
        pending = _timed(f"{options.pushes} manifests read", reader.pending)
        _timed("listed again", reader.pending)
        _timed("who takes over what", lambda: taken_over(pending, {}))
        _timed("what gives way to max_pending_bytes (nothing)", lambda: giving_way(pending, 10**12))


def _timed(what: str, work):  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    result = work()
    print(f"{what}: {1000 * (time.perf_counter() - started):.1f} ms")
    return result


if __name__ == "__main__":
    main()
