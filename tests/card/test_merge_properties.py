"""What holds for any README and any edit."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_callbacks.card import CardOptions, combine_edits, drop_refused_keys, merge_card, render, render_card

from .conftest import golden_facts

SETUP, PROGRESS, OPTIONS = golden_facts("image_classification")


def generate(step: int, options: CardOptions = OPTIONS) -> str:
    progress = PROGRESS | {"step": step, "finished": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "draw", lambda setup, progress: {})
        return render_card(SETUP, progress, options).text


FIRST, SECOND = generate(3), generate(4, CardOptions(license="mit", tags=["b", "c"]))
MARKERS = [line for line in FIRST.splitlines() if line.startswith("<!-- hub_callbacks")]

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
lines = st.one_of(
    words,
    st.sampled_from(["", "", "# Title", "## Part", "---", "```", "```python", "- item", "Title", "=====", "x: 1"]),
    st.sampled_from(MARKERS),
    st.sampled_from(FIRST.splitlines()),
)
bodies = st.lists(lines, max_size=25).map("\n".join)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
keys = st.one_of(st.sampled_from(["license", "tags", "language", "datasets", "model-index", "base_model"]), words)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)
mappings = st.dictionaries(keys, values, max_size=5)
fronts = st.one_of(
    st.just(""),
    mappings.map(lambda found: f"---\n{yaml.safe_dump(found, allow_unicode=True)}---\n" if found else ""),
    bodies.map(lambda text: f"---\n{text}\n---\n"),
)
readmes = st.one_of(
    st.builds(lambda front, body: front + body, fronts, bodies),
    st.builds(
        lambda at, text: "\n".join([*FIRST.split("\n")[:at], text, *FIRST.split("\n")[at:]]),
        st.integers(0, 70),
        bodies,
    ),
    st.builds(
        lambda start, stop: "\n".join(FIRST.split("\n")[start:stop]), st.integers(0, 40), st.integers(1, 90)
    ),
)
relaxed = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def person_lines(text: str) -> list[str]:
    """The lines outside of the markers, without metadata, blank lines and the state."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    text = re.sub(r"\A\s*---[ \t]*\n(?:[\S\s]*?\n)?---[ \t]*(?:\n|\Z)", "", text)
    found, inside = [], None
    for line in text.split("\n"):
        begin = re.fullmatch(r"<!-- hub_callbacks:begin ([\w-]+).*-->[ \t]*", line)
        if begin:
            inside = begin.group(1)
        elif inside and re.fullmatch(rf"<!-- hub_callbacks:end {inside} -->[ \t]*", line):
            inside = None
        elif not inside and line.strip() and not line.startswith("<!-- hub_callbacks:"):
            found.append(line)
    return found


@relaxed
@given(readmes)
def test_merging_again_changes_nothing(existing: str) -> None:
    merged = merge_card(FIRST, existing)
    assert merge_card(FIRST, merged) == merged


@relaxed
@given(readmes)
def test_generating_does_not_grow_the_readme(existing: str) -> None:
    one = merge_card(SECOND, merge_card(FIRST, existing))
    other = merge_card(SECOND, merge_card(FIRST, one))
    assert other == one


@relaxed
@given(fronts, bodies)
def test_a_merged_card_can_be_read_and_keeps_every_line_of_text(front: str, body: str) -> None:
    front, body = (re.sub(r".*hub_callbacks.*", "", text) for text in (front, body))
    merged = merge_card(FIRST, front + body)
    with contextlib.suppress(TypeError):  # `tags: false` is more than the client can hold
        assert isinstance(ModelCard(merged, ignore_metadata_errors=True).data.to_dict(), dict)
    remaining = iter(person_lines(merged))
    for line in person_lines(front + body):
        assert line in remaining, f"{line!r} is lost, or out of order"


@relaxed
@given(mappings, bodies)
def test_every_key_of_a_person_keeps_its_value(found: dict[str, Any], body: str) -> None:
    existing = f"---\n{yaml.safe_dump(found, allow_unicode=True)}---\n{body}"
    before = yaml.safe_load(yaml.safe_dump(found, allow_unicode=True)) or {}
    front = re.match(r"---\n([\S\s]*?\n)?---\n", merge_card(FIRST, existing.replace("hub_callbacks", "hub")))
    assert front
    after = yaml.safe_load(front.group(1))
    for key, value in before.items():
        if key == "tags" and isinstance(value, list):
            assert repr(after[key][: len(value)]) == repr(value)
        elif key != "base_model":
            assert repr(after[str(key)]) == repr(value)


@relaxed
@given(st.lists(words, min_size=1, max_size=8), st.data())
def test_edits_on_both_sides_in_different_places_are_both_taken(
    paragraphs: list[str], data: st.DataObject
) -> None:
    base = [f"{number}. {' '.join(text.split())}" for number, text in enumerate(paragraphs)]
    count = len(base)
    here = data.draw(st.sets(st.integers(0, count - 1)))
    there = data.draw(st.sets(st.integers(0, count - 1)).map(lambda found: found - here))

    def text(changed: set[int], mark: str) -> str:
        return "\n\n".join([line + mark if i in changed else line for i, line in enumerate(base)]) + "\n"

    local = text(set(), "")
    pushed = merge_card(FIRST, combine_edits(local, None, None))
    remote = pushed
    for i in there:
        remote = re.sub(rf"(?m)^{re.escape(base[i])}$", lambda _, i=i: base[i] + " there", remote, count=1)  # type: ignore[misc]
    combined = merge_card(SECOND, combine_edits(text(here, " here"), remote, pushed))
    wanted = [line + (" here" if i in here else " there" if i in there else "") for i, line in enumerate(base)]
    assert [line.rstrip() for line in person_lines(combined)] == [line.rstrip() for line in wanted]


common = st.lists(st.sampled_from(["", "", "## Usage", "```python", "```", "|:--|:--|", "- item"]), max_size=8)
MINE = "This sentence is mine alone, and it is longer than all that is in common with others. " * 3
THEIRS = MINE.replace("mine", "theirs")


@relaxed
@given(common, st.builds(lambda top, end: [*top, MINE, *end], common, common), common)
def test_a_persons_text_stays_whole_however_often_another_is_written(
    before: list[str], own: list[str], after: list[str]
) -> None:
    text = "\n".join(own).strip("\n") + "\n"
    whole = text
    for step in range(1, 4):
        written = "\n".join([*before, THEIRS, f"Trained until {step}.", *after]) + "\n"
        whole = combine_edits(written, whole, None) or ""
        assert whole.startswith(text) and written.strip() in whole.removeprefix(text), step


@relaxed
@given(readmes, readmes, st.one_of(st.none(), readmes))
def test_two_readmes_are_combined_with_nothing_lost(local: str, remote: str, pushed: str | None) -> None:
    combined = combine_edits(local, remote, pushed)
    assert combined is not None
    first = merge_card(FIRST, combined)
    assert merge_card(FIRST, combine_edits(local, first, first)) == first, "and is stable"


@relaxed
@given(bodies, bodies)
def test_without_a_known_ancestor_no_line_is_lost(local: str, remote: str) -> None:
    local, remote = (re.sub(r".*(hub_callbacks|---|```).*", "", text).strip() for text in (local, remote))
    combined = combine_edits(local, remote, None) or ""
    for line in [*person_lines(local), *person_lines(remote)]:
        assert line.rstrip() in [found.rstrip() for found in re.split(r"\r\n|\r|\n", combined)]


@relaxed
@given(
    readmes,
    st.lists(
        st.one_of(words, st.sampled_from(['"license" must be one of [mit]', '"tags[0]" is bad'])), max_size=3
    ),
)
def test_refused_keys_can_always_be_dropped_until_none_is_left(existing: str, errors: list[str]) -> None:
    text = merge_card(FIRST, existing)
    for _ in range(30):
        smaller, dropped = drop_refused_keys(text, errors)
        if not dropped:
            break
        text = smaller
    assert not dropped
    assert person_lines(text) == person_lines(merge_card(FIRST, existing))
