"""Writing files so that a killed process or a lost machine leaves either the old or the new content."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any


def sync_file(path: Path) -> None:
    """Flushes the content of one file, or the entries of one folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(source: Path, target: Path) -> None:
    """Moves a finished file to its final name: flushed first, then renamed, then the name flushed."""
    sync_file(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    sync_file(target.parent)


def write_json(path: Path, value: Any, private: bool = False) -> None:
    """Replaces a JSON file in one step.

    Args:
        path: Where.
        value: What.
        private: Whether nobody but this user of the machine may read it.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.touch(0o600 if private else 0o666)
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")
        publish(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path, default: Any) -> Any:
    """The value of a JSON file, or `default` where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
