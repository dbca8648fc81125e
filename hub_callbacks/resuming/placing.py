"""Puts a checkpoint where the Trainer expects it.

<output_dir>/checkpoint-N               where it ends up, renamed in one step
<output_dir>/_hub_sync/incoming/        what is being downloaded; an attempt that was killed is gone on with
<output_dir>/_hub_sync/set-aside/       an incomplete folder of that name that stood in its place
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import ntpath
import os
import shutil
import socket
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ..checkpoints.completeness import problem_of
from ..checkpoints.files import TRAINER_STATE, checkpoint_name, checkpoint_step
from ..checkpoints.manifest import CheckpointManifest
from ..errors import ResumeError
from ..hub.downloads import Damaged, Downloads, HubCheckpoint
from ..outbox.content import is_as_it_was
from ..outbox.left_behind import digest_of
from ..outbox.queue import Outbox
from ..settings import OUTBOX_NAME
from .local import LocalCheckpoints

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """A checkpoint folder that can be continued from.

    Args:
        folder: Where it is, as the Trainer takes it.
        source: Where it was found, in words.
        manifest: What came with it from the Hub; `None` for one that was here.
        is_left: Whether an earlier training has left it behind, and the one that began last has no checkpoint.
    """

    folder: Path
    step: int
    source: str
    manifest: CheckpointManifest | None = None
    is_left: bool = False


@dataclass
class Placing:
    """
    Args:
        output_dir: Folder of the run.
        outbox: What has not been pushed yet.
        downloads: Where checkpoints of the Hub come from.
        passed_over: Gains what was found and cannot be taken, in words.
        revision: Where on the Hub the best checkpoint is looked for that one here refers to.
        left: What checkpoints are known by that were left behind: they are none of the Hub's with their number.
    """

    output_dir: Path
    outbox: Outbox
    downloads: Downloads
    passed_over: list[str]
    revision: str | None = None
    left: Collection[str] = ()

    def from_here(self, step: int, local: LocalCheckpoints) -> Restored | str:
        """Puts a checkpoint of this machine in its place; what is wrong with it, when that cannot be done."""
        folder = self.output_dir / checkpoint_name(step)
        with self._lock():
            try:
                return self._in_its_place(step, local.writers) or self._from_outbox(step, local)
            except Damaged as error:
                return f"{folder}: {error}"

    def from_hub(self, choice: HubCheckpoint) -> Restored | str:
        """Puts a checkpoint of the Hub in its place; what is wrong with it, when that cannot be done.

        Raises:
            ResumeError: it could not be downloaded.
        """
        with self._lock():
            try:
                world_size = self.downloads.manifest(choice).origin.world_size
                state = self.output_dir / checkpoint_name(choice.step) / TRAINER_STATE
                is_other = digest_of(state) in self.left
                found = None if is_other else self._in_its_place(choice.step, world_size)
                return found or self._fetch(choice)
            except Damaged as error:
                return f"{choice}: {error}"

    def _lock(self) -> FileLock:
        """Nodes may share the folder; one of them downloads."""
        place = self.output_dir / OUTBOX_NAME
        place.mkdir(parents=True, exist_ok=True)
        return FileLock(place / "incoming.lock")

    def _in_its_place(self, step: int, world_size: int | None) -> Restored | None:
        folder = self.output_dir / checkpoint_name(step)
        if problem_of(folder, world_size) is not None:
            return None
        self._refer_to_best(folder, None)
        return Restored(folder, step, "this machine")

    def _from_outbox(self, step: int, local: LocalCheckpoints) -> Restored:
        if step not in local.waiting:
            raise Damaged("it is no longer complete, or no longer there")
        push, part = local.waiting[step]
        incoming = self._incoming(f"push-{push.id}")
        shutil.rmtree(incoming, ignore_errors=True)
        for path, frozen in part.files.items():
            target = incoming / path.removeprefix(f"{part.prefix}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(push.folder / frozen.stored, target)
            except FileNotFoundError:
                raise Damaged("it is no longer in the outbox") from None
            if not is_as_it_was(frozen, push):
                raise Damaged(f"{path} was rewritten on disk since")
        self._refer_to_best(incoming, None)
        return Restored(self._place(incoming, step), step, f"{self.outbox.root}, where it waits to be pushed")

    def _fetch(self, choice: HubCheckpoint) -> Restored:
        manifest = self.downloads.manifest(choice)
        fetched = self._download(choice)
        self._refer_to_best(fetched, choice)
        self.outbox.adopt(manifest.run_id)  # before: a kill between the two must not make it another run's
        folder = self._place(fetched, choice.step)
        shutil.rmtree(self.output_dir / OUTBOX_NAME / "incoming", ignore_errors=True)
        return Restored(folder, choice.step, str(choice), manifest)

    def _download(self, choice: HubCheckpoint) -> Path:
        """
        Raises:
            Damaged: it is not what its manifest says.
            ResumeError: it could not be downloaded.
        """
        incoming = self._incoming(f"{choice.commit[:12]}-{choice.folder}")
        incoming.mkdir(parents=True, exist_ok=True)
        try:
            return self.downloads.fetch(choice, incoming)
        except Damaged:
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        except Exception as error:
            raise ResumeError(
                f"{choice} is there and could not be downloaded ({type(error).__name__}: {error}). Nothing is "
                f"lost: start again to go on with the download; what has arrived is in {incoming}."
            ) from error

    def _refer_to_best(self, checkpoint: Path, choice: HubCheckpoint | None) -> None:
        """Has `trainer_state.json` refer to the best checkpoint on this machine, and fetches that if need be.

        Args:
            choice: Where the checkpoint comes from, if it is the Hub.
        """
        file = checkpoint / TRAINER_STATE
        state = json.loads(file.read_text(encoding="utf-8"))
        recorded = state.get("best_model_checkpoint")
        step = checkpoint_step(ntpath.basename(recorded)) if recorded else None
        if step is None:
            return
        best = self.output_dir / checkpoint_name(step)
        is_here = step == state["global_step"] or problem_of(best) is None
        if Path(recorded) == best if is_here else problem_of(Path(recorded)) is None:
            return
        if not is_here and not self._fetch_best(step, choice):
            self.passed_over.append(
                f"the best checkpoint (step {step}), which that of step {state['global_step']} refers to, is "
                "neither here nor could it be had from the Hub; load_best_model_at_end will not find it"
            )
            return
        state["best_model_checkpoint"] = str(best)
        new = file.with_suffix(".new")
        new.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")  # as the Trainer does
        new.replace(file)

    def _fetch_best(self, step: int, choice: HubCheckpoint | None) -> bool:
        if choice is not None:
            return self._fetch_step(step, choice, self.downloads.manifest(choice).run_id)
        try:
            newest = next(self.downloads.checkpoints(self.revision), None)
            return newest is not None and self._fetch_step(step, newest, self.outbox.run_id())
        except Exception as error:  # whatever the Hub's client raises: the one that is here goes on without it
            logger.debug("The best checkpoint could not be fetched", exc_info=error)
            return False

    def _fetch_step(self, step: int, beside: HubCheckpoint, run_id: str) -> bool:
        numbered = HubCheckpoint(step, beside.repo_id, checkpoint_name(step), beside.commit)
        for candidate in itertools.chain([numbered, beside], self.downloads.older(beside.commit, step)):
            if candidate.step == step:
                with contextlib.suppress(Damaged):
                    if self.downloads.manifest(candidate).run_id == run_id:
                        self._place(self._download(candidate), step)
                        return True
        return False

    def _incoming(self, name: str) -> Path:
        return self.output_dir / OUTBOX_NAME / "incoming" / f"{socket.gethostname()}~{name}"

    def _place(self, incoming: Path, step: int) -> Path:
        folder = self.output_dir / checkpoint_name(step)
        if folder.exists():
            set_aside = self.output_dir / OUTBOX_NAME / "set-aside"  # the outbox may be on another disk
            set_aside.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=set_aside))
            folder.rename(aside / folder.name)
            self.passed_over.append(f"the {folder} that was there was moved to {aside}")
        os.utime(incoming)  # the Trainer rotates by time, and this one is as new as can be
        incoming.rename(folder)
        return folder
