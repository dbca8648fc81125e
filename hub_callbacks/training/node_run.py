"""What a node whose folder the main process does not see does in a training: it sends what exists there only.

It has an outbox and a pusher of its own. Its files go to a branch where those of all nodes are, and the main
process makes the one commit of a save.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..outbox.push import Target
from ..settings import Settings
from .engine import Engine
from .nodes import Nodes
from .plan import plan_node_files
from .saves import Saved, Saves


class NodeRun:
    """
    Args:
        args: The `TrainingArguments` of the Trainer on this process.
        settings: Those of this process, with the repository that the main one names.
        nodes: The nodes of the job.
    """

    def __init__(self, args: Any, settings: Settings, nodes: Nodes) -> None:
        self.args = args
        self.engine = Engine(settings)
        self.engine.is_quiet = True
        self._node = nodes.here
        self._target = Target(settings.hub_model_id, nodes.branch, settings.hub_private_repo)
        self._saves = Saves(args, f"rng_state_{nodes.rank}.pth", nodes.ranks_here)
        self.engine.start(self._target)

    def goes_on(self, state: Any) -> None:
        """A step begins; a checkpoint that was waiting for other processes here is looked at."""
        self.engine.try_again()
        self._send(self._saves.look_again())

    def was_evaluated(self, state: Any, seen: dict[str, Any]) -> None:
        """Nothing: the card is the main process's."""

    def will_save(self) -> None:
        """Nothing: neither is README.md."""

    def was_saved(self, state: Any) -> None:
        self._send(self._saves.was_saved(state.global_step))

    def ends(self, state: Any, seen: dict[str, Any]) -> None:
        """Training ends: the last checkpoint is sent, if it is still due."""
        self._send(self._saves.end())

    def _send(self, saves: Iterable[Saved]) -> None:
        for saved in saves:
            if not saved.folder.is_dir():
                missing = FileNotFoundError(f"{saved.folder} is not there")
                self.engine.lose(f"Files of node {self._node}, step {saved.step}", missing)
                continue
            plan = plan_node_files(saved.folder, saved.step, self._node, has_copies=self.args.save_on_each_node)
            self.engine.push_node_files(replace(plan, urgent=saved.is_urgent), self._node, self._target)
