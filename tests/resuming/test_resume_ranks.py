"""Several processes continue from the Hub: one download, one step for all, sharded and full states alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import transformers

from jobs import run_on_one_node

needs_transformers_5 = pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5,
    reason="transformers 4 loads no optimizer on several CPU processes: it maps it to the device cpu:0",
)

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import leaving; leaving.begin()
from accelerate import PartialState
from accelerate.utils import DistributedType
from models import *
from transformers import Trainer, TrainerCallback
from hub_callbacks import HubSyncCallback, latest_checkpoint

class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= {until}

args = arguments(sys.argv[1], hub_strategy="checkpoint", max_steps=8, save_steps=4, {changes})
if args.fsdp:
    # accelerate leaves FSDP out, and trains with DDP, where it sees no GPU; FSDP itself can do without.
    assert args.device.type == "cpu"
    PartialState().distributed_type = DistributedType.MULTI_GPU
trainer = Trainer(
    classifier(), args, train_dataset=Sentences(48), callbacks=[Stop(), HubSyncCallback()]
)
trainer.train(resume_from_checkpoint=latest_checkpoint(args))
leaving.well()
"""


def run(output_dir: Path, processes: int = 2, until: int = 8, changes: str = "") -> str:
    """What the processes have said."""
    script = output_dir.parent / f"{output_dir.name}-{processes}-{until}.py"
    tests = str(Path(__file__).parents[1] / "support")
    script.write_text(SCRIPT.format(tests=tests, until=until, changes=changes))
    return run_on_one_node(script, output_dir, processes).output


def history(output_dir: Path) -> list[dict[str, float]]:
    return json.loads((output_dir / "checkpoint-8" / "trainer_state.json").read_text())["log_history"]


@needs_transformers_5
def test_one_process_downloads_for_all_and_another_number_of_processes_is_said(hub, repo, tmp_path):
    run(tmp_path / repo, until=4)
    shutil.rmtree(tmp_path / repo)
    seen = len(hub.requests)
    output = run(tmp_path / repo)
    fetched = [r for r in hub.requests[seen:] if r.method == "HEAD" and "optimizer.pt" in r.path]
    assert len(fetched) == 1
    assert output.count("Continuing from") == 1 and "random states of 2 processes" in output
    shutil.rmtree(tmp_path / repo / "checkpoint-8")
    assert "saved by 2 processes and is continued by 1" in run(tmp_path / repo, processes=1)


@needs_transformers_5
@pytest.mark.parametrize(
    "state_dict", [pytest.param("FULL_STATE_DICT", marks=pytest.mark.slow), "SHARDED_STATE_DICT"]
)
def test_fsdp_goes_on_from_the_hub_as_if_nothing_had_happened(hub, repo, tmp_path, state_dict):
    config = {"transformer_layer_cls_to_wrap": ["BertLayer"], "state_dict_type": state_dict}
    changes = f'fsdp="full_shard auto_wrap", fsdp_config={config!r}'
    run(tmp_path / f"{repo}-whole", changes=changes)
    run(tmp_path / repo, until=4, changes=changes)
    shutil.rmtree(tmp_path / repo)
    assert "comes from last-checkpoint (step 4)" in run(tmp_path / repo, changes=changes)
    assert history(tmp_path / repo) == history(tmp_path / f"{repo}-whole")


def test_one_process_that_fails_to_download_ends_all_of_them(hub, repo, tmp_path):
    from hub_callbacks.localhub import Answer, Fault

    run(tmp_path / repo, until=4)
    shutil.rmtree(tmp_path / repo)
    with (
        hub.inject(Fault(r"HEAD .*optimizer\.pt", Answer(403))),
        pytest.raises(AssertionError, match="could not be downloaded"),
    ):
        run(tmp_path / repo)
