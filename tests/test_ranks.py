"""Several processes train; one pushes, nobody waits for the network inside training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from runs import below, digests, on_hub, root_of, titles

SCRIPT = """
import sys
import torch.distributed
sys.path.insert(0, {tests!r})
from models import *
from transformers import Trainer
from hub_callbacks import HubSyncCallback

trainer = Trainer(
    classifier(),
    arguments({output_dir!r}, hub_strategy="checkpoint", hub_always_push=True, push_to_hub=True, {changes}),
    train_dataset=Sentences(32),
    eval_dataset=Sentences(8),
    callbacks=[HubSyncCallback()],
)
trainer.train()
trainer.evaluate()  # a collective after training: no rank may still be waiting for the network
torch.distributed.destroy_process_group()  # gloo's threads may abort an interpreter that ends before them
"""


def run(output_dir: Path, changes: str = "", processes: int = 2) -> None:
    script = output_dir.parent / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), output_dir=str(output_dir), changes=changes))
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    job = subprocess.Popen(
        [*command, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = job.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)  # the ranks, too
        raise
    assert job.returncode == 0, output[-3000:]


def test_one_repository_and_one_commit_for_each_save_with_two_processes(hub, api, repo, tmp_path):
    run(tmp_path / repo)
    saves = [f"Training in progress, step {step}" for step in (2, 4, 6, 8)]
    # The end makes a commit only if it finds something new: the last checkpoint may have come with it.
    made = [title for title in titles(api, repo) if not title.startswith("Evaluation")]
    assert made in (saves, [*saves, "End of training"])
    checkpoint = digests(tmp_path / repo / "checkpoint-8")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= checkpoint.keys()
    assert on_hub(tmp_path, repo) == root_of(checkpoint) | below("last-checkpoint", checkpoint)
    created = [seen for seen in hub.requests if seen.operation == "create_repo" and seen.status == 200]
    assert len(created) >= 1


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="needs a GPU before transformers 5")
@pytest.mark.parametrize("state_dict", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
def test_fsdp_leaves_a_whole_checkpoint_though_no_save_was_asked_for(hub, api, repo, tmp_path, state_dict):
    config = {"transformer_layer_cls_to_wrap": ["BertLayer"], "state_dict_type": state_dict}
    run(tmp_path / repo, f'save_strategy="no", fsdp="full_shard auto_wrap", fsdp_config={config!r}')
    checkpoint = digests(tmp_path / repo / "checkpoint-8")
    files = on_hub(tmp_path, repo)
    assert files.items() >= below("last-checkpoint", checkpoint).items()
    if state_dict == "FULL_STATE_DICT":
        assert files.items() >= root_of(checkpoint).items() and "model.safetensors" in files
