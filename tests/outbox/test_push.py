"""A push on disk: its kinds, and what earlier versions of this package wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hub_callbacks.checkpoints.manifest import Origin
from hub_callbacks.checkpoints.retention import Retention
from hub_callbacks.outbox.push import (
    KINDS,
    MANIFEST,
    Commit,
    CreateRepository,
    LookForOtherRun,
    NodeFiles,
    OtherFormat,
    OtherNodes,
    PushPart,
    RemoveBranch,
    load,
)
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.outbox.snapshot import Frozen
from outboxes import put

WRITTEN_BY_0_1_0 = Path(__file__).parent / "written_by_0_1_0"
"""An outbox with one push of each kind, as version 0.1.0 left it."""

PART = PushPart("checkpoint-1", {"checkpoint-1/a": Frozen("files/0", 3, 5, 7)}, "checkpoint-1", True)


@pytest.mark.parametrize(
    "content",
    [
        CreateRepository(),
        LookForOtherRun(),
        RemoveBranch(),
        NodeFiles(3, 1, PART, urgent=True),
        Commit(3, (PART,), True, "text", True, True, Origin(2, {"torch": "2"}), Retention(1, 2, 3, True), ("v1",)),
    ],
    ids=list(KINDS),
)
def test_each_kind_is_read_as_it_was_written(tmp_path, content):
    push = put(Outbox(tmp_path), content=content)
    assert load(push.folder) == push
    assert json.loads((push.folder / MANIFEST).read_text())["kind"] == push.kind


def test_a_kind_that_only_a_newer_version_knows_is_left_to_that(tmp_path):
    push = put(Outbox(tmp_path), content=CreateRepository())
    values = json.loads((push.folder / MANIFEST).read_text())
    (push.folder / MANIFEST).write_text(json.dumps({**values, "kind": "bucket"}))
    with pytest.raises(OtherFormat, match="bucket"):
        load(push.folder)


def test_an_outbox_of_version_0_1_0_is_read(tmp_path):
    shutil.copytree(WRITTEN_BY_0_1_0, tmp_path / "run")
    create, look, first, node, second, card, removal = Outbox(tmp_path / "run/_hub_sync").pending()
    assert (create.content, look.content) == (CreateRepository(), LookForOtherRun())
    assert {push.run_id for push in (create, first, node)} == {"0123456789ab"}
    assert isinstance(first.content, Commit) and first.slots == {"model", "checkpoint-1", "card"}
    assert (first.keep, first.content.tags, first.step) == (True, ("step-1",), 1)
    assert (first.content.origin.world_size, first.content.retention) == (2, Retention(2, None, 1))
    assert first.content.parts[1].files.keys() >= {"checkpoint-1/optimizer.pt", "checkpoint-1/config.json"}
    assert isinstance(node.content, NodeFiles) and (node.content.node, node.step) == (1, 2)
    assert node.content.part.prefix == "hub-callbacks-parts/2/node-1"
    assert second.others == OtherNodes("hub-callbacks-parts-abc", (1,))
    assert isinstance(card.content, Commit) and card.slots == {"card"} and card.parts == ()
    assert (removal.content, removal.target.revision) == (RemoveBranch(), "hub-callbacks-parts-abc")
