"""What a call of `push_to_hub` asks for, checked before anything is saved or queued.

Nothing here needs the network or what only the main process knows: each process of a training comes to the same
result, so that none goes on alone into an operation of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import SettingsError
from ..outbox.push import Target
from ..settings import Settings, check_ref
from .card_facts import OPTIONS
from .plan import END_OF_TRAINING

_OF_A_RUN = re.compile("run-[0-9a-f]{12}")
"""The branch that `on_foreign_run="branch"` makes; only the main process knows which."""
_NAMES_A_COMMIT = re.compile(r"v\d+\S*|\d+(\.\d+)+\S*|(step|epoch|checkpoint)[-_]?\d+", re.IGNORECASE)
_SWITCHES = {"create_repo": True, "delete_existing_repo": False, "run_as_future": False, "blocking": True}
"""Parameter of `push_to_hub` that is `True` or `False` → what it is where it was not given."""


@dataclass(frozen=True)
class Request:
    """
    Args:
        target: Where it goes.
        description: Text of the commit below its title.
        tags: Git tags that are set on its commit.
        replaces: Whether the repository that is there is deleted first.
        message: Title of the commit.
        token: Write token from now on; `None` leaves the one that is known.
        waits: Whether the caller waits for the commit.
        card: What is said about the model, as for `create_model_card`.
    """

    target: Target
    description: str = ""
    tags: tuple[str, ...] = ()
    replaces: bool = False
    message: str = END_OF_TRAINING
    token: str | None = field(default=None, repr=False)
    waits: bool = True
    card: Mapping[str, Any] = field(default_factory=dict)


def read_request(target: Target, said: Mapping[str, Any]) -> Request:
    """
    Args:
        target: Where the run pushes to.
        said: Parameter of `push_to_hub` → its value, for those that were given.

    Raises:
        SettingsError: for a value that cannot work.
    """
    message, description, token = said.get("commit_message"), said.get("commit_description"), said.get("token")
    check_text("commit_message", message)
    check_text("token", token)
    if description is not None and not isinstance(description, str):
        raise SettingsError(f"commit_description is {description!r}; it is a text, or None.")
    switches = {name: said.get(name, default) for name, default in _SWITCHES.items()}
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise SettingsError(f"{name} is {value!r}; it is True or False.")
    create, replaces = switches["create_repo"], switches["delete_existing_repo"]
    card = said.get("card") or {}
    check_card_options(card)
    private, revision = said.get("private"), said.get("revision")
    if private is not None and not isinstance(private, bool):
        raise SettingsError(f"private is {private!r}; it is True, False, or None for the Hub's default.")
    if revision is not None:
        check_ref("revision", revision)
    if replaces and not create:
        raise SettingsError(
            "delete_existing_repo=True goes with create_repo=True only: without it there would be no repository "
            "left to push to. Nothing was deleted."
        )
    target = replace(
        target,
        revision=revision or target.revision,
        private=target.private if private is None else private,
        create=create,
        from_scratch=target.from_scratch and revision is None,
    )
    return Request(
        target,
        description or "",
        _git_tags(said.get("tags"), target),
        replaces,
        message=message or END_OF_TRAINING,
        token=token,
        waits=switches["blocking"] and not switches["run_as_future"],
        card=card,
    )


def describes(tag: str) -> bool:
    """Whether a Git tag says something of the model, and not which of its commits it is: `v1.0.0`, `step-500`."""
    return _NAMES_A_COMMIT.fullmatch(tag) is None


def _git_tags(tags: Any, target: Target) -> tuple[str, ...]:
    names = list_of_names("tags", tags)
    for name in names:
        check_ref("A tag", name, "tag")
        if name in (target.revision or "main", "HEAD"):
            raise SettingsError(f"A tag cannot be {name!r}: the branch that is pushed to has that name.")
        if _OF_A_RUN.fullmatch(name):
            raise SettingsError(f"A tag cannot be {name!r}: branches of runs have such names.")
    return names


def target_of_run(settings: Settings) -> Target:
    """Where the pushes of a run go, but for saves with a branch of their own."""
    branch = None if settings.has_revision_per_step else settings.hub_revision
    return Target(settings.hub_model_id, branch, settings.hub_private_repo)


def list_of_names(what: str, value: Any) -> tuple[str, ...]:
    """One name or several, each once, in order.

    Raises:
        SettingsError: when they are none.
    """
    names = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple | set) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{what} is {value!r}; it is a name, or a list of names.")
    return tuple(dict.fromkeys(names))


def check_card_options(options: Mapping[str, Any]) -> None:
    """What a user says about the model, as for `create_model_card`.

    Raises:
        SettingsError: for an unknown name, or a value that is neither a text nor a list of texts.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise SettingsError(f"{name!r} cannot be said of a model; what can be is {', '.join(OPTIONS)}.")
        list_of_names(name, value)


def check_text(what: str, value: Any) -> None:
    """
    Raises:
        SettingsError: when it is neither `None` nor a text with something in it.
    """
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise SettingsError(f"{what} is {value!r}; it is a text.")
