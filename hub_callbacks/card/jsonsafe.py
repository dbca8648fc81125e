"""Values from a training process as what JSON can carry, and back."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

MAX_TEXT = 500
"""Characters of a text that are kept: a card is read by people, not a place for dumps."""

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def json_safe(value: Any) -> Any:
    """`value` as dicts with string keys, lists, strings, finite numbers, booleans and `None`.

    Whole numbers too large for a float become their digits, as text: nothing can be calculated or drawn with
    them. Numbers that JSON does not have become the words `"NaN"`, `"Infinity"` and `"-Infinity"`; scalars of
    numpy, torch and jax become Python numbers; anything else becomes its text, cut to `MAX_TEXT` characters.
    """
    if value is None or isinstance(value, bool):
        return value
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else _word(value)
    if kind is int:
        return value if abs(value) <= sys.float_info.max else _text(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((json_safe(item) for item in value), key=str)
    scalar = _scalar(value)
    return _text(value) if scalar is None else json_safe(scalar)


def number(value: Any) -> float | int | None:
    """The number that `json_safe` wrote down, `None` for everything else."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return None


def attempt(gather: Callable[[], Any], default: Any = None) -> Any:
    """Foreign objects may raise anything when they are looked at."""
    with contextlib.suppress(Exception):
        return gather()
    return default


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _scalar(value: Any) -> Any:
    """The Python number of a scalar of any array library, `None` if it is none."""
    if isinstance(value, int | float):  # subclasses, numpy's float64 among them
        return float(value) if isinstance(value, float) else int(value)
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        item = value.item()
        return item if type(item) in (bool, int, float) else None
    return None


def _text(value: Any) -> str:
    try:
        text = str(getattr(value, "value", value) if not isinstance(value, str) else value)
    except Exception:
        return f"<{type(value).__name__}>"
    # A lone surrogate (a file name that is not UTF-8) could not be written to a file.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
