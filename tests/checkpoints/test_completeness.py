"""Which checkpoint folders can be continued from."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from hub_callbacks.checkpoints.completeness import TO_BE_ONE, TO_PUSH, problem_of, stamps, unannounced
from hub_callbacks.checkpoints.files import INCOMPLETE_MARKER, TRAINER_STATE


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    save_file({"a": torch.ones(9)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": torch.ones(9)}, folder / name)
    (folder / TRAINER_STATE).write_text('{"global_step": 3}')
    return folder


def test_a_whole_one(checkpoint):
    assert problem_of(checkpoint) is None
    assert problem_of(checkpoint, world_size=4) is None  # one process wrote it, and four can continue


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", TRAINER_STATE],
)
def test_a_file_that_was_cut_off(checkpoint, file):
    content = (checkpoint / file).read_bytes()
    for size in (0, len(content) // 2, len(content) - 1):
        (checkpoint / file).write_bytes(content[:size])
        assert problem_of(checkpoint) is not None, size


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "rng_state.pth", TRAINER_STATE])
def test_a_file_that_rotation_has_deleted_already(checkpoint, file):
    (checkpoint / file).unlink()
    assert problem_of(checkpoint) is not None


def test_the_state_of_another_step(checkpoint):
    (checkpoint / TRAINER_STATE).write_text('{"global_step": 2}')
    assert "step 2" in problem_of(checkpoint)


def test_a_missing_shard(checkpoint):
    (checkpoint / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')
    assert "model-2.safetensors" in problem_of(checkpoint)


def test_a_process_that_had_not_written_its_random_state(checkpoint):
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    assert "rng_state_1.pth" in problem_of(checkpoint, world_size=2)


def test_a_checkpoint_without_optimizer_lacks_nothing():
    assert problem_of(["model.safetensors", TRAINER_STATE], world_size=2) is None


@pytest.mark.parametrize(
    ("files", "right_for"),
    [
        ({"model.safetensors", TRAINER_STATE, "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth"}, "all"),
        ({"model.safetensors", TRAINER_STATE, "optimizer.pt", "rng_state_0.pth"}, "a folder"),
        ({"own.pt", "rng_state_0.pth", "rng_state_1.pth"}, "a push, a folder"),
        ({"optimizer.pt", "rng_state_0.pth", "rng_state_1.pth", TRAINER_STATE}, "a push"),
        ({"global_step3/zero_pp_rank_0.pt", TRAINER_STATE, "rng_state_0.pth", "rng_state_1.pth"}, "all"),
        ({"model.safetensors", TRAINER_STATE, INCOMPLETE_MARKER, "rng_state_0.pth", "rng_state_1.pth"}, "nothing"),
    ],
)
def test_what_is_missing_matters_by_what_it_is_asked_for(files, right_for):
    answers = {
        "a push": problem_of(files, ranks=(0, 1), needs=TO_PUSH),
        "a folder": problem_of(files, needs=TO_BE_ONE),
        "a training": problem_of(files, world_size=2),
    }
    right = set(answers) if right_for == "all" else set(right_for.split(", ")) & set(answers)
    assert {purpose for purpose, why in answers.items() if why is None} == right


def test_what_was_written_since_is_known_whatever_the_clocks_say(checkpoint):
    older = checkpoint / TRAINER_STATE
    before = stamps([older])
    newer = checkpoint.parent / "checkpoint-4" / TRAINER_STATE
    newer.parent.mkdir()
    newer.write_text('{"global_step": 4}')
    os.utime(newer, (1, 1))  # a file server may be behind, and a clock may have been set back
    assert unannounced([older, newer], {}, before) == [4]
    assert unannounced([older, newer], {4}, before) == []
    own = checkpoint.parent / "checkpoint-best-1" / TRAINER_STATE
    own.parent.mkdir()
    own.write_text('{"global_step": 4}')
    assert unannounced([own], {}, before) == []  # a person's copy
    older.write_text('{"global_step": 3, "again": true}')
    assert unannounced([older, newer], {}, before) == [3, 4]
