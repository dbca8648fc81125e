"""What the hub does beside answering: moves LFS files into the Xet store, deletes what nobody needs any more."""

from __future__ import annotations

import importlib.util
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pygit2

from . import gitlfs, gitstore
from .content import ContentStore
from .registry import Registry

logger = logging.getLogger(__name__)

PATIENCE = 24 * 3600
"""Seconds for which something that was uploaded waits for its commit. Links to upload are valid for as long."""


class Housekeeper:
    """A thread that works through what it is told, and once a day throws away what was left behind.

    Args:
        registry: All repositories.
        content: All large files.
    """

    def __init__(self, registry: Registry, content: ContentStore) -> None:
        self._registry = registry
        self._content = content
        self._tasks: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="localhub-housekeeping", daemon=True)

    def start(self) -> None:
        """Begins, once the hub answers."""
        self._thread.start()

    def move_to_xet(self, sha256: str) -> None:
        """Sees to it that a file that came by LFS is in the Xet store soon."""
        self._tasks.put(sha256)

    def collect(self, sha256s: Iterable[str]) -> None:
        """Deletes those files that no repository names, and that no commit that is under way names."""
        candidates = set(sha256s)
        if not candidates:
            return
        with self._content.claims.watching() as needed:
            for repo in self._registry.all():
                if self._ending.is_set():
                    return
                try:
                    needed |= candidates & gitlfs.all_sha256s(gitstore.open_repo(repo.path))
                except pygit2.GitError:
                    if repo.path.is_dir():
                        raise
                    logger.info("%s was moved or deleted meanwhile; unused files wait until tomorrow", repo.id)
                    return
            self._content.remove(candidates, needed)

    def tidy(self, now: float) -> None:
        """Deletes what was uploaded more than a day ago and is part of nothing.

        Args:
            now: The time in Unix seconds.
        """
        before = now - PATIENCE
        self._content.drop_old_parts(before)
        self.collect([*self._content.lfs_files(before), *self._content.xet.all_sha256s(before)])
        self._content.xet.remove_leftovers(before)

    def stop(self) -> None:
        """Ends the thread; what it has not done it does after the next start."""
        self._ending.set()
        self._tasks.put(None)
        while self._thread.is_alive():
            self._content.xet.abandon()
            self._thread.join(0.05)

    def _run(self) -> None:
        can_pack = importlib.util.find_spec("hf_xet") is not None
        for sha256 in self._content.lfs_files():
            self._tasks.put(sha256)
        tidy_at = time.time()
        while not self._ending.is_set():
            if (now := time.time()) >= tidy_at:
                self._attempt(self.tidy, now)
                tidy_at = now + PATIENCE
            try:
                task = self._tasks.get(timeout=tidy_at - now)
            except queue.Empty:
                continue
            if task is not None and can_pack and not self._ending.is_set():
                self._attempt(self._content.move_to_xet, task)

    def _attempt(self, task: Callable[..., None], *args: Any) -> None:
        try:
            task(*args)
        except Exception:
            if not self._ending.is_set():
                logger.exception("Housekeeping failed; nothing is lost, and it is tried again at the next start")
