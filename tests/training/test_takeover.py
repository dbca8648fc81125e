"""A script that sets `push_to_hub=True` and calls the Trainer's own Hub methods: nothing twice, nothing lost."""

from __future__ import annotations

import inspect
import json
import pickle
import shutil
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from accelerate.state import GradientState
from huggingface_hub import CommitInfo, ModelCard
from transformers import Trainer, TrainerCallback

from cards import SAID, is_on, values
from hub_callbacks import HubSyncCallback, SettingsError
from hub_callbacks.callback import find
from hub_callbacks.localhub import Answer, Fault
from hub_callbacks.training import engine, takeover
from hub_callbacks.training.card_facts import OPTIONS
from models import Sentences, accuracy, arguments, classifier
from runs import digests, download, on_hub, root_of, titles, train


def script(tmp_path, repo, keywords=None, **changes):
    """A Trainer as scripts make it, and its callback."""
    callback = HubSyncCallback(**(keywords or {}))
    trainer = Trainer(
        classifier(),
        arguments(tmp_path / repo, push_to_hub=True, **changes),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    return trainer, callback


def pushed(tmp_path, repo):
    return ModelCard.load(download(tmp_path, repo) / "README.md")


def test_nothing_is_pushed_twice(hub, api, repo, tmp_path):
    trainer, _, saved = train(tmp_path, repo, push_to_hub=True, hub_strategy="checkpoint", hub_always_push=True)
    assert titles(api, repo) == [f"Training in progress, step {n}" for n in (2, 4, 6, 8)] + ["End of training"]
    assert on_hub(tmp_path, repo).items() >= root_of(saved.checkpoints[8]).items()
    assert trainer.args.push_to_hub is True
    assert trainer.hub_model_id == f"local/{repo}"


def test_the_trainer_starts_and_trains_without_a_hub(hub, api, repo, tmp_path):
    hub.stop()
    try:
        trainer, callback = script(tmp_path, repo, {"finish_timeout": 0.5}, hub_strategy="every_save")
        trainer.train()
        assert callback.summary().commits == 0
        assert callback.summary().waiting > 0
        callback.close()
    finally:
        hub.start()
    from hub_callbacks.cli import drain
    from hub_callbacks.outbox.queue import Outbox

    drain(Outbox(tmp_path / repo / "_hub_sync"), patience=30, quiet=True)
    assert titles(api, repo)[-1] == "End of training"
    assert on_hub(tmp_path, repo) == root_of(digests(tmp_path / repo / "checkpoint-8"))


def test_the_final_push_of_a_script(hub, api, repo, tmp_path):
    trainer, callback = script(tmp_path, repo, hub_strategy="end")
    trainer.train()
    (tmp_path / repo / "all_results.json").write_text(json.dumps({"eval_loss": 1.0}))
    (tmp_path / repo / "_private").write_text("stays here")
    commit = trainer.push_to_hub(
        commit_message="Ready", language="en", license="mit", tags="tiny", tasks="text-classification"
    )
    callback.close()
    assert isinstance(commit, CommitInfo)
    assert titles(api, repo)[-1] == "Ready"
    files = on_hub(tmp_path, repo)
    assert "all_results.json" in files and "_private" not in files
    assert not any(path.startswith(("checkpoint-", "_hub_sync")) for path in files)
    assert files.items() >= root_of(digests(tmp_path / repo / "checkpoint-8")).items()
    card = ModelCard.load(download(tmp_path, repo) / "README.md").data
    assert card.license == "mit" and "tiny" in card.tags and card.language in ("en", ["en"])


def test_a_final_push_that_does_not_wait_gives_a_future(hub, api, repo, tmp_path):
    trainer, callback = script(tmp_path, repo, hub_strategy="end")
    future = trainer.push_to_hub(blocking=False)
    assert future.result(timeout=60).commit_message == "End of training"
    callback.close()


def test_a_final_push_to_another_branch_and_as_another_user(hub, api, repo, tmp_path):
    stranger = repo[-12:].strip("-_")
    token = hub.add_user(stranger)
    trainer, callback = script(tmp_path, f"{repo}", hub_strategy="end", hub_model_id=f"{stranger}/shared")
    trainer.push_to_hub(revision="v2", token=token)
    callback.close()
    assert {b.name for b in api.list_repo_refs(f"{stranger}/shared").branches} == {"main", "v2"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"commit_message": ""}, "commit_message is ''"),
        ({"blocking": "no"}, "blocking is 'no'"),
        ({"token": " "}, "token is ' '"),
        ({"revision": "not a branch"}, "revision cannot be 'not a branch'"),
        ({"private": "yes"}, "private is 'yes'"),
    ],
)
def test_a_bad_value_for_a_final_push_is_said_before_anything_is_done(hub, repo, tmp_path, values, says):
    trainer, callback = script(tmp_path, repo)
    with pytest.raises(SettingsError, match=says):
        trainer.push_to_hub(**values)
    assert not callback.pushes and not (tmp_path / repo / "model.safetensors").exists()
    callback.close()


@pytest.mark.parametrize("verb", ["create_model_card", "push_to_hub"])
def test_each_card_keyword_of_a_script_is_on_the_card(hub, repo, tmp_path, verb):
    trainer, callback = script(tmp_path, repo)
    trainer.evaluate()  # what a result was measured on is said with the result
    names = SAID.keys() - {"dataset_language"}  # the Trainer does not know that
    getattr(trainer, verb)(**values(names))
    callback.close()
    card = ModelCard.load(tmp_path / repo / "README.md") if verb == "create_model_card" else pushed(tmp_path, repo)
    assert [name for name in names if not is_on(card, name)] == []


def test_what_cannot_be_said_of_a_model_is_left_out_and_a_script_goes_on(hub, repo, tmp_path, caplog):
    trainer, callback = script(tmp_path, repo)
    trainer.create_model_card("en", license=["mit", 1], tags=3)
    trainer.push_to_hub(dataset_args={"name": "plain"}, license="mit")
    callback.close()
    assert [name for name in ("license", "tags", "dataset_args") if f"{name} is" not in caplog.text] == []
    card = ModelCard.load(download(tmp_path, repo) / "README.md").data
    assert card.license == "mit" and card.language in ("en", ["en"])


def test_a_trainer_can_be_pickled(hub, repo, tmp_path):
    """As for a worker of Ray; what is routed is routed there, too."""
    GradientState._reset_state()  # it refers weakly to data loaders of trainings that a test cut short
    trainer, callback = script(tmp_path, repo)
    other = pickle.loads(pickle.dumps(trainer))
    assert other._push_from_checkpoint._trainer() is other
    assert find(other) is not None and find(other) is not callback
    callback.close()


def test_a_checkpoint_that_a_script_pushes_arrives(hub, repo, tmp_path):
    trainer, callback = script(tmp_path, repo, hub_strategy="all_checkpoints", max_steps=4)
    trainer.train()
    shutil.copytree(tmp_path / repo / "checkpoint-2", tmp_path / repo / "checkpoint-other")
    trainer._push_from_checkpoint(str(tmp_path / repo / "checkpoint-other"))
    callback.close()
    assert "checkpoint-other/model.safetensors" in on_hub(tmp_path, repo)


def test_the_token_that_a_script_gives_is_used(hub, repo, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.add_token("local", "read"))
    trainer, callback = script(tmp_path, repo, max_steps=2)
    trainer.init_hf_repo(token=hub.token)
    trainer.train()
    callback.close()
    assert callback.summary().waiting == 0 and callback.summary().commits > 0


def test_save_model_of_a_script_is_pushed_as_model_save(hub, api, repo, tmp_path):
    trainer, callback = script(tmp_path, repo, hub_strategy="end")
    trainer.train()
    torch.nn.init.zeros_(trainer.model.classifier.bias.data.fill_(3))
    trainer.save_model()
    callback.close()
    assert titles(api, repo)[-1] == "Model save"
    assert on_hub(tmp_path, repo)["model.safetensors"] == digests(tmp_path / repo)["model.safetensors"]


def test_a_trainer_without_the_callback_is_left_as_it_is(hub, api, repo, tmp_path):
    HubSyncCallback()
    trainer = Trainer(
        classifier(),
        arguments(tmp_path / repo, push_to_hub=True, hub_strategy="end", hub_token=hub.token),
        train_dataset=Sentences(),
    )
    assert trainer.push_in_progress is None and not hasattr(trainer, "_push_in_progress")
    assert trainer.hub_model_id == f"local/{repo}"  # asked for at once, by the Trainer itself
    assert api.repo_exists(f"local/{repo}")


def test_the_repository_is_there_with_its_owner_when_a_script_asks_for_it(hub, api, repo, tmp_path):
    """As with the Trainer's own, which has made it in its `__init__`."""
    trainer, callback = script(tmp_path, repo)
    api.create_branch(trainer.hub_model_id, branch="v1.0")
    assert trainer.hub_model_id == f"local/{repo}"
    commit = trainer.push_to_hub(revision="v1.0")
    callback.close()
    assert api.list_repo_commits(f"local/{repo}", revision="v1.0")[0].commit_id == commit.oid


def test_the_repository_has_its_owner_without_a_question_where_an_earlier_run_has_asked(hub, repo, tmp_path):
    for push_to_hub in (True, False):
        args = arguments(tmp_path / repo, push_to_hub=push_to_hub)
        callback = HubSyncCallback()
        trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback])
        assert trainer.hub_model_id == f"local/{repo}"
        callback.close()


def test_nobody_waits_for_the_repository_of_a_hub_that_is_away(hub, repo, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CONNECT_WITHIN", float("inf"))
    hub.stop()
    try:
        trainer, callback = script(tmp_path, repo)
        assert trainer.hub_model_id == repo
    finally:
        hub.start()
    callback.close()


def test_a_training_never_waits_for_the_repository(hub, repo, tmp_path, monkeypatch):
    class Reads(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(trainer.hub_model_id)

    seen: list[str] = []
    trainer, callback = script(tmp_path, repo, max_steps=1)
    trainer.add_callback(Reads())
    monkeypatch.setattr(engine.Engine, "wait_until_connected", lambda self: pytest.fail("it waits"))
    trainer.train()
    callback.close()
    assert seen in ([repo], [f"local/{repo}"])


def test_what_is_under_way_can_be_asked_for(hub, repo, tmp_path):
    trainer, callback = script(tmp_path, repo)
    with hub.inject(Fault("commit", Answer(503))):
        future = trainer.push_to_hub(blocking=False)
        trainer._push_in_progress = None  # as a class of one's own may set it
        assert not trainer._push_in_progress.is_done() and not trainer.push_in_progress.is_done()
    trainer._push_in_progress.wait_until_done()
    assert future.done() and trainer._push_in_progress is None and trainer.push_in_progress is None
    callback.close()


def test_without_create_repo_a_missing_repository_stays_missing(hub, api, repo, tmp_path):
    trainer, callback = script(tmp_path, repo)
    trainer.push_to_hub()
    api.delete_repo(f"local/{repo}")
    assert trainer.push_to_hub(create_repo=False) is None
    assert "create_repo=False" in callback.summary().why and not api.repo_exists(f"local/{repo}")
    callback.close()


def test_a_push_takes_the_whole_vocabulary(hub, api, repo, tmp_path):
    trainer, callback = script(tmp_path, repo)
    trainer.push_to_hub("First")
    future = trainer.push_to_hub(
        commit_message="Title",
        commit_description="Text",
        tags=["tiny"],
        private=True,
        token=hub.token,
        create_repo=True,
        revision="main",
        delete_existing_repo=True,
        run_as_future=True,
    )
    assert isinstance(future, Future)
    callback.close()
    newest, *others = api.list_repo_commits(f"local/{repo}")
    assert (newest.commit_id, newest.title, newest.message) == (future.result().oid, "Title", "Text")
    assert "First" not in [commit.title for commit in others] and api.model_info(f"local/{repo}").private
    assert "tiny" in pushed(tmp_path, repo).data.tags and api.list_repo_refs(f"local/{repo}").tags == []


@pytest.mark.parametrize("verb", ["push_to_hub", "create_model_card"])
def test_a_mistyped_keyword_is_an_error_as_with_the_trainers_own(hub, repo, tmp_path, verb):
    trainer, callback = script(tmp_path, repo)
    with pytest.raises(TypeError, match=rf"{verb}\(\) got an unexpected keyword argument 'licence'.*license"):
        getattr(trainer, verb)(licence="mit")
    callback.close()
    assert callback.pushes == [] and list((tmp_path / repo).glob("[!_]*")) == []


def test_a_card_has_no_more_arguments_than_it_takes(hub, repo, tmp_path):
    trainer, callback = script(tmp_path, repo)
    with pytest.raises(TypeError, match="at most"):
        trainer.create_model_card(*["en"] * (len(OPTIONS) + 1))
    callback.close()


@pytest.mark.parametrize("name", takeover.ROUTED)
def test_the_routed_methods_are_what_they_were(name):
    """A release of transformers that changes one of these has to be looked at."""
    known = {
        "init_hf_repo": ["self", "token", "private"],
        "create_model_card": ["self", *OPTIONS[:-1]],
        "_push_from_checkpoint": ["self", "checkpoint_folder"],
        "_finish_current_push": ["self"],
        "push_to_hub": ["self", "commit_message", "blocking", "token", "revision", "private", "kwargs"],
    }
    method = getattr(Trainer, name)
    original = getattr(method, "_hub_callbacks_original", method)
    parameters = [p for p in inspect.signature(original).parameters if p != "private"]
    assert parameters == [p for p in known[name] if p != "private"]


def test_routes_are_put_in_once():
    takeover.install(find)
    first = Trainer.push_to_hub
    takeover.install(find)
    assert Trainer.push_to_hub is first
    assert not hasattr(first._hub_callbacks_original, "_hub_callbacks_original")


def test_the_token_in_the_arguments_never_leaves(hub, api, repo, tmp_path):
    _, _, _ = train(tmp_path, repo, push_to_hub=True, hub_token=hub.token, hub_strategy="checkpoint")
    folder = download(tmp_path, repo)
    for path in Path(folder).rglob("*"):
        assert path.is_dir() or hub.token.encode() not in path.read_bytes()
    args = torch.load(folder / "training_args.bin", weights_only=False)
    assert args.hub_token is None and args.learning_rate == 5e-05
    outbox = tmp_path / repo / "_hub_sync"
    for path in outbox.rglob("*"):
        assert path.is_dir() or hub.token.encode() not in path.read_bytes()
