"""Values that nobody should have chosen still give a valid card."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hub_callbacks.card import CardOptions, gather_progress, gather_setup, merge_card, render, render_card
from hub_callbacks.card.document import parse
from hub_callbacks.card.jsonsafe import json_safe

from .conftest import golden_facts, state_of

EVIL = [
    "--> <script>alert(1)</script>",
    "<!-- hub_callbacks:end intro -->",
    "a\n---\nlicense: evil\n---\n# Evil",
    "\n<!-- hub_callbacks:begin usage 01234567 -->\nevil\n<!-- hub_callbacks:end usage -->\n",
    "x | y | [z](http://evil) ![i](http://evil) `code` ```",
    "{{ 7 * 7 }} {% for x in y %}",
    "'; DROP: [unclosed, \"quoted",
    "!!python/object/apply:os.system ['true']",
    "准确率 🤗 \u202e\x00\x1b",
    "é" * 5_000,
    "",
]


def facts_with(text: str) -> tuple[dict[str, Any], dict[str, Any], CardOptions]:
    """Facts in which every text is the given one."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: replaced(item) for name, item in value.items()}
        if isinstance(value, list):
            return [replaced(item) for item in value]
        return text if isinstance(value, str) else value

    setup, progress, _ = golden_facts("lora_adapter")
    setup = replaced(setup)
    setup["hyperparameters"][text] = text
    setup["versions"][text] = text
    setup["datasets"]["eval"] = {text: {"hub_id": text, "size": 3}}
    for row in progress["evaluations"]:
        row["metrics"] |= {f"eval_{text}_runtime": 1.0, f"eval_{text}_loss": "NaN", f"eval_{text}": 0.5, text: 1.0}
    options = CardOptions(**dict.fromkeys(vars(CardOptions()), text))
    return json_safe(setup), json_safe(progress), options


def assert_valid(text: str) -> None:
    card = ModelCard(text)
    assert "license" not in card.data.to_dict() or card.data.license != "evil"
    document = parse(text)
    assert list(document.sections) == document.state.sections  # type: ignore[union-attr]
    assert not any(section.edited for section in document.sections.values())
    outside = "".join(part for part in document.parts if isinstance(part, str))
    assert not outside.strip(), "nothing escapes from the sections"
    html = MarkdownIt("gfm-like", {"html": True}).render(re.sub(r"(?s)\A---\n.*?\n---\n", "", text))
    assert "<script" not in html and "http://evil" not in "".join(re.findall(r'(?:href|src)="([^"]*)"', html))
    assert html.count("<h1") == 1 and "49" not in re.findall(r"<h1>(.*?)</h1>", html)[0]
    assert merge_card(text, text) == text


@pytest.mark.parametrize("text", EVIL)
def test_hostile_texts_in_every_place_give_a_valid_card(text: str) -> None:
    rendered = render_card(*facts_with(text))
    assert_valid(rendered.text)
    assert len(rendered.text) < 60_000


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=40))
def test_any_text_in_every_place_gives_a_valid_card(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "draw", lambda setup, progress: {})
        assert_valid(render_card(*facts_with(text)).text)


numbers = st.one_of(
    st.floats(), st.integers(), st.sampled_from(["NaN", "Infinity", "-Infinity", None, True, "text"])
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(numbers, min_size=8, max_size=8))
def test_any_number_in_every_place_gives_a_valid_card(values: list[Any]) -> None:
    setup, progress, options = golden_facts("best_model_at_end")
    a, b, c, d, e, f, g, h = values
    progress |= {"step": a, "weights_step": b, "max_steps": c, "epoch": d, "tokens_seen": e}
    progress["training"] = {"step": [f, g, h], "loss": [a, b, c], "learning_rate": [d, e, f]}
    progress["totals"] = {"train_runtime": g, "train_samples_per_second": h}
    rows = [
        {"step": x, "epoch": y, "metrics": {"eval_loss": z, "eval_accuracy": x}}
        for x, y, z in zip(values, values, values[::-1], strict=True)
    ]
    progress["evaluations"] = rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "draw", lambda setup, progress: {})
        assert_valid(render_card(json_safe(setup), json_safe(progress), options).text)


@pytest.mark.parametrize("huge", [10**400, -(10**5000)], ids=["400 digits", "5000 digits"])
def test_a_number_that_no_float_can_hold_leaves_out_itself_alone(huge: int) -> None:
    rows = [{"loss": huge, "step": 1}, {"eval_loss": 0.25, "eval_huge": huge, "eval_runtime": 1.0, "step": 1}]
    progress = json.loads(json.dumps(gather_progress(state_of(rows, global_step=1))))
    text = render_card(gather_setup(), progress).text
    assert "0.25" in text and "Huge" not in text


def test_ten_thousand_log_rows_give_a_short_card() -> None:
    rows: list[dict[str, Any]] = []
    for step in range(1, 10_001):
        rows.append({"loss": 3 / step, "learning_rate": 1e-4, "epoch": step / 1000, "step": step})
        if step % 10 == 0:
            rows.append({"eval_loss": 3 / step, "eval_accuracy": 1 - 1 / step, "eval_runtime": 1.0, "step": step})
    progress = gather_progress(state_of(rows, global_step=10_000, max_steps=10_000))
    rendered = render_card(gather_setup(repo_id="a/b"), json.loads(json.dumps(progress)))
    assert_valid(rendered.text)
    assert len(rendered.text) < 6_000 and len(json.dumps(progress)) < 120_000


def test_hundreds_of_metrics_do_not_bury_the_card() -> None:
    setup, progress, options = golden_facts("image_classification")
    for row in progress["evaluations"]:
        row["metrics"] |= {f"eval_f1_class_{i}": 0.5 for i in range(1000)}
    text = render_card(setup, progress, options).text
    assert_valid(text)
    folded = text.split("<details>")[1].split("</details>")[0]
    assert len(text) - len(folded) < 8_000 and len(folded) < 9_000
    assert "and 690 more" in folded and "Not in this table: 994 more of the metrics." in text


def test_the_metric_that_decides_is_on_the_card_however_many_there_are() -> None:
    """As with the metrics of each entity: the first ones are shown, and the rest can be unfolded."""
    setup, progress, options = golden_facts("image_classification")
    setup["training"] |= {"best_metric": "overall_f1", "greater_is_better": True}
    for place, row in enumerate(progress["evaluations"]):
        entities = {f"eval_PER_{i}_f1": 0.5 + i / 100 for i in range(20)}
        row["metrics"] = {"eval_loss": 1.0, **entities, "eval_overall_f1": 0.7654 - place / 100}
    intro, _, rest = render_card(setup, progress, options).text.partition("hub_callbacks:end intro")
    results = rest.split("hub_callbacks:begin results")[1].split("hub_callbacks:end results")[0]
    assert "Overall F1" in intro.split("<details>")[0] and "Overall F1" in results.split("\n\n")[2]
    assert "In bold: the best overall F1." in results
    assert sum(f"PER {i} F1" in intro for i in range(20)) == 20
    assert "Not in this table: 14 more of the metrics." in results


def test_chinese_names_are_shown_as_they_are() -> None:
    setup, progress, _ = golden_facts("image_classification")
    text = render_card(setup, progress, CardOptions(model_name="豆叶分类", dataset="豆叶", tags="中文")).text
    assert "# 豆叶分类\n" in text and "the [豆叶](https" in text
    assert "中文" in yaml.safe_load(text.split("---\n")[1])["tags"] and "- 中文\n" in text


def test_no_facts_at_all_give_a_card() -> None:
    assert_valid(render_card({}, {}).text)
    assert_valid(render_card(gather_setup(), gather_progress(object())).text)
