"""Kills training processes, their pushers or both at random instants, and compares the Hub with what was saved.

    python benchmarks/kill.py 200

Prints each failure with the seed that repeats it, and a line of totals. Exit status 1 if there was one.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from common import embedded_hub

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first kill; each has one of its own")
    options = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"  # what is forked may not have threads
    with embedded_hub() as (hub, folder):
        return _kill(options.kills, options.seed, hub, folder)


def _kill(kills: int, first_seed: int, hub: object, folder: Path) -> int:
    from killing import Kill, run_and_kill

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger("hub_callbacks").setLevel(logging.ERROR)
    totals: Counter[str] = Counter()
    started = time.monotonic()
    for seed in range(first_seed, first_seed + kills):
        kill = Kill.at_random(random.Random(seed))
        place = folder / f"run{seed}"
        place.mkdir()
        try:
            saves = run_and_kill(kill, hub, place)  # type: ignore[arg-type]
        except Exception as error:
            totals["failures"] += 1
            print(f"seed {seed}: {kill}: {type(error).__name__}: {error}", flush=True)
            continue
        totals[f"{kill.victim} killed, {kill.strategy}"] += 1
        totals["saves queued before the end"] += saves
        print(f"seed {seed}: {kill.victim}, {kill.strategy}, {kill.after:.2f} s: {saves} saves", flush=True)
    failures = totals.pop("failures", 0)
    print(f"{kills} kills in {time.monotonic() - started:.0f} s, {failures or 'no'} failures")
    for name, count in sorted(totals.items()):
        print(f"{count:6}  {name}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
