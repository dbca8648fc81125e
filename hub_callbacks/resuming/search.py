"""Finds the newest complete checkpoint, here or on the Hub, and puts it where the Trainer expects it.

    <output_dir>/checkpoint-N               where it ends up, renamed in one step
    <output_dir>/_hub_sync/incoming/        what is being downloaded; an attempt that was killed is gone on with
    <output_dir>/_hub_sync/set-aside/       an incomplete folder of that name that stood in its place

torch is not imported here: `hub-callbacks resume` does the same before any training.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import ntpath
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock

from ..checkpoints.completeness import TRAINER_STATE, gaps, problem_of, processes_that_wrote
from ..checkpoints.manifest import CheckpointManifest
from ..errors import ResumeError
from ..hub.downloads import Damaged, Downloads, HubCheckpoint
from ..outbox.push import Push, PushPart
from ..outbox.queue import Outbox
from ..settings import OUTBOX_NAME
from ..training.plan import checkpoint_step
from .team import Team


@dataclass(frozen=True)
class Restored:
    """A checkpoint folder that can be continued from.

    Args:
        folder: Where it is, as the Trainer takes it.
        source: Where it was found, in words.
        manifest: What came with it from the Hub; `None` for one that was here.
    """

    folder: Path
    step: int
    source: str
    manifest: CheckpointManifest | None = None


@dataclass
class Search:
    """The search on one process.

    Args:
        output_dir: Folder of the run, as its `TrainingArguments` have it.
        outbox: What has not been pushed yet.
        downloads: Where else to look; `None` looks nowhere else.
        revision: Branch, tag, commit, or a template with `{step}`; `None` is `main`.
        world_size: Number of processes that are to continue, if it is known.

    Attributes:
        passed_over: What was found and cannot be taken, in words.
    """

    output_dir: Path
    outbox: Outbox
    downloads: Downloads | None
    revision: str | None = None
    world_size: int | None = None
    passed_over: list[str] = field(default_factory=list)
    _writers: int | None = None
    _waiting: dict[int, tuple[Push, PushPart]] = field(default_factory=dict)
    _on_hub: Iterator[HubCheckpoint] | None = None
    _next: HubCheckpoint | None = None
    _rejected: set[int | HubCheckpoint] = field(default_factory=set)

    def run(self, team: Team) -> Restored | None:
        """All processes of the team have to call it; all get the same step.

        Returns:
            `None` when there is nothing to continue from.

        Raises:
            ResumeError: when there is a checkpoint on the Hub that cannot be fetched now.
        """
        nodes = [found for found in team.together(self.steps_here if team.is_local_main else set) if found]
        is_everywhere = len(nodes) == sum(team.exchange(team.is_local_main))
        common = set.intersection(*nodes) if nodes and is_everywhere else set()
        is_begun = bool(nodes)
        while True:
            choice = team.together(lambda: self._choose(common, is_begun) if team.is_main else None)[0]
            if choice is None:
                return None
            made = team.together(functools.partial(self._obtain, choice) if team.is_local_main else lambda: None)
            problems = [outcome for outcome in made if isinstance(outcome, str)]
            self.passed_over += problems
            if not problems:
                found = next(outcome for outcome in made if isinstance(outcome, Restored))
                return replace(found, folder=self._folder(found.step))  # nodes may name their folders differently
            self._rejected.add(choice)
            common.discard(choice if isinstance(choice, int) else -1)
            self._on_hub = self._next = None  # what was in the outbox may be there by now

    def steps_here(self) -> set[int]:
        """Steps of the complete checkpoints in the folder and of those that wait in the outbox."""
        found = set()
        folders = {
            step: folder
            for folder in self.output_dir.glob("checkpoint-*")
            if (step := checkpoint_step(folder.name)) is not None and folder == self._folder(step)
        }
        if self.world_size is not None:
            self._writers = min(self.world_size, processes_that_wrote(folders.values()) or self.world_size)
        for step, folder in folders.items():
            problem = problem_of(folder, self._writers)
            if problem is None:
                found.add(step)
            else:
                self.passed_over.append(f"{folder}: {problem}")
        for push in self.outbox.pending() if self.outbox.root.is_dir() else ():
            for part in push.parts:
                names = [path.removeprefix(f"{part.prefix}/") for path in part.files]
                if part.whole_folder and gaps(names, push.origin.world_size) is None:
                    self._waiting[push.step] = (push, part)
        return found | self._waiting.keys()

    def _choose(self, common: set[int], is_begun: bool) -> int | HubCheckpoint | None:
        """The next to be tried: a step that each node has, or what the Hub has."""
        here = max(common, default=-1)
        while (there := self._newest_on_hub(here)) is not None and there.step > here:
            try:
                assert self.downloads is not None
                manifest = self.downloads.manifest(there)
                lacking = gaps(manifest.files, manifest.origin.world_size)
                if lacking is not None:
                    raise Damaged(lacking)
                if is_begun and manifest.run != self.outbox.run_id():
                    raise Damaged(
                        f"it belongs to another run ({manifest.run}) than what is in {self.output_dir}; "
                        "to continue that one, use an empty output_dir"
                    )
                return there
            except Damaged as error:
                self.passed_over.append(f"{there}: {error}")
                self._rejected.add(there)
                self._next = None
        return here if here >= 0 else None

    def _newest_on_hub(self, here: int) -> HubCheckpoint | None:
        """
        Args:
            here: The newest step on this machine; -1 where there is none.
        """
        if self.downloads is not None and self._next is None:
            try:
                if self._on_hub is None:
                    self._on_hub = self.downloads.checkpoints(self.revision)
                self._next = next((found for found in self._on_hub if found not in self._rejected), None)
            except Exception as error:
                if isinstance(error, ResumeError) and here < 0:
                    raise
                why = " ".join(str(error).split())[:200]
                self.passed_over.append(
                    f"the Hub ({type(error).__name__}: {why}); only what is on this machine was looked at"
                )
                self._on_hub = iter(())
            self.passed_over += self.downloads.passed_over
            self.downloads.passed_over.clear()
        return self._next

    def _obtain(self, choice: int | HubCheckpoint) -> Restored | str:
        """Puts a checkpoint in its place; what is wrong with it, when that cannot be done."""
        step = choice if isinstance(choice, int) else choice.step
        with self._lock():
            folder = self._folder(step)
            try:
                if folder.is_dir() and problem_of(folder, self._world_size_of(choice)) is None:
                    self._make_local(folder, None)
                    return Restored(folder, step, "this machine")
                if isinstance(choice, int):
                    return self._take_from_outbox(choice)
                return self._fetch(choice)
            except Damaged as error:
                return f"{choice if isinstance(choice, HubCheckpoint) else folder}: {error}"

    def _world_size_of(self, choice: int | HubCheckpoint) -> int | None:
        if isinstance(choice, int):
            return self._writers
        assert self.downloads is not None
        return self.downloads.manifest(choice).origin.world_size

    def _lock(self) -> FileLock:
        """Nodes may share the folder; one of them downloads."""
        place = self.output_dir / OUTBOX_NAME
        place.mkdir(parents=True, exist_ok=True)
        return FileLock(place / "incoming.lock")

    def _take_from_outbox(self, step: int) -> Restored:
        if step not in self._waiting:
            raise Damaged("it is no longer complete, or no longer there")
        push, part = self._waiting[step]
        incoming = self._incoming(f"push-{push.id}")
        shutil.rmtree(incoming, ignore_errors=True)
        for path, frozen in part.files.items():
            target = incoming / path.removeprefix(f"{part.prefix}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(push.folder / frozen.stored, target)
            except FileNotFoundError:
                raise Damaged("it is no longer in the outbox") from None
            if not frozen.is_intact(push.folder):
                raise Damaged(f"{path} was rewritten by a later save")
        self._make_local(incoming, None)
        return Restored(self._place(incoming, step), step, f"{self.outbox.root}, where it waits to be pushed")

    def _fetch(self, choice: HubCheckpoint) -> Restored:
        assert self.downloads is not None
        manifest = self.downloads.manifest(choice)
        fetched = self._download(choice)
        self._make_local(fetched, choice)
        self.outbox.adopt(manifest.run)  # before: a kill between the two must not make it another run's
        folder = self._place(fetched, choice.step)
        shutil.rmtree(self.output_dir / OUTBOX_NAME / "incoming", ignore_errors=True)
        return Restored(folder, choice.step, str(choice), manifest)

    def _download(self, choice: HubCheckpoint) -> Path:
        """
        Raises:
            Damaged: it is not what its manifest says.
            ResumeError: it could not be downloaded.
        """
        assert self.downloads is not None
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

    def _make_local(self, checkpoint: Path, choice: HubCheckpoint | None) -> None:
        """Has `trainer_state.json` refer to the best checkpoint on this machine, and fetches that if need be."""
        file = checkpoint / TRAINER_STATE
        state = json.loads(file.read_text(encoding="utf-8"))
        recorded = state.get("best_model_checkpoint")
        step = checkpoint_step(ntpath.basename(recorded)) if recorded else None
        if step is None:
            return
        best = self._folder(step)
        is_here = step == state["global_step"] or problem_of(best) is None
        if Path(recorded) == best if is_here else problem_of(Path(recorded)) is None:
            return
        if not is_here and (choice is None or not self._fetch_best(step, choice)):
            self.passed_over.append(
                f"the best checkpoint (step {step}), which that of step {state['global_step']} refers to, is "
                "neither here nor on the Hub; load_best_model_at_end will not find it"
            )
            return
        state["best_model_checkpoint"] = str(best)
        new = file.with_suffix(".new")
        new.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")  # as the Trainer does
        new.replace(file)

    def _fetch_best(self, step: int, choice: HubCheckpoint) -> bool:
        assert self.downloads is not None
        run = self.downloads.manifest(choice).run
        numbered = HubCheckpoint(step, choice.repo_id, f"checkpoint-{step}", choice.commit)
        for candidate in itertools.chain([numbered], self.downloads.older(choice.commit, step)):
            if candidate.step == step:
                with contextlib.suppress(Damaged):
                    if self.downloads.manifest(candidate).run == run:
                        self._place(self._download(candidate), step)
                        return True
        return False

    def _incoming(self, name: str) -> Path:
        return self.output_dir / OUTBOX_NAME / "incoming" / f"{socket.gethostname()}~{name}"

    def _folder(self, step: int) -> Path:
        return self.output_dir / f"checkpoint-{step}"

    def _place(self, incoming: Path, step: int) -> Path:
        folder = self._folder(step)
        if folder.exists():
            set_aside = self.output_dir / OUTBOX_NAME / "set-aside"  # the outbox may be on another disk
            set_aside.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=set_aside))
            folder.rename(aside / folder.name)
            self.passed_over.append(f"the incomplete {folder} was moved to {aside}")
        os.utime(incoming)  # the Trainer rotates by time, and this one is as new as can be
        incoming.rename(folder)
        return folder
