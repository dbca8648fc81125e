"""A user of its own for each test on the one hub that all tests share, and clients."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hub_callbacks.localhub import LocalHub

_NUMBERS = count()


@pytest.fixture
def hub(hub_server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """The shared hub without faults, limits and earlier requests; downloads go to a cache of the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub_server.clear_requests()
    yield hub_server
    hub_server.clear_faults()
    hub_server.throttle(None)


@pytest.fixture
def owner() -> str:
    """The name of the test's user."""
    return f"user{next(_NUMBERS)}"


@pytest.fixture
def token(hub: LocalHub, owner: str) -> str:
    return hub.add_user(owner)


@pytest.fixture
def api(hub: LocalHub, token: str) -> HfApi:
    """The client of the test's user, with write rights."""
    return HfApi(endpoint=hub.endpoint, token=token)


@pytest.fixture
def stranger(hub: LocalHub, owner: str) -> HfApi:
    """Another user's client."""
    return HfApi(endpoint=hub.endpoint, token=hub.add_user(f"not-{owner}"))


@pytest.fixture
def anonymous(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture
def model(api: HfApi) -> str:
    """The id of an empty public repository."""
    return api.create_repo("model").repo_id


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way in and out of large files; each test runs with both."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)
