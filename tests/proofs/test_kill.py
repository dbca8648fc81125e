"""Training processes, their pushers or both are killed at random instants: what was queued arrives, once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_callbacks.localhub import LocalHub
from killing import STRATEGIES, VICTIMS, Kill, run_and_kill
from savers import free_port, use_hub
from without_torch import needs_torch

CHANCE = random.Random(20)


@pytest.fixture(scope="module")
def one_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub"), port=free_port()) as hub:
        yield hub


@needs_torch
@pytest.mark.parametrize(
    "kill",
    [
        *(Kill(victim, strategy, CHANCE.uniform(0.1, 1), 2e6) for victim in VICTIMS for strategy in STRATEGIES),
        *(Kill.at_random(CHANCE) for _ in range(3)),
    ],
    ids=lambda kill: f"{kill.victim}-{kill.strategy}-{kill.after:.1f}",
)
def test_what_was_saved_before_a_kill_arrives_byte_for_byte_and_once(kill, one_hub, tmp_path: Path, monkeypatch):
    use_hub(one_hub, monkeypatch)
    folder = tmp_path / f"{kill.victim}{CHANCE.randrange(10**9)}"
    folder.mkdir()
    assert run_and_kill(kill, one_hub, folder) > 0
