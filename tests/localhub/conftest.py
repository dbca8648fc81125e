"""A hub of its own for each test, and clients for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hub_callbacks.localhub import LocalHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub(tmp_path / "hub-root", lfs_part_size=1_000_000) as running:
        # The client compares addresses with the ones that it read from its environment when it was imported.
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield running


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    """The default user's client, with write rights."""
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def stranger(hub: LocalHub) -> HfApi:
    """Another user's client."""
    return HfApi(endpoint=hub.endpoint, token=hub.add_user("stranger"))


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
