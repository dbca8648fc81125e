"""What a node whose folder the main process does not see does in a training: it sends what exists there only.

It has an outbox and a pusher of its own. Its files go to where those of all nodes meet (see `meeting`), and the
main process makes the one commit of a save.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoints.completeness import is_complete, is_marked_incomplete, stamps, unannounced, wait_for_ranks
from ..outbox.push import Target
from ..settings import Settings
from .engine import HubSync
from .nodes import Nodes
from .plan import MEETING, plan_node_files
from .request import Request

logger = logging.getLogger(__name__)


class NodeRun:
    """
    Args:
        args: The `TrainingArguments` of the Trainer on this process.
        settings: Those of this process; the main one says which repository is meant.
        nodes: The nodes of the job.
    """

    def __init__(self, args: Any, settings: Settings, nodes: Nodes) -> None:
        assert nodes.hub_model_id is not None
        self.args = args
        # In order: what the main process does not wait for any more, it says.
        settings = replace(settings, hub_model_id=nodes.hub_model_id, hub_always_push=True)
        self.sync = HubSync(settings)
        self._nodes = nodes
        self._target = Target(nodes.hub_model_id, f"{MEETING}-{nodes.training}", settings.hub_private_repo)
        self._before = stamps(self._states())
        self._saved: set[int] = set()
        self._incomplete: int | None = None
        self.sync.start(self._target)

    @property
    def folder(self) -> Path:
        """Where the Trainer writes now."""
        return Path(self.args.output_dir).absolute()

    def goes_on(self, state: Any) -> None:
        """A step begins; a checkpoint that was waiting for other processes here is looked at."""
        if self._incomplete is not None:
            self._send(self._incomplete)

    def was_evaluated(self, state: Any, seen: dict[str, Any]) -> None:
        """Nothing: the card is the main process's."""

    def will_save(self) -> None:
        """Nothing: neither is README.md."""

    def was_saved(self, state: Any) -> None:
        if self._incomplete not in (None, state.global_step):
            self._send(self._incomplete, whatever_is_there=True)
        self._send(state.global_step)

    def ends(self, state: Any, seen: dict[str, Any]) -> None:
        """Training ends: the last checkpoint is sent, if it is still due."""
        if self._incomplete is not None:
            wait_for_ranks(self._checkpoint(self._incomplete), self.args, self._nodes.ranks_here)
            self._send(self._incomplete, whatever_is_there=True)
        for step in unannounced(self._states(), self._saved, self._before):
            self._send(step, is_urgent=True)

    def _states(self) -> Iterator[Path]:
        """Of each checkpoint in the folder, the file of this process that is written last."""
        return self.folder.glob(f"checkpoint-*/rng_state_{self._nodes.rank}.pth")

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def _send(self, step: int, whatever_is_there: bool = False, is_urgent: bool = False) -> None:
        checkpoint = self._checkpoint(step)
        self._incomplete = None
        if not is_complete(checkpoint, self.args, self._nodes.ranks_here):
            if not whatever_is_there or is_marked_incomplete(checkpoint):
                self._incomplete = step
                return
            logger.warning("%s lacks files of other processes; it is sent as it is here.", checkpoint)
        self._saved.add(step)
        plan = plan_node_files(checkpoint, step, self._nodes.here, has_copies=self.args.save_on_each_node)
        self.sync.push(replace(plan, urgent=is_urgent), request=Request(self._target))
