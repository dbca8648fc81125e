"""What the benchmarks share: an embedded Hub in a process of its own, a folder, a timer."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder on the disk of the working directory, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=".")).absolute()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def embedded_hub() -> Iterator[tuple[Any, Path]]:
    """An embedded Hub in this process and its environment, and a folder. Enter it before importing the client."""
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_HOME"] = f"{temporary}/hf-home"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        from hub_callbacks.localhub import LocalHub

        with LocalHub(f"{temporary}/hub") as hub:
            os.environ["HF_ENDPOINT"] = hub.endpoint
            os.environ["HF_TOKEN"] = hub.token
            yield hub, Path(temporary)


@contextlib.contextmanager
def hub_process(root: Path, megabytes_per_second: float | None = None) -> Iterator[None]:
    """An embedded Hub in its own process, in this process's environment. Enter it before importing the client.

    It stands for another machine: it takes only the processor time that nobody here wants.

    Args:
        megabytes_per_second: What all uploads together may send; `None` is no limit.
    """
    code = f"""if True:
        import os, time
        os.nice(19)
        from hub_callbacks.localhub import LocalHub
        with LocalHub({str(root)!r}) as hub:
            hub.throttle({megabytes_per_second and megabytes_per_second * 1e6})
            print(f"HF_ENDPOINT={{hub.endpoint}} HF_TOKEN={{hub.token}}", flush=True)
            time.sleep(1e6)"""
    hub = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert hub.stdout is not None
    words = hub.stdout.readline().split()
    os.environ.update(word.split("=", 1) for word in words if word.startswith(("HF_ENDPOINT=", "HF_TOKEN=")))
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        yield
    finally:
        hub.terminate()
        hub.wait()


def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """`function`, which adds what it took to `seconds`."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - started)

    return wrapper
