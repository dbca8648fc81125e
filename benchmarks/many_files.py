"""What thousands of small files cost: the training thread for a save, pusher and embedded Hub for a commit.

python benchmarks/many_files.py [--files 2000] [--saves 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from common import embedded_hub, work_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--saves", type=int, default=9)
    options = parser.parse_args()
    with work_folder() as folder, embedded_hub() as (hub, _):
        from hub_callbacks import HubSync

        for suffix in ("json", "bin"):
            name = f"many-{suffix}"
            sync = HubSync(output_dir=folder / name, hub_model_id=name, hub_strategy="checkpoint")
            sync.init_hf_repo()
            hub.throttle(1.0)  # the pusher is at the first one until all are queued, as on a slow link
            steps = range(1, options.saves + 1)
            seconds = [save(sync, folder / name, step, options.files, suffix) for step in steps]
            hub.throttle(None)
            began = time.monotonic()
            sync.finish()
            pushed = time.monotonic() - began
            summary = sync.summary()
            sync.close()
            median, worst = statistics.median(seconds) * 1e3, max(seconds) * 1e3
            print(
                f"{options.files} .{suffix} of 3 kB: a save costs {median:.0f} ms of the training thread as a "
                f"median, {worst:.0f} ms at worst; {summary.commits} commits in {pushed:.1f} s",
                flush=True,
            )


def save(sync: object, run: Path, step: int, files: int, suffix: str) -> float:
    """Seconds that a push costs the training thread."""
    checkpoint = run / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for number in range(files):
        (checkpoint / f"part-{number:05d}.{suffix}").write_bytes(os.urandom(3000))
    save_file({"w": np.zeros(1)}, checkpoint / "model.safetensors")
    (checkpoint / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    began = time.perf_counter()
    sync.push_from_checkpoint(checkpoint)  # type: ignore[attr-defined]
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
