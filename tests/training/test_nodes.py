"""Jobs on several nodes: what is on no disk but theirs comes to the Hub, whole, in the one commit of a save."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from hub_callbacks.checkpoints.manifest import NAME, load
from hub_callbacks.localhub import Fault, Hang
from hub_callbacks.outbox.push import NODE_BRANCH
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.settings import OUTBOX_NAME
from jobs import nodes_of, run_on_nodes, write_script
from runs import below, digests, download, on_hub, titles
from savers import wait_until

FSDP_ON_CPU = int(transformers.__version__.split(".")[0]) >= 5
FSDP = {"transformer_layer_cls_to_wrap": ["BertLayer"], "state_dict_type": "SHARDED_STATE_DICT"}
SHARDED = {"fsdp": "full_shard auto_wrap", "fsdp_config": FSDP} if FSDP_ON_CPU else {}

TRAIN_STEP_BY_STEP = """
import time
from pathlib import Path
from transformers import TrainerCallback

class Gate(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        while state.global_step >= 2 and not Path({gate!r}, str(state.global_step)).exists():
            time.sleep(0.02)

trainer.add_callback(Gate())
trainer.train()
"""
"""Training that goes on from step 2, and from each later one, when there is a file of that name."""


def branches(api, repo: str) -> list[str]:
    return [branch.name for branch in api.list_repo_refs(f"local/{repo}").branches]


def settings(repo: str, **changes: object) -> str:
    values = {"hub_model_id": repo, "hub_always_push": True, **changes}
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def listed(tmp_path: Path, repo: str) -> dict[str, str]:
    """What the manifest on the Hub says that the newest checkpoint is made of: path → sha256."""
    manifest = load((download(tmp_path, repo) / "last-checkpoint" / NAME).read_bytes())
    return {path: facts.sha256 for path, facts in manifest.files.items()}


def sync(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    code = "from hub_callbacks.cli import main; main()"
    command = [sys.executable, "-c", code, "sync", str(folder), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_checkpoint_of_two_nodes_arrives_whole_in_one_commit(hub, api, repo, tmp_path):
    folders = [tmp_path / "first" / "out", tmp_path / "second" / "out"]
    run_on_nodes(write_script(tmp_path, settings(repo, **SHARDED)), folders)
    first, second = (digests(folder / "checkpoint-8") for folder in folders)
    own = {"rng_state_1.pth"} | ({"pytorch_model_fsdp_0/__1_0.distcp"} if SHARDED else set())
    assert own <= second.keys() - first.keys()
    whole = second | first
    assert on_hub(tmp_path, repo).items() >= below("last-checkpoint", whole).items()
    assert listed(tmp_path, repo) == whole
    saves = [f"Training in progress, step {step}" for step in (2, 4, 6, 8)]
    made = [title for title in titles(api, repo) if not title.startswith("Evaluation")]
    assert made in (saves, [*saves, "End of training"])
    assert branches(api, repo) == ["main"]


def test_nodes_that_share_the_folder_send_nothing_of_their_own(hub, api, repo, tmp_path):
    hub.clear_requests()
    folder = tmp_path / "shared" / "out"
    run_on_nodes(write_script(tmp_path, settings(repo)), [folder, folder])
    whole = digests(folder / "checkpoint-8")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= whole.keys()
    assert listed(tmp_path, repo) == whole
    assert [seen.path for seen in hub.requests if NODE_BRANCH in seen.path] == []
    assert len([seen for seen in hub.requests if seen.operation == "create_repo"]) == 1
    assert not (folder / "_hub_sync" / "nodes").exists()


@pytest.mark.slow
def test_what_each_node_has_a_copy_of_is_sent_once(hub, api, repo, tmp_path):
    folders = [tmp_path / "first" / "out", tmp_path / "second" / "out"]
    run_on_nodes(write_script(tmp_path, settings(repo, save_on_each_node=True)), folders)
    first, second = (digests(folder / "checkpoint-8") for folder in folders)
    assert "optimizer.pt" in second and second.keys() - first.keys() == {"rng_state_1.pth"}
    assert listed(tmp_path, repo) == second | first


@pytest.mark.slow
def test_a_node_that_dies_in_its_upload_leaves_the_checkpoint_before_current(hub, api, repo, tmp_path):
    gate = tmp_path / "gate"
    gate.mkdir()
    script = write_script(tmp_path, settings(repo, **SHARDED), train=TRAIN_STEP_BY_STEP.format(gate=str(gate)))
    folders = [tmp_path / "first" / "out", tmp_path / "second" / "out"]
    with nodes_of(script, folders) as (main, other):
        wait_until(lambda: api.repo_exists(f"local/{repo}") and len(titles(api, repo)) == 1, 120)
        # By now it has sent its files of step 2; it hangs as it begins with those of step 4.
        with hub.inject(Fault(f"POST /preupload/{NODE_BRANCH}", Hang())) as hanging:
            for step in ("2", "3"):
                (gate / step).touch()
            wait_until(lambda: hanging.hits > 0 and "Training in progress, step 4" in waiting_in(folders[0]))
            other.kill()
            main.kill()
    at_two = digests(folders[1] / "checkpoint-2") | digests(folders[0] / "checkpoint-2")

    left = sync(folders[0], "--patience", "5")
    assert left.returncode == 1 and "waits for the files of node 1" in left.stdout
    # The model at the root may be newer; the checkpoint is that of step 2, and whole.
    assert listed(tmp_path, repo) == at_two
    assert on_hub(tmp_path, repo).items() >= below("last-checkpoint", at_two).items()

    # Nothing was lost: each node's folder still has its files, and sends them when it is asked to.
    newest = digests(folders[1] / "checkpoint-4") | digests(folders[0] / "checkpoint-4")
    assert sync(folders[1]).returncode == 0
    assert sync(folders[0]).returncode == 0
    assert listed(tmp_path, repo) == newest


def waiting_in(folder: Path) -> list[str]:
    return [push.message for push in Outbox(folder / OUTBOX_NAME).pending()]


RESUME = """
from hub_callbacks import latest_checkpoint

class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == {last}

trainer.add_callback(Stop())
trainer.train(resume_from_checkpoint=latest_checkpoint(args))
"""


@pytest.mark.slow
@pytest.mark.skipif(not FSDP_ON_CPU, reason="transformers 4 loads no optimizer on several CPU processes")
def test_fresh_nodes_continue_from_the_hub_bit_for_bit(hub, api, repo, tmp_path):
    def job(name: str, run: str, last: int) -> list[Path]:
        folder = tmp_path / name
        folder.mkdir()
        train = "from transformers import TrainerCallback\n" + RESUME.format(last=last)
        folders = [folder / "first" / "out", folder / "second" / "out"]
        agents = run_on_nodes(write_script(folder, settings(run, **SHARDED), train=train), folders)
        assert ("Continuing from" in agents[0].output) == (name == "continued")
        return folders

    job("interrupted", repo, 4)
    continued = job("continued", repo, 8)
    through = job("uninterrupted", f"{repo}-2", 8)
    for ours, theirs in zip(continued, through, strict=True):
        assert not (ours / "checkpoint-2").exists() and not (ours / "checkpoint-6" / NAME).exists()
        weights = [trained(folder / "checkpoint-8") for folder in (ours, theirs)]
        assert weights[0] == weights[1]
    whole = digests(continued[1] / "checkpoint-8") | digests(continued[0] / "checkpoint-8")
    assert listed(tmp_path, repo) == whole


def trained(checkpoint: Path) -> dict[str, str]:
    """What this node's weights, optimizer and random states are: file → sha256."""
    return {
        path: digest
        for path, digest in digests(checkpoint).items()
        if path.endswith((".distcp", ".safetensors", "optimizer.pt")) or path.startswith("rng_state")
    }
