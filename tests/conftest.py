"""What all tests stand on: one embedded Hub for each test process, tiny models, real Trainers."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# huggingface_hub reads its environment once, when it is imported: so the Hub's address is fixed before that.
PORT = _free_port()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{PORT}"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
    os.environ[name] = "120"  # seconds: on a busy machine an answer may take longer than the client's 10
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("HF_TOKEN", None)
# A shell's background jobs ignore Ctrl-C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

from huggingface_hub import HfApi  # noqa: E402

import interpreters  # noqa: E402
from hub_callbacks.localhub import LocalHub  # noqa: E402
from without_torch import HAS_TORCH, pytest_make_collect_report, pytest_runtest_makereport  # noqa: E402, F401


def pytest_collection_finish() -> None:
    """What was imported stays: no collection, as at the end of each training, need look through it."""
    interpreters.note_environment()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub"), port=PORT) as hub:
        yield hub


@pytest.fixture
def shared_hub(hub_server: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """The embedded Hub, which `HF_ENDPOINT` points to, with its write token in `HF_TOKEN`, free of faults."""
    monkeypatch.setenv("HF_TOKEN", hub_server.token)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    yield hub_server
    hub_server.clear_faults()
    hub_server.throttle(None)


@pytest.fixture
def hub(shared_hub: LocalHub) -> LocalHub:
    """The Hub of a test; where one has to be stopped, a room has its own."""
    return shared_hub


@pytest.fixture(autouse=True)
def forked_pushers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pusher of a training in the test's own process is a fork, which spares it half a second of imports.

    That of a training in a process of its own is an interpreter of its own.
    """
    if not HAS_TORCH:  # nor has the fork server
        return
    from hub_callbacks.training import pusher_process

    def start(command: list[str], start_new_session: bool, **options: Any) -> subprocess.Popen[bytes]:
        return interpreters.start(command[1:], **options)

    monkeypatch.setattr(pusher_process, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": start}))


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """What a Trainer or a command sets in the environment (accelerate's state, for one) ends with its test."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(token=hub.token)


@pytest.fixture
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a repository that no other test uses."""
    return tmp_path.name.replace("[", "-").strip("-.")


@pytest.fixture(params=["xet", "lfs"])
def upload_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways that large files take to the Hub; for the pushers, which are processes of their own."""
    if request.param == "lfs":
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return str(request.param)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
