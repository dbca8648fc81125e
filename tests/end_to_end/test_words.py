"""What a person reads of a run in the terminal: where it pushes to, and how it ended; each once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Trainer

from hub_callbacks import HubSyncCallback
from hub_callbacks.localhub import Answer, Fault, LocalHub
from models import Sentences, arguments, classifier
from runs import train

SCRIPT = """
import sys
from transformers import Trainer
from hub_callbacks import HubSyncCallback
from models import Sentences, arguments, classifier

args = arguments(sys.argv[1], max_steps=2, hub_private_repo=True, hub_strategy="checkpoint")
trainer = Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[HubSyncCallback()])
{before}
trainer.train({resume})
"""
QUIET = "HF_HUB_DISABLE_PROGRESS_BARS"
SUPPORT = str(Path(__file__).parents[1] / "support")


def words(folder, before="", resume="", **environment):
    """The lines of the package on standard error."""
    known = {name: value for name, value in os.environ.items() if name != QUIET}
    known["PYTHONPATH"] = os.pathsep.join([SUPPORT, *sys.path])
    code = SCRIPT.format(before=before, resume=resume)
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=known | environment, capture_output=True, text=True, check=True)
    return [
        line for line in done.stderr.splitlines() if "hub_callbacks" in line and "which only you know" not in line
    ]


def test_a_run_says_where_it_pushes_to_and_how_it_ended(hub, repo, tmp_path):
    beginning, end = words(tmp_path / repo)
    address = f"{hub.endpoint}/local/{repo}"
    assert beginning == f"hub_callbacks: Pushing to {address} as local: private, checkpoint."
    assert re.fullmatch(
        rf"hub_callbacks: 2 commits, 0\.\d MB pushed; \d+ ms of the training thread\. {re.escape(address)}", end
    )


def test_a_run_that_goes_on_says_from_which_step(hub, repo, tmp_path):
    train(tmp_path, repo, max_steps=2)
    beginning, *_ = words(tmp_path / repo, before="args.max_steps = 4", resume="resume_from_checkpoint=True")
    assert beginning.endswith("public, checkpoint, resumed from step 2.")


@pytest.mark.parametrize(
    ("before", "environment"),
    [("", {QUIET: "1"}), ("import logging; logging.getLogger('hub_callbacks').setLevel(logging.ERROR)", {})],
    ids=["no bars", "errors alone"],
)
def test_who_wants_it_quiet_hears_nothing(hub, repo, tmp_path, before, environment):
    assert words(tmp_path / repo, before, **environment) == []


def test_who_has_set_up_logging_has_both_there(hub, repo, tmp_path):
    logged = words(tmp_path / repo, "import logging; logging.basicConfig(level=logging.INFO)")
    assert [line.partition(":")[0] for line in logged] == ["INFO", "INFO"]


def test_what_is_asked_of_the_hub_is_no_push_that_a_person_reads_of(hub, repo, tmp_path, caplog):
    callback = HubSyncCallback()  # it waits until the Hub has answered, and no longer: all is refused then
    with hub.inject(Fault("*", Answer(401))):
        args = arguments(tmp_path / repo, max_steps=1)
        Trainer(classifier(), args, train_dataset=Sentences(), callbacks=[callback]).train()
    callback.close()
    assert "look whose" not in caplog.text and "create the repository" not in caplog.text
    assert caplog.text.count("Nothing can be pushed. ") == 1


def test_a_model_is_the_runs_own_though_its_hub_has_another_address(api, repo, tmp_path, monkeypatch, caplog):
    import huggingface_hub.constants

    for _ in (1, 2):
        with LocalHub(tmp_path / "hub") as other:
            monkeypatch.setenv("HF_ENDPOINT", other.endpoint)
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", other.endpoint)
            train(tmp_path, repo, callback={"hub_token": other.token}, max_steps=2)
    assert "another run" not in caplog.text
