"""A README as the parts that the merge works on: metadata keys, generated sections and a person's text.

A generated section stands between two comments, each on a line of its own:

    <!-- hub_callbacks:begin results 1a2b3c4d -->
    ...
    <!-- hub_callbacks:end results -->

The eight digits are a hash of what was generated: a section whose content has another one was edited by a
person. One further comment, `hub_callbacks:state`, notes which metadata keys and sections were generated.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from .front import Entry, parse_front

MARK = "hub_callbacks"
REFUSED = "refused:"
NOTE = "Written by hub_callbacks. What stands outside of these markers is yours and stays."

_BEGIN = re.compile(rf"<!-- {MARK}:begin (?P<name>[\w-]+)(?: (?P<stamp>[0-9a-f]{{8}}))?(?: [^\n]*)?-->[ \t]*")
_END = re.compile(rf"<!-- {MARK}:end (?P<name>[\w-]+) -->[ \t]*")
_STATE = re.compile(rf"<!-- {MARK}:state (?P<json>\{{[^\n]*\}}) -->[ \t]*")
_FRONT = re.compile(r"\s*---[ \t]*\n(?:([\S\s]*?)\n)?---[ \t]*(?:\n|$)")
"""The Hub's own rule (huggingface_hub's `REGEX_YAML_BLOCK`), with an empty block allowed."""


@dataclass(frozen=True)
class Section:
    """A generated part. `raw` is set for one that was read: it is written back byte by byte."""

    name: str
    content: str
    stamp: str | None = None
    raw: str | None = None

    @property
    def edited(self) -> bool:
        return self.stamp != stamp_of(self.content)

    def __str__(self) -> str:
        if self.raw is not None:
            return self.raw
        note = f" {NOTE}" if self.name == "intro" else ""
        begin = f"<!-- {MARK}:begin {self.name} {stamp_of(self.content)}{note} -->"
        return f"{begin}\n{self.content}\n<!-- {MARK}:end {self.name} -->"


@dataclass(frozen=True)
class State:
    """What was generated, as noted in the card itself.

    Args:
        keys: Metadata key → hash of the generated value; for a list of words, the hashes of its items.
            `refused:` stands before the hash of a value that the Hub did not take.
        sections: Names of the sections that were generated.
        local: Hashes of the lines and the keys of the local README that was last taken over (see `edits`).
    """

    keys: dict[str, Any] = field(default_factory=dict)
    sections: list[str] = field(default_factory=list)
    local: dict[str, Any] | None = None

    def __str__(self) -> str:
        found = {"keys": self.keys, "sections": self.sections} | ({"local": self.local} if self.local else {})
        text = json.dumps(found, sort_keys=True, separators=(",", ":"))
        text = text.replace("--", "-\\u002d").replace(">", "\\u003e")
        return f"<!-- {MARK}:state {text} -->"


Part = Section | State | str


@dataclass(frozen=True)
class Document:
    """`front` is `None` without a metadata block; `tail` holds comments at the end of the block."""

    front: list[Entry] | None
    parts: list[Part]
    tail: str = ""

    @property
    def state(self) -> State | None:
        return next((part for part in self.parts if isinstance(part, State)), None)

    @property
    def sections(self) -> dict[str, Section]:
        """The first of each name."""
        found: dict[str, Section] = {}
        for part in self.parts:
            if isinstance(part, Section):
                found.setdefault(part.name, part)
        return found

    def __str__(self) -> str:
        front = "".join(entry.comment + entry.raw for entry in self.front or []) + self.tail
        front = f"---\n{front}---\n" if front.strip() else ""
        body = "".join(map(str, self.parts))
        if not front and body.lstrip().startswith("---"):
            front = "---\n{}\n---\n"  # else the text would be taken for metadata
        return front + body.rstrip("\n") + "\n" if body.strip() or front else ""


def stamp_of(content: str) -> str:
    """Hash of a section's text; blanks at line ends and around it, which editors strip, do not count."""
    lines = [line.rstrip() for line in content.strip().splitlines()]
    return digest("\n".join(lines))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def record_of(value: Any) -> str | list[str]:
    """What `State.keys` notes for a metadata value."""
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return [hash_of(item) for item in value]
    return hash_of(value)


def hash_of(value: Any) -> str:
    return digest(repr(value))


def parse(text: str) -> Document:
    """A README as a `Document`; its line ends have to be `\\n`.

    A metadata block that cannot be read as YAML, with which the Hub would refuse the card, becomes part of
    the text, where a person can see and repair it.
    """
    text = text.removeprefix("\ufeff")
    match = _FRONT.match(text)
    if match is None:
        return Document(None, _parts(text))
    block, body = match.group(1) or "", text[match.end() :]
    try:
        front, tail = parse_front(block)
    except (yaml.YAMLError, ValueError, RecursionError):
        return Document(None, _parts(_as_text(block) + body))
    return Document(front, _parts(body), tail)


def normalize(text: str | None) -> str:
    return (text or "").replace("\r\n", "\n").replace("\r", "\n")


def outside_code(text: str) -> str:
    """A text without its fenced code."""
    return re.sub(r"(?ms)^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", "", text)


def _as_text(block: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block)), default=0))
    note = "The metadata of this card could not be read as YAML, so it is kept here. Repair it and move it up."
    return f"\n> {note}\n\n{fence}yaml\n{block}\n{fence}\n\n"


# ---------------------------------------------------------------------------------------------------- body


def _parts(body: str) -> list[Part]:
    """The body as sections, the state and the text between them; joined, they are the body again.

    A marker without its partner is text.
    """
    lines = body.split("\n")
    parts: list[Part] = []
    text: list[str] = []

    def flush(joined: str) -> None:
        if joined:
            parts.append(joined)
        text.clear()

    i = 0
    while i < len(lines):
        begin, state = _BEGIN.fullmatch(lines[i]), _STATE.fullmatch(lines[i])
        last = _end_of(lines, i, begin.group("name")) if begin else None
        newline = "\n" if i else ""
        if begin and last is not None:
            flush("\n".join(text) + newline)
            content, raw = "\n".join(lines[i + 1 : last]), "\n".join(lines[i : last + 1])
            parts.append(Section(begin.group("name"), content, begin.group("stamp"), raw))
            i = last
            text[:] = [""]
        elif state and (found := _state(state.group("json"))):
            if not any(isinstance(part, State) for part in parts):  # a copy says nothing
                flush("\n".join(text) + newline)
                parts.append(found)
                text[:] = [""]
        else:
            text.append(lines[i])
        i += 1
    flush("\n".join(text))
    return parts


def _end_of(lines: list[str], start: int, name: str) -> int | None:
    for i in range(start + 1, len(lines)):
        end = _END.fullmatch(lines[i])
        if end and end.group("name") == name:
            return i
        if end or _BEGIN.fullmatch(lines[i]) or _STATE.fullmatch(lines[i]):
            return None
    return None


def _state(text: str) -> State | None:
    try:
        found = json.loads(text)
        local = found.get("local")
        if local is not None:
            local = {"lines": str(local["lines"]), "keys": dict(local["keys"])}
        return State(dict(found["keys"]), [str(name) for name in found["sections"]], local)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def with_state(document: Document, state: State) -> Document:
    """The document with its state replaced, or added at its end."""
    if document.state is not None:
        return replace(document, parts=[state if isinstance(part, State) else part for part in document.parts])
    return replace(document, parts=append(document.parts, state))


def append(parts: list[Part], part: Section | State) -> list[Part]:
    """`parts` with one more after a blank line, before a state at the end."""
    tail: list[Part] = []
    while parts and (isinstance(parts[-1], State) or (isinstance(parts[-1], str) and not parts[-1].strip())):
        if isinstance(parts[-1], State) or any(isinstance(p, State) for p in tail):
            tail.insert(0, parts[-1])
        parts = parts[:-1]
    if tail and isinstance(tail[0], str):
        tail = tail[1:]
    if parts and isinstance(parts[-1], str):
        parts = [*parts[:-1], parts[-1].rstrip("\n")]
    blank: list[Part] = ["\n\n"] if parts else ["\n"]
    return [*parts, *blank, part, *(["\n\n", *tail] if tail else ["\n"])]
