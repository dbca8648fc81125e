"""A training run without a Trainer: folders as it saves them, pushed through the engine."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from huggingface_hub import CommitInfo, HfApi, constants

from hub_callbacks.checkpoints.files import is_training_state, list_files
from hub_callbacks.checkpoints.manifest import NAME
from hub_callbacks.localhub import LocalHub
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.control import Orders
from hub_callbacks.settings import resolve
from hub_callbacks.training.engine import Engine
from hub_callbacks.training.plan import plan_end, plan_save

CARD: dict[str, Any] = {"setup": {}, "progress": {}, "options": {"license": "mit"}}


def use_hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends this process's client, and the pushers that it starts, to a Hub."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # huggingface_hub before 1.0 keeps a second one.
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)


def free_port() -> int:
    """A port that a Hub can have again after a stop."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Fails when a condition does not come true."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(f"not within {seconds} s")


def write_checkpoint(folder: Path, size: int = 60_000) -> Path:
    """A small checkpoint: a config, weights and an optimizer that no other checkpoint has."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "vocab.txt").write_bytes(os.urandom(5).hex().encode() * 30_000)
    (folder / "model.safetensors").write_bytes(os.urandom(size))
    (folder / "optimizer.pt").write_bytes(os.urandom(2 * size))
    (folder / "trainer_state.json").write_text(f'{{"folder": "{folder.name}"}}')
    return folder


class Run:
    """
    Args:
        output_dir: Its name is the repository's.
        api: To look at what arrived.
        orders: Limits of the pusher.
        settings: Other settings than `all_checkpoints`.
    """

    def __init__(self, output_dir: Path, api: HfApi | None, orders: Orders | None = None, **settings: Any) -> None:
        values: dict[str, Any] = {
            "output_dir": output_dir,
            "hub_strategy": "all_checkpoints",
            "finish_timeout": 30.0,
        }
        self.output_dir = output_dir
        self.repo = f"local/{output_dir.name}"
        self.api = api
        self.settings = resolve(overrides=values | settings)
        self.engine = Engine(self.settings, orders)
        self.saved: list[Path] = []

    def save(self, step: int, card: bool = True, size: int = 60_000) -> Future[CommitInfo]:
        """What a training loop does at a save; nothing here may raise."""
        folder = write_checkpoint(self.output_dir / f"checkpoint-{step}", size)
        self.saved.append(folder)
        plan = plan_save(self.settings.hub_strategy, folder, step, f"step {step}")
        assert plan is not None
        return self.engine.push(plan, card=CARD if card else None, is_save=True)

    def end(self) -> Future[CommitInfo]:
        return self.engine.push(plan_end(self.saved[-1], len(self.saved)), card=CARD)

    def states(self) -> list[str]:
        """The newest state of each push, oldest push first."""
        return [entry.state for entry in self.engine.outbox.ledger.latest().values()]

    def wait_for_state(self, *states: str, seconds: float = 60.0) -> None:
        wait_until(lambda: set(self.states()) & set(states), seconds)

    def wait_for_trouble(self) -> None:
        """Until an attempt has failed."""
        failed = {ledger.WAITING, ledger.REFUSED}
        wait_until(lambda: failed & {entry.state for entry in self.engine.outbox.ledger.all_entries()})

    def titles(self) -> list[str]:
        """Titles of the commits after the first, oldest first."""
        assert self.api is not None
        return [commit.title for commit in reversed(self.api.list_repo_commits(self.repo))][1:]

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.engine.close(grace=0)


def digests(folder: Path, prefix: str = "") -> dict[str, str]:
    return {
        f"{prefix}{file}": hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in list_files(folder)
    }


def expected(saved: list[Path]) -> dict[str, str]:
    """What `all_checkpoints` leaves on the Hub, the card aside."""
    files = {path: digest for path, digest in digests(saved[-1]).items() if not is_training_state(path)}
    for folder in saved:
        files |= digests(folder, f"{folder.name}/")
    return files


def on_hub(hub: LocalHub, repo: str, cache: Path, revision: str = "main") -> dict[str, str]:
    """Path → sha256 of what people get, but for what is made on the way: card, pictures, manifests."""
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    folder = api.snapshot_download(repo, revision=revision, cache_dir=cache)
    return {
        path: digest
        for path, digest in digests(Path(folder)).items()
        if path not in (".gitattributes", "README.md")
        and Path(path).name != NAME
        and not path.endswith((".png", ".svg"))
    }


def assert_tells_the_truth(run: Run) -> None:
    """All has arrived, once, and the summary and the ledger say just that."""
    summary = run.engine.summary()
    titles = run.titles()
    assert len(titles) == len(set(titles)), titles
    assert (summary.commits, summary.waiting, summary.lost) == (len(titles), 0, 0), str(summary)
    assert set(run.states()) <= {ledger.DONE, ledger.SUPERSEDED}
    assert run.engine.outbox.pending() == []
