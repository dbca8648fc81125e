"""The Hub's verbs of a `HubSyncTrainer`: each parameter does what it says, and a bad value is said at once."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest
from huggingface_hub import CommitInfo, ModelCard
from transformers import (
    BertForSequenceClassification,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
)

from cards import SAID, is_on, values
from hub_callbacks import HubSyncCallback, HubSyncTrainer, HubSyncTrainerMixin, PushNotSent, SettingsError
from hub_callbacks.callback import find
from models import Sentences, accuracy, arguments, classifier
from runs import below, digests, download, on_hub, root_of, titles
from savers import wait_until


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
            compute_metrics=accuracy,
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


def test_the_mixin_goes_before_any_trainer_and_leaves_its_arguments_as_they_are(hub, repo, tmp_path):
    class OfPosition(HubSyncTrainerMixin, Seq2SeqTrainer):
        pass

    class OfKeywords(HubSyncTrainerMixin, Seq2SeqTrainer):
        def __init__(self, **options):
            super().__init__(**options)

    seen = []

    class OfOthers(Trainer):
        def __init__(self, model, **more):
            seen.append(sorted(more))
            super().__init__(model=model, **more)

    class Mixed(HubSyncTrainerMixin, OfOthers):
        pass

    seq2seq = Seq2SeqTrainingArguments(str(tmp_path / repo), report_to=[], use_cpu=True)
    made = [
        OfPosition(classifier(), seq2seq),
        OfKeywords(model=classifier(), args=seq2seq),
        Mixed(classifier(), args=arguments(tmp_path / repo), callbacks=[PrinterCallback()]),
    ]
    assert all(find(trainer) is not None for trainer in made)
    assert seen == [["args", "callbacks"]]
    assert any(type(c) is PrinterCallback for c in made[2].callback_handler.callbacks)
    find(made[0]).close()


# -- init_hf_repo


def test_init_hf_repo_names_the_repository_and_makes_it(make, api, repo):
    trainer = make()
    trainer.init_hf_repo()
    assert trainer.hub_model_id in (repo, f"local/{repo}")
    wait_until(lambda: api.repo_exists(f"local/{repo}"))
    wait_until(lambda: trainer.hub_model_id == f"local/{repo}")


def test_init_hf_repo_takes_a_token_and_what_waits_is_sent(make, api, repo, monkeypatch, hub):
    monkeypatch.delenv("HF_TOKEN")
    trainer = make({"hub_token": "hf_wrong", "finish_timeout": 1})
    trainer.train()
    assert not api.repo_exists(f"local/{repo}")
    trainer.init_hf_repo(token=hub.token)
    wait_until(lambda: api.repo_exists(f"local/{repo}") and titles(api, repo)[-1:] == ["End of training"])


def test_init_hf_repo_works_without_a_network(make, api, repo, hub):
    hub.stop()
    try:
        trainer = make()
        trainer.init_hf_repo()
        assert trainer.hub_model_id == repo
    finally:
        hub.start()
    wait_until(lambda: api.repo_exists(f"local/{repo}"))


@pytest.mark.parametrize("token", ["", "  ", 7])
def test_a_token_that_is_none_is_said(make, token):
    trainer = make()
    with pytest.raises(SettingsError, match="token is"):
        trainer.init_hf_repo(token=token)
    with pytest.raises(SettingsError, match="token is"):
        trainer.push_to_hub(token=token)


# -- create_model_card


@pytest.mark.parametrize("name", SAID)
def test_each_parameter_of_create_model_card_is_on_the_card(make, name, repo, tmp_path):
    trainer = make()
    trainer.evaluate()  # what a result was measured on is said with the result
    options = values(["dataset_tags"] if name.startswith("dataset_a") else [])
    without, card = trainer.create_model_card(**options), trainer.create_model_card(**options | values([name]))
    assert isinstance(card, ModelCard)
    assert (tmp_path / repo / "README.md").read_text() == str(card)
    assert is_on(card, name) and not is_on(without, name)


@pytest.mark.parametrize("without", ["dataset_language", "language"])
def test_each_card_keyword_of_push_to_hub_is_on_the_card(make, repo, tmp_path, without):
    trainer = make()
    trainer.evaluate()
    names = SAID.keys() - {without}
    trainer.push_to_hub(**values(names))
    card = ModelCard.load(download(tmp_path, repo) / "README.md")
    assert [name for name in names if not is_on(card, name)] == []


def test_create_model_card_takes_its_parameters_in_order(make):
    card = make().create_model_card("en", "mit", "demo", "Named")
    assert card.data.language in ("en", ["en"]) and card.data.license == "mit" and "demo" in card.data.tags
    assert "# Named" in card.text


def test_what_was_said_by_create_model_card_is_on_the_pushed_card(make, repo, tmp_path):
    trainer = make()
    trainer.create_model_card(license="mit", tags="said")
    trainer.push_to_hub(tags=["v1"])
    card = ModelCard.load(download(tmp_path, repo) / "README.md")
    assert card.data.license == "mit" and set(card.data.tags) == {"said", "generated_from_trainer"}


@pytest.mark.parametrize(
    ("name", "value"), [("language", 3), ("tags", [1]), ("dataset", {"a": "b"}), ("model_name", 1)]
)
def test_a_bad_value_for_the_card_is_said(make, name, value):
    trainer = make()
    with pytest.raises(SettingsError, match=name):
        trainer.create_model_card(**{name: value})
    with pytest.raises(SettingsError, match=name):
        trainer.push_to_hub(**{name: value})


def test_an_unknown_keyword_is_said(make, hub):
    trainer = make()
    with pytest.raises(SettingsError, match="'finetuned_form'"):
        trainer.push_to_hub(finetuned_form="local/base")
    assert not trainer.hub_sync.pushes


# -- push_to_hub


def test_push_to_hub_gives_the_commit_with_its_title_and_description(make, api, repo, tmp_path):
    trainer = make()
    (tmp_path / repo).mkdir(exist_ok=True)
    (tmp_path / repo / "results.json").write_text("{}")
    commit = trainer.push_to_hub("A title", "And a description.")
    assert isinstance(commit, CommitInfo)
    newest = api.list_repo_commits(f"local/{repo}")[0]
    assert (newest.commit_id, newest.title, newest.message) == (commit.oid, "A title", "And a description.")
    files = on_hub(tmp_path, repo)
    assert files["model.safetensors"] == digests(tmp_path / repo)["model.safetensors"] and "results.json" in files


def test_the_title_is_end_of_training_where_none_is_given(make, api, repo):
    make().push_to_hub(commit_message=None)
    assert titles(api, repo) == ["End of training"]


def test_tags_are_revisions_to_load_and_on_the_card_unless_they_are_versions(make, api, repo, tmp_path):
    trainer = make()
    trainer.push_to_hub(commit_message="Release", tags=["v1.0.0", "stable"])
    released = digests(tmp_path / repo)["model.safetensors"]
    trainer.model.classifier.bias.data.fill_(9)
    trainer.push_to_hub(commit_message="Later", tags="v1.1.0")
    again = BertForSequenceClassification.from_pretrained(
        f"local/{repo}", revision="v1.0.0", cache_dir=tmp_path / "cache"
    )
    assert float(again.classifier.bias[0].detach()) != 9
    assert on_hub(tmp_path, repo, "v1.0.0")["model.safetensors"] == released
    assert on_hub(tmp_path, repo, "v1.1.0") == on_hub(tmp_path, repo) != on_hub(tmp_path, repo, "stable")
    card = ModelCard.load(download(tmp_path, repo, "v1.0.0") / "README.md")
    assert set(card.data.tags) == {"stable", "generated_from_trainer"}


def test_a_push_with_tags_is_a_commit_though_newer_ones_wait(make, api, repo, hub):
    hub.stop()
    try:
        trainer = make()
        for version in ("v1", "v2"):
            trainer.model.classifier.bias.data.fill_(float(version[1]))
            trainer.push_to_hub(commit_message=version, tags=version, run_as_future=True)
        trainer.model.classifier.bias.data.fill_(3)
        trainer.push_to_hub(commit_message="v3", run_as_future=True)
    finally:
        hub.start()
    trainer.finish_current_push()
    assert titles(api, repo) == ["v1", "v2", "v3"]
    commits = {c.title: c.commit_id for c in api.list_repo_commits(f"local/{repo}")}
    assert {t.name: t.target_commit for t in api.list_repo_refs(f"local/{repo}").tags} == {
        version: commits[version] for version in ("v1", "v2")
    }


def test_private_is_how_the_repository_is_made(make, api, repo):
    trainer = make()
    wait_until(lambda: not find(trainer).engine.outbox.pending())
    api.delete_repo(f"local/{repo}")
    trainer.push_to_hub(private=True, revision="dev")
    assert api.model_info(f"local/{repo}").private


def test_another_token_pushes_as_another_user(make, hub, api, repo):
    name = repo[-16:].strip("-_") + "-u"
    token = hub.add_user(name)
    trainer = make({"hub_model_id": f"{name}/theirs", "finish_timeout": 1})
    assert trainer.push_to_hub() is None
    assert trainer.push_to_hub(token=token).oid
    assert api.list_repo_commits(f"{name}/theirs", token=token)[0].authors == [name]


def test_no_token_is_on_the_disk(make, hub, repo, tmp_path):
    trainer = make()
    trainer.push_to_hub(token=hub.token)
    for path in (tmp_path / repo / "_hub_sync").rglob("*"):
        assert path.is_dir() or hub.token.encode() not in path.read_bytes()


def test_without_create_repo_a_missing_repository_stays_missing(make, api, repo):
    trainer = make()
    wait_until(lambda: not find(trainer).engine.outbox.pending())
    api.delete_repo(f"local/{repo}")
    assert trainer.push_to_hub(create_repo=False) is None
    assert not api.repo_exists(f"local/{repo}")
    assert "create_repo=False" in trainer.hub_sync.summary().why


def test_a_revision_is_a_branch_that_is_made(make, api, repo):
    trainer = make()
    trainer.push_to_hub(commit_message="For dev", revision="dev")
    assert titles(api, repo, "dev") == ["For dev"] and titles(api, repo) == []


def test_a_tag_as_revision_is_refused_clearly(make, api, repo):
    trainer = make({"on_error": "raise", "finish_timeout": 5})
    trainer.push_to_hub(tags="v1")
    with pytest.raises(PushNotSent, match="'v1' is a tag"):
        trainer.push_to_hub(revision="v1")


def test_delete_existing_repo_leaves_the_new_push_alone(make, api, repo, tmp_path):
    trainer = make()
    trainer.push_to_hub(commit_message="old", tags="old")
    (tmp_path / repo / "new.txt").write_text("new")
    trainer.push_to_hub(commit_message="new", delete_existing_repo=True)
    assert titles(api, repo) == ["new"] and not api.list_repo_refs(f"local/{repo}").tags
    assert "new.txt" in on_hub(tmp_path, repo)
    assert f"local/{repo} is deleted" in " ".join(trainer.hub_sync.summary().notes)


@pytest.mark.parametrize("keywords", [{"run_as_future": True}, {"blocking": False}])
def test_a_future_is_given_at_once(make, hub, keywords):
    hub.stop()
    try:
        future = make().push_to_hub(**keywords)
        assert isinstance(future, Future) and not future.done()
    finally:
        hub.start()
    assert future.result(timeout=60).commit_message == "End of training"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"commit_message": ""}, "commit_message is ''"),
        ({"commit_message": 3}, "commit_message is 3"),
        ({"commit_description": False}, "commit_description is False"),
        ({"tags": ["not a tag"]}, "A tag cannot be 'not a tag'"),
        ({"private": "yes"}, "private is 'yes'"),
        ({"create_repo": "no"}, "create_repo is 'no'"),
        ({"revision": "not a branch"}, "revision cannot be"),
        ({"delete_existing_repo": True, "create_repo": False}, "goes with create_repo=True only"),
        ({"run_as_future": "yes"}, "run_as_future is 'yes'"),
    ],
)
def test_a_bad_value_for_a_push_is_said_before_anything_is_done(make, repo, tmp_path, values, says):
    trainer = make()
    with pytest.raises(SettingsError, match=says):
        trainer.push_to_hub(**values)
    assert not trainer.hub_sync.pushes and not (tmp_path / repo / "model.safetensors").exists()


# -- push_from_checkpoint, finish_current_push


def test_a_batch_of_checkpoints_arrives_each_under_its_own_name(make, api, repo, tmp_path, monkeypatch):
    trainer = make({"hub_strategy": "all_checkpoints"}, save_steps=1, max_steps=3, push_to_hub=False)
    trainer.hub_sync.run._push = lambda *args, **kwargs: None  # the run itself leaves them to the script
    trainer.train()
    del trainer.hub_sync.run._push
    monkeypatch.chdir(tmp_path)
    saved = {}
    for folder in (tmp_path / repo / "checkpoint-1", f"{repo}/checkpoint-2", "checkpoint-3"):
        assert isinstance(trainer._push_from_checkpoint(folder), Future)
        name = Path(folder).name
        saved |= below(name, digests(tmp_path / repo / name))
    trainer._finish_current_push()
    assert on_hub(tmp_path, repo) == saved | root_of(digests(tmp_path / repo / "checkpoint-3"))
    assert titles(api, repo) == [f"Training in progress, step {step}" for step in (1, 2, 3)]


def test_a_checkpoint_of_another_name_and_strategy(make, repo, tmp_path):
    trainer = make({"hub_strategy": "end"})
    trainer.save_model(str(tmp_path / "elsewhere" / "epoch_3"), _internal_call=True)
    trainer.push_from_checkpoint(tmp_path / "elsewhere" / "epoch_3")
    trainer.finish_current_push()
    assert on_hub(tmp_path, repo) == root_of(digests(tmp_path / "elsewhere" / "epoch_3"))


@pytest.mark.parametrize(
    ("eval_steps", "accuracies"),
    [(2, [0.9, 0.1]), (1, [0.1, 0.9, 0.95, 0.2])],
    ids=["the best step was saved", "a better one was not saved"],
)
def test_the_best_checkpoint_stays_when_a_script_pushes_another(make, repo, tmp_path, eval_steps, accuracies):
    trainer = make(
        {"hub_strategy": "all_checkpoints", "hub_keep_last": 1},
        hub_always_push=True,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=eval_steps,
        metric_for_best_model="accuracy",
    )
    measured = iter(accuracies)
    trainer.compute_metrics = lambda prediction: {"accuracy": next(measured)}
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    trainer.push_from_checkpoint(tmp_path / repo / "checkpoint-4")
    trainer.finish_current_push()
    assert {path.partition("/")[0] for path in on_hub(tmp_path, repo) if "/" in path} == {
        "checkpoint-2",
        "checkpoint-4",
    }


def empty(folder):
    folder.mkdir()


def without_weights(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("no weights")
    (folder / "training_args.bin").write_bytes(b"none either")


def half_written(folder):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "checkpoint-is-incomplete.txt").touch()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda folder: None, "there is no such folder. In .* there are checkpoint-2"),
        (lambda folder: folder.write_text("a file"), "there is no such folder"),
        (empty, "there are no weights in it"),
        (without_weights, "there are no weights in it"),
        (half_written, r"had not finished writing it \(checkpoint-is-incomplete.txt\)"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_said(make, repo, tmp_path, build, says):
    trainer = make()
    (tmp_path / repo / "checkpoint-2").mkdir(parents=True)
    build(tmp_path / "other")
    with pytest.raises(SettingsError, match=says):
        trainer.push_from_checkpoint(tmp_path / "other")
    assert not trainer.hub_sync.pushes


def test_the_folder_of_the_run_is_no_checkpoint(make, repo, tmp_path):
    trainer = make()
    trainer.save_model(_internal_call=True)
    with pytest.raises(SettingsError, match="holds the whole run"):
        trainer.push_from_checkpoint(tmp_path / repo)
    with pytest.raises(SettingsError, match="checkpoint_folder is 3"):
        trainer.push_from_checkpoint(3)


def test_finish_current_push_waits_and_raises_what_has_not_arrived(make, hub):
    trainer = make({"on_error": "raise", "finish_timeout": 0.2})
    assert trainer._push_in_progress is None
    hub.stop()
    try:
        trainer.push_to_hub(run_as_future=True)
        assert not trainer._push_in_progress.is_done()
        with pytest.raises(PushNotSent, match="hub-callbacks sync"):
            trainer._finish_current_push()
    finally:
        hub.start()
    assert trainer._push_in_progress is None


def test_push_in_progress_can_be_waited_for(make):
    trainer = make()
    trainer._push_in_progress = None  # as a class of one's own may set it
    future = trainer.push_to_hub(run_as_future=True)
    trainer._push_in_progress.wait_until_done()
    assert future.done() and trainer._push_in_progress is None and trainer.push_in_progress is None


# -- create_accelerator_and_postprocess


def test_the_card_knows_of_the_accelerator(make, repo, tmp_path):
    trainer = make(bf16=True)
    trainer.create_accelerator_and_postprocess()
    trainer.push_to_hub()
    assert trainer.accelerator.mixed_precision == "bf16"
    assert (
        trainer.hub_sync.run.facts.setup["hardware"] | {"precision": "bf16", "processes": 1}
        == (trainer.hub_sync.run.facts.setup["hardware"])
    )
