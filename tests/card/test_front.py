"""The metadata of a person: what changes in it leaves the rest as they wrote it."""

from __future__ import annotations

import pytest
import yaml

from hub_callbacks.card import combine_edits, drop_refused_keys, merge_card
from hub_callbacks.card.front import Entry, with_items

GENERATED = """---
license: mit
tags:
- made
- generated_from_trainer
---

# Model
"""
WORDS = "no yes on off Null ~ 2024-01-01 010 0o10 0x1F 1.10 12:30:00 1_000 .5 +1 1e3"
"""What YAML reads as something else than text."""


def front_of(text: str) -> str:
    return text.split("---\n")[1]


@pytest.mark.parametrize("word", WORDS.split())
def test_what_yaml_takes_for_something_else_keeps_its_text(word: str) -> None:
    for mine in (
        f"language: {word}\n",
        f"language: [{word}, en]\ntags:\n- {word}\n- 'x'\n",
        f"tags: [a, {word}, {{b: {word}}}]  # mine\n",
        f"{word}: {word}\n",
        f"x: &a {word}\ny: [*a]\ntags: [a]\n",
    ):
        merged = front_of(merge_card(GENERATED, f"---\n{mine}---\nMine.\n"))
        assert merged.count(word) == max(mine.count(word), mine.count("*a") * 2), merged
        assert front_of(merge_card(GENERATED, f"---\n{merged}---\nMine.\n")) == merged


def test_a_mapping_on_one_line_keeps_the_text_of_its_values() -> None:
    merged = front_of(
        merge_card(GENERATED, "---\n{language: no, version: 1.10, tags: [2024-01-01]}\n---\nMine.\n")
    )
    for kept in ("language: no\n", "version: 1.10\n", "2024-01-01"):
        assert kept in merged


def test_of_a_key_that_is_there_twice_no_value_is_lost() -> None:
    mine = "license: mit  # first\nother: 1\nlicense: bsd\n"
    merged = front_of(merge_card(GENERATED, f"---\n{mine}---\nMine.\n"))
    assert merged.startswith("# license: mit  # first\nother: 1\nlicense: bsd\n")
    assert front_of(merge_card(GENERATED, f"---\n{merged}---\nMine.\n")) == merged


@pytest.mark.parametrize(
    ("raw", "items", "changed"),
    [
        ("tags:\n- a # why\n- b\n", ["a", "b", "c"], "tags:\n- a # why\n- b\n- c\n"),
        ("tags:\n  - a\n  # on b\n  - b\n", ["a", "c"], "tags:\n  - a\n  # on b\n  - c\n"),
        ("tags:\n- a\n# on b\n- b\n# the end\n", ["b", "c"], "tags:\n# on b\n- b\n# the end\n- c\n"),
        ("tags:\n- 'a\u2028\u2028b'\n- c\n", ["c", "d"], "tags:\n- c\n- d\n"),
        ("tags: [a, 'b']  # mine\n", ["a", "b", "c: d"], "tags: [a, 'b', 'c: d']  # mine\n"),
        ("tags: [a, no,\n  b]\n", [False, "b"], "tags: [no, b]\n"),
        ("tags: []\n", ["a"], "tags: [a]\n"),
        ("tags:\n- a: 1\n  b: no\n- x\n", [{"a": 1, "b": False}, "y"], "tags:\n- a: 1\n  b: no\n- y\n"),
        ("tags:\n- |\n  long\n  text\n- x\n", ["long\ntext\n", "y"], "tags:\n- |\n  long\n  text\n- y\n"),
        ("tags:\n- a\n", ["b"], "tags:\n- b\n"),
        ("tags:\n- &x 1.10\n- *x\n", [1.1], "tags:\n- 1.10\n"),
        ("tags:\n- a\n", ["w" * 500], f"tags:\n- {'w' * 500}\n"),
        ("tags:\n- a\n", ["w " * 250 + "w"], f"tags:\n- {'w ' * 250}w\n"),
    ],
)
def test_a_list_is_changed_item_by_item(raw: str, items: list[object], changed: str) -> None:
    value = yaml.safe_load(raw)["tags"]
    assert with_items(Entry("tags", value, raw), items).raw == changed


def test_a_list_that_both_changed_keeps_the_text_of_its_items() -> None:
    local = "---\nlanguage: [no, en]\n---\nMine.\n"
    pushed = merge_card(GENERATED, combine_edits(local, None, None))
    edited = pushed.replace("language: [no, en]", "language: [no, en, 1.10]")
    merged = front_of(combine_edits(local.replace("en]", "en, 2024-01-01]"), edited, pushed) or "")
    assert "language: [no, en, 1.10, 2024-01-01]\n" in merged


def test_what_the_hub_refused_keeps_its_text_as_a_comment() -> None:
    text, dropped = drop_refused_keys("---\nlanguage: no\nother: 010\n---\n", ['"language" is bad'])
    assert dropped == ["language"] and "# language: no\n" in text and "other: 010\n" in text
