"""Generated card and a person's README → one README, in which nothing of the person's is lost.

**Which text is whose.** What stands outside of the markers is the person's and is kept byte by byte (line
ends aside). A generated section is replaced, unless its content no longer has the hash that its marker
carries: then a person edited it, and it stays as they left it. A section that a person deleted stays
deleted, for the state comment still names it.

**Which metadata key is whose.** The state comment holds a hash of each value that was generated. A key whose
value still has that hash is the generator's to update or remove; any other is the person's and is kept with
its own spelling and comments. A generated key that a person deleted stays deleted. Lists of words (tags,
datasets, metrics) are owned item by item, so a person's tags and the generator's live in one list. Without
a state comment every key that is there counts as the person's; only new tags are added.
"""

from __future__ import annotations

import re
from typing import Any

from .document import (
    REFUSED,
    Document,
    Part,
    Section,
    State,
    append,
    hash_of,
    normalize,
    outside_code,
    parse,
    record_of,
    with_state,
)
from .front import Entry, dump_entry, with_items
from .libraries import is_by_trl

_PATH = re.compile(r"^(?:[/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\])")
_BASE_MODEL_PATH = re.compile(r"base_model:\w+:(?:$|" + _PATH.pattern.lstrip("^") + ")")
_UNFILLED = "[More Information Needed]"
_HEADING = re.compile(r"^ {0,3}# \S|^<h1[ >]|\S[ \t]*\n=+[ \t]*$", re.M | re.I)
_TITLE = re.compile(r"(?m)^\s*# [^\n]*\n+")
_SECOND_TITLE = "## About this model\n\n"
_ABSENT = object()
_NONE = Entry("", None, "")


def merge_card(generated: str, existing: str | None) -> str:
    """The README to push.

    Args:
        generated: `RenderedCard.text`.
        existing: The README that a person may have edited, `None` where there is none yet.

    Returns:
        A README with the line ends of `existing`. `merge_card(g, merge_card(g, e)) == merge_card(g, e)`.
    """
    new = parse(normalize(generated))
    if existing is None or not existing.strip():
        return str(new)
    line_end = "\r\n" if existing.count("\r\n") * 2 > existing.count("\n") else "\n"
    old = parse(normalize(existing))
    old_state = old.state or State()
    front, keys = _merge_front(new.front or [], old.front or [], old_state, is_by_trl(old))
    parts = _merge_sections(new, old)
    if front and old.front is None and not (parts and str(parts[0]).startswith("\n")):
        parts = ["\n", *parts]
    merged = Document(front, parts, old.tail)
    state = State(keys, list(new.sections), old_state.local)
    return str(with_state(merged, state)).replace("\n", line_end)


# ------------------------------------------------------------------------------------------------ metadata


def _merge_front(
    new: list[Entry], old: list[Entry], state: State, is_trls: bool
) -> tuple[list[Entry], dict[str, Any]]:
    generated = {entry.key: entry for entry in new}
    there = {entry.key: entry for entry in map(_without_local_paths, old) if entry is not None}
    ours, theirs = (found.get("library_name", _NONE).value for found in (generated, there))
    if is_trls and theirs == "transformers" and ours not in (None, theirs):
        del there["library_name"]  # TRL writes it for adapters, too
    overwritten = {entry.key for entry in old} - set(there)
    merged: list[Entry] = []
    keys: dict[str, Any] = {}
    carried = ""
    for key in [*there, *(key for key in generated if key not in there)]:
        entry, wanted = there.get(key), generated.get(key)
        value, record = _decide(
            key,
            wanted.value if wanted else _ABSENT,
            entry.value if entry else _ABSENT,
            None if key in overwritten else state.keys.get(key),
            commented=entry is not None and _has_comment(entry),
        )
        if record is not None:
            keys[key] = record
        if value is _ABSENT:
            carried += entry.comment if entry else ""
        elif entry is not None and (value is entry.value or value == entry.value):
            merged.append(entry._replace(comment=carried + entry.comment))
            carried = ""
        else:
            if wanted is not None and value is wanted.value:
                changed = wanted
            else:
                assert entry is not None
                changed = with_items(entry, value)
            merged.append(changed._replace(comment=carried + (entry.comment if entry else "")))
            carried = ""
    return merged, keys


def _decide(key: str, wanted: Any, there: Any, record: Any, *, commented: bool) -> tuple[Any, Any]:
    """The value of one key (`_ABSENT` for none) and what the state notes about it."""
    if there is _ABSENT:
        if wanted is _ABSENT:
            return _ABSENT, None
        if record is None or (
            isinstance(record, str) and record.startswith(REFUSED) and record != refused(wanted)
        ):
            return wanted, record_of(wanted)
        return _ABSENT, record  # deleted by a person, or refused by the Hub
    if isinstance(there, list) and (isinstance(record, list) or (key == "tags" and record is None)):
        if wanted is not _ABSENT and not isinstance(wanted, list):
            wanted = [wanted]
        return _merge_items([] if wanted is _ABSENT else wanted, there, record or [])
    if record is not None and record == record_of(there) and not commented:
        return (wanted, record_of(wanted)) if wanted is not _ABSENT else (_ABSENT, None)
    return there, record


def _merge_items(wanted: list[Any], there: list[Any], record: list[str]) -> tuple[Any, Any]:
    kept = [item for item in there if hash_of(item) not in record or item in wanted]
    added = [item for item in wanted if item not in there and hash_of(item) not in record]
    owned = [hash_of(item) for item in wanted if hash_of(item) in record or item not in there]
    return (kept + added) or _ABSENT, owned or None


def refused(value: Any) -> str:
    return REFUSED + hash_of(value)


def _has_comment(entry: Entry) -> bool:
    return bool(re.search(r"\s#", entry.raw)) and "#" not in dump_entry(entry.key, entry.value)


def _without_local_paths(entry: Entry) -> Entry | None:
    """PEFT writes the path of a base model that was loaded from disk, also into a tag, or nothing for one that was
    made from its configuration: the Hub refuses the one and shows the other to everybody."""
    values = entry.value if isinstance(entry.value, list) else [entry.value]
    if entry.key == "base_model" and any(isinstance(v, str) and (not v or _PATH.match(v)) for v in values):
        return None
    if entry.key == "tags":
        kept = [tag for tag in values if not _BASE_MODEL_PATH.match(str(tag))]
        if kept != values:
            return with_items(entry, kept) if kept else None
    return entry


# ---------------------------------------------------------------------------------------------------- body


def _merge_sections(new: Document, old: Document) -> list[Part]:
    generated = new.sections
    known = old.state.sections if old.state else []
    there = old.sections
    parts = _replace_sections(old.parts, generated)
    if not there and not known and _is_unfilled(old):
        block: list[Part] = []
        for section in generated.values():
            block = append(block, section)
        return [*block, *(["\n", *parts] if parts else [])]
    for name, section in generated.items():
        if name not in there and name not in known:  # what is known and not there was deleted by a person
            parts = _insert(parts, _fresh(section), list(generated))
    return _without_second_title(parts)


def _replace_sections(parts: list[Part], generated: dict[str, Section]) -> list[Part]:
    merged: list[Part] = []
    seen: set[str] = set()
    closing = False
    for part in parts:
        if isinstance(part, Section) and not part.edited:
            if part.name in seen or part.name not in generated:
                closing = True  # join what stands around it
                continue
            part = _fresh(generated[part.name])
        if isinstance(part, Section):
            seen.add(part.name)
        if closing and isinstance(part, str):
            last = merged.pop() if merged and isinstance(merged[-1], str) else ""
            before = str(last).rstrip("\n")
            after = part.lstrip("\n")
            part = f"{before}\n\n{after}" if after.strip() or before else "\n\n"
        closing = False
        merged.append(part)
    return merged


def _insert(parts: list[Part], section: Section, order: list[str]) -> list[Part]:
    """Next to its neighbour among the generated sections, else at the end."""
    places = {part.name: i for i, part in reversed(list(enumerate(parts))) if isinstance(part, Section)}
    at = order.index(section.name)
    for name in reversed(order[:at]):
        if name in places:
            i = places[name] + 1
            return [*parts[:i], "\n\n", section, *parts[i:]]
    for name in order[at + 1 :]:
        if name in places:
            i = places[name]
            return [*parts[:i], section, "\n\n", *parts[i:]]
    return append(parts, section)


def _fresh(section: Section) -> Section:
    return Section(section.name, section.content)


def _is_unfilled(document: Document) -> bool:
    """Whether the text is a template that nobody filled in: it goes below the generated card."""
    return sum(part.count(_UNFILLED) for part in document.parts if isinstance(part, str)) >= 3


def _without_second_title(parts: list[Part]) -> list[Part]:
    """The generated title becomes a heading where a person's text above has a title."""
    titled = False
    merged: list[Part] = []
    for part in parts:
        titled = titled or (isinstance(part, str) and bool(_HEADING.search(outside_code(part))))
        if isinstance(part, Section) and part.name == "intro" and titled and part.raw is None:
            part = Section(part.name, _TITLE.sub(_SECOND_TITLE, part.content, count=1))
        merged.append(part)
    return merged
