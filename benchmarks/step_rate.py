"""Training steps for each second while a push is under way, against none.

    python benchmarks/step_rate.py [--megabytes 100] [--rate 20]

The steps are bound by the interpreter, as the launching of a GPU's kernels is: many small operations in Python. A
thread in the training process would cost them its share of the interpreter lock. Rounds with and without a push
alternate; the ratio of the medians is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from common import hub_process, work_folder


def step(x: Any, w: Any) -> Any:
    """Some milliseconds of small tensor operations."""
    for _ in range(2000):
        x = (x @ w).tanh()
    return x


def rate(seconds: float, is_wanted: Any = lambda: True) -> float:
    """Steps for each second, measured as long as `is_wanted` holds, `seconds` at most."""
    import torch

    torch.set_num_threads(1)
    w = torch.eye(16)
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds and is_wanted():
        step(torch.ones(1, 16), w)
        steps += 1
    return steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a round at most")
    parser.add_argument("--rate", type=float, default=20.0, help="MB/s of the link")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with work_folder() as folder, hub_process(folder / "hub", options.rate):
        import os

        from hub_callbacks.settings import resolve
        from hub_callbacks.training.engine import Engine
        from hub_callbacks.training.plan import plan_save

        sync = Engine(resolve(overrides={"output_dir": folder / "run", "hub_model_id": "speed"}))
        sync.start()
        rate(2)
        alone, pushing = [], []
        for number in range(1, options.rounds + 1):
            checkpoint = folder / "run" / f"checkpoint-{number}"
            checkpoint.mkdir(parents=True)
            with Path(checkpoint / "model.safetensors").open("wb") as file:
                for _ in range(options.megabytes):
                    file.write(os.urandom(1_000_000))
            sync.wait()
            alone.append(rate(options.seconds))
            plan = plan_save("every_save", checkpoint, number, f"round {number}")
            assert plan is not None
            future = sync.push(plan)
            pushing.append(rate(options.seconds, lambda f=future: not f.done()))
            future.result(timeout=300)
        sync.close()
        a, b = statistics.median(alone), statistics.median(pushing)
        print(f"{a:.1f} steps/s without a push, {b:.1f} during one: {100 * b / a:.1f} %")
        print("rounds without:", [f"{x:.1f}" for x in alone], "with:", [f"{x:.1f}" for x in pushing])


if __name__ == "__main__":
    main()
