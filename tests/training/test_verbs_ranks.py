"""The Hub's verbs on several processes, with a model whose save is an operation of all of them."""

from __future__ import annotations

import pytest
import transformers

from jobs import run_on_one_node, write_script
from runs import titles

FSDP_ON_CPU = int(transformers.__version__.split(".")[0]) >= 5
FSDP = 'fsdp="full_shard auto_wrap", fsdp_config={"transformer_layer_cls_to_wrap": ["BertLayer"]}'

BAD = """
import torch
from hub_callbacks import HubSyncTrainerMixin, SettingsError

class Together(Trainer):
    def save_model(self, *args, **kwargs):
        torch.distributed.barrier()
        super().save_model(*args, **kwargs)

class Verbs(HubSyncTrainerMixin, Together):
    pass

def refused(call, **values):
    try:
        call(**values)
    except SettingsError as error:
        return str(error)
    raise AssertionError(f"{values} is taken")

trainer.__class__ = __CLASS__
assert trainer.args.world_size == 2
trainer.train()
said = [refused(trainer.push_to_hub, **values) for values in __VALUES__]
said.append(refused(trainer.init_hf_repo, token=""))
said.append(refused(trainer._push_from_checkpoint, checkpoint_folder=3))
print(f"rank {trainer.args.process_index}: {said}", flush=True)
trainer.push_to_hub(commit_message="Well")
"""
OF_THE_TRAINER = [
    {"commit_message": ""},
    {"token": 7},
    {"revision": "no branch"},
    {"private": "yes"},
    {"blocking": 1},
]
OURS = [
    *OF_THE_TRAINER,
    {"commit_description": 1},
    {"tags": ["no tag"]},
    {"tags": "dev"},
    {"tags": f"run-{'0' * 12}"},
    {"create_repo": 1},
    {"delete_existing_repo": 1},
    {"delete_existing_repo": True, "create_repo": False},
    {"run_as_future": 1},
    {"language": 3},
    {"unknown": "name"},
]


@pytest.mark.parametrize(
    ("trainer_class", "values", "changes"),
    [
        pytest.param("Together", OF_THE_TRAINER, "", id="stock"),
        pytest.param("Verbs", OURS, "", id="verbs"),
        pytest.param(
            "type('Sharded', (HubSyncTrainerMixin, Trainer), {})",
            OURS,
            FSDP,
            id="fsdp",
            marks=pytest.mark.skipif(not FSDP_ON_CPU, reason="FSDP needs a GPU before transformers 5"),
        ),
    ],
)
def test_a_bad_value_is_said_on_every_process_and_none_goes_on_to_save(
    hub, api, repo, tmp_path, trainer_class, values, changes
):
    train = BAD.replace("__CLASS__", trainer_class).replace("__VALUES__", repr(values))
    settings = f"max_steps=2, ddp_timeout=60, hub_revision='dev', {changes}"
    agent = run_on_one_node(write_script(tmp_path, settings, train=train), tmp_path / repo, 2)
    said = [line.partition("rank ")[2] for line in agent.output.splitlines() if "rank " in line]
    said = sorted(line for line in said if line[:3] in ("0: ", "1: "))
    assert len(said) == 2 and said[0][3:] == said[1][3:]
    assert titles(api, repo, "dev")[-1] in ("Well", "Evaluation, step 2")


SETTING = """
try:
    Trainer(classifier(), args, callbacks=[HubSyncCallback(hub_strategy="sometimes")])
except ValueError as error:
    print(args.process_index, "has", error, flush=True)
"""


def test_a_bad_setting_is_said_on_every_process(hub, repo, tmp_path):
    agent = run_on_one_node(write_script(tmp_path, train=SETTING), tmp_path / repo, 2)
    for process in (0, 1):
        assert f"{process} has hub_strategy is 'sometimes'" in agent.output
