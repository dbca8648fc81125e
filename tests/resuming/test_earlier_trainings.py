"""A folder in which several trainings have saved: which of their checkpoints is the newest."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

import pytest
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback, latest_checkpoint
from hub_callbacks.checkpoints.files import TRAINER_STATE
from hub_callbacks.localhub import Answer, Fault
from hub_callbacks.outbox.left_behind import NAME, LeftBehind, Trainings, digest_of
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

    def train(until=9, resume=None, strategy="end", folder=tmp_path / repo, **changes):
        args = arguments(folder, hub_strategy=strategy, hub_model_id=repo, **changes)
        resume = latest_checkpoint(args) if resume is True else resume
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


OTHER = {"learning_rate": 0.01}
"""Another training: its checkpoints have other losses in them."""


def test_what_another_machine_has_saved_of_the_newest_is_gone_on_with(run, repo, tmp_path):
    run()
    run(until=3, **OTHER, strategy="checkpoint")
    run(until=7, folder=tmp_path / "machine", resume=True, **OTHER, strategy="checkpoint")
    mine = digest_of(tmp_path / repo / "checkpoint-6" / TRAINER_STATE)
    assert run.found() == "checkpoint-6"
    theirs = digest_of(tmp_path / "machine" / "checkpoint-6" / TRAINER_STATE)
    assert digest_of(tmp_path / repo / "checkpoint-6" / TRAINER_STATE) == theirs != mine
    (aside,) = (tmp_path / repo / "_hub_sync" / "set-aside").glob("*/checkpoint-6")
    assert digest_of(aside / TRAINER_STATE) == mine


def test_a_save_that_was_never_noted_is_gone_on_from(run, monkeypatch):
    """Of a process that was killed before the note, or of a Trainer without the callback."""
    run()
    with monkeypatch.context() as killed:
        killed.setattr(Trainings, "save", lambda *save: None)
        run(until=5, **OTHER)
    assert run.found() == "checkpoint-4"


def test_a_damaged_checkpoint_gives_way_to_one_of_its_own_training(run, repo, tmp_path):
    run(until=7, save_steps=3)
    run(until=5, **OTHER)
    run(until=4, resume=str(tmp_path / repo / "checkpoint-4"), **OTHER)
    (tmp_path / repo / "checkpoint-4" / TRAINER_STATE).unlink()
    assert run.found() == "checkpoint-2"


def test_what_is_here_of_the_one_before_will_do_where_the_hub_gives_nothing(run, hub):
    run(until=7, strategy="checkpoint")
    run(until=1, strategy="checkpoint")
    with hub.inject(Fault("resolve", Answer(403))):
        assert run.found() == "checkpoint-6"


def test_what_is_left_behind_is_what_a_later_training_did_not_go_on_from(tmp_path):
    one = LeftBehind().save("a2", 2).save("a4", 4)
    assert one.begin(4, {"a2": 2, "a4": 4}).left == {}
    anew = one.begin(0, {"a4": 4, "before": 6})
    assert anew.left == {"a2": 2, "a4": 4, "before": 6}
    anew = anew.save("b2", 2).save("a4", 4)  # the same to the bit
    assert anew.left == {"a2": 2, "before": 6}
    assert anew.begin(2, {"b2": 2, "before": 6}).left == {"a2": 2, "before": 6, "a4": 4}
    assert anew.begin(6, {"b2": 2, "before": 6}).left == {}, "a person goes on from it after all"


def test_a_note_that_cannot_be_read_is_none(tmp_path):
    notes = Trainings(tmp_path)
    notes.begin(3, {})
    assert notes.known() == LeftBehind(3)
    for text in ("", "{", "[]", '{"left": 3'):
        (tmp_path / NAME).write_text(text)
        assert notes.known() == LeftBehind()
