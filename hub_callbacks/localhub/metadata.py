"""YAML of people and models → plain values, whatever it holds, within bounds of size and work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import yaml

MAX_LENGTH = 1_000_000
"""Of the text, in characters."""

_MAX_SIZE = 2_000_000
"""Of all values with their aliases written out: in characters, and each value counts as 20 more."""

_VALUE_SIZE = 20
_MAX_DEPTH = 100
_MAX_WORD = 100
"""Longer words are text: no number, date or boolean that anybody means has so many characters."""

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_TEXT = f"{_CORE}str"
_TEXTS = {_TEXT, f"{_CORE}merge", f"{_CORE}value"}
_WORDS = {f"{_CORE}{name}" for name in ("null", "bool", "int", "float", "timestamp")}
_GROUPS = {None, "!", f"{_CORE}seq", f"{_CORE}map"}


class Unreadable(ValueError):
    """A text that is not read as YAML; the message says why, shortly."""

    def __init__(self, why: str) -> None:
        super().__init__(_whole(why[:500]))


def read_yaml(text: str) -> tuple[Any, int]:
    """A YAML document's value, and its size as bounds and caches count it.

    The value is made of dicts with text as keys, lists, text, numbers, booleans, dates and None.

    Raises:
        Unreadable: It breaks the rules of YAML, holds what does not exist, or goes beyond a bound.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable(f"it has more than {MAX_LENGTH:,} characters")
    try:
        reader = _Reader(text.encode(errors="replace").decode())
        return reader.document(), reader.size
    except yaml.YAMLError as error:
        raise Unreadable(str(error)) from error


def as_json(value: Any) -> Any:
    """A value of `read_yaml` as JSON can hold it: infinite and no numbers are null, a date is its text."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


class _Reader:
    """Builds values from the parser's events, so that depth and size are known before anything is made.

    An alias is the very value that it stands for: it takes no room until somebody writes it out.
    """

    def __init__(self, text: str) -> None:
        self.size = 0
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Parser)
        self._words = yaml.SafeLoader("")
        self._named: dict[str, tuple[Any, int]] = {}

    def document(self) -> Any:
        value = None
        starts = (event for event in self._events if isinstance(event, yaml.DocumentStartEvent))
        for number, _ in enumerate(starts):
            if number:
                raise Unreadable("it has more than one document")
            value = self._value(next(self._events), 0)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._named:
                raise Unreadable(f"*{event.anchor} names nothing that ends before it")
            value, size = self._named[event.anchor]
            self._grow(size)
            return value
        if depth > _MAX_DEPTH:
            raise Unreadable(f"it is nested more than {_MAX_DEPTH} levels deep")
        before = self.size
        if isinstance(event, yaml.ScalarEvent):
            self._grow(_VALUE_SIZE + len(event.value))
            value = self._word(event)
        else:
            self._grow(_VALUE_SIZE)
            if event.tag not in _GROUPS:
                raise Unreadable(f"the tag {event.tag} is not read here")
            is_list = isinstance(event, yaml.SequenceStartEvent)
            value = self._list(depth) if is_list else self._object(depth)
        if event.anchor:
            self._named[event.anchor] = value, self.size - before
        return value

    def _grow(self, size: int) -> None:
        self.size += size
        if self.size > _MAX_SIZE:
            raise Unreadable("it holds too much, its aliases written out")

    def _list(self, depth: int) -> list[Any]:
        items = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(event, depth + 1))
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[Any] = []
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            is_word = isinstance(event, yaml.ScalarEvent)
            key = self._value(event, depth + 1)
            value = self._value(next(self._events), depth + 1)
            if is_word and event.value == "<<" and event.implicit[0]:
                merged += value if isinstance(value, list) else [value]
            elif is_word or isinstance(key, str):
                found[_whole(event.value) if is_word else key] = value  # as written, be it a number
            else:
                raise Unreadable("a key is neither text nor a number")
        for item in merged:
            if not isinstance(item, dict):
                raise Unreadable("<< merges what is no object")
            for key, value in item.items():
                found.setdefault(key, value)
        return found

    def _word(self, event: Any) -> Any:
        text = _whole(event.value)
        tag = event.tag
        if tag in (None, "!"):
            tag = _TEXT if len(text) > _MAX_WORD else self._words.resolve(yaml.ScalarNode, text, event.implicit)
        if tag in _TEXTS:
            return text
        if tag not in _WORDS or len(text) > _MAX_WORD:
            raise Unreadable(f"the tag {tag} is not read here")
        try:
            return self._words.construct_object(yaml.ScalarNode(tag, text))
        except (ValueError, LookupError, AttributeError) as error:
            # What PyYAML's conversions meet in "2024-02-30", "!!bool maybe" or "!!timestamp noon".
            raise Unreadable(f"{text!r} is no {tag.removeprefix(_CORE)} ({error})") from error


def _whole(text: str) -> str:
    """Half a character, which YAML can escape and neither JSON nor a page can hold, becomes a question mark."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
