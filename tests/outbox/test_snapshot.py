"""Frozen files stay as they were, whatever happens to the originals, or are known not to be."""

from __future__ import annotations

import errno
import os

import pytest

from hub_callbacks.outbox.snapshot import COPY_BELOW, freeze

LARGE = b"w" * (COPY_BELOW + 1)


@pytest.fixture
def push(tmp_path):
    folder = tmp_path / "push"
    (folder / "files").mkdir(parents=True)
    return folder


@pytest.fixture
def original(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(LARGE)
    return file


def test_a_large_file_costs_no_copy(push, original):
    frozen = freeze(original, push, "files/0")
    assert (push / "files/0").samefile(original)
    assert frozen.size == len(LARGE)


def test_a_deleted_original_is_still_there(push, original):
    frozen = freeze(original, push, "files/0")
    original.unlink()
    assert frozen.is_unchanged(push)
    assert (push / "files/0").read_bytes() == LARGE


def test_a_replaced_original_changes_nothing(push, original):
    frozen = freeze(original, push, "files/0")
    new = original.with_suffix(".new")
    new.write_bytes(b"n" * len(LARGE))
    new.replace(original)
    assert frozen.is_unchanged(push)
    assert (push / "files/0").read_bytes() == LARGE


@pytest.mark.parametrize("content", [b"n" * len(LARGE), b"shorter", b""])
def test_a_large_file_that_is_rewritten_in_place_is_noticed(push, original, content):
    frozen = freeze(original, push, "files/0")
    assert frozen.is_unchanged(push)
    original.write_bytes(content)
    assert not frozen.is_unchanged(push)


def test_a_large_file_that_is_being_appended_to_is_noticed(push, original):
    frozen = freeze(original, push, "files/0")
    with original.open("ab") as file:
        file.write(b"more")
    assert not frozen.is_unchanged(push)


def test_a_small_file_is_a_copy_that_nothing_can_change(push, original):
    original.write_bytes(b"small")
    frozen = freeze(original, push, "files/0")
    original.write_bytes(b"other")
    assert frozen.is_unchanged(push)
    assert (push / "files/0").read_bytes() == b"small"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_links_files_are_copied(push, original, monkeypatch, code):
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    frozen = freeze(original, push, "files/0")
    original.write_bytes(b"n" * len(LARGE))
    assert frozen.is_unchanged(push)
    assert (push / "files/0").read_bytes() == LARGE


def test_other_trouble_is_not_hidden(push, original, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space"):
        freeze(original, push, "files/0")


def test_another_disk_is_copied_to(small_disk, original):
    (small_disk / "files").mkdir()
    frozen = freeze(original, small_disk, "files/0")
    original.unlink()
    assert frozen.is_unchanged(small_disk)
    assert (small_disk / "files/0").read_bytes() == LARGE


@pytest.mark.parametrize("content", [b"small", LARGE])
def test_a_symbolic_link_is_followed(push, original, tmp_path, content):
    original.write_bytes(content)
    link = tmp_path / "link.safetensors"
    link.symlink_to(original)
    frozen = freeze(link, push, "files/0")
    original.unlink()
    assert not (push / "files/0").is_symlink()
    assert (push / "files/0").read_bytes() == content
    assert frozen.is_unchanged(push)


def test_a_file_that_is_gone_is_said(push, tmp_path):
    with pytest.raises(FileNotFoundError):
        freeze(tmp_path / "none", push, "files/0")


def test_a_frozen_file_that_is_gone_is_noticed(push, original):
    frozen = freeze(original, push, "files/0")
    (push / "files/0").unlink()
    assert not frozen.is_unchanged(push)
