"""The real trainings that the card's tests look at: each is run once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hub_callbacks.card import CardOptions

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
Facts = dict[str, Any]
Scenario = tuple[Facts, Facts, CardOptions]


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Scenario]]:
    """Name of a scenario → its folder and what was gathered."""
    from .runs import SCENARIOS

    @cache
    def run(name: str) -> tuple[Path, Scenario]:
        folder = tmp_path_factory.mktemp(name)
        return folder, SCENARIOS[name](folder)

    return run


def golden_facts(name: str) -> Scenario:
    facts = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return facts["setup"], facts["progress"], CardOptions(**facts["options"])


@pytest.fixture
def facts() -> Scenario:
    """Of an image classifier in the middle of its training."""
    setup, progress, options = golden_facts("image_classification")
    return setup, progress | {"step": 12, "max_steps": 2000, "finished": False}, options


def state_of(rows: list[dict[str, Any]], **attributes: Any) -> Any:
    """A `TrainerState` with a log."""
    from transformers import TrainerState

    state = TrainerState()
    state.log_history = rows
    for name, value in attributes.items():
        setattr(state, name, value)
    return state
