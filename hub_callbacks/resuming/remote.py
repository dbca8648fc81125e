"""The checkpoints on the Hub, one candidate after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from ..checkpoints.completeness import problem_of
from ..checkpoints.files import TRAINER_STATE
from ..errors import ResumeError
from ..hub.downloads import Damaged, Downloads, HubCheckpoint


@dataclass
class RemoteCheckpoints:
    """
    Args:
        downloads: Where to look.
        revision: Branch, tag, commit, or a template with `{step}`; `None` is `main`.
        passed_over: Gains what was found and cannot be taken, in words.
    """

    downloads: Downloads
    revision: str | None
    passed_over: list[str]
    _rejected: set[HubCheckpoint] = field(default_factory=set)

    def newer_than(
        self,
        step: int,
        own_run: Callable[[], str] | None,
        where: str,
        left: Collection[str] = (),
        is_needed: bool = False,
    ) -> HubCheckpoint | None:
        """The newest that can be taken, if it is newer than a step.

        Args:
            step: -1 takes any.
            own_run: Tells the run that it has to belong to; `None` for whichever.
            where: The folder of that run, in words.
            left: What those are known by that are not meant (see `left_behind`).
            is_needed: Whether there is no other.

        Raises:
            ResumeError: when the Hub has one and does not give it, and it is needed.
        """
        for found in self._all(is_needed):
            if found.step <= step:
                break
            problem = self._problem_of(found, own_run, where)
            if problem is None and self.digest_of(found) in left:
                continue
            if problem is None:
                return found
            self.passed_over.append(f"{found}: {problem}")
            self._rejected.add(found)
        return None

    def reject(self, checkpoint: HubCheckpoint) -> None:
        """It could not be put in its place."""
        self._rejected.add(checkpoint)

    def digest_of(self, checkpoint: HubCheckpoint) -> str | None:
        """What one is known by that has no problem."""
        facts = self.downloads.manifest(checkpoint).files.get(TRAINER_STATE)
        return None if facts is None else facts.sha256

    def _problem_of(self, found: HubCheckpoint, own_run: Callable[[], str] | None, where: str) -> str | None:
        try:
            manifest = self.downloads.manifest(found)
        except Damaged as error:
            return str(error)
        lacking = problem_of(manifest.files, manifest.origin.world_size)
        if lacking is None and own_run is not None and manifest.run_id != own_run():
            return (
                f"it belongs to another run ({manifest.run_id}) than what is in {where}; to continue that one, "
                "use an empty output_dir"
            )
        return lacking

    def _all(self, is_needed: bool) -> Iterator[HubCheckpoint]:
        """Those that were not rejected, newest first. It is asked anew each time: what was in the outbox may be
        there by now."""
        try:
            for found in self.downloads.checkpoints(self.revision):
                self._note_passed_over()
                if found not in self._rejected:
                    yield found
        except Exception as error:  # whatever the Hub's client raises: what is here will do
            if isinstance(error, ResumeError) and is_needed:
                raise
            why = " ".join(str(error).split())[:200]
            self.passed_over.append(
                f"the Hub ({type(error).__name__}: {why}); only what is on this machine was looked at"
            )
        self._note_passed_over()

    def _note_passed_over(self) -> None:
        self.passed_over += self.downloads.passed_over
        self.downloads.passed_over.clear()
