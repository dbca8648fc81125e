"""Time from a save to the commit that everybody sees, against one bare `create_commit` of the same files.

    python benchmarks/visible.py [--megabytes 250] [--rounds 5]

Rounds of both alternate, and so does which is first; each pushes new content. The pusher has been started before,
as it is in a training.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

from common import hub_process, work_folder


def new_checkpoint(folder: Path, megabytes: int) -> Path:
    folder.mkdir(parents=True)
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    (folder / "config.json").write_text("{}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with work_folder() as folder, hub_process(folder / "hub"):
        from huggingface_hub import CommitOperationAdd, HfApi

        from hub_callbacks.checkpoints.files import list_files
        from hub_callbacks.settings import resolve
        from hub_callbacks.training.engine import Engine
        from hub_callbacks.training.plan import Plan, model_part

        api = HfApi()
        api.create_repo("bare")
        sync = Engine(resolve(overrides={"output_dir": folder / "run", "hub_model_id": "ours"}))
        sync.start()
        sync.wait()

        def push_bare(checkpoint: Path, number: int) -> None:
            files = [CommitOperationAdd(file, str(checkpoint / file)) for file in list_files(checkpoint)]
            api.create_commit("local/bare", files, commit_message=f"round {number}")

        def push_ours(checkpoint: Path, number: int) -> None:
            part = model_part(checkpoint, list_files(checkpoint))
            sync.push(Plan(f"round {number}", number, (part,), card=False)).result(timeout=300)

        ways = {"bare": push_bare, "ours": push_ours}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name in list(ways)[:: 1 if number % 2 else -1]:
                checkpoint = new_checkpoint(folder / name / f"checkpoint-{number}", options.megabytes)
                os.sync()  # what was written before is not to be in the way of what is measured
                started = time.perf_counter()
                ways[name](checkpoint, number)
                seconds[name].append(time.perf_counter() - started)
        sync.close()
        a, b = (statistics.median(seconds[name][1:]) for name in ("bare", "ours"))  # the first round warms up
        print(f"{options.megabytes} MB: bare create_commit {a:.2f} s, from save to commit {b:.2f} s: {b / a:.2f}x")
        print({name: [f"{x:.2f}" for x in all_rounds] for name, all_rounds in seconds.items()})


if __name__ == "__main__":
    main()
