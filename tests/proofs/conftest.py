"""A Hub of its own for each test, which can be stopped and started, and a run that needs no Trainer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from hub_callbacks.localhub import LocalHub
from hub_callbacks.outbox.control import Orders
from savers import Run, free_port, use_hub

# hf_xet's own attempts and time-outs, which last for minutes; it reads them once.
os.environ["HF_XET_CLIENT_RETRY_MAX_ATTEMPTS"] = "2"
os.environ["HF_XET_CLIENT_RETRY_BASE_DELAY"] = "10ms"
os.environ["HF_XET_CLIENT_READ_TIMEOUT"] = "2s"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub-root", port=free_port()) as running:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        use_hub(running, monkeypatch)
        yield running


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pusher runs in this process, and the client does not wait between its own attempts."""

    def no_process(*args: object, **kwargs: object) -> None:
        raise OSError("no processes here")

    monkeypatch.setattr("hub_callbacks.training.pusher_process.subprocess.Popen", no_process)
    impatient = SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: None}))
    monkeypatch.setattr("huggingface_hub.utils._http.time", impatient)


@pytest.fixture
def run(hub: LocalHub, api: HfApi, tmp_path: Path) -> Iterator[Run]:
    """A run of `all_checkpoints`, with retries in quick succession."""
    with Run(tmp_path / "model", api, Orders(longest_wait=0.2, request_timeout=2)) as running:
        yield running
