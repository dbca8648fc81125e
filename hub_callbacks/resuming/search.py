"""Finds the newest complete checkpoint, here or on the Hub, that all processes of a job can continue from.

torch is not imported here: `hub-callbacks resume` does the same before any training.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ..checkpoints.files import checkpoint_name
from ..hub.downloads import Downloads, HubCheckpoint
from ..outbox.left_behind import LeftBehind, Trainings
from ..outbox.queue import Outbox
from .local import LocalCheckpoints, find_local
from .placing import Placing, Restored
from .processes import Processes
from .remote import RemoteCheckpoints


@dataclass
class Search:
    """The search on one process.

    Args:
        output_dir: Folder of the run, as its `TrainingArguments` have it.
        outbox: What has not been pushed yet.
        downloads: Where else to look.
        revision: Branch, tag, commit, or a template with `{step}`; `None` is `main`.
        world_size: Number of processes that are to continue, if it is known.

    Attributes:
        passed_over: What was found and cannot be taken, in words.
    """

    output_dir: Path
    outbox: Outbox
    downloads: Downloads
    revision: str | None = None
    world_size: int | None = None
    passed_over: list[str] = field(default_factory=list)

    def run(self, processes: Processes) -> Restored | None:
        """All processes have to call it; all get the same step.

        Returns:
            `None` when there is nothing to continue from.

        Raises:
            ResumeError: when there is a checkpoint on the Hub that cannot be fetched now.
        """
        trainings = Trainings(self.outbox.root).known()
        remote = RemoteCheckpoints(self.downloads, self.revision, self.passed_over)
        placing = Placing(
            self.output_dir, self.outbox, self.downloads, self.passed_over, self.revision, trainings.left
        )
        local, common, is_begun = self._look_here(processes)
        while True:
            choice = self._choose(processes, local, common, is_begun, remote, trainings)
            if choice is None:
                return None
            made = self._obtain(processes, choice, local, placing)
            problems = [outcome for outcome in made if isinstance(outcome, str)]
            self.passed_over += problems
            if not problems:
                found = next(outcome for outcome in made if isinstance(outcome, Restored))
                digest = local.digests.get(choice) if isinstance(choice, int) else remote.digest_of(choice)
                is_left = digest in trainings.left
                if processes.is_main and not is_left:
                    self._say_what_is_left(local, common, found.step, trainings)
                # Nodes may name their folders differently.
                return replace(found, folder=self.output_dir / checkpoint_name(found.step), is_left=is_left)
            if isinstance(choice, int):
                common.discard(choice)
            else:
                remote.reject(choice)

    def _look_here(self, processes: Processes) -> tuple[LocalCheckpoints, set[int], bool]:
        """
        Returns:
            What is on this machine; the steps that each node has; whether any has one.
        """
        local = LocalCheckpoints()

        def look() -> frozenset[int]:
            nonlocal local
            if processes.is_local_main:
                local = find_local(self.output_dir, self.outbox, self.world_size)
                self.passed_over += local.passed_over
            return local.steps

        nodes = [steps for steps in processes.together(look) if steps]
        is_everywhere = len(nodes) == sum(processes.exchange(processes.is_local_main))
        common = set(frozenset.intersection(*nodes)) if nodes and is_everywhere else set()
        return local, common, bool(nodes)

    def _choose(
        self,
        processes: Processes,
        local: LocalCheckpoints,
        common: set[int],
        is_begun: bool,
        remote: RemoteCheckpoints,
        trainings: LeftBehind,
    ) -> int | HubCheckpoint | None:
        """The next to be tried, by the main process: a step that each node has, or what the Hub has. What was left
        behind comes after all else."""

        def choose() -> int | HubCheckpoint | None:
            if not processes.is_main:
                return None
            own_run = self.outbox.run_id if is_begun else None
            for left in (trainings.left, {}) if trainings.left else ({},):
                here = max((step for step in common if local.digests.get(step) not in left), default=-1)
                there = remote.newer_than(here, own_run, str(self.output_dir), left, is_needed=not common)
                if there is not None or here >= 0:
                    return there or here
            return None

        return processes.together(choose)[0]

    def _say_what_is_left(
        self, local: LocalCheckpoints, common: set[int], taken: int, trainings: LeftBehind
    ) -> None:
        left = sorted(step for step in common if step > taken and local.digests.get(step) in trainings.left)
        if left:
            newest = self.output_dir / checkpoint_name(left[-1])
            self.passed_over.append(
                f"{', '.join(map(checkpoint_name, left))} in {self.output_dir}: an earlier training has left "
                f"them, and the one that began last went on from step {trainings.at}; to continue the earlier "
                f"one, give {newest} to resume_from_checkpoint"
            )

    def _obtain(
        self, processes: Processes, choice: int | HubCheckpoint, local: LocalCheckpoints, placing: Placing
    ) -> list[Restored | str | None]:
        """Each node puts it in its place; a text says what is wrong with it there."""

        def obtain() -> Restored | str | None:
            if not processes.is_local_main:
                return None
            return placing.from_here(choice, local) if isinstance(choice, int) else placing.from_hub(choice)

        return processes.together(obtain)
