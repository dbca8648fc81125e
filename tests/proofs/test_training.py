"""Real Trainers in trouble: the Hub away, a slow link, a full or read-only disk, forked workers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback, cli
from hub_callbacks.checkpoints.files import is_training_state
from hub_callbacks.localhub import Answer, Fault, Hang, LocalHub, LoseResponse
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.queue import Outbox
from models import Sentences, arguments, classifier
from savers import digests, on_hub, wait_until


class AtStep(TrainerCallback):
    """Does something when a step ends."""

    def __init__(self, actions: dict[int, Any]) -> None:
        self.actions = actions

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.actions:
            self.actions[state.global_step]()


def train(
    output_dir: Path, *others: TrainerCallback, finish_timeout: float = 30, **changes: Any
) -> HubSyncCallback:
    callback = HubSyncCallback(finish_timeout=finish_timeout)
    trainer = Trainer(
        classifier(),
        arguments(output_dir, **({"hub_strategy": "all_checkpoints", "save_total_limit": 1} | changes)),
        train_dataset=Sentences(),
        callbacks=[*others, callback],
    )
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps
    return callback


def checkpoints(files: dict[str, str]) -> set[str]:
    return {path.split("/")[0] for path in files if path.startswith("checkpoint-")}


def assert_all_is_there(
    hub: LocalHub, output_dir: Path, cache: Path, steps: tuple[int, ...] = (2, 4, 6, 8)
) -> None:
    there = on_hub(hub, f"local/{output_dir.name}", cache)
    assert checkpoints(there) == {f"checkpoint-{step}" for step in steps}
    last = output_dir / f"checkpoint-{steps[-1]}"
    root = {path: digest for path, digest in digests(last).items() if not is_training_state(path)}
    assert there.items() >= (digests(last, f"{last.name}/") | root).items()


def test_a_hub_that_is_stopped_and_started_again_in_between_gets_all(hub, api, tmp_path, monkeypatch):
    token = hub.token
    monkeypatch.setattr(LocalHub, "token", token)  # which the Hub still knows after a stop
    output_dir = tmp_path / "model"
    callback = train(output_dir, AtStep({3: hub.stop, 7: hub.start}))
    callback.close()
    assert_all_is_there(hub, output_dir, tmp_path / "cache")
    assert callback.summary().waiting == 0


def test_training_without_a_hub_runs_to_its_end_and_all_is_sent_later(hub, api, tmp_path, caplog):
    output_dir = tmp_path / "model"
    token = hub.token
    hub.stop()
    callback = train(output_dir, finish_timeout=1)
    callback.close()
    summary = callback.summary()
    assert (summary.commits, summary.waiting, summary.lost) == (0, 5, 0)
    assert "hub-callbacks sync" in caplog.text
    with hub:
        assert token != hub.token
        outbox = Outbox(output_dir / "_hub_sync")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_TOKEN", hub.token)
            cli.drain(outbox, patience=60, quiet=True)
        assert outbox.pending() == []
        assert_all_is_there(hub, output_dir, tmp_path / "cache")


@pytest.mark.parametrize(
    ("operation", "action", "times"),
    [
        ("commit", Answer(500), 3),
        ("commit", LoseResponse(), 2),
        ("create_repo", Answer(503), 1),
        ("preupload", Answer(429, {"Retry-After": "1"}), 1),
        ("commit", Hang(3), 1),
    ],
)
def test_passing_trouble_costs_no_checkpoint(hub, api, tmp_path, operation, action, times):
    with hub.inject(Fault(operation, action, times)) as injection:
        callback = train(tmp_path / "model")
    callback.close()
    assert injection.hits == times
    assert_all_is_there(hub, tmp_path / "model", tmp_path / "cache")
    titles = [commit.title for commit in api.list_repo_commits("local/model")]
    assert len(titles) == len(set(titles))
    summary = callback.summary()
    assert (summary.commits, summary.waiting, summary.lost) == (len(titles) - 1, 0, 0)


def test_a_refusal_leaves_the_training_alone_and_is_said_once(hub, tmp_path, caplog):
    with hub.inject(Fault("create_repo", Answer(403))):
        callback = train(tmp_path / "model", finish_timeout=5)
        callback.close()
    assert callback.summary().waiting == 5
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len([error for error in errors if "The Hub answered 403" in error]) == 1
    cli.drain(callback.engine.outbox, patience=60, quiet=True)
    assert_all_is_there(hub, tmp_path / "model", tmp_path / "cache")


def test_a_slow_link_loses_no_rotated_checkpoint(hub, tmp_path):
    hub.throttle(1_000_000)
    callback = train(tmp_path / "model")
    callback.close()
    assert_all_is_there(hub, tmp_path / "model", tmp_path / "cache")


def test_the_last_save_arrives_over_a_slow_link(hub, tmp_path):
    hub.throttle(200_000)
    callback = train(tmp_path / "model", hub_strategy="checkpoint", save_steps=1)
    callback.close()
    there = on_hub(hub, "local/model", tmp_path / "cache")
    last = tmp_path / "model" / "checkpoint-8"
    assert there.items() >= digests(last, "last-checkpoint/").items()
    assert {entry.state for entry in callback.engine.outbox.ledger.latest().values()} == {
        ledger.DONE, ledger.SUPERSEDED,
    }  # fmt: skip


def test_forked_data_loader_workers_and_pushes_do_not_block_each_other(hub, tmp_path):
    epochs = 8
    hub.throttle(2_000_000)
    callback = train(
        tmp_path / "model",
        num_train_epochs=epochs,
        save_strategy="epoch",
        dataloader_num_workers=2,
        hub_strategy="checkpoint",
    )
    callback.close()
    last = tmp_path / "model" / f"checkpoint-{4 * epochs}"
    assert on_hub(hub, "local/model", tmp_path / "cache").items() >= digests(last, "last-checkpoint/").items()


@pytest.mark.slow
def test_a_hundred_epochs_with_forked_workers(hub, tmp_path):
    callback = train(
        tmp_path / "model",
        num_train_epochs=100,
        save_strategy="epoch",
        dataloader_num_workers=2,
        hub_strategy="checkpoint",
    )
    callback.close()
    last = tmp_path / "model" / "checkpoint-400"
    assert on_hub(hub, "local/model", tmp_path / "cache").items() >= digests(last, "last-checkpoint/").items()


def test_a_full_disk_ends_no_training_and_the_loss_is_reported(hub, small_disk, tmp_path, monkeypatch, caplog):
    """The outbox alone is on the full disk: what the Trainer does about one is its own business."""
    outbox = tmp_path / "model" / "_hub_sync"
    outbox.parent.mkdir()
    outbox.symlink_to(small_disk)
    with hub.inject(Fault("commit", Answer(403))):
        callback = train(tmp_path / "model", finish_timeout=1)
        callback.close()
    summary = callback.summary()
    assert summary.lost > 0
    assert summary.lost + summary.waiting == 5
    assert "Free disk space" in caplog.text
    cli.drain(Outbox(outbox), patience=60, quiet=True)
    there = checkpoints(on_hub(hub, "local/model", tmp_path / "cache"))
    assert there, "what had been taken in arrives"
    assert len(there) <= 5 - summary.lost


def test_a_read_only_outbox_ends_no_training_and_the_loss_is_reported(hub, tmp_path, caplog):
    outbox = tmp_path / "model" / "_hub_sync"
    outbox.mkdir(parents=True)
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(outbox)], capture_output=True)
    if mount.returncode:
        pytest.skip("a read-only disk cannot be mounted here")
    try:
        callback = train(tmp_path / "model", finish_timeout=1)
        callback.close()
    finally:
        subprocess.run(["umount", "-l", str(outbox)], check=True)
    summary = callback.summary()
    assert (summary.lost, summary.waiting, summary.commits) == (5, 0, 0)
    assert "cannot be written to" in caplog.text


def test_a_next_run_sends_what_the_last_one_left(hub, tmp_path):
    with hub.inject(Fault("commit", Answer(403))):
        train(tmp_path / "model", finish_timeout=1).close()
    again = HubSyncCallback()
    Trainer(classifier(), arguments(tmp_path / "model", hub_strategy="all_checkpoints"), callbacks=[again])
    wait_until(lambda: not again.engine.outbox.pending())
    again.close()
    assert_all_is_there(hub, tmp_path / "model", tmp_path / "cache")
