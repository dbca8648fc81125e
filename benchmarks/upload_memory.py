"""What an upload takes of memory and connections, with and without `max_upload_memory`, over a slow link.

    python benchmarks/upload_memory.py [--megabytes 1600] [--files 1] [--rate 20]

Each row is a push of its own by a pusher's process, of files with random content.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import embedded_hub, work_folder

BOUNDS = (None, 2**30, 2**29, 400_000_000)


def queue(outbox: Path, repo: str, megabytes: int, files: int) -> None:
    from hub_callbacks.outbox.push import Commit, Push, PushPart, Target
    from hub_callbacks.outbox.queue import Outbox
    from hub_callbacks.outbox.snapshot import Frozen

    queue = Outbox(outbox)
    with queue.stage() as staged:
        (staged / "files").mkdir()
        parts = {}
        for number in range(files):
            stored = f"files/{number}.safetensors"
            with (staged / stored).open("wb") as file:
                for _ in range(megabytes // files):
                    file.write(os.urandom(10**6))
            parts[f"model-{number}.safetensors"] = Frozen(stored, (staged / stored).stat().st_size)
        commit = Commit(1, (PushPart("model", parts),))
        queue.submit(staged, Push("", staged, "run", time.time(), Target(repo), "Save", commit))


def measure(outbox: Path, bound: int | None) -> tuple[float, float, int]:
    """Seconds, peak of the resident memory in MiB, and sockets, of a pusher that empties an outbox."""
    orders = {} if bound is None else {"max_upload_memory": bound}
    off = {"HF_XET_DATA_MAX_CONCURRENT_FILE_INGESTION": "8", "HF_XET_CLIENT_AC_MAX_UPLOAD_CONCURRENCY": "64"}
    code = "import sys; from hub_callbacks.pushing.process import main; main(sys.argv[1])"
    began = time.monotonic()
    pusher = subprocess.Popen(
        [sys.executable, "-c", code, str(outbox)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | ({} if bound else off),
    )
    assert pusher.stdin is not None
    pusher.stdin.write(json.dumps(orders).encode() + b"\n")
    pusher.stdin.close()  # it leaves when all is sent
    memory, sockets = 0.0, 0
    while pusher.poll() is None:
        try:
            status = Path(f"/proc/{pusher.pid}/status").read_text()
            memory = max(memory, int(status.split("VmHWM:")[1].split()[0]) / 1024)
            links = [os.readlink(fd) for fd in Path(f"/proc/{pusher.pid}/fd").iterdir()]
            sockets = max(sockets, sum(link.startswith("socket:") for link in links))
        except (OSError, IndexError):  # it has just ended, or closed one
            pass
        time.sleep(0.1)
    assert pusher.returncode == 0 and not list((outbox / "pushes").iterdir())
    return time.monotonic() - began, memory, sockets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1600)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--rate", type=float, default=20, help="MB/s of the link; 0 is no limit")
    options = parser.parse_args()
    with work_folder() as folder, embedded_hub() as (hub, _):
        hub.throttle(options.rate * 1e6 or None)
        print(f"{options.megabytes} MB in {options.files} files at {options.rate:g} MB/s")
        for number, bound in enumerate(BOUNDS):
            outbox = folder / str(number)
            queue(outbox, f"local/{number}", options.megabytes, options.files)
            seconds, memory, sockets = measure(outbox, bound)
            what = "no bound" if bound is None else f"{bound / 2**20:,.0f} MiB"
            print(f"{what:>10}: {seconds:6.1f} s, {memory:6,.0f} MiB, {sockets:3d} sockets", flush=True)


if __name__ == "__main__":
    main()
