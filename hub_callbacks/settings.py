"""The settings of one run, resolved once, and every rule about what overrides what.

A keyword of the callback wins over `TrainingArguments`, which wins over the defaults. The token is the
exception that proves the rule: left out in both, it is looked up where huggingface_hub looks it up
(`HF_TOKEN`, then the file that `hf auth login` writes), anew for each attempt to push.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import SettingsError

STRATEGIES = ("end", "every_save", "checkpoint", "all_checkpoints")
ON_ERROR = ("warn", "raise")
ON_FOREIGN_RUN = ("continue", "branch", "refuse")
OUTBOX_NAME = "_hub_sync"
"""The folder in `output_dir` that holds what is not yet on the Hub. The Trainer's own uploads leave out
names that start with an underscore."""

MAX_UPLOAD_MEMORY = 2**30
"""Bytes: three files are read at a time and seven blocks sent, which fills a link of some hundred MB/s."""
MIN_UPLOAD_MEMORY = 400_000_000
"""Bytes that a process takes that reads one file and sends one block at a time."""

FROM_ARGUMENTS = (
    "output_dir",
    "hub_model_id",
    "hub_strategy",
    "hub_token",
    "hub_private_repo",
    "hub_always_push",
    "hub_revision",
)
"""Keywords of the callback that override the field of `TrainingArguments` of that name."""


@dataclass(frozen=True)
class Settings:
    """What is pushed where.

    Args:
        output_dir: Folder of the run; the outbox is made in it. As a keyword of the callback it moves the
            outbox alone: the Trainer goes on writing where its arguments say.
        hub_model_id: Repository, `"name"` or `"owner/name"`. Without an owner, the token's user is meant.
        hub_strategy: `"end"`, `"every_save"`, `"checkpoint"` or `"all_checkpoints"`, as in
            `TrainingArguments.hub_strategy`.
        hub_token: Write token; `None` leaves the look-up to huggingface_hub.
        hub_private_repo: Visibility of a repository that has to be created; `None` takes the Hub's default.
        hub_always_push: Push every save in order, instead of letting a newer one take over the paths that it
            writes too.
        hub_revision: Branch to push to, created when missing; `None` is `main`. With `{step}` in it, such as
            `"step-{step}"`, each save goes to a branch of its own, and the final model to `main`.
        hub_tag: Name with `{step}` in it, such as `"step-{step}"`, of a Git tag on the commit of each save, which
            `from_pretrained(..., revision="step-500")` can load. Saves are pushed in order then, each of them.
        hub_keep_last: Number of newest `checkpoint-N/` folders that stay on the Hub (`all_checkpoints`). Older
            ones are deleted in the commit of a newer one; the best never is. `None` keeps all.
        hub_keep_every: Checkpoints whose step is a multiple of it stay, too.
        hub_squash: Drop the history of the branch after each save, so that the storage of what was deleted or
            replaced is freed. Not for `main`: people may refer to its commits.
        on_foreign_run: What happens when the repository holds another run's model when training begins:
            `"continue"` says so and goes on top of it, `"branch"` pushes to the branch `run-<identifier>`,
            `"refuse"` raises `ForeignRun`. The latter two wait for the Hub's answer before the first step.
        on_error: What happens at the end of a run with pushes that did not arrive: `"warn"` logs a summary,
            `"raise"` raises `PushNotSent`.
        finish_timeout: Seconds that the end of a run waits without any progress before it gives up.
        max_pending_bytes: What pushes that wait may keep on disk that nothing else keeps (checkpoints that were
            deleted meanwhile); `None` is no limit. Older pushes give way; the newest never does.
        max_upload_memory: Bytes, about, that the process that pushes takes while it uploads. A smaller number also
            means fewer connections: seven with the default of 1 GiB, one with the least, 400 MB.
        card_template: A Jinja template to make the model card from; `None` takes the package's own.
        eval_results: Metrics that are results on benchmarks of the Hub, each as (metric, dataset, task); a dict
            `{metric: (dataset, task)}` is taken for them. What the pushed weights have scored is written to
            `.eval_results/`, from where the Hub shows it (https://huggingface.co/docs/hub/eval-results).

    Raises:
        SettingsError: for a value that cannot work, with what to change.
    """

    output_dir: Path
    hub_model_id: str
    hub_strategy: str = "every_save"
    hub_token: str | None = field(default=None, repr=False)
    hub_private_repo: bool | None = None
    hub_always_push: bool = False
    hub_revision: str | None = None
    on_error: str = "warn"
    finish_timeout: float = 180.0
    max_pending_bytes: int | None = None
    max_upload_memory: int = MAX_UPLOAD_MEMORY
    card_template: Path | None = None
    hub_keep_last: int | None = None
    hub_keep_every: int | None = None
    hub_squash: bool = False
    on_foreign_run: str = "continue"
    hub_tag: str | None = None
    eval_results: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        _require(
            self.hub_strategy in STRATEGIES,
            f"hub_strategy is {self.hub_strategy!r}; it can be one of {', '.join(map(repr, STRATEGIES))}.",
        )
        _require(
            self.on_error in ON_ERROR,
            f"on_error is {self.on_error!r}; it can be 'warn' or 'raise'.",
        )
        _require(
            isinstance(self.finish_timeout, int | float) and self.finish_timeout >= 0,
            f"finish_timeout is {self.finish_timeout!r}; it is a number of seconds, 0 or more.",
        )
        _require(
            self.max_pending_bytes is None
            or (isinstance(self.max_pending_bytes, int) and self.max_pending_bytes >= 0),
            f"max_pending_bytes is {self.max_pending_bytes!r}; it is a number of bytes, or None.",
        )
        _require(
            isinstance(self.max_upload_memory, int) and self.max_upload_memory >= MIN_UPLOAD_MEMORY,
            f"max_upload_memory is {self.max_upload_memory!r}; it is a number of bytes, {MIN_UPLOAD_MEMORY:,} or "
            "more.",
        )
        for name in ("hub_keep_last", "hub_keep_every"):
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
            _require(value is None or is_count, f"{name} is {value!r}; it is a whole number, 1 or more, or None.")
            _require(
                value is None or self.hub_strategy == "all_checkpoints",
                f"{name} is for hub_strategy='all_checkpoints'; {self.hub_strategy!r} pushes no checkpoint-N.",
            )
        _require(
            self.on_foreign_run in ON_FOREIGN_RUN,
            f"on_foreign_run is {self.on_foreign_run!r}; it can be {', '.join(map(repr, ON_FOREIGN_RUN))}.",
        )
        _require(
            not self.hub_squash or self.hub_revision not in (None, "main"),
            "hub_squash drops the history of the branch that is pushed to, and that is main. Set hub_revision to "
            "another branch; the history of main is squashed by hand with HfApi.super_squash_history.",
        )
        _require(
            self.hub_token is None or (isinstance(self.hub_token, str) and bool(self.hub_token.strip())),
            "hub_token is empty; leave it out to use HF_TOKEN or the token of `hf auth login`.",
        )
        _check_repo_id(self.hub_model_id)
        _check_benchmarks(self.eval_results)
        if self.hub_revision is not None:
            check_ref("hub_revision", _at_a_step(self.hub_revision))
        if self.hub_tag is not None:
            has_step = isinstance(self.hub_tag, str) and "{step}" in self.hub_tag
            _require(has_step, f"hub_tag is {self.hub_tag!r}; it is a name with {{step}} in it: 'step-{{step}}'.")
            check_ref("hub_tag", _at_a_step(self.hub_tag), "tag")
            _require(self.hub_tag != self.hub_revision, "hub_tag and hub_revision cannot be the same name.")
            _require(
                not self.hub_squash, "hub_squash drops the commits that hub_tag is to name. Set one of the two."
            )

    @property
    def outbox(self) -> Path:
        return self.output_dir / OUTBOX_NAME

    @property
    def has_revision_per_step(self) -> bool:
        return self.hub_revision is not None and "{step}" in self.hub_revision

    def tags_of(self, step: int) -> tuple[str, ...]:
        """Git tags on the commit of the save of a step."""
        return () if self.hub_tag is None else (self.hub_tag.replace("{step}", str(step)),)

    @property
    def pushes_checkpoints(self) -> bool:
        """Whether what is needed to continue training is pushed, too."""
        return self.hub_strategy in ("checkpoint", "all_checkpoints")


def resolve(args: Any = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from `TrainingArguments` and keywords.

    Args:
        args: A `TrainingArguments`, or `None` where there is no Trainer.
        overrides: Field of `Settings` → value; `None` counts as not given.

    Raises:
        SettingsError: for an unknown keyword or a value that cannot work.
    """
    values: dict[str, Any] = {name: getattr(args, name, None) for name in FROM_ARGUMENTS}
    values |= {name: value for name, value in (overrides or {}).items() if value is not None}
    known = {f.name for f in fields(Settings)}
    for name in values:
        _require(name in known, f"{name!r} is not a setting; there are {', '.join(sorted(known))}.")
    values = {name: value for name, value in values.items() if value is not None}

    _require("output_dir" in values, "output_dir is not set: the folder of the run has to be known.")
    output_dir = Path(values["output_dir"]).expanduser().absolute()
    values["output_dir"] = output_dir
    if "hub_model_id" not in values:
        values["hub_model_id"] = output_dir.name
        try:
            _check_repo_id(output_dir.name)
        except SettingsError as error:
            raise SettingsError(
                f"The repository is named after output_dir where hub_model_id is not set, and "
                f"{output_dir.name!r} cannot be the name of one. Set hub_model_id. ({error})"
            ) from None
    if isinstance(values.get("hub_token"), str):
        values["hub_token"] = values["hub_token"].strip()  # read from a file, it often has a line end
    if "card_template" in values:
        values["card_template"] = Path(values["card_template"]).expanduser().absolute()
    if isinstance(values.get("eval_results"), Mapping):
        given = values["eval_results"].items()
        values["eval_results"] = tuple(
            (name, *place) if isinstance(place, tuple | list) else (name, place) for name, place in given
        )
    if "hub_strategy" in values:
        # `TrainingArguments` turns the string into an enumeration whose value is the string.
        values["hub_strategy"] = str(getattr(values["hub_strategy"], "value", values["hub_strategy"]))
    return Settings(**values)


def said_by(args: Any) -> tuple[Any, ...]:
    """What `TrainingArguments` say of where and how it is pushed; a script may change it for its next Trainer."""
    return tuple(getattr(args, name, None) for name in FROM_ARGUMENTS)


def _at_a_step(name: Any) -> Any:
    return name.replace("{step}", "0") if isinstance(name, str) else name


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingsError(message)


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise SettingsError(f"hub_model_id cannot be {repo_id!r}: {error}") from None


def _check_benchmarks(benchmarks: Any) -> None:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    for benchmark in benchmarks:
        are_texts = len(benchmark) == 3 and all(isinstance(name, str) and name for name in benchmark)
        _require(
            are_texts,
            f"eval_results has {benchmark!r}; it is like {{'accuracy': ('owner/benchmark', 'task')}}: a metric, "
            "and the dataset and the task of the benchmark on the Hub.",
        )
        try:
            validate_repo_id(benchmark[1])
        except HFValidationError as error:
            raise SettingsError(f"eval_results: {benchmark[1]!r} is no dataset on the Hub: {error}") from None
    _require(
        not benchmarks or hasattr(huggingface_hub, "EvalResultEntry"),
        f"eval_results needs a huggingface_hub that knows of benchmarks; {huggingface_hub.__version__} does not.",
    )


def check_ref(setting: str, name: Any, kind: str = "branch") -> None:
    """The rules of `git check-ref-format` that the name of a branch or tag has to keep.

    Args:
        setting: What the user gave it as.

    Raises:
        SettingsError: when it keeps them not.
    """
    bad = (
        not isinstance(name, str)
        or not name
        or name.startswith(("-", "/", "."))
        or name.endswith(("/", ".", ".lock"))
        or any(part in name for part in ("..", "//", "@{", "/."))
        or any(character in " ~^:?*[\\\x7f" or ord(character) < 32 for character in name)
    )
    _require(not bad, f"{setting} cannot be {name!r}: it is not the name of a git {kind}.")
