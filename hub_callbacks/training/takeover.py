"""Routes the Trainer's own Hub methods to the engine, for a Trainer that has a `HubSyncCallback` (which is handed
in: `callback` is above this module).

With `push_to_hub=True` the Trainer calls `init_hf_repo()`, which needs a network, before any callback hears
of it; it pushes at each save; and scripts call `trainer.push_to_hub(**kwargs)` at the end, and read
`trainer.hub_model_id`. For a Trainer with the callback these do the same by way of the outbox. All other Trainers
are left as they are.
"""

from __future__ import annotations

import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import SettingsError
from . import trainer_verbs
from .card_facts import OPTIONS
from .plan import END_OF_TRAINING
from .request import check_card_options

logger = logging.getLogger(__name__)

ROUTED = ("init_hf_repo", "create_model_card", "_push_from_checkpoint", "_finish_current_push", "push_to_hub")
"""Methods of `transformers.Trainer` that are routed; their signatures are watched by a test."""


Find = Callable[[Any], Any]
"""A Trainer → the `HubSyncCallback` among its callbacks, or `None`."""


def install(find: Find) -> None:
    """Puts the routes into `transformers.Trainer`, once."""
    from transformers import Trainer

    for name in ROUTED:
        original = getattr(Trainer, name)
        if not hasattr(original, "_hub_callbacks_original"):
            ours = functools.partial(_init_hf_repo, find) if name == "init_hf_repo" else _ROUTES[name]
            setattr(Trainer, name, _route(original, ours, find))
    for name, (read, assigned) in _ATTRIBUTES.items():
        if name not in vars(Trainer):
            setattr(Trainer, name, _Attribute(name, find, read, assigned))


def add_to_every_trainer(kind: type) -> None:
    """From now on each Trainer that is made without a callback of this kind gets one.

    There is no public hook for that: `Trainer.__init__` is wrapped.

    Args:
        kind: `HubSyncCallback`.
    """
    from transformers import Trainer

    original = Trainer.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        args, kwargs = with_callback(kind, functools.partial(original, self), args, kwargs)
        original(self, *args, **kwargs)

    Trainer.__init__ = init


def with_callback(
    kind: type, init: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a Trainer's `__init__` with a callback of a kind among the callbacks, if there was none."""
    signature = inspect.signature(init)
    given = signature.bind_partial(*args, **kwargs)
    place = given.arguments
    if "callbacks" not in signature.parameters:  # it goes by **kwargs
        kinds = {parameter.kind: name for name, parameter in signature.parameters.items()}
        place = place.setdefault(kinds[inspect.Parameter.VAR_KEYWORD], {})
    callbacks = list(place.get("callbacks") or ())
    if not any(c is kind or isinstance(c, kind) for c in callbacks):
        place["callbacks"] = [*callbacks, kind()]
    return given.args, given.kwargs


def _route(original: Callable[..., Any], ours: Callable[..., Any], find: Find) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        callback = find(self)
        if callback is None:
            return original(self, *args, **kwargs)
        return ours(callback, self, *args, **kwargs)

    method._hub_callbacks_original = original  # type: ignore[attr-defined]
    return method


class _Attribute:
    """An attribute that Trainers give themselves: with the callback its run knows the value.

    Args:
        name: Its name.
        find: A Trainer → its callback.
        read: The callback, the Trainer and what was assigned last → the value.
        assigned: Told of the callback, the Trainer and the value that is assigned.
    """

    def __init__(self, name: str, find: Find, read: Callable[..., Any], assigned: Callable[..., None]) -> None:
        self._name, self._find, self._read, self._assigned = name, find, read, assigned

    def __get__(self, trainer: Any, kind: type) -> Any:
        if trainer is None:
            return self
        callback, own = self._find(trainer), vars(trainer)
        if callback is not None:
            return self._read(callback, trainer, own.get(self._name))
        if self._name not in own:
            raise AttributeError(f"{kind.__name__!r} object has no attribute {self._name!r}")
        return own[self._name]

    def __set__(self, trainer: Any, value: Any) -> None:
        vars(trainer)[self._name] = value
        callback = self._find(trainer)
        if callback is not None:
            self._assigned(callback, trainer, value)

    def __delete__(self, trainer: Any) -> None:
        vars(trainer).pop(self._name, None)


def _init_hf_repo(
    find: Find, callback: Any, trainer: Any, token: str | None = None, private: bool | None = None
) -> None:
    """As the Trainer calls it when it is made; for `private` there is `hub_private_repo`."""
    # Subclasses override these (sentence-transformers does); what stands on the instance goes first.
    for name in ("_push_from_checkpoint", "_finish_current_push"):
        setattr(trainer, name, _OnInstance(trainer, name, find))
    trainer_verbs.connect(callback, trainer, token)


class _OnInstance:
    """The Trainer's routed method, whatever its class has made of it; that of the class without the callback.

    It does not keep its Trainer alive, and is pickled with it: Ray sends Trainers to other processes.
    """

    def __init__(self, trainer: Any, name: str, find: Find) -> None:
        self._trainer, self._name, self._find = weakref.ref(trainer), name, find

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from transformers import Trainer

        this = self._trainer()
        kind = type(this) if self._find(this) is None else Trainer
        return getattr(kind, self._name)(this, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _OnInstance, (self._trainer(), self._name, self._find)


def _create_model_card(callback: Any, trainer: Any, *args: Any, **options: Any) -> Any:
    """For scripts that end with it where they were not told to push: the callback pushes all the same."""
    if len(args) > len(OPTIONS):
        raise TypeError(f"create_model_card() takes at most {len(OPTIONS)} arguments, and {len(args)} were given")
    _check_keywords("create_model_card", trainer, options)
    options = dict(zip(OPTIONS, args, strict=False)) | options
    card = trainer_verbs.write_card(callback, trainer, _sayable(options))
    run = trainer_verbs.run_on_main(callback, trainer)
    if run is not None and not trainer.args.push_to_hub:
        run.push_what_was_said(trainer.state)
    return card


def _push_to_hub(
    callback: Any,
    trainer: Any,
    commit_message: str | None = END_OF_TRAINING,
    blocking: bool = True,
    token: str | None = None,
    revision: str | None = None,
    private: bool | None = None,
    *,
    commit_description: str | None = None,
    create_repo: bool = True,
    delete_existing_repo: bool = False,
    run_as_future: bool = False,
    **card: Any,
) -> Any:
    """The parameters of `HubVerbs.push_to_hub` in the order that those of the Trainer have, and with their meaning
    there: `tags` are the card's, and no Git tags."""
    _check_keywords("push_to_hub", trainer, card)
    said = {
        "commit_message": commit_message,
        "blocking": blocking,
        "token": token,
        "revision": revision,
        "private": private,
        "commit_description": commit_description,
        "create_repo": create_repo,
        "delete_existing_repo": delete_existing_repo,
        "run_as_future": run_as_future,
        "card": _sayable(card),
    }
    return trainer_verbs.push_output_dir(callback, trainer, said, to_library=card)


def _check_keywords(verb: str, trainer: Any, options: Mapping[str, Any]) -> None:
    """
    Raises:
        TypeError: for what neither this package nor the `create_model_card` of the Trainer's class knows.
    """
    theirs = inspect.signature(type(trainer).create_model_card).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in theirs.values()):
        return
    for name in options:
        if name not in theirs and name not in OPTIONS:
            raise TypeError(
                f"{verb}() got an unexpected keyword argument {name!r}. Nothing was saved or pushed. What can be "
                f"said of the model is {', '.join(dict.fromkeys([*OPTIONS, *list(theirs)[1:]]))}."
            )


def _sayable(options: Mapping[str, Any]) -> dict[str, Any]:
    """What can be said of a model: a script for the stock Trainer, which looks at none of it, goes on without the
    rest. Keywords that only the Trainer of a library knows are left to that."""
    sayable = {name: value for name, value in options.items() if name in OPTIONS}
    for name, value in list(sayable.items()):
        try:
            check_card_options({name: value})
        except SettingsError as error:
            del sayable[name]
            logger.warning("%s It is left out of the model card.", error)
    return sayable


def _forget(callback: Any, trainer: Any, value: Any) -> None:
    """The engine knows better than what is assigned."""


_ATTRIBUTES: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "hub_model_id": (trainer_verbs.repository_of, trainer_verbs.name_repository),
    "push_in_progress": (trainer_verbs.push_in_progress, _forget),
    "_push_in_progress": (trainer_verbs.push_in_progress, _forget),
}
_ROUTES: dict[str, Callable[..., Any]] = {
    "create_model_card": _create_model_card,
    "_push_from_checkpoint": trainer_verbs.push_from_checkpoint,
    "_finish_current_push": trainer_verbs.finish_current_push,
    "push_to_hub": _push_to_hub,
}
