"""Metadata that the Hub takes, and what happens when it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from hub_callbacks.card import CardOptions, clean_metadata, drop_refused_keys, merge_card, render_card

from .conftest import Scenario, golden_facts


def cleaned(**said: Any) -> tuple[dict[str, Any], list[str]]:
    setup, progress, _ = golden_facts("image_classification")
    found = clean_metadata(setup, progress, CardOptions(**said))
    return found.data.to_dict(), found.problems


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("apache-2.0", "apache-2.0"),
        ("Apache 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("mit license", "mit"),
        (["mit", "apache-2.0"], ["mit", "apache-2.0"]),
        (None, None),
        ("", None),
    ],
)
def test_a_licence_is_spelled_as_the_hub_knows_it(given: Any, taken: Any) -> None:
    metadata, problems = cleaned(license=given)
    assert metadata.get("license") == taken and not problems


def test_an_unknown_licence_is_named() -> None:
    metadata, problems = cleaned(license="apache-2")
    assert metadata["license"] == "apache-2", "the Hub may know it by now"
    assert "'apache-2'" in problems[0] and "Did you mean 'apache-2.0'?" in problems[0]
    metadata, problems = cleaned(license="my licence: all rights [reserved]")
    assert "license" not in metadata and len(problems) == 1


@pytest.mark.parametrize(
    ("given", "taken", "problem"),
    [
        ("en", "en", False),
        (["en", "zh"], ["en", "zh"], False),
        ("EN", "en", False),
        ("english", "en", False),
        ("yue", "yue", False),
        ("multilingual", "multilingual", False),
        ("zh-CN", "zh", True),
        ("klingon", None, True),
        ("xx", None, True),
    ],
)
def test_a_language_is_a_code_of_iso_639(given: Any, taken: Any, problem: bool) -> None:
    metadata, problems = cleaned(language=given)
    assert metadata.get("language") == taken and bool(problems) == problem
    assert cleaned(dataset_language=given)[0].get("language") == taken


@pytest.mark.parametrize("path", ["/data/models/vit", "./vit", "../vit", "~/vit", r"C:\vit", "a/b/c", "vit/"])
def test_a_local_path_is_no_base_model_and_no_dataset(path: str) -> None:
    metadata, problems = cleaned(finetuned_from=path, dataset_tags=path, dataset=path)
    assert "base_model" not in metadata and "base_model_relation" not in metadata
    assert path not in str(metadata) and not problems
    text = render_card(
        *golden_facts("image_classification")[:2], CardOptions(finetuned_from=path, dataset=path)
    ).text
    assert path not in text


def test_a_folder_that_looks_like_a_repository_is_a_local_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "final").mkdir(parents=True)
    assert "base_model" not in cleaned(finetuned_from="runs/final")[0]
    assert cleaned(finetuned_from="runs/other")[0]["base_model"] == "runs/other"


def test_a_name_that_can_be_nothing_is_told() -> None:
    metadata, problems = cleaned(finetuned_from="my model!", dataset_tags=["imdb", "my data!"])
    assert "base_model" not in metadata and metadata["datasets"] == ["imdb"]
    assert len(problems) == 2 and "'my model!'" in problems[0]


def test_addresses_of_the_hub_become_names() -> None:
    metadata, _ = cleaned(
        finetuned_from="https://huggingface.co/google/vit-base",
        dataset_tags="https://huggingface.co/datasets/org/x",
    )
    assert metadata["base_model"] == "google/vit-base" and metadata["datasets"] == ["org/x"]


@pytest.mark.parametrize(
    ("model", "relation"),
    [
        ({}, "finetune"),
        ({"adapter": {"type": "LORA"}}, "adapter"),
        ({"quantization": "gptq, 4 bits"}, "quantized"),
    ],
)
def test_the_relation_to_the_base_model(model: dict[str, Any], relation: str) -> None:
    setup = {"model": {"base_model": "org/base", "library": "transformers"} | model}
    assert clean_metadata(setup).data.to_dict()["base_model_relation"] == relation


def test_tags_of_the_user_the_model_and_the_trainer_are_told_once() -> None:
    setup = {"model": {"tags": ["trl", "sft"], "adapter": {"type": "LORA"}}}
    tags = clean_metadata(setup, None, CardOptions(tags=["mine", "trl"])).data.tags
    assert tags == ["mine", "trl", "sft", "generated_from_trainer", "lora"]
    assert clean_metadata({}, None, CardOptions(tags="mine")).data.tags == ["mine", "generated_from_trainer"]


def test_a_model_index_is_complete_or_absent() -> None:
    metadata, _ = cleaned(
        tasks="image-classification", dataset_tags="org/beans", dataset="Beans", dataset_args="default"
    )
    (result,) = metadata["model-index"][0]["results"]
    assert result["task"] == {"type": "image-classification", "name": "Image classification"}
    assert result["dataset"]["type"] == "org/beans" and result["dataset"]["args"] == "default"
    assert [metric["type"] for metric in result["metrics"]] == ["accuracy"]
    setup, progress, _ = golden_facts("best_model_at_end")
    assert "model-index" not in clean_metadata(setup, progress).data.to_dict(), "no dataset is known"


def test_a_model_index_has_no_number_that_json_lacks(facts: Scenario) -> None:
    setup, progress, options = facts
    rows = [{"step": 12, "epoch": 1.5, "metrics": {"eval_accuracy": "NaN", "eval_f1": "Infinity"}}]
    data = clean_metadata(setup, progress | {"evaluations": rows}, options).data.to_dict()
    assert "model-index" not in data


def test_what_the_scripts_of_transformers_pass_is_taken() -> None:
    """As run_glue, run_summarization and run_clm call `push_to_hub`."""
    metadata, problems = cleaned(
        finetuned_from="bert-base-cased",
        tasks="text-classification",
        language="en",
        dataset_tags="glue",
        dataset_args="mrpc",
        dataset="GLUE MRPC",
    )
    assert not problems
    assert metadata["base_model"] == "bert-base-cased" and metadata["pipeline_tag"] == "text-classification"
    assert (
        metadata["datasets"] == ["glue"] and metadata["model-index"][0]["results"][0]["dataset"]["args"] == "mrpc"
    )


# -------------------------------------------------------------------------------------------- the Hub's no


def card(**said: Any) -> str:
    setup, progress, _ = golden_facts("image_classification")
    return render_card(setup, progress, CardOptions(**said)).text


def metadata(text: str) -> dict[str, Any]:
    found = yaml.safe_load(re.split(r"(?m)^---\s*$", text)[1]) or {}
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("errors", "keys"),
    [
        (['"license" must be one of [apache-2.0, mit, "tags"]'], ["license"]),
        (
            ['"base_model[0]" with value "x" is not valid. Use a model id from https://hf.co/models.'],
            ["base_model"],
        ),
        (['"model-index[0].results[0].dataset.type" is required'], ["model-index"]),
        (
            ['"language[0]" must only contain lowercase characters', '"license" must be one of [mit]'],
            ["language", "license"],
        ),
        (
            ['- Error: "license" must be one of [mit]\n- Error: "datasets[0]" must be a string'],
            ["license", "datasets"],
        ),
    ],
)
def test_the_keys_that_the_hub_names_are_dropped(errors: list[str], keys: list[str]) -> None:
    text = card(
        license="apache-2",
        language="en",
        finetuned_from="org/x",
        dataset_tags="org/d",
        tasks="image-classification",
    )
    smaller, dropped = drop_refused_keys(text, errors)
    assert dropped == keys
    assert set(metadata(text)) - set(metadata(smaller)) == set(keys)
    assert text.split("hub_callbacks:begin")[1:][:-1] == smaller.split("hub_callbacks:begin")[1:][:-1]


def test_a_refused_value_is_not_tried_again_but_another_one_is() -> None:
    smaller, _ = drop_refused_keys(card(license="apache-2"), ['"license" must be one of [mit]'])
    again = merge_card(card(license="apache-2"), smaller)
    assert "license" not in metadata(again)
    assert "license" not in metadata(merge_card(card(license="apache-2"), again))
    assert metadata(merge_card(card(license="apache-2.0"), again))["license"] == "apache-2.0"


def test_a_refused_key_of_a_person_stays_as_a_comment() -> None:
    text = merge_card(card(), "---\nlicense: my-own  # really\nother: 1\n---\n# Mine\n")
    smaller, dropped = drop_refused_keys(text, ['"license" must be one of [mit]'])
    assert dropped == ["license"] and "# license: my-own  # really\n" in smaller
    assert metadata(smaller)["other"] == 1 and "license" not in metadata(smaller)
    merged = merge_card(card(), smaller)
    assert "# license: my-own  # really\n" in merged and merge_card(card(), merged) == merged


MANY = "---\ntags: [good, {bad: 1}, 3, no such]\n---\n# Mine\n"


@pytest.mark.parametrize(
    ("errors", "left", "comment"),
    [
        (['"tags[1]" must be a string'], "[good, no such, generated_from_trainer]", "[{bad: 1}]"),
        (['"tags" must be a string or a list of strings'], "[good, no such, generated_from_trainer]", "[3]"),
        (['"tags[3]" is too long', '"tags[3]" is too long'], "[good, {bad: 1}, 3]", "[no such]"),
        (
            ['"tags[3]" is bad\n"tags[0]" is bad\n"tags[0]" is bad'],
            "[{bad: 1}, 3, generated_from_trainer]",
            "[good]",
        ),
        (['"tags[9]" is bad'], "null", "[good, {bad: 1}, 3, no such, generated_from_trainer]"),
        (['"tags" is bad\n"tags[0]" is bad'], "null", "[good, {bad: 1}, 3, no such, generated_from_trainer]"),
    ],
)
def test_a_list_loses_only_what_the_hub_refuses_of_it(errors: list[str], left: str, comment: str) -> None:
    text, dropped = drop_refused_keys(merge_card(card(), MANY), errors)
    assert metadata(text).get("tags") == yaml.safe_load(left) and all(name.startswith("tags") for name in dropped)
    assert f"# The Hub refused:\n# tags: {comment}\n" in text
    again = merge_card(card(), text)
    assert metadata(again).get("tags") == yaml.safe_load(left) and merge_card(card(), again) == again


def test_a_long_tag_is_not_cut() -> None:
    long = "a-tag-" + "x" * 300
    assert cleaned(tags=[long, f"{long} with\nwords"])[0]["tags"][:2] == [long, f"{long} with words"]


def test_when_no_key_is_named_all_generated_metadata_goes_and_then_the_person_s() -> None:
    text = merge_card(card(license="mit"), "---\nother: 1\n---\n# Mine\n")
    smaller, dropped = drop_refused_keys(text, ["Something is wrong"])
    assert {"license", "tags", "pipeline_tag"} <= set(dropped)
    assert metadata(smaller) == {"other": 1}
    smallest, dropped = drop_refused_keys(smaller, ["Something is wrong"])
    assert dropped == ["other"] and "# other: 1" in smallest and "# Mine" in smallest
    ModelCard(smallest)
    assert drop_refused_keys(smallest, ["Something is wrong"]) == (smallest, [])
