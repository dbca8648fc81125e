"""The metadata block of a README: each key with its own lines, which change as little as what they say.

YAML reads `no` as a boolean, `1.10` as a number and `2024-01-01` as a date. What a person wrote so is compared by
what YAML reads, and written back as they wrote it.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

_UNFOLDED = 2**31
_COMMENTS = re.compile(r"(?m)^(?:[ \t]*(?:#[^\n]*)?\n)+\Z")


class Entry(NamedTuple):
    """One top-level key of the metadata: `comment` holds the comment lines above it, `raw` the key's lines."""

    key: str
    value: Any
    raw: str
    comment: str = ""


def parse_front(block: str) -> tuple[list[Entry], str]:
    """The top-level keys of a YAML mapping with their own lines, and the comments after the last one.

    Raises:
        yaml.YAMLError: for what is no YAML.
        ValueError: for YAML that is no mapping.
    """
    loaded = yaml.safe_load(block)
    if loaded is None:
        return [], block + "\n" if block.strip() else ""
    if not isinstance(loaded, dict):
        raise ValueError("the metadata of a card has to be a mapping")
    if not loaded:
        return [], "".join(f"{line}\n" for line in block.split("\n") if line.startswith("#"))
    try:
        entries, tail = _split(block)
        entries = _last_of_each(entries)
        found = sorted((entry.key, repr(entry.value)) for entry in entries)
        if found == sorted((str(key), repr(value)) for key, value in loaded.items()):
            return entries, tail
    except (yaml.YAMLError, ValueError, AttributeError):
        pass  # its lines do not stand for themselves, as with anchors and `{a: 1, b: 2}`
    return _each_anew(block, loaded), ""


def _split(block: str) -> tuple[list[Entry], str]:
    root = _compose(block)
    several = re.search(r"(?m)^(\.\.\.|---|%)", block)
    if several or not isinstance(root, yaml.MappingNode) or any(key.start_mark.column for key, _ in root.value):
        raise ValueError("not a mapping with a key at the start of each line")
    starts = [key.start_mark.line for key, _ in root.value]
    lines = block.split("\n")
    entries: list[Entry] = []
    comment = "".join(line + "\n" for line in lines[: starts[0]])
    for first, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        last = end
        while last > first + 1 and (not lines[last - 1].strip() or lines[last - 1].startswith("#")):
            last -= 1
        raw = "".join(line + "\n" for line in lines[first:last])
        key, value = next(iter(yaml.safe_load(raw).items()))
        entries.append(Entry(str(key), value, raw, comment))
        comment = "".join(line + "\n" for line in lines[last:end])
    return entries, comment


def _last_of_each(entries: list[Entry]) -> list[Entry]:
    """YAML takes the last value of a key that is there twice, the Hub neither: the first one becomes a comment."""
    last = {entry.key: i for i, entry in enumerate(entries)}
    found: list[Entry] = []
    carried = ""
    for i, entry in enumerate(entries):
        if last[entry.key] == i:
            found.append(entry._replace(comment=carried + entry.comment))
            carried = ""
        else:
            carried += entry.comment + commented(entry.raw)
    return found


def commented(raw: str) -> str:
    return re.sub(r"(?m)^(?=.)", "# ", raw)


def _each_anew(block: str, loaded: dict[Any, Any]) -> list[Entry]:
    """The keys with lines of their own, in which scalars keep their text."""
    root = _compose(block)
    written = {}
    for pair in root.value:
        raw = _serialized([pair])
        written[repr(yaml.safe_load(raw))] = raw
    return [
        Entry(str(key), value, written.get(repr({key: value})) or dump_entry(str(key), value))
        for key, value in loaded.items()
    ]


def dump_entry(key: str, value: Any) -> str:
    return yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=_UNFOLDED)


def _compose(text: str) -> Any:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _serialized(pairs: list[tuple[yaml.Node, yaml.Node]]) -> str:
    mapping = yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=False)
    text: str = yaml.serialize(mapping, Dumper=yaml.SafeDumper, allow_unicode=True, width=_UNFOLDED)
    return text


# ------------------------------------------------------------------------------------------------- lists


def with_items(entry: Entry, items: list[Any]) -> Entry:
    """An entry with other items in its list: those that it had keep their lines, new ones come after them.

    Args:
        entry: Its value has to be a list.
        items: Not empty; what it had in the order that it had.
    """
    wanted = repr({entry.key: items})
    key, there = _compose(entry.raw).value[0]
    kept: list[int] = []
    for i, item in enumerate(entry.value):
        if len(kept) < len(items) and repr(item) == repr(items[len(kept)]):
            kept.append(i)
    added = items[len(kept) :]
    change = _flow if there.flow_style else _lines
    for raw in (change(entry.raw, there, kept, added), _serialized([(key, _sequence(there, kept, added))])):
        try:
            if repr(yaml.safe_load(raw)) == wanted:
                return entry._replace(value=items, raw=raw)
        except (yaml.YAMLError, ValueError):
            pass  # an item does not stand on lines of its own, as with anchors
    return entry._replace(value=items, raw=dump_entry(entry.key, items))


def _flow(raw: str, there: Any, kept: list[int], added: list[Any]) -> str:
    nodes = [there.value[i] for i in kept]
    texts = [raw[node.start_mark.index : node.end_mark.index] for node in nodes]
    texts += [
        yaml.safe_dump([item], default_flow_style=True, allow_unicode=True, width=_UNFOLDED).strip()[1:-1]
        for item in added
    ]
    return f"{raw[: there.start_mark.index]}[{', '.join(texts)}]{raw[there.end_mark.index :]}"


def _lines(raw: str, there: Any, kept: list[int], added: list[Any]) -> str:
    begins = [node.start_mark.index - node.start_mark.column for node in there.value]
    text = raw[: begins[0]]
    for i, (begin, end) in enumerate(pairwise([*begins, len(raw)])):
        lines = raw[begin:end]
        text += lines if i in kept else "".join(_COMMENTS.findall(lines, lines.find("\n") + 1)[:1])
    indent = raw[begins[0] :].partition("-")[0]
    new = yaml.safe_dump(added, sort_keys=False, allow_unicode=True, width=_UNFOLDED) if added else ""
    return text + "".join(f"{indent}{line}\n" for line in new.splitlines())


def _sequence(there: Any, kept: list[int], added: list[Any]) -> yaml.SequenceNode:
    new = _compose(yaml.safe_dump(added)).value
    return yaml.SequenceNode(there.tag, [there.value[i] for i in kept] + new, flow_style=there.flow_style)
