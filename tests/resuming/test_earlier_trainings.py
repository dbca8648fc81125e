"""A folder in which several trainings have saved: which of their checkpoints is the newest."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback, latest_checkpoint
from hub_callbacks.outbox.beginning import Beginning, Beginnings
from models import Sentences, arguments, classifier


class Stop(Exception):
    pass


class StopsAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Stop


@pytest.fixture
def run(hub, repo, tmp_path, caplog):
    """Trains into one folder, up to a step, and says what is continued from afterwards."""
    caplog.set_level(logging.WARNING)

    def train(until=9, resume=None, strategy="end", **changes):
        args = arguments(tmp_path / repo, hub_strategy=strategy, **changes)
        callback = HubSyncCallback()
        trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback, StopsAt(until)])
        with contextlib.suppress(Stop):
            trainer.train(resume_from_checkpoint=resume)
        callback.close()

    def found(folder=tmp_path / repo):
        caplog.clear()
        name = latest_checkpoint(arguments(folder), hub_model_id=repo)
        return name and Path(name).name

    train.found = found
    return train


def test_a_training_that_began_anew_is_gone_on_with_and_not_the_one_before(run, repo, tmp_path, caplog):
    run()
    assert run.found() == "checkpoint-8" and "was over at step 8" in caplog.text
    run(until=3)  # the same weights and data: what it has saved is what the one before had saved, bit for bit
    assert run.found() == "checkpoint-2"
    assert "checkpoint-4, checkpoint-6, checkpoint-8 in" in caplog.text
    assert f"give {tmp_path / repo / 'checkpoint-8'} to resume_from_checkpoint" in caplog.text
    shutil.copytree(tmp_path / repo, tmp_path / "copy")  # with times of its own
    assert run.found(tmp_path / "copy") == "checkpoint-2"
    run(until=5, resume=str(tmp_path / repo / "checkpoint-2"))
    assert run.found() == "checkpoint-4"


def test_one_that_has_saved_nothing_leaves_the_one_before_to_go_on_with(run, caplog):
    run(until=5)
    run(until=1)
    assert run.found() == "checkpoint-4" and "An earlier training has left it" in caplog.text
    assert "was over" not in caplog.text


def test_who_goes_on_from_an_older_checkpoint_means_it(run, repo, tmp_path):
    run()
    run(until=5, resume=str(tmp_path / repo / "checkpoint-4"))
    assert run.found() == "checkpoint-4"


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_nor_is_what_the_hub_has_of_the_one_before(run, repo, tmp_path, strategy):
    run(strategy=strategy)
    for step in (4, 6, 8):
        shutil.rmtree(tmp_path / repo / f"checkpoint-{step}")
    assert run.found() == "checkpoint-8"
    run(until=3)
    shutil.rmtree(tmp_path / repo / "checkpoint-8")
    assert run.found() == "checkpoint-2"


def test_a_beginning_is_noted_and_one_that_cannot_be_read_is_none(tmp_path):
    notes = Beginnings(tmp_path / "outbox")
    assert notes.newest() == Beginning()
    notes.begin(0, [])
    for step in (100, 200, 200):
        notes.add(step)
    assert notes.newest() == Beginning(0, 0, (100, 200))
    notes.begin(0, [100])
    notes.add(50)
    assert [step for step in (50, 100, 200, 300) if notes.newest().is_earlier(step)] == [100, 200]
    notes.begin(200, [])
    assert notes.newest() == Beginning(200, 200)
    (tmp_path / "outbox" / "beginning.json").write_text("{}")
    assert notes.newest() == Beginning()
