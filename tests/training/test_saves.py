"""Which checkpoints of a training have their turn, and when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hub_callbacks.checkpoints.files import INCOMPLETE_MARKER, TRAINER_STATE
from hub_callbacks.training.saves import Saved, Saves


@pytest.fixture
def args(tmp_path):
    return SimpleNamespace(output_dir=str(tmp_path), world_size=2, save_only_model=False)


def write(args: SimpleNamespace, step: int, *ranks: int) -> Path:
    folder = Path(args.output_dir) / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    (folder / TRAINER_STATE).write_text("{}")
    for rank in ranks:
        torch.save({}, folder / f"rng_state_{rank}.pth")
    return folder


def test_a_checkpoint_has_its_turn_when_all_processes_have_written_theirs(args):
    saves = Saves(args, TRAINER_STATE, None)
    folder = write(args, 1, 0)
    assert list(saves.was_saved(1)) == [] == list(saves.look_again())
    write(args, 1, 1)
    assert list(saves.look_again()) == [Saved(folder, 1)]
    assert list(saves.look_again()) == [] and saves.steps == {1}


def test_the_next_save_takes_what_is_there_but_never_what_is_marked(args):
    saves = Saves(args, TRAINER_STATE, None)
    one, two = write(args, 1, 0), write(args, 2, 0, 1)
    list(saves.was_saved(1))
    assert list(saves.was_saved(2)) == [Saved(one, 1), Saved(two, 2)]
    three = write(args, 3, 0, 1)
    (three / INCOMPLETE_MARKER).touch()
    assert list(saves.was_saved(3)) == []
    write(args, 4, 0, 1)
    assert [saved.step for saved in saves.was_saved(4)] == [4]


def test_one_that_is_gone_is_said_to_be_and_comes_at_the_end_if_it_came_back(args):
    saves = Saves(args, TRAINER_STATE, None)
    (gone,) = saves.was_saved(1)
    assert not gone.folder.exists() and saves.steps == set()
    folder = write(args, 1, 0, 1)
    assert list(saves.end()) == [Saved(folder, 1, is_urgent=True)]


def test_one_that_nobody_announced_comes_at_the_end_and_an_earlier_trainings_does_not(args):
    write(args, 1, 0, 1)
    saves = Saves(args, TRAINER_STATE, None)
    folder = write(args, 2, 0, 1)
    assert list(saves.end()) == [Saved(folder, 2, is_urgent=True)]
