"""Cuts the power of a run at many instants, and compares the Hub with what had been safe on the disk.

    python benchmarks/power_loss.py 400

Nothing is switched off: two real runs (saves through the engine and its pusher process; a training by a Trainer)
are recorded with strace, system call by system call, and the folder is built anew as a power cut could have left
it (see tests/crash_states.py for the three models). From each state `hub-callbacks sync` recovers, and the
embedded Hub, which stands as it stood at that instant, is compared with what was promised (see
tests/power_cut.py).

Prints each failure with what repeats it in this recording, and a line for each run and model. Exit status 1 if
there was one, 2 without strace. It needs no privileges; in a container, ptrace has to be allowed.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import embedded_hub

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

from file_operations import has_strace  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("states", type=int, nargs="?", default=400, help="for each run and model, at most")
    parser.add_argument("--runs", nargs="*", choices=["queue", "train"], default=["queue", "train"])
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance, once a run is recorded")
    options = parser.parse_args()
    if not has_strace():
        print("strace is not installed (Debian and Ubuntu: apt install strace). Nothing was tried.")
        return 2

    with embedded_hub() as (hub, folder):
        failures = [_cut(kind, options.states, options.seed, hub, folder) for kind in options.runs]
    return 1 if any(failures) else 0


def _cut(kind: str, number: int, seed: int, hub: Any, folder: Path) -> int:
    from crash_states import MODELS
    from power_cut import after_a_restart, record_run, recover, states

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger("hub_callbacks").setLevel(logging.ERROR)
    run = record_run(kind, folder / kind, hub)
    operations = Counter(type(operation).__name__ for operation in run.recording.operations)
    said = ", ".join(f"{count} {name}" for name, count in sorted(operations.items()))
    print(f"{kind}: {len(run.pushes)} pushes, {len(run.recording.operations)} operations ({said})", flush=True)
    failures = 0
    for model in MODELS:
        chance = random.Random(seed)
        started, totals = time.monotonic(), Counter[str]()
        for crash in states(run, model, number, chance):
            totals["states"] += 1
            totals["promised"] += sum(push.is_promised(crash.instant) for push in run.pushes.values())
            try:
                with after_a_restart():
                    seen = recover(run, crash, chance.random() < 0.5, folder / "state")
            except AssertionError as error:
                totals["failures"] += 1
                print(f"{kind}, {model}, after operation {crash.instant}: {error}", flush=True)
            else:
                totals += seen
        print(
            f"{kind}, {model}: {totals['states']} states, {totals['failures'] or 'no'} failures in "
            f"{time.monotonic() - started:.0f} s; {totals['promised']} pushes were safe at the cut, "
            f"{totals['torn']} others were whole in their names but not in their files, "
            f"{totals['unreadable']} were unreadable",
            flush=True,
        )
        failures += totals["failures"]
    return failures


if __name__ == "__main__":
    sys.exit(main())
