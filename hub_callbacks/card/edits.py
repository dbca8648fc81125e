"""What a person wrote, from the local README and the one on the Hub, which both may have been edited.

The common ancestor of the two is the local text that went into the last push. The card that was pushed is
not: as soon as somebody edits on the Hub it holds text that the local file lacks, and that must not look
like a deletion. So the state comment of a pushed card records the local text: a hash of each line and of
each metadata key. That is all that a three-way merge needs, for it only compares the ancestor's lines.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import dropwhile, takewhile
from typing import Any

from .document import (
    REFUSED,
    Document,
    Part,
    Section,
    State,
    digest,
    hash_of,
    normalize,
    parse,
    record_of,
    with_state,
)
from .front import Entry, with_items

_SECTION = "\0section:"
"""Stands for a generated section while lines are merged: no text has a zero byte."""
_DELETED = "deleted"


def combine_edits(local: str | None, remote: str | None, last_pushed: str | None) -> str | None:
    """The README with what a person wrote, to be passed to `merge_card` as `existing`.

    What changed on one side since the last push is taken. Where both changed the same lines, both texts
    stand, the remote one first; where both set the same metadata key, the remote value wins (lists are
    joined).

    Args:
        local: README.md of the output folder as it is now, `None` where there is none.
        remote: README.md on the Hub as it is now, `None` where there is none.
        last_pushed: README.md as it was pushed last; it takes the place of a remote one that is not there,
            and knows the ancestor where the state comment was removed on the Hub.

    Returns:
        `None` where all three are. The text has the remote's line ends.
    """
    there = remote if remote is not None and remote.strip() else last_pushed
    if local is None or not local.strip():
        return there if there is not None else local
    mine = parse(normalize(local))
    seen = _record(mine)
    if there is None or not there.strip():
        return str(with_state(mine, replace(mine.state or State(), local=seen)))
    theirs = parse(normalize(there))
    pushed = parse(normalize(last_pushed)) if last_pushed else theirs
    state = theirs.state or pushed.state or State()
    ancestor = state.local or (pushed.state.local if pushed.state else None)
    if ancestor == seen:
        return there if theirs.state else str(with_state(theirs, replace(state, local=seen)))

    here, yonder = _lines(mine), _lines(theirs)
    base = _decode(ancestor["lines"]) if ancestor else _common(here, yonder)
    front = _merge_metadata(mine, theirs, ancestor["keys"] if ancestor else {})
    parts = _parts(merge_lines(base, here, yonder), [theirs, mine, pushed])
    merged = with_state(Document(front, parts, theirs.tail), replace(state, local=seen))
    return str(merged).replace("\n", "\r\n" if "\r\n" in there else "\n")


def _record(document: Document) -> dict[str, Any]:
    """What `State.local` notes about a local README."""
    return {"lines": "".join(_token(line) or "." for line in _lines(document)), "keys": _person_keys(document)}


def _decode(lines: str) -> list[str]:
    return [token.strip(".") for token in re.findall(r"[0-9a-f]{6}|\.", lines)]


# ---------------------------------------------------------------------------------------------------- text


def _token(line: str) -> str:
    """What a line is compared by: blanks at its end do not count."""
    return digest(line.rstrip())[:6] if line.strip() else ""


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


def _parts(lines: list[str], sources: list[Document]) -> list[Part]:
    known: dict[str, Section] = {}
    for source in sources:
        for name, section in source.sections.items():
            if not section.edited:
                known.setdefault(name, section)
    parts: list[Part] = []
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


def _common(mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """An ancestor where none is known: what only one side has then counts as added by it.

    What has not even half of the shorter one in common is two texts: they are not woven together for the sake of a
    heading, or a fence of code, that is in both.
    """
    tokens = [*map(_token, mine)]
    pairs = _pairs(tokens, [*map(_token, theirs)])
    shared = sum(len(mine[i].strip()) for i, _ in pairs)
    shorter = min(sum(len(line.strip()) for line in lines) for lines in (mine, theirs))
    return [tokens[i] for i, _ in pairs] if 2 * shared > shorter else []


def merge_lines(base: Sequence[str], mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Three-way merge of lines; where both changed the same place, theirs and then what is new in mine.

    Args:
        base: The ancestor's lines as `_token` has them.
        mine: Lines of the local text.
        theirs: Lines of the remote text.
    """
    a, b = [*map(_token, mine)], [*map(_token, theirs)]
    if not any(base):
        return [*theirs, "", *dropwhile(lambda line: not line.strip(), mine)]
    to_a, to_b = dict(_pairs(base, a)), dict(_pairs(base, b))
    kept = [(i, to_a[i], to_b[i]) for i in to_a if i in to_b]
    merged: list[str] = []
    in_base = in_mine = in_theirs = 0
    for start, here, there in [*kept, (len(base), len(a), len(b))]:
        was, left, right = base[in_base:start], a[in_mine:here], b[in_theirs:there]
        ours, others = mine[in_mine:here], theirs[in_theirs:there]
        if left in (was, right):
            merged += others
        elif right == was:
            merged += ours
        else:
            merged += _both(list(was), ours, others)
        merged += theirs[there : there + 1]
        in_base, in_mine, in_theirs = start + 1, here + 1, there + 1
    return merged


def _pairs(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Indices of the lines that two texts have in common.

    A blank line says nothing on its own: it belongs to the lines around it.
    """
    in_a, in_b = ([i for i, token in enumerate(tokens) if token] for tokens in (a, b))
    words = difflib.SequenceMatcher(None, [a[i] for i in in_a], [b[i] for i in in_b], autojunk=False)
    found = [(-1, -1)]
    for block in [*words.get_matching_blocks()]:
        ends = [(in_a[block.a + k], in_b[block.b + k]) for k in range(block.size)]
        for i, j in ends or [(len(a), len(b))]:
            at_a, at_b = found[-1][0] + 1, found[-1][1] + 1
            found += [(at_a + k, at_b + n) for k, n in _blanks(a[at_a:i], b[at_b:j])]
            found.append((i, j))
    return found[1:-1]


def _blanks(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Indices of the blank lines that belong together, of two texts that have no other line in common."""
    if [*map(bool, a)] == [*map(bool, b)]:
        return [(i, i) for i, token in enumerate(a) if not token]
    first = _blank_run(a, b)
    last = _blank_run(a[first:][::-1], b[first:][::-1])
    return [(i, i) for i in range(first)] + [(len(a) - i, len(b) - i) for i in range(last, 0, -1)]


def _blank_run(a: Sequence[str], b: Sequence[str]) -> int:
    """With how many blank lines both begin."""
    return len([*takewhile(lambda pair: not pair[0] and not pair[1], zip(a, b, strict=False))])


def _both(base: list[str], mine: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Both texts of a place that both changed."""
    for changed, around in ((mine, theirs), (theirs, mine)):
        tokens = [*map(_token, around)]
        for i in range(len(tokens) - len(base) + 1 if base else 0):
            if tokens[i : i + len(base)] == base:  # one changed lines around which the other only added
                return [*around[:i], *changed, *around[i + len(base) :]]
    old = {*base, *map(_token, theirs)}
    fenced = any(line.lstrip().startswith(("```", "~~~")) for line in mine)
    new = [line for line in mine if fenced or not line.strip() or _token(line) not in old]
    while new and not new[0].strip():
        new.pop(0)
    while new and not new[-1].strip():
        new.pop()
    if not new:
        return list(theirs)
    before = [""] if theirs and theirs[-1].strip() else []
    after = [""] if mine and not mine[-1].strip() else []
    return [*theirs, *before, *new, *after]


# ------------------------------------------------------------------------------------------------ metadata


def _person_keys(document: Document) -> dict[str, Any]:
    """Key → hash of the value that a person set, or hashes of the items that they added to a list; or
    `_DELETED` for a generated key that they took out."""
    records = document.state.keys if document.state else {}
    there = {entry.key for entry in document.front or []}
    found: dict[str, Any] = {
        key: _DELETED
        for key, record in records.items()
        if key not in there and not str(record).startswith(REFUSED)
    }
    for entry in document.front or []:
        record = records.get(entry.key)
        if isinstance(entry.value, list):
            generated = record if isinstance(record, list) else []
            items = [item for item in map(hash_of, entry.value) if item not in generated]
            if items:
                found[entry.key] = items
        elif record is None or record != record_of(entry.value):
            found[entry.key] = hash_of(entry.value)
    return found


def _merge_metadata(mine: Document, theirs: Document, ancestor: dict[str, Any]) -> list[Entry]:
    """Their metadata with what was changed in mine since the ancestor."""
    here, there = _person_keys(mine), _person_keys(theirs)
    local = {entry.key: entry for entry in mine.front or []}
    front = {entry.key: entry for entry in theirs.front or []}
    for key in [*here, *(key for key in ancestor if key not in here)]:
        was, now = ancestor.get(key), here.get(key)
        if now == was:
            continue
        entry, ours = front.get(key), local.get(key)
        if entry is not None and isinstance(entry.value, list) and isinstance(was or now, list):
            old, new = _hashes(was), _hashes(now)
            kept = [item for item in entry.value if hash_of(item) not in old or hash_of(item) in new]
            items = ours.value if ours is not None and isinstance(ours.value, list) else []
            added = [item for item in items if hash_of(item) in new and hash_of(item) not in old]
            value = kept + [item for item in added if item not in kept]
            if not value:
                del front[key]
            elif value != entry.value:
                front[key] = with_items(entry, value)
        elif there.get(key) not in (None, was):
            continue  # both set it
        elif ours is None:
            front.pop(key, None)
        elif now is not None:
            front[key] = ours._replace(comment=entry.comment if entry else ours.comment)
    return list(front.values())


def _hashes(value: Any) -> list[str]:
    return value if isinstance(value, list) else []
