"""What a person wrote, from three texts: the local README, the one on the Hub and the one pushed last.

The card that was pushed last is the common ancestor only while nobody edits on the Hub: from then on the
local file lacks text that the pushed card has, and that must not look like a deletion. So the state comment
of a pushed card carries a hash of the local text that went into it. A local text with that hash has not
changed, whatever it lacks. One that has changed is merged with what it was made from: with the pushed card,
if that is the local text plus what was generated; else with the lines that both share, so that lines which
came from the Hub stay.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .document import (
    Document,
    Entry,
    Section,
    State,
    digest,
    dump_entry,
    hash_of,
    normalize,
    parse,
    record_of,
    with_state,
)

_SECTION = "\0section:"
"""Stands for a generated section while lines are merged: no text has a zero byte."""


def combine_edits(local: str | None, remote: str | None, last_pushed: str | None) -> str | None:
    """The README whose text a person wrote, to be passed to `merge_card` as `existing`.

    Whichever of the local and the remote text changed since the last push is taken. Where both changed, both
    changes are; where both changed the same lines, both texts stand, the remote one first; where both set
    the same metadata key, the remote value wins (lists are joined).

    Args:
        local: README.md of the output folder as it is now, `None` where there is none.
        remote: README.md on the Hub as it is now.
        last_pushed: README.md as it was pushed last.

    Returns:
        `None` where all three are. The text has the remote's line ends.
    """
    theirs = remote if remote is not None else last_pushed
    if local is None or not local.strip():
        return theirs if theirs is not None else local
    mine = parse(normalize(local))
    seen = person_hash(mine)
    if theirs is None or not theirs.strip():
        return str(with_state(mine, replace(mine.state or State(), local=seen)))
    other = parse(normalize(theirs))
    pushed = parse(normalize(last_pushed)) if last_pushed else None
    state = other.state or (pushed.state if pushed else None) or State()
    if seen == (state.local or (pushed and pushed.state and pushed.state.local)):
        return theirs if other.state else str(with_state(other, replace(state, local=seen)))

    ancestor = pushed or other
    exact = pushed is not None and person_hash(pushed) == state.local
    front, tail = _merge_metadata(mine, other, pushed, exact=exact)
    base = _lines(ancestor)
    if not exact:
        base = _shared(base, _lines(mine))
    # A section that the local file never had was not deleted from it.
    could_have = set(mine.sections) | set(mine.state.sections if mine.state else ())
    base = [line for line in base if not line.startswith(_SECTION) or line.removeprefix(_SECTION) in could_have]
    lines = merge_lines(base, _lines(mine), _lines(other))
    parts = _parts(lines, [other, mine, *([pushed] if pushed else [])])
    merged = with_state(Document(front, parts, tail), replace(state, local=seen))
    return str(merged).replace("\n", "\r\n" if "\r\n" in theirs else "\n")


def person_hash(document: Document) -> str:
    """Hash of what a person wrote; blank lines and blanks at line ends do not count."""
    lines = [line.rstrip() for line in _lines(document) if line.strip() and not line.startswith(_SECTION)]
    metadata = sorted((key, hash_of(value)) for key, value in _person_metadata(document).items())
    return digest("\n".join([*lines, *map(repr, metadata)]))


# ---------------------------------------------------------------------------------------------------- text


def _lines(document: Document) -> list[str]:
    """The body's lines, with one line for each section as it was generated and without the state."""
    text = ""
    after_state = False
    for part in document.parts:
        if isinstance(part, State):
            text, after_state = text.rstrip("\n") + "\n\n", True
            continue
        piece = str(part).replace("\0", "")
        if isinstance(part, Section) and not part.edited:
            piece = _SECTION + part.name
        text += piece.lstrip("\n") if after_state else piece
        after_state = False
    return text.rstrip("\n").split("\n")


def _parts(lines: list[str], sources: list[Document]) -> list[Section | State | str]:
    known: dict[str, Section] = {}
    for source in sources:
        for name, section in source.sections.items():
            if not section.edited:
                known.setdefault(name, section)
    parts: list[Section | State | str] = []
    placed: set[str] = set()
    text = ""
    for line in lines:
        name = line.removeprefix(_SECTION)
        if name == line:
            text += line + "\n"
        elif name in known and name not in placed:
            placed.add(name)
            parts += [text, known[name]] if text else [known[name]]
            text = "\n"
    return [*parts, text] if text else parts


def _shared(pushed: list[str], local: list[str]) -> list[str]:
    """An ancestor where the true one is not known: the lines that both have, and those that one of them
    changed a little. A line that only one has then counts as added by it, never as deleted by the other."""
    shared = []
    for tag, i, end, j, to in difflib.SequenceMatcher(None, pushed, local, autojunk=False).get_opcodes():
        if tag == "equal":
            shared += pushed[i:end]
        elif tag == "replace":
            here = [line for line in local[j:to] if line.strip()]
            shared += [line for line in pushed[i:end] if difflib.get_close_matches(line, here, 1, cutoff=0.7)]
    return shared


def merge_lines(base: Sequence[str], mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Three-way merge of lines; where both changed the same place, theirs and then what is new in mine."""
    merged: list[str] = []
    in_base = in_mine = in_theirs = 0
    for start, here, there, size in _unchanged(base, mine, theirs):
        z, a, b = list(base[in_base:start]), list(mine[in_mine:here]), list(theirs[in_theirs:there])
        merged += b if a in (z, b) else a if b == z else _both(z, a, b)
        merged += base[start : start + size]
        in_base, in_mine, in_theirs = start + size, here + size, there + size
    return merged


def _unchanged(base: Sequence[str], mine: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Runs of lines that all three have: where they begin in each, and their length. The last one is empty."""
    to_mine = difflib.SequenceMatcher(None, base, mine, autojunk=False).get_matching_blocks()
    to_theirs = difflib.SequenceMatcher(None, base, theirs, autojunk=False).get_matching_blocks()
    runs = []
    for left in to_mine:
        for right in to_theirs:
            start = max(left.a, right.a)
            size = min(left.a + left.size, right.a + right.size) - start
            if size > 0:
                runs.append((start, left.b + start - left.a, right.b + start - right.a, size))
    return [*runs, (len(base), len(mine), len(theirs), 0)]


def _both(base: Sequence[str], mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    fenced = any(line.lstrip().startswith(("```", "~~~")) for line in mine)
    new = [line for line in mine if fenced or not line.strip() or (line not in base and line not in theirs)]
    while new and not new[0].strip():
        new.pop(0)
    while new and not new[-1].strip():
        new.pop()
    if not new:
        return list(theirs)
    trailing = [""] if mine and not mine[-1].strip() else []
    between = [""] if theirs and theirs[-1].strip() else []
    return [*theirs, *between, *new, *trailing]


# ------------------------------------------------------------------------------------------------ metadata


def _person_metadata(document: Document) -> dict[str, Any]:
    """The keys that a person set, and of lists the items that they added."""
    records = document.state.keys if document.state else {}
    found = {}
    for entry in document.front or []:
        record = records.get(entry.key)
        if isinstance(record, list) and isinstance(entry.value, list):
            items = [item for item in entry.value if hash_of(item) not in record]
            if items:
                found[entry.key] = items
        elif record is None or record != record_of(entry.value):
            found[entry.key] = entry.value
    return found


def _merge_metadata(
    mine: Document, other: Document, pushed: Document | None, *, exact: bool
) -> tuple[list[Entry], str]:
    a, b = _person_metadata(mine), _person_metadata(other)
    z = _person_metadata(pushed) if pushed else {}
    front = {entry.key: entry for entry in other.front or []}
    local = {entry.key: entry for entry in mine.front or []}
    for key in [*a, *(key for key in z if key not in a and exact)]:
        if key not in a:  # deleted here
            if b.get(key) == z[key] and not isinstance(z[key], list):
                front.pop(key, None)
            continue
        if key in z and a[key] == z[key]:
            continue
        if isinstance(a[key], list) and key in front and isinstance(front[key].value, list):
            gone = (
                [item for item in z.get(key, []) if item not in a[key]]
                if exact and isinstance(z.get(key), list)
                else []
            )
            there = [item for item in front[key].value if item not in gone]
            front[key] = _entry(front[key], there + [item for item in a[key] if item not in there])
        elif key not in b or (key in z and b[key] == z[key]):
            there_before = front.get(key)
            front[key] = local[key]._replace(comment=there_before.comment if there_before else local[key].comment)
    return list(front.values()), other.tail


def _entry(entry: Entry, value: Any) -> Entry:
    return entry if value == entry.value else entry._replace(value=value, raw=dump_entry(entry.key, value))
