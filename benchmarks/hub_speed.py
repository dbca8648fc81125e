"""How fast the embedded Hub is, in one run: its start, small commits, large files against a copy, the fixture.

python benchmarks/hub_speed.py [--megabytes 500] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/support")]
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("HF_TOKEN", None)

from localhub.processes import ServerProcess  # noqa: E402

FIXTURE_TEST = """
import pytest

@pytest.mark.parametrize("number", range(200))
def test_with(local_hub, number):
    pass
"""
TIMER = """
import json, os, time, pytest

spent = []

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    started = time.perf_counter(), time.process_time()
    try:
        return (yield)
    finally:
        spent.append((time.perf_counter() - started[0], time.process_time() - started[1]))

def pytest_sessionfinish():
    print("SPENT", json.dumps(spent))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5, help="the best and the median are shown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="speed-", dir=".") as temporary:
        folder = Path(temporary).absolute()
        os.environ["HF_HOME"] = str(folder / "home")
        _start(folder, options.repeats)
        server = ServerProcess(folder / "hub")
        os.environ.update(HF_ENDPOINT=server.endpoint, HF_TOKEN=server.token)
        try:
            _commits(options.repeats)
            _large_files(folder, options.megabytes, options.repeats)
        finally:
            server.end(signal.SIGTERM)
        _fixture(folder)


def _start(folder: Path, repeats: int) -> None:
    seconds = []
    for number in range(repeats):
        started = time.perf_counter()
        server = ServerProcess(folder / f"start{number}")
        with urllib.request.urlopen(f"{server.endpoint}/api/models") as answer:
            assert answer.read() == b"[]"
        seconds.append(time.perf_counter() - started)
        server.end(signal.SIGTERM)
    _say("from the process's start to the first answered request", seconds, "s")


def _commits(repeats: int) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    api.create_repo("m")

    def commit(name: str) -> None:
        api.create_commit("local/m", [CommitOperationAdd(f"{name}.txt", name.encode())], commit_message=name)

    for writers in (1, 8):
        rates = []
        for turn in range(repeats):
            names = [f"{writers}/{turn}/{number}" for number in range(80)]
            started = time.perf_counter()
            with ThreadPoolExecutor(writers) as pool:
                list(pool.map(commit, names))
            rates.append(len(names) / (time.perf_counter() - started))
        _say(f"small commits of {writers} writer{'s' * (writers > 1)}", rates, "a second")


def _large_files(folder: Path, megabytes: int, repeats: int) -> None:
    def copy(number: int) -> None:
        target = folder / "copy"
        shutil.copyfile(folder / f"{number}.bin", target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        target.unlink()

    def client(code: str, *arguments: str, xet: bool) -> None:
        environment = {**os.environ, "HF_HUB_DISABLE_XET": str(int(not xet))}
        subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True)

    def upload(number: int, xet: bool) -> None:
        code = (
            "import sys; from huggingface_hub import HfApi; "
            "HfApi().upload_file(path_or_fileobj=sys.argv[1], path_in_repo=sys.argv[2], repo_id='local/m')"
        )
        client(code, str(folder / f"{number}.bin"), f"{number}.bin", xet=xet)

    def download(number: int, xet: bool) -> None:
        code = (
            "import sys; from huggingface_hub import hf_hub_download; "
            "hf_hub_download('local/m', sys.argv[1], local_dir=sys.argv[2], force_download=True)"
        )
        client(code, f"{number}.bin", str(folder / "down"), xet=xet)

    found: dict[str, list[float]] = {}
    for turn in range(repeats):
        for number in (2 * turn, 2 * turn + 1):
            with (folder / f"{number}.bin").open("wb") as file:
                for _ in range(megabytes):
                    file.write(os.urandom(1_000_000))
        jobs: dict[str, Callable[[], None]] = {
            "a copy of the same bytes, flushed to the disk": lambda: copy(2 * turn),  # noqa: B023
            "upload by Xet": lambda: upload(2 * turn, True),  # noqa: B023
            "upload by LFS": lambda: upload(2 * turn + 1, False),  # noqa: B023
            "download by Xet": lambda: download(2 * turn, True),  # noqa: B023
            "download by plain HTTP": lambda: download(2 * turn, False),  # noqa: B023
            "start of the client alone": lambda: client("from huggingface_hub import HfApi", xet=True),
        }
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            found.setdefault(name, []).append(time.perf_counter() - started)
            while list((folder / "hub" / "lfs").glob("*/*/*")):
                time.sleep(0.1)
    idle = min(found.pop("start of the client alone"))
    for name, seconds in found.items():
        rates = [megabytes / (second - (0 if "copy" in name else idle)) for second in seconds]
        _say(name, rates, "MB/s")


def _fixture(folder: Path) -> None:
    (folder / "test_it.py").write_text(FIXTURE_TEST)
    (folder / "timer.py").write_text(TIMER)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "hub_callbacks.pytest_plugin", "-p", "timer"]
    done = subprocess.run(
        [*command, "--rootdir=.", "-c", os.devnull, "test_it.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"SPENT (.*)", done.stdout)
    assert match is not None
    first, *others = json.loads(match.group(1))
    print(f"fixture local_hub: {first[0] * 1000:.0f} ms for the first test")
    _say("fixture local_hub, each further test", [wall * 1000 for wall, _ in others], "ms")
    _say("fixture local_hub, each further test, of the processor", [cpu * 1000 for _, cpu in others], "ms")


def _say(what: str, values: list[float], unit: str) -> None:
    best = max(values) if "a second" in unit or "MB/s" in unit else min(values)
    print(f"{what}: {statistics.median(values):.3g} {unit} as a median, {best:.3g} at best", flush=True)


if __name__ == "__main__":
    main()
