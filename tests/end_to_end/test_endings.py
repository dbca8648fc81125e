"""How a run ends: well, by an exception, by Ctrl-C, by SIGTERM, without a Hub. Real processes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from transformers import Trainer, TrainingArguments
from typer.testing import CliRunner

import interpreters
from hub_callbacks import HubSyncCallback, PushNotSent
from hub_callbacks.cli import app
from hub_callbacks.localhub import Answer, Fault, Hang
from models import Sentences, arguments, classifier
from runs import below, digests, on_hub, root_of, titles

SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from models import *
from transformers import Trainer, TrainerCallback
from hub_callbacks import HubSyncCallback

class At(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            {at_step_5}

trainer = Trainer(
    classifier(),
    arguments({output_dir!r}, hub_strategy="checkpoint", {changes}),
    train_dataset=Sentences(),
    callbacks=[HubSyncCallback({keywords}), At()],
)
print("ready", flush=True)
trainer.train()
print("trained", flush=True)
"""


UNTIL_AN_ATTEMPT_HAS_FAILED = (
    "from hub_callbacks.outbox import ledger, queue; from savers import wait_until; "
    "entries = queue.Outbox(f'{args.output_dir}/_hub_sync').ledger.all_entries; "
    "wait_until(lambda: ledger.WAITING in [entry.state for entry in entries()])"
)


def start(
    output_dir: Path, at_step_5: str = "pass", keywords: str = "", changes: str = ""
) -> subprocess.Popen[str]:
    """A training script in a process group of its own."""
    code = SCRIPT.format(
        tests=str(Path(__file__).parents[1] / "support"),
        output_dir=str(output_dir),
        at_step_5=at_step_5,
        keywords=keywords,
        changes=changes,
    )
    return interpreters.start(["-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def pushers_of(output_dir: Path) -> list[int]:
    """Processes that were started for an outbox and are still there."""
    wanted = f"{output_dir}/_hub_sync".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in words:
            found.append(int(process.parent.name))
    return found


def wait_until_gone(output_dir: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while pushers_of(output_dir):
        assert time.monotonic() < until, "a pusher is still there"
        time.sleep(0.1)


def saved(output_dir: Path, step: int) -> dict[str, str]:
    files = digests(output_dir / f"checkpoint-{step}")
    return root_of(files) | below("last-checkpoint", files)


def test_a_script_that_ends_well_leaves_no_process(hub, api, repo, tmp_path):
    script = start(tmp_path / repo)
    out, err = script.communicate(timeout=120)
    assert script.returncode == 0 and "trained" in out, err
    assert not pushers_of(tmp_path / repo)
    assert titles(api, repo)[-1] == "End of training"
    assert on_hub(tmp_path, repo) == saved(tmp_path / repo, 8)


def test_an_exception_in_training_stays_what_it_is_and_what_was_saved_arrives(hub, api, repo, tmp_path):
    script = start(tmp_path / repo, "raise ZeroDivisionError('mine')")
    _, err = script.communicate(timeout=120)
    assert (script.returncode == 1 and err.rstrip().splitlines()[-1].startswith("ZeroDivisionError: mine")) or (
        "ZeroDivisionError: mine" in err
    )
    wait_until_gone(tmp_path / repo)
    assert on_hub(tmp_path, repo) == saved(tmp_path / repo, 4)


def test_the_end_after_an_exception_says_what_it_waits_for(hub, api, repo, tmp_path):
    with hub.inject(Fault("*", Answer(503))):
        script = start(tmp_path / repo, "raise ZeroDivisionError('mine')")
        _, err = script.communicate(timeout=120)
    assert "pushes are not on the Hub yet; 15 s more" in err
    assert f"hub-callbacks sync {tmp_path / repo}" in err


def test_ctrl_c_reaches_the_training_and_not_the_pusher(hub, api, repo, tmp_path):
    script = start(tmp_path / repo, "os.killpg(0, signal.SIGINT); time.sleep(1)")
    _, err = script.communicate(timeout=120)
    assert "KeyboardInterrupt" in err and script.returncode != 0
    wait_until_gone(tmp_path / repo)
    assert on_hub(tmp_path, repo) == saved(tmp_path / repo, 4)


def test_a_second_ctrl_c_ends_the_wait_at_the_end_and_what_waits_is_named(hub, repo, tmp_path):
    with hub.inject(Fault("*", Answer(503))):
        script = start(tmp_path / repo, "print('at step 5', flush=True); time.sleep(600)")
        lines = iter(script.stdout.readline, "")
        assert "at step 5\n" in lines
        script.send_signal(signal.SIGINT)
        seen = []
        for line in iter(script.stderr.readline, ""):
            seen.append(line)
            if "15 s more" in line:
                script.send_signal(signal.SIGINT)
        script.communicate(timeout=60)
    err = "".join(seen)
    assert "safe in" in err and f"hub-callbacks sync {tmp_path / repo}" in err
    assert err.count("Traceback") == 1 and "atexit" not in err  # that of the training, from the first Ctrl-C
    assert not pushers_of(tmp_path / repo)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_pusher_goes_on_when_the_training_is_killed(hub, api, repo, tmp_path, number):
    script = start(tmp_path / repo, f"os.kill(os.getpid(), {int(number)}); time.sleep(60)")
    script.communicate(timeout=120)
    assert script.returncode == -number
    wait_until_gone(tmp_path / repo)
    assert on_hub(tmp_path, repo) == saved(tmp_path / repo, 4)


def test_without_a_hub_the_run_ends_in_time_and_says_how_to_send_the_rest(hub, api, repo, tmp_path):
    with hub.inject(Fault("*", Answer(503))):
        script = start(tmp_path / repo, UNTIL_AN_ATTEMPT_HAS_FAILED, keywords="finish_timeout=0.5")
        out, err = script.communicate(timeout=120)
        assert script.returncode == 0 and "trained" in out
        assert f"hub-callbacks sync {tmp_path / repo}" in err and "503" in err
        assert not pushers_of(tmp_path / repo)
        status = CliRunner().invoke(app, ["status", str(tmp_path / repo)])
        assert status.exit_code == 1 and "End of training" in status.output
    assert CliRunner().invoke(app, ["sync", str(tmp_path / repo)]).exit_code == 0
    assert CliRunner().invoke(app, ["status", str(tmp_path / repo)]).exit_code == 0
    assert on_hub(tmp_path, repo) == saved(tmp_path / repo, 8)


def test_on_error_raise_makes_an_exception_of_it(hub, api, repo, tmp_path):
    with hub.inject(Fault("*", Answer(403))):
        script = start(tmp_path / repo, keywords="on_error='raise'")
        out, err = script.communicate(timeout=120)
    assert script.returncode == 1 and "trained" not in out
    assert "PushNotSent" in err and "write rights" in err


def test_a_next_run_sends_the_rest_of_the_one_before_first(hub, api, repo, tmp_path):
    with hub.inject(Fault("*", Answer(503))):
        script = start(tmp_path / repo, "os._exit(9)", keywords="hub_always_push=True")
        script.communicate(timeout=120)
        for process in pushers_of(tmp_path / repo):
            os.kill(process, signal.SIGKILL)
    wait_until_gone(tmp_path / repo)
    again = start(tmp_path / repo, keywords="hub_always_push=True")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    steps = [f"Training in progress, step {n}" for n in (2, 4)]
    assert titles(api, repo)[:2] == steps
    assert titles(api, repo)[-1] == "End of training"


def test_futures_of_what_did_not_arrive_say_so(hub, api, repo, tmp_path):
    from transformers import Trainer

    from models import Sentences, arguments, classifier

    with hub.inject(Fault("*", Answer(401))):
        callback = HubSyncCallback()
        trainer = Trainer(
            classifier(), arguments(tmp_path / repo), train_dataset=Sentences(), callbacks=[callback]
        )
        trainer.train()
        with pytest.raises(PushNotSent, match="hub-callbacks sync"):
            callback.last_push.result(timeout=0)
        callback.close()
    assert callback.summary().waiting > 0 and "hf auth login" in callback.summary().why


@pytest.mark.skipif(
    "enable_jit_checkpoint" not in {field.name for field in dataclasses.fields(TrainingArguments)},
    reason="this release of transformers saves nothing on SIGTERM",
)
def test_the_trainers_emergency_checkpoint_on_sigterm_arrives(hub, api, repo, tmp_path):
    """The Trainer waits some seconds after SIGTERM before it saves, stops, and announces no save."""
    script = start(
        tmp_path / repo,
        "os.kill(os.getpid(), signal.SIGTERM)",
        changes="enable_jit_checkpoint=True, max_steps=10_000, save_steps=10_000",
    )
    _, err = script.communicate(timeout=200)
    assert script.returncode == 0, err
    checkpoint = next((tmp_path / repo).glob("checkpoint-*"))
    assert on_hub(tmp_path, repo).items() >= below("last-checkpoint", digests(checkpoint)).items()
    assert titles(api, repo)[0] == f"Training in progress, step {checkpoint.name.rpartition('-')[2]}"


def test_closing_waits_for_an_upload_that_is_under_way_longer_than_without_progress(hub, api, repo, tmp_path):
    with hub.inject(Fault("commit", Hang(seconds=4), times=1)):
        callback = HubSyncCallback(hub_strategy="end", finish_timeout=0.5)
        trainer = Trainer(
            classifier(), arguments(tmp_path / repo), train_dataset=Sentences(), callbacks=[callback]
        )
        callback.finish = lambda show=False: callback.summary()  # leaves the wait to `close`
        trainer.train()
        callback.close()
    assert callback.last_push.result(timeout=0).oid
