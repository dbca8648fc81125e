"""The embedded Hub under strain: killed while eight write, gigabytes up and down, a thousand commits.

    python benchmarks/hub_soak.py [crash] [memory] [commits] [--kills 100] [--gigabytes 2]

Without a name all three run. Prints figures; a broken promise is an AssertionError.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/support")]
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HF_TOKEN", None)

from localhub.processes import ServerProcess, write_and_kill  # noqa: E402

PARTS = ("crash", "memory", "commits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="which of the three; all where left out")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", dir=".") as temporary:
        folder = Path(temporary).absolute()
        os.environ["HF_HOME"] = str(folder / "home")
        for part in options.parts or PARTS:
            if part == "crash":
                _crash(folder, options.kills)
            elif part == "memory":
                _memory(folder, int(options.gigabytes * 1e9))
            else:
                _commits(folder)


def _crash(folder: Path, kills: int) -> None:
    started = time.monotonic()
    outcome = write_and_kill(folder / "crash", kills=kills, seed=0, longest=2.0)
    print(
        f"crash: {outcome.kills} SIGKILLs in {time.monotonic() - started:.0f} s while eight wrote: "
        f"all {outcome.acknowledged} acknowledged of {outcome.commits} commits are there, "
        "none by half, and git fsck is clean",
        flush=True,
    )


@contextmanager
def _server(root: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(root)
    os.environ.update(HF_ENDPOINT=server.endpoint, HF_TOKEN=server.token)
    try:
        yield server
    finally:
        server.end(signal.SIGTERM)


def _memory(folder: Path, size: int) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi

    for name in ("xet", "lfs"):
        with (folder / name).open("wb") as file:
            for _ in range(size // 1_000_000):
                file.write(os.urandom(1_000_000))
    with _server(folder / "memory") as server:
        peak = _peak(server.process.pid)
        api = HfApi(endpoint=server.endpoint, token=server.token)
        api.create_repo("m")
        print(f"memory: {peak():.0f} MB after the start", flush=True)

        def upload(path: str, **environment: str) -> None:
            code = (
                "import sys; from huggingface_hub import HfApi; "
                "HfApi().upload_file(path_or_fileobj=sys.argv[1], path_in_repo=sys.argv[2], repo_id='local/m')"
            )
            _run(code, str(folder / path), f"{path}.bin", **environment)

        def read(path: str) -> None:
            """Slowly, with pauses, as the hub may not run ahead of its reader."""
            got = 0
            with urllib.request.urlopen(f"{server.endpoint}/local/m/resolve/main/{path}") as answer:
                while piece := answer.read(10_000_000):
                    got += len(piece)
                    time.sleep(0.01)
            assert got == size // 1_000_000 * 1_000_000

        upload("xet", HF_HUB_DISABLE_XET="0")
        print(f"memory: {peak():.0f} MB at most while {size / 1e9:g} GB came by Xet", flush=True)
        upload("lfs", HF_HUB_DISABLE_XET="1")
        print(f"memory: {peak():.0f} MB at most while {size / 1e9:g} GB came by LFS", flush=True)
        while list((folder / "memory" / "lfs").glob("*/*/*")):
            time.sleep(0.1)
        print(f"memory: {peak():.0f} MB at most while they were moved into the Xet store", flush=True)
        code = "from huggingface_hub import hf_hub_download; import sys; hf_hub_download('local/m', 'xet.bin')"
        _run(code, HF_HUB_DISABLE_XET="0")
        print(f"memory: {peak():.0f} MB at most while {size / 1e9:g} GB went out by Xet", flush=True)
        read("lfs.bin")
        print(f"memory: {peak():.0f} MB at most while {size / 1e9:g} GB went out by plain HTTP", flush=True)
        operations = [CommitOperationAdd(f"{number}.txt", os.urandom(9_000_000)) for number in range(40)]
        api.create_commit("local/m", operations, commit_message="360 MB")
        print(f"memory: {peak():.0f} MB at most while a commit of 480 MB in one body came", flush=True)


def _run(code: str, *arguments: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], env={**os.environ, **environment}, check=True)


def _peak(pid: int):  # type: ignore[no-untyped-def]
    """Gives a function that says the highest resident memory in MB since it was asked last."""

    def ask() -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return kilobytes / 1000

    return ask


def _commits(folder: Path) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi

    with _server(folder / "commits") as server:
        api = HfApi(endpoint=server.endpoint, token=server.token)
        api.create_repo("m")
        seconds: list[float] = []
        for number in range(1000):
            names = [f"files/{number:04d}-{letter}.txt" for letter in "ab"]
            operations = [CommitOperationAdd(name, name.encode()) for name in names]
            started = time.perf_counter()
            api.create_commit("local/m", operations, commit_message=f"{number}")
            seconds.append(time.perf_counter() - started)
        for name, part in (("the first", seconds[:50]), ("the last", seconds[-50:])):
            median, best = statistics.median(part), min(part)
            print(
                f"commits: {median * 1000:.1f} ms (at best {best * 1000:.1f}) is the median of {name} 50 of 1000"
            )
        listed = {"a page of the history": api.list_repo_commits, "all 2,000 files": api.list_repo_files}
        for name, call in listed.items():
            started = time.perf_counter()
            call("local/m")
            print(f"commits: {(time.perf_counter() - started) * 1000:.0f} ms for {name}", flush=True)


if __name__ == "__main__":
    main()
