"""Fixture `local_hub` for pytest: a Hub on this machine for tests of code that talks to one.

This module is loaded in every run of pytest wherever the package is installed: it imports nothing but pytest and
the standard library until the fixture is used.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .localhub import LocalHub

# Whose modules keep the Hub's address, or the cache's folder, in globals that they read at import.
_PACKAGES = ("huggingface_hub", "transformers.utils", "datasets.config")
_numbers = count(1)


@dataclass(frozen=True)
class HubAccount:
    """A user of the hub that belongs to one test.

    Args:
        endpoint: The hub's address; `HF_ENDPOINT` is set to it.
        token: A token with write rights; `HF_TOKEN` is set to it.
        user: The user's name, the first part of its repository ids.
        hub: The hub itself: `hub.inject(Fault(...))`, `hub.requests`, `hub.add_user(...)`. Faults and limits end
            with the test.
    """

    endpoint: str
    token: str
    user: str
    hub: LocalHub


@pytest.fixture(scope="session")
def _local_hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    try:
        from .localhub import LocalHub
    except ImportError as error:
        pytest.fail(
            f"The fixture local_hub needs the embedded Hub, and {error.name} is missing. "
            "Install it with: pip install 'hub_callbacks[local]'",
            pytrace=False,
        )
    with LocalHub(tmp_path_factory.mktemp("local-hub")) as hub:
        yield hub


@pytest.fixture
def local_hub(_local_hub_server: LocalHub, tmp_path: Path) -> Iterator[HubAccount]:
    """A Hub on this machine, with a user of the test's own, that huggingface_hub works against meanwhile."""
    hub = _local_hub_server
    user = f"user{next(_numbers)}"
    account = HubAccount(hub.endpoint, hub.add_user(user), user, hub)
    hub.clear_requests()
    with client_at(account.endpoint, account.token, tmp_path / "hub-cache"):
        yield account
    hub.clear_faults()
    hub.throttle(None)


@contextmanager
def client_at(endpoint: str, token: str, cache: Path) -> Iterator[None]:
    """Points the Hub's client at another address, for this process and those that it starts.

    The environment is enough for modules that are imported later. What was imported before has the address in
    globals; there it is replaced. An `HfApi` or `HfFileSystem` that a program made for itself keeps its own.

    Args:
        endpoint: For `HF_ENDPOINT`.
        token: For `HF_TOKEN`.
        cache: Folder for downloads, `HF_HUB_CACHE`.
    """
    from huggingface_hub import constants

    before, cache_before = constants.ENDPOINT, constants.HF_HUB_CACHE
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", endpoint)
        patch.setenv("HF_TOKEN", token)
        patch.setenv("HF_HUB_CACHE", str(cache))
        _replace({before: endpoint, cache_before: str(cache)})
        try:
            yield
        finally:
            _replace({endpoint: before, str(cache): cache_before})


def _replace(prefixes: dict[str, str]) -> None:
    """Replaces the beginnings of strings in the globals of the client's modules, and its shared `HfApi`."""
    from huggingface_hub import HfApi

    old = tuple(prefixes)
    for name, module in list(sys.modules.items()):
        if not name.startswith(_PACKAGES):
            continue
        for key, value in list(vars(module).items()):
            if isinstance(value, str) and value.startswith(old):
                start = next(prefix for prefix in old if value.startswith(prefix))
                setattr(module, key, prefixes[start] + value[len(start) :])
            elif isinstance(value, HfApi):
                value.endpoint = prefixes.get(value.endpoint, value.endpoint)
