"""What goes where under which message."""

from __future__ import annotations

import pytest

from hub_callbacks.checkpoints.files import is_training_state, stale_shards
from hub_callbacks.outbox.push import NODE_BRANCH, OtherNodes
from hub_callbacks.training.plan import (
    plan_end,
    plan_evaluate,
    plan_node_files,
    plan_output_dir,
    plan_save,
    progress_message,
    with_other_nodes,
)

CHECKPOINT = [
    "config.json",
    "custom_code.py",
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "sub/part.json",
    "trainer_state.json",
    "training_args.bin",
    "README.md",
]


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint-10"
    for name in CHECKPOINT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("strategy", "slots"),
    [
        ("end", None),
        ("every_save", ["model"]),
        ("checkpoint", ["model", "last-checkpoint"]),
        ("all_checkpoints", ["model", "checkpoint-10"]),
    ],
)
def test_what_a_save_pushes(checkpoint, strategy, slots):
    plan = plan_save(strategy, checkpoint, 10, "message")
    assert (plan and [part.slot for part in plan.parts]) == slots


def test_the_root_gets_what_loads_and_the_checkpoint_gets_all(checkpoint):
    plan = plan_save("checkpoint", checkpoint, 10, "message")
    model, whole = plan.parts
    assert {model.path_in_repo(file) for file in model.files} == {
        "config.json",
        "custom_code.py",
        "model.safetensors",
        "sub/part.json",
        "training_args.bin",
    }
    assert {whole.path_in_repo(file) for file in whole.files} == {f"last-checkpoint/{name}" for name in CHECKPOINT}
    assert whole.whole_folder and not model.whole_folder


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("optimizer.pt", True),
        ("optimizer.bin", True),
        ("optimizer_0/__0_0.distcp", True),
        ("scheduler.pt", True),
        ("scaler.pt", True),
        ("rng_state.pth", True),
        ("rng_state_3.pth", True),
        ("random_states_0.pkl", True),
        ("trainer_state.json", True),
        ("pytorch_model_fsdp_0/__0_0.distcp", True),
        ("global_step10/zero_pp_rank_0_mp_rank_00_model_states.pt", True),
        ("zero_to_fp32.py", True),
        ("zero_to_torch.py", True),
        ("pytorch_model_fsdp.bin", True),
        ("checkpoint-is-incomplete.txt", True),
        ("model.safetensors", False),
        ("pytorch_model.bin", False),
        ("adapter_model.safetensors", False),
        ("training_args.bin", False),
        ("tokenizer.json", False),
        ("optimizer_of_ideas.py", False),
        ("latest_news.json", False),
        ("1_Pooling/config.json", False),
    ],
)
def test_what_serves_only_to_continue_training(file, expected):
    assert is_training_state(file) is expected


def test_an_evaluation_pushes_the_card_alone():
    plan = plan_evaluate("every_save", 7, "m")
    assert plan.parts == () and plan.card
    assert plan_evaluate("end", 7, "m") is None


def test_the_end_pushes_the_model_whatever_the_strategy(checkpoint):
    plan = plan_end(checkpoint, 10)
    assert [part.slot for part in plan.parts] == ["model"]
    assert plan.message == "End of training"


def test_a_scripts_final_push_leaves_checkpoints_private_and_hidden_files(tmp_path):
    for name in ("model.safetensors", "all_results.json", "_private/x", "checkpoint-2/a", ".env", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    plan = plan_output_dir(tmp_path, {"model.safetensors"}, 3, "m")
    assert {part.slot: part.files for part in plan.parts} == {
        "model": ("model.safetensors",),
        "outputs": ("all_results.json",),
    }


def test_messages_are_the_trainers():
    assert progress_message(500) == "Training in progress, step 500"
    assert progress_message(500, 2.0) == "Training in progress, epoch 2"


@pytest.mark.parametrize(
    ("new", "remote", "stale"),
    [
        (["model.safetensors"], ["model.safetensors", "config.json"], []),
        (
            ["model.safetensors"],
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
        (
            ["model-00001-of-00001.safetensors"],
            ["model-00002-of-00002.safetensors"],
            ["model-00002-of-00002.safetensors"],
        ),
        (["adapter_model.safetensors"], ["model-00001-of-00002.safetensors"], []),
        (["config.json"], ["model-00001-of-00002.safetensors"], []),
    ],
)
def test_shards_of_an_earlier_save_go(new, remote, stale):
    assert stale_shards(new, remote) == stale


def test_a_node_sends_what_the_main_process_does_not_write_by_the_same_name(tmp_path):
    mine = ("rng_state_3.pth", "pytorch_model_fsdp_0/__3_0.distcp", "dataloader_3.pt")
    alike = ("model.safetensors", "model-00001-of-00002.safetensors", "optimizer.pt", "scheduler.pt")
    for name in (*mine, *alike, "config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (part,) = plan_node_files(tmp_path, 8, 3, has_copies=True).parts
    assert part.files == tuple(sorted((*mine, "config.json")))  # a small copy costs nothing
    assert part.prefix == f"{NODE_BRANCH}/8/node-3"
    assert set(plan_node_files(tmp_path, 8, 3, has_copies=False).parts[0].files) >= set(alike)
    (missing,) = plan_node_files(tmp_path / "not-there", 8, 3, has_copies=False).parts
    assert missing.files == ()


def test_only_the_checkpoint_folder_waits_for_other_nodes(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    plan = plan_save("checkpoint", tmp_path, 8, "step 8")
    others = OtherNodes("branch", (1,))
    assert [part.others for part in with_other_nodes(plan, others).parts] == [None, others]
