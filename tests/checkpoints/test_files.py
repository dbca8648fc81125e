"""What files are, by the names that libraries give them."""

from __future__ import annotations

import errno
import os

import pytest

from hub_callbacks.checkpoints.files import (
    DEEPSPEED,
    FSDP_WEIGHTS,
    OPTIMIZER,
    RANDOM_STATE,
    SCHEDULER,
    is_trainers_weights,
    is_weights,
    kinds_of_state,
    list_files,
    state_kind,
)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("optimizer.pt", OPTIMIZER),
        ("optimizer.bin", OPTIMIZER),
        ("optimizer_1.bin", OPTIMIZER),
        ("optimizer_0/__0_0.distcp", OPTIMIZER),
        ("rank0-of-4-optimizer.pt", OPTIMIZER),  # XLA's FSDP
        ("galore_optimizer.pt", OPTIMIZER),
        ("scheduler.pt", SCHEDULER),
        ("rng_state.pth", RANDOM_STATE),
        ("rng_state_3.pth", RANDOM_STATE),
        ("random_states_0.pkl", RANDOM_STATE),
        ("pytorch_model_fsdp_0/__0_0.distcp", FSDP_WEIGHTS),
        ("global_step12/mp_rank_00_model_states.pt", DEEPSPEED),
        ("model.safetensors", None),
        ("training_args.bin", None),
        ("1_Dense/optimizer_notes.md", None),
    ],
)
def test_what_continues_a_training(file, kind):
    assert state_kind(file) == kind


@pytest.mark.parametrize(
    ("file", "any_weights", "trainers"),
    [
        ("model-00001-of-00002.safetensors", True, True),
        ("pytorch_model.bin", True, True),
        ("adapter_model.bin", True, True),
        ("adapter_model.safetensors", True, True),
        ("1_Dense/model.safetensors", True, True),
        ("pytorch_model_fsdp_0/__0_0.distcp", True, True),
        ("global_step12/mp_rank_00_model_states.pt", True, True),
        ("best.ckpt", True, False),
        ("embeddings.pt", True, False),
        ("optimizer.pt", False, False),
        ("training_args.bin", False, False),
        ("rng_state.pth", False, False),
    ],
)
def test_what_holds_parameters(file, any_weights, trainers):
    assert (is_weights(file), is_trainers_weights(file)) == (any_weights, trainers)


def test_deepspeed_keeps_optimizer_and_schedule_in_one():
    assert kinds_of_state(["global_step12/mp_rank_00_model_states.pt"]) == {DEEPSPEED, OPTIMIZER, SCHEDULER}


@pytest.mark.parametrize("name", [".git.", ".git ", "a\tb", "\x7f"])
def test_names_that_no_commit_can_have_are_left_out(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for folder in (tmp_path, tmp_path / "folder"):
        (folder / name).write_text("")
        (folder / ".gitattributes").write_text("")
    assert list_files(tmp_path) == (".gitattributes", "folder/.gitattributes")


def test_what_the_disk_does_not_say_is_not_left_out(tmp_path, monkeypatch):
    """A network disk that is away for a moment: the save is tried again, and not pushed without its weights."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").write_text("weights")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    assert list_files(tmp_path) == ("config.json", "folder/model.safetensors")
    for function in ("stat", "scandir"):
        real = getattr(os, function)

        def stale(path, *args, real=real, **options):
            if "folder" in str(path):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
            return real(path, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, function, stale)
            with pytest.raises(OSError, match="Stale"):
                list_files(tmp_path)
