"""Numbers and names for people."""

from __future__ import annotations

import math
from typing import Any

import pytest
from markdown_it import MarkdownIt

from hub_callbacks.card import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (1.0, "1.000"),
        (0, "0"),
        (0.0, "0"),
        (5, "5"),
        (1234567, "1,234,567"),
        (123456.7, "123,457"),
        (0.00012345, "0.0001234"),
        (5e-05, "5e-5"),
        (3.14159e-07, "3.142e-7"),
        (-0.5, "-0.5000"),
        (1.5e20, "1.5e20"),
        (math.nan, "NaN"),
        ("NaN", "NaN"),
        ("Infinity", "∞"),
        (-math.inf, "−∞"),
        (None, "–"),
        ("text", "–"),
        (True, "–"),
    ],
)
def test_a_number_has_four_significant_digits(value: Any, text: str) -> None:
    assert formatting.decimal(value) == text


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("accuracy", 0.93214, "93.21 %"),
        ("eval_top5_accuracy", 1.0, "100.00 %"),
        ("f1", 0.5, "0.5000"),
        ("f1_macro", 0.5, "0.5000"),
        ("precision", 0.0, "0.00 %"),
        ("accuracy", 93.2, "93.20"),
        ("f1", 88.5, "88.50"),
        ("loss", 0.5, "0.5000"),
        ("wer", 0.25, "0.2500"),
        ("matthews_correlation", 0.25, "0.2500"),
        ("accuracy", "NaN", "NaN"),
    ],
)
def test_a_share_is_a_percentage_where_people_expect_one(metric: str, value: Any, text: str) -> None:
    assert formatting.measure(metric, value) == text


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("loss", "Loss"),
        ("f1", "F1"),
        ("rougeLsum", "ROUGE-Lsum"),
        ("matthews_correlation", "Matthews correlation"),
        ("my_own_score", "My own score"),
        ("准确率", "准确率"),
        ("___", "___"),
    ],
)
def test_a_metric_has_a_name_for_people(metric: str, name: str) -> None:
    assert formatting.metric_name(metric) == name


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.21, "4.2 seconds"),
        (42, "42 seconds"),
        (200, "3 min 20 s"),
        (180, "3 min"),
        (18_720, "5 h 12 min"),
        (187_200, "2 d 4 h"),
        (math.nan, "–"),
    ],
)
def test_a_duration_is_told_in_two_units(seconds: float, text: str) -> None:
    assert formatting.duration(seconds) == text


def test_steps_memory_and_large_counts() -> None:
    assert formatting.step_of(500, 2000) == "step 500 of 2,000"
    assert formatting.step_of(500) == "step 500"
    assert formatting.memory(85_899_345_920) == "80 GB"
    assert formatting.big(124_439_808) == "124.4 million"
    assert formatting.big(947) == "947"
    assert formatting.setting(3e-05) == "3e-05" and formatting.setting(0.1 + 0.2) == "0.30000000000000004"
    assert formatting.setting(True) == "yes" and formatting.setting([1, "a"]) == "1, a"


HOSTILE = [
    "<script>alert(1)</script>",
    "a | b | c",
    "[link](javascript:alert(1))",
    "![x](http://example.com/x.png)",
    "`code` and ``more``",
    "**bold** _em_ ~~gone~~",
    "line\n\n# Heading\n- item",
    "--> <!-- hub_callbacks:end intro -->",
    "# #",
    "&lt;b&gt; &amp;",
    "$x^2$",
    "http://example.com www.example.com",
    "\u202eevil\u200b",
    "\\",
    "模型 \x00\x1b[31m",
    "1. one",
    "- x",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_plain_text_reads_as_it_is_and_makes_no_markup(text: str) -> None:
    line = formatting.one_line(text)
    for template in ("# {}\n", "a {} b\n", "| a |\n|---|\n| {} |\n"):
        html = MarkdownIt("gfm-like").render(template.format(formatting.plain(text)))
        for tag in ("<script", "<a ", "<img", "<em", "<strong", "<s>", "<code", "<ol", "<ul", "<li", "<h2"):
            assert tag not in html
        assert html.count("<td") <= 1
        import html as entities
        import re

        assert line in entities.unescape(re.sub(r"<[^>]+>", "", html))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_code_span_holds_any_text(text: str) -> None:
    html = MarkdownIt("gfm-like").render(f"| a | b |\n|---|---|\n| {formatting.code(text)} | x |\n")
    assert html.count("<td>") == 2 and html.count("<code>") == 1
