"""A training that Ctrl-C or an exception has ended is over: in a notebook the next cell goes on with it."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future
from typing import Any

import pytest
from huggingface_hub import CommitInfo, hf_hub_download
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback, HubSyncTrainer
from hub_callbacks.training.liveness import is_under_way
from models import Sentences, accuracy, arguments, classifier
from runs import titles


class Before(TrainerCallback):
    """Does something when a step begins."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.action()


def interrupt() -> None:
    raise KeyboardInterrupt


def trainer_of(folder: Any, *callbacks: Any, kind: type[Trainer] = Trainer, **changes: Any) -> Trainer:
    return kind(
        classifier(),
        arguments(folder, hub_strategy="all_checkpoints", **changes),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        compute_metrics=accuracy,
        callbacks=[*callbacks],
    )


def card_of(repo: str) -> str:
    with open(hf_hub_download(f"local/{repo}", "README.md"), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("kind", [Trainer, HubSyncTrainer])
def test_after_ctrl_c_a_script_goes_on_as_after_a_training(hub, api, repo, tmp_path, kind):
    own = [] if kind is HubSyncTrainer else [HubSyncCallback()]
    trainer = trainer_of(tmp_path / repo, Before(4, interrupt), *own, kind=kind, hub_always_push=True)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.evaluate()
    again = trainer._push_from_checkpoint(str(tmp_path / repo / "checkpoint-4"))
    assert again.result(60).commit_url
    commit = trainer.push_to_hub("Stopped by hand")
    assert isinstance(commit, CommitInfo) and commit.commit_message == "Stopped by hand"
    assert "**Training was stopped: step 4 of 8, epoch 1 of 2.**\n" in card_of(repo)
    assert "Measured after step 4" in card_of(repo)
    assert "Evaluation, step 4" in titles(api, repo)


def test_a_training_that_begins_again_is_under_way_again(hub, api, repo, tmp_path):
    callback = HubSyncCallback()
    stop = Before(4, interrupt)
    trainer = trainer_of(tmp_path / repo, stop, callback)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    stop.action = lambda: seen.append(callback.run.is_training)
    seen: list[bool] = []
    assert not callback.run.is_training and callback.run.is_stopped
    trainer.train(resume_from_checkpoint=str(tmp_path / repo / "checkpoint-2"))
    callback.close()
    assert seen == [True] and not callback.run.is_training and not callback.run.is_stopped
    assert "was stopped" not in card_of(repo) and "in progress" not in card_of(repo)


class Careful(Trainer):
    """Looks after what Ctrl-C leaves by itself."""

    def train(self, *args: Any, **options: Any) -> Any:
        try:
            return super().train(*args, **options)
        except KeyboardInterrupt:
            return self.push_to_hub()


def test_a_subclass_that_pushes_what_ctrl_c_leaves(hub, api, repo, tmp_path):
    callback = HubSyncCallback()
    trainer = trainer_of(tmp_path / repo, Before(5, interrupt), callback, kind=Careful)
    assert isinstance(trainer.train(), CommitInfo)
    callback.close()
    assert "Training was stopped: step 5 of 8" in card_of(repo)


def test_a_push_from_another_thread_does_not_wait_while_it_trains(hub, api, repo, tmp_path):
    at_step, go_on = threading.Event(), threading.Event()

    def stay() -> None:
        at_step.set()
        assert go_on.wait(60)

    callback = HubSyncCallback()
    trainer = trainer_of(tmp_path / repo, Before(5, stay), callback)
    training = threading.Thread(target=trainer.train)
    training.start()
    assert at_step.wait(60)
    assert is_under_way(trainer.args) and callback.run.is_training
    pushed = trainer.push_to_hub()
    go_on.set()
    training.join(120)
    callback.close()
    assert isinstance(pushed, Future) and pushed.result(60)
    assert not is_under_way(trainer.args)


class OwnLoop(Trainer):
    """Some libraries train in a loop of their own, which nobody can recognise."""

    def train(self, *args: Any, **options: Any) -> Any:
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        pushed = self.push_to_hub()
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        return pushed


def test_a_loop_of_a_librarys_own_counts_as_training_until_its_end(hub, repo, tmp_path):
    callback = HubSyncCallback()
    trainer = trainer_of(tmp_path / repo, callback, kind=OwnLoop)
    trainer.is_in_train = True
    assert isinstance(trainer.train(), Future)
    callback.close()


def test_only_a_training_with_these_arguments_counts(tmp_path):
    one, other = (trainer_of(tmp_path / name, save_strategy="no", push_to_hub=False) for name in ("a", "b"))
    seen: list[tuple[bool, bool]] = []
    one.add_callback(Before(2, lambda: seen.append((is_under_way(one.args), is_under_way(other.args)))))
    one.train()
    assert seen == [(True, False)]


def test_a_train_that_a_library_has_wrapped(hub, api, repo, tmp_path, monkeypatch):
    """Those that log by themselves do that, and hand on whatever comes."""
    train = Trainer.train

    @functools.wraps(train)
    def logged(*args: Any, **options: Any) -> Any:
        return train(*args, **options)

    monkeypatch.setattr(Trainer, "train", logged)
    callback = HubSyncCallback()
    trainer = trainer_of(tmp_path / repo, Before(5, interrupt), callback)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert isinstance(trainer.push_to_hub(), CommitInfo)
    callback.close()
    assert titles(api, repo)[:2] == ["Training in progress, step 2", "Training in progress, step 4"]
    assert "Training was stopped: step 5 of 8" in card_of(repo)


def test_a_name_that_is_set_after_ctrl_c_counts_for_the_next_training(hub, api, repo, tmp_path):
    callback, stop = HubSyncCallback(), Before(3, interrupt)
    trainer = trainer_of(tmp_path / repo, stop, callback)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    stop.action = lambda: None
    trainer.args.hub_model_id = f"{repo}-new"
    trainer.train()
    callback.close()
    assert titles(api, f"{repo}-new")[-1] == "End of training" and "End of training" not in titles(api, repo)
