"""The cards of eight kinds of training, and that the facts they are made from are those of real trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hub_callbacks.card import merge_card, model_card, render_card

from .conftest import GOLDEN, NAMES, Scenario, golden_facts

Runs = Callable[[str], tuple[Path, Scenario]]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_the_golden_one(name: str) -> None:
    setup, progress, options = golden_facts(name)
    rendered = render_card(setup, progress, options)
    assert rendered.text == (GOLDEN / f"{name}.md").read_text(encoding="utf-8")
    assert rendered.problems == []


@pytest.mark.parametrize("name", NAMES)
def test_the_hub_client_reads_a_golden_card(name: str) -> None:
    text = (GOLDEN / f"{name}.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.to_dict() == yaml.safe_load(text.split("---\n")[1])
    assert "generated_from_trainer" in card.data.tags
    for word in ("More information needed", "None", "nan", "unknown", "{{", "{%"):
        assert word not in text
    assert merge_card(text, text) == text


@pytest.mark.parametrize("name", NAMES)
def test_a_real_training_gives_the_facts_of_the_golden_card(name: str, run_of: Runs) -> None:
    from .runs import fixed, shape

    _, (setup, progress, options) = run_of(name)
    real_setup, real_progress = fixed(setup, progress)
    setup, progress, golden_options = golden_facts(name)
    for facts in (real_setup, setup):
        facts["processing"].pop("class", None)  # has another name in each release of transformers
        facts["hyperparameters"].pop("optimizer", None)  # as has the default optimizer
    assert shape(real_setup) == shape(setup)
    assert shape(real_progress) == shape(progress)
    assert options == golden_options
    assert render_card(real_setup, real_progress, options).pictures.keys() == {"training_curves.png"}


def test_a_card_shows_the_metrics_of_the_weights_it_stands_beside(run_of: Runs) -> None:
    _, (setup, progress, options) = run_of("best_model_at_end")
    by_step = {row["step"]: row["metrics"] for row in progress["evaluations"]}
    assert progress["weights_step"] == progress["best_step"] < progress["step"] == 16, "the run has to overshoot"
    text = render_card(setup, progress, options).text
    headline = text.split("hub_callbacks:end intro")[0]
    assert f"{by_step[progress['best_step']]['eval_accuracy'] * 100:.2f} %" in headline
    assert f"{by_step[16]['eval_accuracy'] * 100:.2f} %" not in headline
    assert "The weights here are those of that step, the best by accuracy." in headline


def test_a_card_of_weights_that_were_not_evaluated_says_so(facts: Scenario) -> None:
    setup, progress, options = facts
    text = render_card(setup, progress | {"step": 14, "weights_step": 14}, options).text
    assert (
        "Measured after step 12 (epoch 1.5); the weights here are those of step 14, which was not evaluated"
        in text
    )
    assert "model-index" not in text.split("---\n")[1]


def test_a_card_says_how_far_a_training_is_until_it_ends(facts: Scenario) -> None:
    setup, progress, options = facts
    during = render_card(setup, progress | {"step": 500}, options).text
    assert "Training in progress: step 500 of 2,000, epoch 1.5 of 2." in during
    assert "in progress" not in render_card(setup, progress | {"step": 2000}, options).text
    stopped_early = progress | {"step": 500, "finished": True}
    assert "in progress" not in render_card(setup, stopped_early, options).text


def test_a_long_table_keeps_the_best_and_the_last_evaluation(facts: Scenario) -> None:
    setup, progress, options = facts
    rows = [
        {"step": step, "epoch": step / 100, "metrics": {"eval_loss": abs(step - 137) / 100 + 0.123}}
        for step in range(1, 201)
    ]
    text = render_card(setup, progress | {"evaluations": rows, "step": 200, "weights_step": 200}, options).text
    table = text.split("hub_callbacks:begin results")[1].split("hub_callbacks:end results")[0]
    steps = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]
    assert len(steps) <= 20
    assert "**137**" in steps
    assert steps[0] == "1" and steps[-1] == "200"
    assert f"{len(steps)} of 200 evaluations are shown." in table


def test_same_facts_give_the_same_bytes(facts: Scenario) -> None:
    assert render_card(*facts) == render_card(*facts)


def test_a_user_can_give_a_template(facts: Scenario) -> None:
    setup, progress, options = facts
    template = "---\n{{ card_data }}\n---\n# My {{ title }}\n\n{{ summary }}\n"
    text = render_card(setup, progress, options, template=template).text
    assert "# My vit-beans\n\nThis model is a fine-tuned version" in text
    assert ModelCard(text).data.license == "apache-2.0"
    template = 'Hello.\n\n{% call section("mine") %}## Results\n{{ headline.note }}{% endcall %}'
    text = render_card(setup, progress, options, template=template).text
    edited = merge_card(text, text.replace("Hello.", "Good evening."))
    assert "Good evening." in edited and "Hello." not in edited and "Measured after step 12" in edited


def _card_beside(facts: Scenario, existing: str) -> ModelCard:
    setup, progress, options = facts
    return model_card(merge_card(render_card(setup, progress, options).text, existing))


def test_a_card_is_had_as_a_model_card(facts: Scenario) -> None:
    card = _card_beside(facts, "---\nlicense: mit\n---\n# Mine\n\nMy words.\n")
    assert isinstance(card, ModelCard)
    assert card.data.license == "mit" and card.data.pipeline_tag == "image-classification"
    assert "My words." in card.content and "Measured after step 12" in card.content


def test_a_broken_model_index_of_a_person_does_not_stop_a_card(facts: Scenario) -> None:
    card = _card_beside(facts, "---\nmodel-index: [{name: x}]\n---\n# Mine\n")
    assert "# Mine" in card.content
    card = _card_beside(facts, "---\ntags: false\n---\n# Mine\n")
    assert "# Mine" in card.content and card.data.pipeline_tag == "image-classification"
