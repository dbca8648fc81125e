"""The completeness manifest: one JSON file in each checkpoint folder on the Hub that says what belongs to it.

    {"format": 1, "step": 500, "world_size": 8, "run": "3f…", "versions": {"torch": "2.13.0", …},
     "files": {"model.safetensors": {"size": 193000, "sha256": "…"}, …}}

It is made by the pusher of what is really sent, and comes with the same commit as the files. A reader trusts a
checkpoint only when all that the manifest names is there with these sizes and hashes. What is not named there
(a file that was left out because it holds a secret) does not belong to it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAME = "hub_checkpoint.json"
"""Name of the file in a checkpoint folder."""
FORMAT = 1
PACKAGES = ("torch", "transformers", "accelerate", "huggingface_hub", "hub_callbacks")
"""Packages whose versions are noted."""


@dataclass(frozen=True)
class FileFacts:
    """
    Args:
        size: Bytes.
        sha256: Of the content, 64 hexadecimal digits.
    """

    size: int
    sha256: str


def sha256_of(file: Path) -> str:
    """
    Raises:
        OSError: when it cannot be read.
    """
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Origin:
    """What only the training process knows of a checkpoint.

    Args:
        world_size: Number of processes that trained; `None` where it is not known.
        versions: Package → version.
    """

    world_size: int | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointManifest:
    """
    Args:
        step: Optimizer step of the checkpoint.
        run_id: Identifier of the run that made it.
        origin: What the training process knew.
        files: Path relative to the folder, with `/` → what the file has to be.
    """

    step: int
    run_id: str
    origin: Origin
    files: dict[str, FileFacts]

    def dump(self) -> bytes:
        values = {
            "format": FORMAT,
            "step": self.step,
            "run": self.run_id,
            **asdict(self.origin),
            "files": {path: asdict(facts) for path, facts in sorted(self.files.items())},
        }
        return (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode()


def load(text: str | bytes) -> CheckpointManifest:
    """Reads what `CheckpointManifest.dump` wrote. What a newer version has added is passed over.

    Raises:
        ValueError: when it is not one that this version can read, with why.
    """
    try:
        values: Any = json.loads(text)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"{NAME} is not of format {FORMAT}")
        files = {path: FileFacts(int(f["size"]), str(f["sha256"])) for path, f in values["files"].items()}
        origin = Origin(values.get("world_size"), dict(values.get("versions", {})))
        manifest = CheckpointManifest(int(values["step"]), str(values["run"]), origin, files)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{NAME} is damaged: {error!r}") from None
    for path in files:
        if path.startswith("/") or "\\" in path or ".." in path.split("/"):
            raise ValueError(f"{NAME} names a file outside of its folder: {path!r}")
    return manifest


def facts_below(prefix: str, files: Mapping[str, FileFacts]) -> dict[str, FileFacts]:
    """Those of the files that are in the folder `prefix`, by their paths in it."""
    start = f"{prefix}/"
    return {path.removeprefix(start): facts for path, facts in files.items() if path.startswith(start)}


@functools.cache
def installed_versions() -> Mapping[str, str]:
    """Package → version, of those in `PACKAGES` that are installed; none of them is imported."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
