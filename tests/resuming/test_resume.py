"""`latest_checkpoint`: the newest complete checkpoint, here or on the Hub, in its place for the Trainer."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from typer.testing import CliRunner

import hub_callbacks
from hub_callbacks import ResumeError, latest_checkpoint
from hub_callbacks.checkpoints.completeness import problem_of
from hub_callbacks.checkpoints.files import TRAINER_STATE
from hub_callbacks.checkpoints.manifest import NAME
from hub_callbacks.cli import app
from hub_callbacks.hub.downloads import Downloads
from hub_callbacks.localhub import Answer, Fault
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.resuming.placing import Placing
from hub_callbacks.resuming.processes import OneProcess
from hub_callbacks.resuming.search import Search
from hub_callbacks.settings import OUTBOX_NAME
from models import arguments
from runs import commit_titled, digests, titles, train


@pytest.fixture
def output_dir(repo, tmp_path):
    return tmp_path / repo


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: caplog.text


@pytest.fixture
def asked_once(monkeypatch):
    monkeypatch.setattr("hub_callbacks.hub.downloads.TRIES", 1)


def change(api, repo, *operations):
    return api.create_commit(f"local/{repo}", list(operations), commit_message="damage").oid


# -- nothing there


def test_none_where_there_is_nothing_yet(hub, repo, output_dir, said):
    assert latest_checkpoint(arguments(output_dir)) is None
    assert "step 0" in said() and f"there is no repository local/{repo}" in said()


def test_none_where_the_repository_holds_no_checkpoint(hub, api, repo, output_dir):
    api.create_repo(f"local/{repo}")
    assert latest_checkpoint(arguments(output_dir)) is None
    assert latest_checkpoint(arguments(output_dir), hub_revision="no-such-branch") is None


def test_none_and_a_warning_without_a_network(hub, api, repo, output_dir, asked_once, said):
    train(output_dir.parent, repo, hub_strategy="checkpoint")
    shutil.rmtree(output_dir)
    with hub.inject(Fault("*", Answer(503))):
        assert latest_checkpoint(arguments(output_dir)) is None
    assert "only what is on this machine" in said()


def test_a_hub_that_answers_an_error_now_and_then_is_asked_again(hub, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="checkpoint")
    shutil.rmtree(output_dir)
    with hub.inject(Fault(r"GET /api/models/.*", Answer(503), times=1)) as answered:
        assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
    assert answered.hits == 1


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_no_run_begins_anew_because_the_hub_does_not_hand_out_the_manifest(hub, repo, output_dir, strategy):
    train(output_dir.parent, repo, hub_strategy=strategy)
    with hub.inject(Fault(rf"HEAD .*{NAME}", Answer(403))) as refused:
        assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
        shutil.rmtree(output_dir)
        refused.hits = 0
        with pytest.raises(ResumeError, match="Nothing is lost"):
            latest_checkpoint(arguments(output_dir))
    assert refused.hits == 1  # another try cannot help


# -- from this machine


def test_a_checkpoint_that_is_here_is_taken_though_the_hub_is_away(hub, repo, output_dir, asked_once):
    train(output_dir.parent, repo, hub_strategy="checkpoint")
    with hub.inject(Fault("*", Answer(503))):
        assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")


def test_what_the_hub_has_is_not_fetched_when_it_is_here(hub, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="checkpoint")
    seen = len(hub.requests)
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
    assert not [r for r in hub.requests[seen:] if "model.safetensors" in r.path]


def test_a_checkpoint_that_was_cut_off_is_named_and_that_of_the_hub_takes_its_place(hub, repo, output_dir, said):
    _, _, witness = train(output_dir.parent, repo, hub_strategy="checkpoint")
    weights = output_dir / "checkpoint-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
    assert "model.safetensors is cut off" in said()
    assert digests(output_dir / "checkpoint-8") == witness.checkpoints[8]
    (aside,) = (output_dir / OUTBOX_NAME / "set-aside").glob("*/checkpoint-8")
    assert (aside / "model.safetensors").stat().st_size < (
        output_dir / "checkpoint-8" / "model.safetensors"
    ).stat().st_size


def test_an_older_one_is_taken_where_the_newest_is_incomplete_and_nowhere_else(hub, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="end")
    (output_dir / "checkpoint-8" / TRAINER_STATE).unlink()
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-6")


def test_what_waits_in_the_outbox_is_newer_than_the_hub(hub, api, repo, output_dir):
    with hub.inject(Fault("commit", Answer(503))):
        _, _, witness = train(output_dir.parent, repo, callback={"finish_timeout": 0}, hub_strategy="checkpoint")
    for checkpoint in output_dir.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
    assert digests(output_dir / "checkpoint-8") == witness.checkpoints[8]
    assert not (output_dir / "checkpoint-8" / NAME).exists()


def test_the_incomplete_one_is_set_aside_though_the_outbox_is_on_another_disk(hub, repo, output_dir, other_disk):
    settings = {"output_dir": str(other_disk), "hub_model_id": repo}
    train(output_dir.parent, repo, callback=settings, hub_strategy="checkpoint")
    weights = output_dir / "checkpoint-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    found = latest_checkpoint(arguments(output_dir), **settings)
    assert found == str(output_dir / "checkpoint-8") and problem_of(Path(found)) is None
    assert len(list((output_dir / OUTBOX_NAME / "set-aside").glob("*/checkpoint-8"))) == 1


@pytest.fixture
def other_disk(tmp_path):
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk")
    with tempfile.TemporaryDirectory(dir=shared_memory) as folder:
        yield Path(folder)


def test_more_processes_go_on_from_what_fewer_have_saved_here(hub, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="end")
    for step in (6, 8):
        state = output_dir / f"checkpoint-{step}" / "rng_state.pth"
        shutil.copy(state, state.with_name("rng_state_1.pth"))
        state.rename(state.with_name("rng_state_0.pth"))
    search = Search(output_dir, Outbox(output_dir / OUTBOX_NAME), downloads=Downloads(repo), world_size=4)
    assert search.run(OneProcess()).step == 8
    (output_dir / "checkpoint-8" / "rng_state_1.pth").unlink()  # the process was killed before it had written it
    search = Search(output_dir, Outbox(output_dir / OUTBOX_NAME), downloads=Downloads(repo), world_size=4)
    assert search.run(OneProcess()).step == 6
    assert "rng_state_1.pth" in search.passed_over[0]
    shard = output_dir / "checkpoint-6" / "pytorch_model_fsdp_0" / "__0_0.distcp"
    shard.parent.mkdir()
    shard.touch()  # those of other processes may be on other machines
    search = Search(output_dir, Outbox(output_dir / OUTBOX_NAME), downloads=Downloads(repo), world_size=4)
    assert search.run(OneProcess()).step == 4


def test_what_is_gone_when_its_turn_comes_is_named_and_the_next_older_taken(hub, repo, output_dir, said):
    class Rotating(Search):
        def _choose(self, *args):
            shutil.rmtree(output_dir / "checkpoint-8", ignore_errors=True)
            return super()._choose(*args)

    train(output_dir.parent, repo, hub_strategy="end")
    (output_dir / "checkpoint-6").rename(output_dir / "checkpoint-06")
    search = Rotating(output_dir, Outbox(output_dir / OUTBOX_NAME), downloads=Downloads(repo))
    assert search.run(OneProcess()).step == 4
    assert "checkpoint-8: it is no longer" in search.passed_over[0]


# -- from the Hub


def test_the_newest_of_the_hub_is_put_where_the_trainer_expects_it(hub, repo, output_dir, upload_path, said):
    _, callback, witness = train(output_dir.parent, repo, hub_strategy="checkpoint")
    shutil.rmtree(output_dir)
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
    assert digests(output_dir / "checkpoint-8") == witness.checkpoints[8]
    assert "optimizer, scheduler, random states of 1 process." in said()
    assert Outbox(output_dir / OUTBOX_NAME).run_id() == callback.engine.run_id
    assert not (output_dir / OUTBOX_NAME / "incoming").exists()


def test_a_newer_one_of_the_same_run_is_fetched_beside_older_ones_that_are_here(hub, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="all_checkpoints")
    for step in (6, 8):
        shutil.rmtree(output_dir / f"checkpoint-{step}")
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")


def test_a_newer_one_of_another_run_does_not_replace_what_is_here(hub, repo, output_dir, tmp_path, said):
    train(tmp_path, "other", callback={"hub_model_id": repo}, hub_strategy="checkpoint")
    train(output_dir.parent, repo, hub_strategy="end", max_steps=4)
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-4")
    assert "another run" in said()


@pytest.mark.parametrize("damage", ["content", "cut off", "missing", "no manifest", "manifest"])
def test_a_damaged_one_is_named_and_the_next_older_is_taken(hub, api, repo, output_dir, damage, said):
    _, _, witness = train(output_dir.parent, repo, hub_strategy="all_checkpoints")
    content = (output_dir / "checkpoint-8" / "optimizer.pt").read_bytes()
    shutil.rmtree(output_dir)
    file, manifest = "checkpoint-8/optimizer.pt", f"checkpoint-8/{NAME}"
    change(
        api,
        repo,
        {
            "content": CommitOperationAdd(file, content[:-1] + b"!"),
            "cut off": CommitOperationAdd(file, content[:1000]),
            "missing": CommitOperationDelete(file),
            "no manifest": CommitOperationDelete(manifest),
            "manifest": CommitOperationAdd(manifest, b"{}"),
        }[damage],
    )
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-6")
    assert digests(output_dir / "checkpoint-6") == witness.checkpoints[6]
    assert not (output_dir / "checkpoint-8").exists()
    assert "checkpoint-8 (step 8)" in said()


def test_an_older_last_checkpoint_is_found_in_the_history(hub, api, repo, output_dir, said):
    _, _, witness = train(output_dir.parent, repo, hub_strategy="checkpoint", hub_always_push=True)
    shutil.rmtree(output_dir)
    change(api, repo, CommitOperationAdd("last-checkpoint/optimizer.pt", b"damaged"))
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-6")
    assert digests(output_dir / "checkpoint-6") == witness.checkpoints[6]
    assert "optimizer.pt has 7 bytes" in said()


def test_an_earlier_commit_can_be_asked_for(hub, api, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="checkpoint", hub_always_push=True)
    shutil.rmtree(output_dir)
    commit = commit_titled(api, repo, "Training in progress, step 4")
    assert latest_checkpoint(arguments(output_dir), hub_revision=commit) == str(output_dir / "checkpoint-4")


def train_best_at_first(output_dir, repo, **changes):
    """The checkpoints of steps 2, 4 and 6, the first of which is the best."""
    _, _, witness = train(
        output_dir.parent,
        repo,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="accuracy",
        trainer_options={"compute_metrics": lambda prediction: {"accuracy": 0.5}},  # the first stays the best
        load_best_model_at_end=True,
        max_steps=6,
        **changes,
    )
    recorded = json.loads((output_dir / "checkpoint-6" / TRAINER_STATE).read_text())["best_model_checkpoint"]
    assert Path(recorded).name == "checkpoint-2"
    shutil.move(output_dir, output_dir.with_name("gone"))
    return witness


def assert_the_best_comes_too(repo, elsewhere, witness):
    found = latest_checkpoint(arguments(elsewhere), hub_model_id=repo)
    assert found == str(elsewhere / "checkpoint-6")
    state = json.loads((elsewhere / "checkpoint-6" / TRAINER_STATE).read_text())
    assert state["best_model_checkpoint"] == str(elsewhere / "checkpoint-2")
    assert digests(elsewhere / "checkpoint-2") == witness.checkpoints[2]


@pytest.mark.parametrize("strategy", ["all_checkpoints", "checkpoint"])
def test_the_best_checkpoint_comes_too_and_its_path_is_that_of_this_machine(
    hub, api, repo, output_dir, tmp_path, strategy
):
    witness = train_best_at_first(output_dir, repo, hub_strategy=strategy, hub_always_push=True)
    assert_the_best_comes_too(repo, tmp_path / "elsewhere", witness)


def test_the_best_checkpoint_is_found_however_far_back(hub, api, repo, output_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("hub_callbacks.hub.downloads.HISTORY", 1)
    witness = train_best_at_first(output_dir, repo, hub_strategy="checkpoint", hub_always_push=True)
    assert_the_best_comes_too(repo, tmp_path / "elsewhere", witness)


def test_no_newer_push_takes_the_best_checkpoint_over(hub, api, repo, output_dir, tmp_path):
    with hub.inject(Fault("*", Answer(503))):
        witness = train_best_at_first(output_dir, repo, hub_strategy="checkpoint", callback={"finish_timeout": 0})
    assert CliRunner().invoke(app, ["sync", str(output_dir.with_name("gone"))]).exit_code == 0
    steps = [title for title in titles(api, repo) if title.startswith("Training in progress")]
    assert steps == ["Training in progress, step 2", "Training in progress, step 6"]
    assert_the_best_comes_too(repo, tmp_path / "elsewhere", witness)


def test_another_runs_checkpoint_of_that_step_is_not_the_best_one(hub, repo, output_dir, tmp_path, said):
    train_best_at_first(output_dir, repo, hub_strategy="all_checkpoints")
    train(tmp_path, "other", callback={"hub_model_id": repo}, hub_strategy="all_checkpoints", max_steps=2)
    elsewhere = tmp_path / "elsewhere"
    assert latest_checkpoint(arguments(elsewhere), hub_model_id=repo) == str(elsewhere / "checkpoint-6")
    assert not (elsewhere / "checkpoint-2").exists()
    assert "the best checkpoint (step 2)" in said()


def test_a_copy_of_the_folder_refers_to_its_own_best_checkpoint(hub, repo, output_dir, tmp_path):
    train(
        output_dir.parent,
        repo,
        hub_strategy="end",
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="accuracy",
        trainer_options={"compute_metrics": lambda prediction: {"accuracy": 0.5}},
        load_best_model_at_end=True,
        max_steps=6,
    )
    copy = tmp_path / "copy"
    shutil.copytree(output_dir, copy)
    found = latest_checkpoint(arguments(copy), hub_model_id=repo)
    state = json.loads(Path(found, TRAINER_STATE).read_text())
    assert Path(state["best_model_checkpoint"]).parent == copy


def test_a_kill_before_it_is_in_its_place_makes_it_no_other_runs(hub, repo, output_dir, monkeypatch):
    _, callback, _ = train(output_dir.parent, repo, hub_strategy="checkpoint")
    shutil.rmtree(output_dir)

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Placing, "_place", killed)
        latest_checkpoint(arguments(output_dir))
    assert Outbox(output_dir / OUTBOX_NAME).run_id() == callback.engine.run_id


class Threads:
    """Two nodes, each a thread."""

    def __init__(self, rank, barrier, values):
        self.is_main, self.is_local_main = rank == 0, True
        self._rank, self._barrier, self._values = rank, barrier, values

    def exchange(self, value):
        self._values[self._rank] = value
        self._barrier.wait()
        values = [self._values[0], self._values[1]]
        self._barrier.wait()
        return values

    def together(self, work):
        return self.exchange(work())


def test_each_node_continues_from_its_own_folder(hub, repo, output_dir, tmp_path):
    train(output_dir.parent, repo, hub_strategy="checkpoint")
    barrier, values = threading.Barrier(2, timeout=60), {}

    def search(rank):
        folder = tmp_path / f"node-{rank}"
        found = Search(folder, Outbox(folder / OUTBOX_NAME), Downloads(repo)).run(Threads(rank, barrier, values))
        return found.folder

    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(search, range(2)))
    assert folders == [tmp_path / f"node-{rank}" / "checkpoint-8" for rank in range(2)]
    assert [problem_of(folder) for folder in folders] == [None, None]


def test_a_download_that_broke_off_is_said_and_gone_on_with(hub, repo, output_dir, asked_once):
    _, _, witness = train(output_dir.parent, repo, hub_strategy="checkpoint")
    shutil.rmtree(output_dir)
    with (
        hub.inject(Fault(r"HEAD .*optimizer\.pt", Answer(520))),  # one that the client does not wait for itself
        pytest.raises(ResumeError, match="Nothing is lost"),
    ):
        latest_checkpoint(arguments(output_dir))
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
    assert digests(output_dir / "checkpoint-8") == witness.checkpoints[8]


def test_the_same_line_starts_and_continues_a_run(hub, api, repo, output_dir):
    from transformers import Trainer

    from hub_callbacks import HubSyncCallback
    from models import Sentences, classifier

    for steps in (4, 8):
        args = arguments(output_dir, hub_strategy="checkpoint", max_steps=steps)
        callback = HubSyncCallback()
        trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback])
        trainer.train(resume_from_checkpoint=latest_checkpoint(args))
        callback.close()
        shutil.rmtree(output_dir)
    assert latest_checkpoint(arguments(output_dir)) == str(output_dir / "checkpoint-8")
    history = json.loads((output_dir / "checkpoint-8" / TRAINER_STATE).read_text())["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, 9))


# -- the command


def run_command(*arguments):
    return CliRunner().invoke(app, ["resume", *map(str, arguments)])


def test_the_command_prints_the_folder(hub, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="checkpoint")
    shutil.rmtree(output_dir)
    result = run_command(repo, output_dir)
    assert (result.exit_code, result.stdout.strip()) == (0, str(output_dir / "checkpoint-8"))
    assert problem_of(output_dir / "checkpoint-8") is None


def test_the_command_says_in_json_what_it_passed_over(hub, api, repo, output_dir):
    train(output_dir.parent, repo, hub_strategy="all_checkpoints")
    shutil.rmtree(output_dir)
    change(api, repo, CommitOperationDelete("checkpoint-8/optimizer.pt"))
    result = run_command(repo, output_dir, "--json", "--revision", "main")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["step"], answer["error"]) == (0, 6, None)
    assert "checkpoint-8" in answer["passed_over"][0]


def test_the_exit_code_tells_nothing_found_from_not_understood(hub, repo, output_dir):
    assert run_command(repo, output_dir).exit_code == 1
    assert run_command("not/a/repository", output_dir).exit_code == 2


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        (None, "has no checkpoint"),
        ("nope", "no branch, tag or commit 'nope'"),
        ("step-{step}", "no branch with a name like 'step-{step}'"),
    ],
)
def test_the_command_says_what_is_not_there(hub, api, repo, output_dir, revision, words):
    words = words.replace(
        "has no checkpoint", f"No complete checkpoint was found in {output_dir} or in local/{repo}."
    )
    options = ["--revision", revision] if revision else []
    where = f"local/{repo}"
    assert f"there is no repository {where}" in run_command(where, output_dir, *options).output
    api.create_repo(where)
    result = run_command(where, output_dir, *options)
    assert result.exit_code == 1 and words in result.output
    assert words in json.loads(run_command(where, output_dir, "--json", *options).output)["error"]


def test_the_command_wants_a_folder(hub, repo, output_dir):
    output_dir.touch()
    result = run_command(f"local/{repo}", output_dir)
    assert result.exit_code == 2 and "is a file" in result.output


def test_the_command_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, hub_callbacks.cli, hub_callbacks.resuming.search; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert "latest_checkpoint" in hub_callbacks.__all__
