"""What a plan names is frozen at a cost that hardly grows with the number of files."""

from __future__ import annotations

from hub_callbacks.checkpoints.files import list_files
from hub_callbacks.training.plan import Part, Plan
from hub_callbacks.training.staging import COPIES, stage


def test_of_thousands_of_small_files_most_are_links(tmp_path):
    """Which cost a quarter of a copy; one that is rewritten is noticed all the same."""
    folder, staged = tmp_path / "checkpoint-1", tmp_path / "staged"
    folder.mkdir()
    staged.mkdir()
    for number in range(COPIES + 3):
        (folder / f"{number:04d}.json").write_text("small")
    for name in ("config.json", "trainer_state.json", "zero_to_fp32.py"):
        (folder / name).write_text("written to by whoever comes later")
    part = Part("checkpoint-1", folder, list_files(folder))
    frozen = stage(Plan("Save", 1, (part,), card=False), staged)[0].files
    shared = [name for name, one in frozen.items() if (staged / one.stored).samefile(folder / name)]
    assert shared == [f"{number:04d}.json" for number in range(COPIES, COPIES + 3)]
    (folder / shared[0]).write_text("another")
    assert [name for name, one in frozen.items() if not one.is_unchanged(staged)] == shared[:1]


def test_a_file_of_two_parts_is_stored_once(tmp_path):
    folder, staged = tmp_path / "checkpoint-1", tmp_path / "staged"
    folder.mkdir()
    staged.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    files = list_files(folder)
    parts = (Part("model", folder, files), Part("checkpoint-1", folder, files, "checkpoint-1"))
    model, checkpoint = stage(Plan("Save", 1, parts, card=False), staged)
    assert model.files["model.safetensors"] == checkpoint.files["checkpoint-1/model.safetensors"]
    assert len(list((staged / "files").iterdir())) == 1
