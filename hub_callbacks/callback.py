"""`HubSyncCallback`: turns the events of a Trainer into calls of its run. No policy, no files, no network."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .errors import HubSyncError
from .outbox.push import Target
from .settings import Settings, resolve, said_by
from .training import event_order, takeover
from .training.engine import Engine
from .training.final_model import is_sharded
from .training.node_run import NodeRun
from .training.nodes import Nodes, find_nodes
from .training.request import target_of_run
from .training.run import Run
from .training.summary import Summary

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)


def _on_pushing_process(event: Callable[..., None]) -> Callable[..., None]:
    """An event that only processes that push react to, with its cost added up.

    These are the world's process zero and the first process of each node whose folder that one does not see.
    Whatever goes wrong in it is said, and does not end the training.
    """

    @functools.wraps(event)
    def handler(
        self: HubSyncCallback,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        run = self._run_here(args, state)
        if run is None:
            return
        started = time.perf_counter()
        try:
            event(self, run, state, **kwargs)
        except HubSyncError:
            raise
        except Exception as error:
            logger.warning("%s of HubSyncCallback failed", event.__name__, exc_info=error)
            run.engine.lose(f"{event.__name__}, step {state.global_step}", error)
        run.engine.seconds_in_training += time.perf_counter() - started

    return handler


class HubSyncCallback(TrainerCallback):
    """Pushes a training run to the Hub while it trains, in the background.

    `Trainer(..., callbacks=[HubSyncCallback()])` is all. It takes its settings from `TrainingArguments`
    (`push_to_hub`, `hub_model_id`, `hub_strategy`, `hub_token`, `hub_private_repo`, `hub_always_push`,
    `hub_revision`, `output_dir`); each can be overridden by a keyword here. The callback is the switch:
    `push_to_hub` need not be set. In a job of several processes all of them have to have it.

    Do not use it in a process that must not start another one and has no disk to write to, and not for a
    repository that is not yours to write to: what cannot be pushed waits on disk.

    Args:
        hub_model_id: Repository, `"name"` or `"owner/name"`; default is the name of `output_dir`.
        hub_strategy: `"end"`, `"every_save"`, `"checkpoint"` or `"all_checkpoints"`.
        hub_token: Write token; default is `HF_TOKEN` or the token of `hf auth login`.
        hub_private_repo: Visibility of a repository that has to be created.
        hub_always_push: Push every save, in order, instead of letting newer ones take over.
        hub_revision: Branch; created when missing. `"step-{step}"` gives each save a branch of its own.
        hub_tag: `"step-{step}"` sets such a Git tag on the commit of each save, and pushes all of them.
        output_dir: Folder to keep the outbox in, if not where the Trainer writes.
        on_error: `"warn"` (default) or `"raise"`: what the end of training does about pushes that did not arrive.
        finish_timeout: Seconds that the end of training waits without any progress (default 180).
        max_pending_bytes: Bytes that waiting pushes of deleted checkpoints may keep on disk.
        max_upload_memory: Bytes, about, that the process that pushes takes while it uploads (default 1 GiB).
        card_template: Path of a Jinja template to make the model card from.
        eval_results: Metric → (dataset, task) of the benchmark on the Hub whose result it is: what the pushed
            weights have scored is then shown on the model's page and the benchmark's leaderboard.
        hub_keep_last: Number of newest `checkpoint-N/` folders that stay on the Hub; the best stays, too.
        hub_keep_every: Checkpoints whose step is a multiple of it stay, too.
        hub_squash: Drop the history of the branch after each save, to free storage; not for `main`.
        on_foreign_run: `"continue"` (default), `"branch"` or `"refuse"`: what to do in a repository that holds
            another run's model when training begins.

    Raises:
        SettingsError: when the Trainer is made, for a value that cannot work.

    Example:

    ```python
    callback = HubSyncCallback(hub_strategy="checkpoint")
    trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
    trainer.train()
    callback.last_push.result().commit_url
    ```
    """

    def __init__(
        self,
        *,
        hub_model_id: str | None = None,
        hub_strategy: str | None = None,
        hub_token: str | None = None,
        hub_private_repo: bool | None = None,
        hub_always_push: bool | None = None,
        hub_revision: str | None = None,
        hub_tag: str | None = None,
        output_dir: str | None = None,
        on_error: str | None = None,
        finish_timeout: float | None = None,
        max_pending_bytes: int | None = None,
        max_upload_memory: int | None = None,
        card_template: str | None = None,
        eval_results: dict[str, tuple[str, str]] | None = None,
        hub_keep_last: int | None = None,
        hub_keep_every: int | None = None,
        hub_squash: bool | None = None,
        on_foreign_run: str | None = None,
    ) -> None:
        self._overrides = {name: value for name, value in locals().items() if name != "self"}
        self._runs: dict[Settings, Run] = {}
        self._run: Run | None = None
        self._nodes: Nodes | None = None
        self._node_run: NodeRun | None = None
        self._has_said_search = False
        _install()

    @property
    def run(self) -> Run:
        """The run of the Trainer that was made or trained last; there is one on its main process only."""
        if self._run is None:
            raise RuntimeError(
                "this HubSyncCallback has not been given to a Trainer (or this is not its main process)"
            )
        return self._run

    @property
    def engine(self) -> Engine:
        """What queues the pushes of the run and follows them."""
        return self.run.engine

    @property
    def sync(self) -> Engine:
        """As `engine`; its name in version 0.1."""
        return self.engine

    @property
    def settings(self) -> Settings:
        return self.run.settings

    @property
    def pushes(self) -> list[Future[CommitInfo]]:
        """Every push of the run, in order, as the commit to be."""
        return self._run.engine.pushes if self._run else []

    @property
    def last_push(self) -> Future[CommitInfo] | None:
        return self._run.engine.last_push if self._run else None

    def summary(self) -> Summary:
        """Commits, bytes, time on the training thread, what waits, where to look."""
        return self.engine.summary()

    def finish(self, show: bool = False) -> Summary:
        """Waits for what is under way, and says what did not arrive; see `Engine.finish`."""
        return self.engine.finish(show)

    def close(self) -> None:
        """Waits as `finish` does and ends the background process; done by itself when the interpreter ends."""
        for run in self._runs.values():
            run.engine.close()
        if self._node_run is not None:
            self._node_run.engine.close()

    def known_run(self, args: TrainingArguments) -> Run | None:
        """The run of a Trainer with these arguments, if it was made already."""
        runs = (run for run in (self._run, *self._runs.values()) if run is not None and run.args is args)
        return next(runs, None)

    def run_of(self, args: TrainingArguments) -> Run:
        """The run of a Trainer with these arguments, made when it is asked for first, and anew when a script has
        changed them; a training that is under way goes on where it began.

        Raises:
            SettingsError: for a value that cannot work.
        """
        known = self.known_run(args)
        if known is not None and not known.engine.is_closed and (known.said == said_by(args) or known.is_training):
            self._run = known
            return known
        settings = resolve(args, self._overrides)
        run = self._runs.get(settings)
        if run is None or run.engine.is_closed:
            run = Run(args, settings)
        run.args, run.said = args, said_by(args)
        if known is not None and known is not run:
            known.goes_on_as(run)
        self._run = self._runs[settings] = run
        return run

    def place_of(self, args: TrainingArguments) -> Target:
        """Where the pushes of a Trainer with these arguments go, as each of its processes can tell.

        Raises:
            SettingsError: for a value that cannot work.
        """
        run = self.known_run(args)
        if run is not None:
            return run.engine.target
        return target_of_run(resolve(args, self._overrides))

    def _run_here(self, args: TrainingArguments, state: TrainerState) -> Run | NodeRun | None:
        """What this process has to do with pushing: the run, what is sent from this node, or nothing."""
        if state.is_hyper_param_search:
            return None
        return self.run_of(args) if state.is_world_process_zero else self._node_run

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            if self._run is not None and self._run.said != said_by(args):
                self._run = None  # it is another Trainer that has these arguments now
            self.run_of(args)
        else:
            self.place_of(args)  # what is wrong with the settings is wrong on all processes

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_hyper_param_search:
            if state.is_world_process_zero and not self._has_said_search:
                self._has_said_search = True
                logger.warning("The trials of a hyperparameter search are not pushed; a train() after it is.")
            return
        if state.is_world_process_zero:
            if (known := self.known_run(args)) is not None:
                known.will_begin()
            self.run_of(args)
        self._find_nodes(args, state)
        if state.is_world_process_zero:
            self._training_begins(args, state, control, **kwargs)

    def _find_nodes(self, args: TrainingArguments, state: TrainerState) -> None:
        """On all processes, whatever is wrong on one of them: it has collectives in it."""
        repository = self._run.engine.hub_model_id if state.is_world_process_zero and self._run else None
        nodes = self._nodes = find_nodes(args, repository)
        self._node_run = None
        if nodes is None or nodes.here == 0 or not nodes.is_head or nodes.hub_model_id is None:
            return
        try:
            settings = resolve(args, self._overrides | {"hub_model_id": nodes.hub_model_id})
            if settings.pushes_checkpoints:
                self._node_run = NodeRun(args, settings, nodes)
        except Exception as error:
            logger.warning(
                "The checkpoint files of node %d cannot be pushed, so no checkpoint will be whole on the Hub.",
                nodes.here,
                exc_info=error,
            )

    @_on_pushing_process
    def _training_begins(self, run: Run, state: TrainerState, **seen: Any) -> None:
        run.begins(state, seen, self._nodes)

    @_on_pushing_process
    def on_step_begin(self, run: Run | NodeRun, state: TrainerState, **seen: Any) -> None:
        run.goes_on(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """On every rank: a sharded model can only be saved by all of them, so its last step has to be a save."""
        if is_sharded(args) and (state.global_step >= state.max_steps or control.should_training_stop):
            control.should_save = True
        if control.should_save:
            self._save_comes(args, state, control, **kwargs)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_save:
            self._save_comes(args, state, control, **kwargs)

    @_on_pushing_process
    def _save_comes(self, run: Run | NodeRun, state: TrainerState, **seen: Any) -> None:
        run.will_save()

    @_on_pushing_process
    def on_evaluate(self, run: Run | NodeRun, state: TrainerState, **seen: Any) -> None:
        run.was_evaluated(state, seen)

    @_on_pushing_process
    def on_save(self, run: Run | NodeRun, state: TrainerState, **seen: Any) -> None:
        run.was_saved(state)

    @_on_pushing_process
    def _training_ends(self, run: Run | NodeRun, state: TrainerState, **seen: Any) -> None:
        run.ends(state, seen)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        run = self._run_here(args, state)
        self._training_ends(args, state, control, **kwargs)
        if run is None:
            return
        if args.world_size == 1:
            run.engine.finish(show=not args.disable_tqdm)
            if isinstance(run, Run):
                run.engine.say_end()
            if isinstance(run, Run) and not args.push_to_hub:  # else the script pushes once more, and says more
                run.say_what_is_missing()
        else:
            # The other ranks may enter a collective next; the wait is when the script ends.
            run.engine.wait_at_exit = True

    # A Trainer may copy or pickle its callbacks (hyperparameter search does); processes do not travel.
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_run": None, "_runs": {}, "_node_run": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _install()  # in another process nothing is routed yet


def find(trainer: Any) -> HubSyncCallback | None:
    """The callback among those of a Trainer, if there is one."""
    handler = getattr(trainer, "callback_handler", None)
    found = (callback for callback in getattr(handler, "callbacks", ()) if isinstance(callback, HubSyncCallback))
    return next(found, None)


def _install() -> None:
    takeover.install(find)
    event_order.install(HubSyncCallback)
