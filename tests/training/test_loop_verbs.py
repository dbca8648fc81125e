"""The Hub's verbs of `HubSync`, for a training loop without a Trainer."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from huggingface_hub import CommitInfo, ModelCard

from cards import SAID, is_on, values
from hub_callbacks import HubSync, HubSyncTrainerMixin, PushNotSent, SettingsError
from models import classifier
from runs import below, digests, download, on_hub, titles
from savers import wait_until, write_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make(hub, repo, tmp_path):
    made = []

    def make(**keywords):
        sync = HubSync(**({"output_dir": tmp_path / repo, "finish_timeout": 30} | keywords))
        made.append(sync)
        return sync

    yield make
    for sync in made:
        sync.close()


@pytest.fixture
def output(tmp_path, repo):
    classifier().save_pretrained(tmp_path / repo)
    return tmp_path / repo


def test_it_is_made_from_keywords_or_settings(make, repo, tmp_path):
    sync = make(hub_model_id="local/other", hub_strategy="checkpoint")
    assert (sync.settings.hub_model_id, sync.settings.hub_strategy) == ("local/other", "checkpoint")
    assert make(output_dir=tmp_path / repo).hub_model_id == repo
    with pytest.raises(SettingsError, match="hub_strategie"):
        HubSync(output_dir=tmp_path, hub_strategie="end")
    with pytest.raises(SettingsError, match="put them into the settings"):
        HubSync(sync.settings, hub_strategy="end")
    with pytest.raises(SettingsError, match="output_dir is not set"):
        HubSync()


def test_the_verbs_have_the_parameters_of_the_trainers():
    for name in (
        "init_hf_repo",
        "create_model_card",
        "push_to_hub",
        "push_from_checkpoint",
        "finish_current_push",
    ):
        ours, theirs = getattr(HubSync, name), getattr(HubSyncTrainerMixin, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_init_hf_repo_makes_the_repository(make, api, repo):
    sync = make()
    sync.init_hf_repo()
    wait_until(lambda: sync.hub_model_id == f"local/{repo}")
    assert api.repo_exists(f"local/{repo}")


def test_the_token_given_to_init_hf_repo_is_used(make, hub, api, repo, output, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    sync = make()
    sync.init_hf_repo(token=hub.token)
    assert sync.push_to_hub().oid
    with pytest.raises(SettingsError, match="token is"):
        sync.init_hf_repo(token=" ")


def test_push_to_hub_pushes_what_is_in_the_folder_in_one_commit(make, api, repo, output, tmp_path):
    (output / "results.json").write_text("{}")
    (output / "_private").write_text("stays")
    write_checkpoint(output / "checkpoint-5")
    commit = make().push_to_hub("A title", "A description", tags=["v1"], private=True)
    assert isinstance(commit, CommitInfo)
    newest = api.list_repo_commits(f"local/{repo}")[0]
    assert (newest.title, newest.message) == ("A title", "A description")
    assert api.model_info(f"local/{repo}").private
    assert on_hub(tmp_path, repo, "v1") == {
        path: digest for path, digest in digests(output).items() if not path.startswith(("_", "checkpoint-"))
    }


def test_where_it_goes_can_be_said(make, hub, api, repo, output):
    name = repo[-12:].strip("-_") + "-l"
    token = hub.add_user(name)
    sync = make(hub_model_id=f"{name}/x")
    assert sync.push_to_hub(create_repo=False, token=token) is None
    assert "create_repo=False" in sync.summary().why
    assert sync.push_to_hub("One", revision="dev").oid
    assert sync.push_to_hub("Two", revision="dev", delete_existing_repo=True).oid
    made = [commit.title for commit in api.list_repo_commits(f"{name}/x", revision="dev", token=token)]
    assert made == ["Two", "initial commit"]


def test_a_future_is_given_at_once(make, hub, output):
    sync = make()
    hub.stop()
    try:
        futures = [sync.push_to_hub(run_as_future=True), sync.push_to_hub("Again", blocking=False)]
        assert all(isinstance(future, Future) and not future.done() for future in futures)
        assert sync._push_in_progress and not sync._push_in_progress.is_done()
    finally:
        hub.start()
    sync._finish_current_push()
    assert all(future.done() for future in futures) and sync._push_in_progress is None


def test_what_has_not_arrived_is_raised(make, hub, output):
    sync = make(on_error="raise", finish_timeout=0.2)
    hub.stop()
    try:
        sync.push_to_hub(run_as_future=True)
        with pytest.raises(PushNotSent, match="hub-callbacks sync"):
            sync.finish_current_push()
    finally:
        hub.start()


def test_checkpoints_arrive_each_under_its_own_name(make, api, repo, tmp_path):
    sync = make(hub_strategy="all_checkpoints")
    folders = [write_checkpoint(tmp_path / repo / name) for name in ("checkpoint-1", "checkpoint-2", "best")]
    for folder in folders:
        sync.push_from_checkpoint(folder.name)
    sync.finish_current_push()
    files = on_hub(tmp_path, repo)
    for folder in folders:
        assert files.items() >= below(folder.name, digests(folder)).items()
    assert files["model.safetensors"] == digests(folders[-1])["model.safetensors"] and "optimizer.pt" not in files
    assert titles(api, repo) == [
        "Training in progress, step 1",
        "Training in progress, step 2",
        "Checkpoint best",
    ]
    with pytest.raises(SettingsError, match="is not a checkpoint"):
        sync.push_from_checkpoint("checkpoint-3")


def test_the_card_says_what_the_loop_has_said(make, repo, output, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)  # Trainers of other tests have set it up otherwise
    sync = make()
    sync.create_accelerator_and_postprocess(cpu=True, mixed_precision="bf16")
    sync.describe(model=classifier(), train_dataset=[1, 2, 3])
    sync.log({"loss": 2.5, "epoch": 1}, step=10)
    sync.log({"eval_accuracy": 0.75, "epoch": 1}, step=10)
    card = sync.create_model_card(license="mit", model_name="By hand", tags=["said"])
    assert isinstance(card, ModelCard) and "# By hand" in str(card)
    sync.push_to_hub(tags="v1", finetuned_from="local/base")
    pushed = ModelCard.load(download(tmp_path, repo) / "README.md")
    assert pushed.data.license == "mit" and pushed.data.base_model == "local/base"
    assert set(pushed.data.tags) == {"said", "generated_from_trainer"}
    for text in ("75.00 %", "step 10", "AutoModelForSequenceClassification", "bf16"):
        assert text in pushed.text, text


@pytest.mark.parametrize("verb", ["create_model_card", "push_to_hub"])
@pytest.mark.parametrize("without", ["dataset_language", "language"])
def test_each_thing_said_of_the_model_is_on_the_card(make, repo, output, tmp_path, verb, without):
    sync = make()
    sync.describe(model=classifier())
    sync.log({"eval_accuracy": 0.75}, step=1)
    names = SAID.keys() - {without}
    getattr(sync, verb)(**values(names))
    folder = output if verb == "create_model_card" else download(tmp_path, repo)
    card = ModelCard.load(folder / "README.md")
    assert [name for name in names if not is_on(card, name)] == []


def test_a_bad_value_is_said_before_anything_is_queued(make, output):
    sync = make()
    for bad in (
        {"tags": "no tag"},
        {"run_as_future": 1},
        {"commit_message": ""},
        {"token": ""},
        {"unknown": 1},
    ):
        with pytest.raises(SettingsError, match=next(iter(bad)).rstrip("s")):
            sync.push_to_hub(**bad)
    with pytest.raises(SettingsError, match="language"):
        sync.create_model_card(language=3)
    assert not sync.pushes


def test_another_process_than_the_main_one_pushes_nothing(make, hub, repo, output, monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("RANK", "1")
    sync = make()
    hub.clear_requests()
    sync.init_hf_repo()
    write_checkpoint(output / "checkpoint-1")
    verbs = (sync.push_to_hub, sync.create_model_card, lambda: sync.push_from_checkpoint("checkpoint-1"))
    assert [verb() for verb in verbs] == [None, None, None]
    # What would be said on the main process is said on this one, too.
    for verb in (sync.init_hf_repo, sync.push_to_hub):
        with pytest.raises(SettingsError, match="token is"):
            verb(token="")
    with pytest.raises(SettingsError, match="checkpoint_folder is 3"):
        sync.push_from_checkpoint(3)
    assert not sync.pushes and not (output / "_hub_sync").exists() and not (output / "README.md").exists()
    monkeypatch.delenv("RANK")
    sync.create_accelerator_and_postprocess(cpu=True)
    monkeypatch.setattr(PartialState, "is_main_process", False)
    assert sync.push_to_hub() is None
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_what_an_accelerate_loop_saves_serves_to_go_on(make, repo, tmp_path):
    sync = make(hub_strategy="checkpoint")
    accelerator = sync.create_accelerator_and_postprocess(cpu=True)
    model = classifier()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    loss = model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.tensor([1])).loss
    accelerator.backward(loss)
    optimizer.step()
    accelerator.save_state(str(tmp_path / repo / "checkpoint-1"))
    sync.push_from_checkpoint("checkpoint-1").result(timeout=60)
    files = on_hub(tmp_path, repo)
    assert {path for path in files if "/" not in path} == {"model.safetensors"}
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    accelerator.load_state(str(download(tmp_path, repo) / "last-checkpoint"))
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_the_example_runs(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("HF_ENDPOINT", "HF_TOKEN"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "accelerate_loop.py")],
        cwd=tmp_path,
        env=environment | {"HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "loaded back from the Hub as v1.0.0" in done.stdout
