"""One arguments object, or one callback, for several Trainers; and a name that is set late."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import Trainer

from hub_callbacks import HubSyncCallback, HubSyncTrainer
from models import Sentences, accuracy, arguments, classifier
from runs import digests, download, on_hub, root_of, titles


def trainer_of(args: Any, callback: HubSyncCallback, seed: int = 0) -> Trainer:
    return Trainer(
        classifier(seed),
        args,
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        compute_metrics=accuracy,
        callbacks=[callback],
    )


@pytest.mark.parametrize("changes", ["output_dir", "hub_model_id", "both"])
def test_each_fold_goes_to_its_own_repository(hub, api, repo, tmp_path, changes):
    """With the arguments changed in place for each; the name of the folder is that of the repository."""
    args, callback = arguments(tmp_path / repo, max_steps=4, hub_strategy="every_save"), HubSyncCallback()
    for fold in range(3):
        if changes != "hub_model_id":
            args.output_dir = str(tmp_path / f"{repo}-{fold}")
        if changes != "output_dir":
            args.hub_model_id = f"{repo}-{fold}"
        trainer = trainer_of(args, callback, seed=fold)
        trainer.train()
        last = digests(tmp_path / (repo if changes == "hub_model_id" else f"{repo}-{fold}") / "checkpoint-4")
        assert on_hub(tmp_path, f"{repo}-{fold}").items() >= root_of(last).items()
    callback.close()
    for fold in range(3):
        assert titles(api, f"{repo}-{fold}")[-1] == "End of training"
        assert f"# {repo}-{fold}" in ModelCard.load(download(tmp_path, f"{repo}-{fold}") / "README.md").text
    assert not api.repo_exists(f"local/{repo}")


def test_what_is_changed_while_it_trains_counts_afterwards(hub, api, repo, tmp_path):
    args, callback = arguments(tmp_path / repo, max_steps=4, hub_strategy="every_save"), HubSyncCallback()
    trainer = trainer_of(args, callback)

    class Later(HubSyncCallback.__mro__[1]):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args.hub_model_id = f"{repo}-later"

    trainer.add_callback(Later())
    trainer.train()
    assert titles(api, repo)[-1] == "End of training" and not api.repo_exists(f"local/{repo}-later")
    trainer.push_to_hub("By hand")
    callback.close()
    assert titles(api, f"{repo}-later") == ["By hand"]


@pytest.mark.parametrize("where", ["arguments", "trainer"])
@pytest.mark.parametrize("push_to_hub", [True, False])
def test_a_name_that_is_set_before_push_to_hub_counts(hub, api, repo, tmp_path, where, push_to_hub):
    callback = HubSyncCallback()
    args = arguments(tmp_path / repo, max_steps=4, hub_strategy="every_save", push_to_hub=push_to_hub)
    args.load_best_model_at_end = False
    trainer = trainer_of(args, callback)
    trainer.train()
    (trainer.args if where == "arguments" else trainer).hub_model_id = f"local/{repo}-renamed"
    commit = trainer.push_to_hub("Under another name", license="mit")
    callback.close()
    assert commit.repo_url.repo_id == f"local/{repo}-renamed"
    card = ModelCard.load(download(tmp_path, f"{repo}-renamed") / "README.md")
    assert (
        card.data.license == "mit" and "Training loss" in card.text
    ) or "hub_callbacks:begin training" in card.text
    assert "in progress" not in card.text
    assert titles(api, repo)[-1] == "End of training"


def test_arguments_that_are_put_in_place_of_the_others_count(hub, api, repo, tmp_path):
    callback = HubSyncCallback()
    trainer = trainer_of(arguments(tmp_path / repo, max_steps=4), callback)
    trainer.train()
    trainer.args = copy.deepcopy(trainer.args)
    trainer.args.hub_model_id = f"{repo}-other"
    trainer.push_to_hub("Elsewhere")
    callback.close()
    assert titles(api, f"{repo}-other") == ["Elsewhere"] and "Elsewhere" not in titles(api, repo)


def test_another_trainer_with_the_same_arguments_writes_no_card_for_a_model_that_is_not_its_own(
    hub, api, repo, tmp_path
):
    args, callback = arguments(tmp_path / repo, max_steps=4), HubSyncCallback()
    trainer_of(args, callback).train()
    before = titles(api, repo)
    trainer_of(args, callback, seed=7).evaluate()
    callback.finish()
    callback.close()
    assert titles(api, repo) == before


def test_a_trainer_that_pushes_after_another_one_has_its_own_card(hub, api, repo, tmp_path):
    args, callback = arguments(tmp_path / repo, max_steps=4, learning_rate=0.5), HubSyncCallback()
    one = trainer_of(args, callback)
    one.train()
    other = trainer_of(arguments(tmp_path / repo, max_steps=6, learning_rate=0.25), callback, seed=7)
    other.train()
    one.push_to_hub()
    callback.close()
    card = ModelCard.load(download(tmp_path, repo) / "README.md").text
    assert "| `learning_rate` | 0.5 |" in card and "**Length:** 4 steps" in card


def test_a_name_given_to_a_trainer_with_the_mixin_counts_from_then_on(hub, api, repo, tmp_path):
    trainer = HubSyncTrainer(classifier(), arguments(tmp_path / repo, max_steps=4), train_dataset=Sentences())
    trainer.train()
    trainer.hub_model_id = f"local/{repo}-named"
    for number in (1, 2):
        trainer.push_to_hub(f"Push {number}", license="mit" if number == 1 else "apache-2.0")
    trainer.hub_sync.close()
    assert titles(api, f"{repo}-named") == ["Push 1", "Push 2"] and trainer.hub_model_id == f"local/{repo}-named"
    assert f"# {repo}-named" in ModelCard.load(download(tmp_path, f"{repo}-named") / "README.md").text


def test_a_name_may_be_given_back(hub, api, repo, tmp_path):
    callback = HubSyncCallback()
    trainer = trainer_of(arguments(tmp_path / repo, max_steps=2), callback)
    trainer.push_to_hub("First")
    for name in (f"{repo}-b", repo):
        trainer.hub_model_id = f"local/{name}"
        trainer.push_to_hub(f"To {name}")
    callback.close()
    assert titles(api, f"{repo}-b") == [f"To {repo}-b"] and titles(api, repo) == ["First", f"To {repo}"]


def test_each_of_several_trainers_has_its_name(hub, api, repo, tmp_path):
    callback = HubSyncCallback()
    one = trainer_of(arguments(tmp_path / f"{repo}-1", max_steps=2, push_to_hub=True), callback)
    two = trainer_of(arguments(tmp_path / f"{repo}-2", max_steps=2, push_to_hub=True), callback)
    assert (one.hub_model_id, two.hub_model_id) == (f"local/{repo}-1", f"local/{repo}-2")
    one.hub_model_id = f"local/{repo}-3"
    one.push_to_hub("Of the first")
    callback.close()
    assert titles(api, f"{repo}-3") == ["Of the first"]
