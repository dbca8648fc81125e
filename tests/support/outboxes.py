"""Outboxes with pushes in them, made without a Trainer or an engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hub_callbacks.outbox.push import MODEL, NODE_FILES, Commit, NodeFiles, OtherNodes, Push, PushPart, Target
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.outbox.snapshot import Frozen, freeze

OUTBOX_CODE = """
import sys
from pathlib import Path
from outboxes import put
from hub_callbacks.outbox.queue import Outbox
outbox = Outbox(Path(sys.argv[1]))
while True:
    put(outbox, {f"checkpoint-{n}": b"x" * 5000 for n in range(20)})
    print("one is there", flush=True)
"""
"""Submits pushes of 20 files until it is killed."""


def target() -> Target:
    return Target("local/model")


def put(
    outbox: Outbox,
    slots: Mapping[str, bytes | Path] | None = None,
    shared: bytes | None = None,
    name: str = "weights.bin",
    others: OtherNodes | None = None,
    node: int | None = None,
    **changes: Any,
) -> Push:
    """Queues a push with one file for each slot, and perhaps one that all slots have.

    Args:
        name: Of the one file.
        others: Where other nodes put their files of the folders in it.
        node: The node whose files these are, where they are no commit of the main process.
        changes: Fields of the push, or of its commit.
    """
    with outbox.stage() as staged:
        parts = []
        common: dict[str, Frozen] = {}
        (staged / "files").mkdir()
        if shared is not None:
            (staged / "files/shared").write_bytes(shared)
            common = {"shared": Frozen("files/shared", len(shared))}
        for number, (slot, content) in enumerate((slots or {MODEL: b"weights"}).items()):
            stored = f"files/{number}"
            if isinstance(content, Path):
                frozen = freeze(content, staged, stored)
            else:
                (staged / stored).write_bytes(content)
                frozen = Frozen(stored, len(content))
            prefix = "" if slot == MODEL else slot
            path = f"{prefix}/{name}" if prefix else name
            files = {path: frozen, **{f"{prefix}/{other}".lstrip("/"): file for other, file in common.items()}}
            parts.append(
                PushPart(slot, files, prefix, whole_folder=bool(prefix), others=others if prefix else None)
            )
        own = {field.name for field in fields(Push)}
        commit = {"step": 1, "parts": tuple(parts), **{k: v for k, v in changes.items() if k not in own}}
        values: dict[str, Any] = {
            "id": "",
            "folder": staged,
            "run_id": "run",
            "created": time.time(),
            "target": target(),
            "message": f"push {time.monotonic_ns()}",
            "content": Commit(**commit) if node is None else _node_files(node, **commit),
        }
        return outbox.submit(staged, Push(**(values | {k: v for k, v in changes.items() if k in own})))


def _node_files(node: int, step: int, parts: tuple[PushPart, ...]) -> NodeFiles:
    (part,) = parts
    return NodeFiles(step, node, replace(part, slot=NODE_FILES, whole_folder=False))
