"""The Hub's verbs of a `HubSyncTrainer`: each parameter does what it says, and a bad value is said at once."""

from __future__ import annotations

import pytest

from hub_callbacks import HubSyncCallback, HubSyncTrainer
from hub_callbacks.callback import find
from models import Sentences, arguments, classifier
from runs import titles


@pytest.fixture
def make(hub, repo, tmp_path):
    """Makes a `HubSyncTrainer` with a callback for `tmp_path / repo`; the callback is closed in the end."""
    callbacks = []

    def make(keywords=None, trainer_class=HubSyncTrainer, **changes):
        callback = HubSyncCallback(**({"finish_timeout": 30} | (keywords or {})))
        callbacks.append(callback)
        return trainer_class(
            classifier(),
            arguments(tmp_path / repo, **({"max_steps": 2} | changes)),
            train_dataset=Sentences(),
            eval_dataset=Sentences(8),
            callbacks=[callback],
        )

    yield make
    for callback in callbacks:
        callback.close()


def test_the_callback_is_added_when_there_is_none(hub, api, repo, tmp_path):
    trainer = HubSyncTrainer(classifier(), arguments(tmp_path / repo, max_steps=2), train_dataset=Sentences())
    trainer.train()
    find(trainer).close()
    assert titles(api, repo)[-1] == "End of training"


def test_a_callback_that_is_given_is_not_doubled(make):
    trainer = make()
    assert sum(isinstance(c, HubSyncCallback) for c in trainer.callback_handler.callbacks) == 1
