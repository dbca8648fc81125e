"""Round trips of a README between the generator and people: nothing of theirs is lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hub_callbacks.card import CardOptions, merge_card, render, render_card

from .conftest import Scenario

BEGIN, END = "<!-- hub_callbacks:begin {} ", "<!-- hub_callbacks:end {} -->"


@pytest.fixture
def card(facts: Scenario, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The generated card of a step, with options of the user's."""
    setup, progress, options = facts
    monkeypatch.setattr(render, "draw", lambda _, progress: {"curves.png": b""} if progress["training"] else {})

    def at(step: int = 12, **said: object) -> str:
        changed = progress | {"step": step, "weights_step": 12}
        return render_card(setup, changed, CardOptions(**(vars(options) | said))).text  # type: ignore[arg-type]

    return at


def metadata(text: str) -> dict[str, object]:
    found = yaml.safe_load(re.split(r"(?m)^---\s*$", text)[1])
    assert isinstance(found, dict)
    return found


def section(text: str, name: str) -> str:
    return text.split(BEGIN.format(name))[1].split(END.format(name))[0]


def outline(text: str) -> str:
    """The text with what stands in the markers left out."""
    return re.sub(r"(?s)(hub_callbacks:begin \w+ ).*?(<!-- hub_callbacks:end)", r"\1\2", text)


HAND_WRITTEN = """---
license: mit  # I asked our lawyers
tags:
- mine
my_own: {a: 1}
---
# Leaf doctor

Tells healthy bean leaves from ill ones.

## Limits

Not for tomatoes.
"""

TRL = """---
base_model: Qwen/Qwen2-0.5B
library_name: transformers
model_name: sft-out
tags:
- trl
- sft
licence: license
---

# Model Card for sft-out

This model is a fine-tuned version of [Qwen/Qwen2-0.5B](https://huggingface.co/Qwen/Qwen2-0.5B).
It has been trained using [TRL](https://github.com/huggingface/trl).

## Quick start

```python
from transformers import pipeline

# a comment, not a heading
generator = pipeline("text-generation", model="None", device="cuda")
```

## Training procedure

This model was trained with SFT.

### Framework versions

- TRL: 0.24.0
"""

SENTENCE_TRANSFORMERS = """---
tags:
- sentence-transformers
- sentence-similarity
pipeline_tag: sentence-similarity
library_name: sentence-transformers
---

# SentenceTransformer

<details><summary>Click to expand</summary>

| Column | Value |
|:-------|:------|
| a      | b     |

</details>

<!--
## Glossary
-->
"""


def assert_keeps(text: str, existing: str) -> None:
    """Every line of the body in its order, and every key with its value."""
    body = existing.split("---\n", 2)[2] if existing.startswith("---\n") else existing
    assert body.strip("\n") in text
    if existing.startswith("---\n"):
        for key, value in metadata(existing).items():
            found = metadata(text)[key]
            assert (set(value) <= set(found)) if isinstance(value, list) else (found == value)  # type: ignore[arg-type]


@pytest.mark.parametrize("existing", [HAND_WRITTEN, TRL, SENTENCE_TRANSFORMERS, "Only a line.", "# Title"])
def test_a_readme_without_markers_keeps_its_text_and_gains_the_sections_once(
    card: Callable[..., str], existing: str
) -> None:
    merged = merge_card(card(), existing)
    assert_keeps(merged, existing)
    for name in ("intro", "usage", "results", "training", "environment"):
        assert merged.count(BEGIN.format(name)) == merged.count(END.format(name)) == 1
    assert merge_card(card(), merged) == merged


@pytest.mark.parametrize("existing", [HAND_WRITTEN, TRL, SENTENCE_TRANSFORMERS, "# Title\r\n\r\nText.\r\n"])
def test_fifty_regenerations_leave_the_size_and_the_person_s_text(card: Callable[..., str], existing: str) -> None:
    text: str = existing
    sizes = set()
    for step in range(1000, 1050):
        text = merge_card(card(step), text)
        sizes.add(len(text))
    assert len(sizes) == 1
    assert "step 1,049 of 2,000" in text and "step 1,048" not in text
    assert_keeps(text.replace("\r\n", "\n"), existing.replace("\r\n", "\n"))


def test_a_card_of_peft_keeps_its_text_below_the_generated_card(
    card: Callable[..., str], run_of: Callable[[str], tuple[Path, Scenario]]
) -> None:
    folder, (setup, progress, options) = run_of("lora_adapter")
    existing = (folder / "final" / "README.md").read_text(encoding="utf-8")
    assert existing.count("[More Information Needed]") > 10
    generated = render_card(setup, progress, options).text
    merged = merge_card(generated, existing)
    assert_keeps(merged, existing)
    assert merged.index("# gpt2-lora") < merged.index("# Model Card for Model ID")
    assert merge_card(generated, merged) == merged
    assert metadata(merged)["library_name"] == "peft"


def test_peft_may_write_into_a_merged_card_again_and_again(
    run_of: Callable[[str], tuple[Path, Scenario]], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from .runs import gpt2

    _, (setup, progress, options) = run_of("lora_adapter")
    generated = render_card(setup, progress, options).text
    config = LoraConfig(target_modules=["c_attn"], task_type="CAUSAL_LM", fan_in_fan_out=True)
    model = get_peft_model(gpt2(str(tmp_path / "local-base")), config)
    readme = tmp_path / "README.md"
    readme.write_text(merge_card(generated, "# Mine\n"), encoding="utf-8")
    sizes = []
    for _ in range(4):
        model.create_or_update_model_card(str(tmp_path))
        readme.write_text(merge_card(generated, readme.read_text(encoding="utf-8")), encoding="utf-8")
        text = readme.read_text(encoding="utf-8")
        sizes.append(len(text))
        assert "base_model: openai-community/gpt2" in text and "local-base" not in text
    assert len(set(sizes[1:])) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("---\n\n<!--", "---\n\nA note at the top.\n\n<!--"),
        ("<!-- hub_callbacks:begin results", "A note in the middle.\n\n<!-- hub_callbacks:begin results"),
        ("<!-- hub_callbacks:state", "## A chapter at the bottom\n\nText.\n\n<!-- hub_callbacks:state"),
        ("<!-- hub_callbacks:end intro -->\n", "<!-- hub_callbacks:end intro -->\nRight behind it.\n"),
    ],
)
def test_text_between_the_sections_stays_in_its_place(card: Callable[..., str], old: str, new: str) -> None:
    text = card(100)
    assert old in text
    edited = text.replace(old, new, 1)
    assert merge_card(card(100), edited) == edited
    later = merge_card(card(200), edited)
    assert "step 200 of" in later
    assert outline(later) == outline(edited)


def test_text_below_everything_stays(card: Callable[..., str]) -> None:
    edited = card(100) + "\nThe last word.\n"
    assert merge_card(card(200), edited).endswith("\nThe last word.\n")


def test_a_section_that_a_person_edited_is_theirs(card: Callable[..., str]) -> None:
    edited = card(100).replace("This model is a fine-tuned", "This *wonderful* model is a fine-tuned")
    later = merge_card(card(200), edited)
    assert "This *wonderful* model" in later
    assert "step 100 of" in later and "step 200 of" not in later, "it is left as it is"
    assert merge_card(card(200), later) == later


def test_blanks_that_an_editor_strips_are_no_edit(card: Callable[..., str]) -> None:
    edited = "\n".join(line + "  " for line in card(100).split("\n"))
    assert "step 200 of" in merge_card(card(200), edited)


def test_a_section_that_a_person_deleted_stays_deleted(card: Callable[..., str]) -> None:
    text = card(100)
    gone = BEGIN.format("environment") + section(text, "environment") + END.format("environment")
    later = merge_card(card(200), text.replace(gone, ""))
    assert "## Environment" not in later and "step 200 of" in later
    assert "## Environment" not in merge_card(card(300), later)


def test_a_section_that_comes_later_goes_to_its_place(facts: Scenario, card: Callable[..., str]) -> None:
    setup, progress, options = facts
    bare = progress | {"evaluations": [], "training": {}}
    first = merge_card(render_card(setup, bare, options).text, "# Mine\n\nText.\n") + "\nBottom.\n"
    assert "Training results" not in first
    later = merge_card(card(), first)
    words = ("# Mine", "## How to use", "## Training results", "## How it was", "Bottom")
    order = [later.index(word) for word in words]
    assert order == sorted(order)
    back = merge_card(render_card(setup, bare, options).text, later)
    assert "Training results" not in back and back == first, "and leaves no trace when it goes again"


def test_markers_without_their_partner_are_text(card: Callable[..., str]) -> None:
    half = "# Mine\n\n<!-- hub_callbacks:begin results 01234567 -->\nMy results.\n"
    merged = merge_card(card(), half)
    assert "My results." in merged and merge_card(card(), merged) == merged
    torn = card(100).replace(END.format("usage") + "\n", "")
    assert section(torn, "usage") is not None
    merged = merge_card(card(200), torn)
    assert "step 200 of" in merged and merge_card(card(200), merged) == merged


def test_a_copy_of_a_generated_section_is_not_kept_twice(card: Callable[..., str]) -> None:
    text = card(100)
    copy = BEGIN.format("usage") + section(text, "usage") + END.format("usage")
    merged = merge_card(card(200), f"{text}\nMine.\n\n{copy}\n\nMore.\n")
    assert merged.count("## How to use") == 1 and "Mine." in merged and "More." in merged


def test_the_generated_title_yields_to_a_person_s(card: Callable[..., str]) -> None:
    assert "# vit-beans" in card()
    for title in ("# Leaf doctor", "Leaf doctor\n===========", '<h1 align="center">Leaf doctor</h1>'):
        merged = merge_card(card(), f"{title}\n\nText.\n")
        assert "# vit-beans" not in merged and "## About this model\n\nThis model is" in merged
    commented = "```bash\n# not a title\n```\n"
    assert "# vit-beans" in merge_card(card(), commented)
    untitled = merge_card(card(), "=\n")
    assert "# vit-beans" in untitled and merge_card(card(), untitled) == untitled


# ------------------------------------------------------------------------------------------------ metadata


def test_keys_that_a_person_set_stay_with_their_comments_and_spelling(card: Callable[..., str]) -> None:
    merged = merge_card(card(), HAND_WRITTEN)
    assert "license: mit  # I asked our lawyers\n" in merged
    assert "my_own: {a: 1}\n" in merged
    found = metadata(merged)
    assert found["tags"] == ["mine", "generated_from_trainer"]
    assert found["pipeline_tag"] == "image-classification"
    assert merge_card(card(license="gpl-3.0"), merged) == merged


def test_generated_keys_follow_the_training_until_a_person_sets_them(card: Callable[..., str]) -> None:
    first = card(license="mit", language="en")
    assert metadata(merge_card(card(license="apache-2.0"), first))["license"] == "apache-2.0"
    assert "language" not in metadata(merge_card(card(license="mit"), first)), "what is no longer generated goes"
    edited = first.replace("license: mit", "license: gpl-3.0")
    assert metadata(merge_card(card(license="apache-2.0"), edited))["license"] == "gpl-3.0"


def test_a_generated_key_that_a_person_deleted_stays_deleted(card: Callable[..., str]) -> None:
    edited = card().replace("pipeline_tag: image-classification\n", "")
    later = merge_card(card(), merge_card(card(), edited))
    assert "pipeline_tag" not in metadata(later)


def test_items_of_lists_are_owned_one_by_one(card: Callable[..., str]) -> None:
    first = card(tags=["vision", "leaves"])
    edited = first.replace("- vision\n", "- by-hand\n", 1)
    assert metadata(edited)["tags"] == ["by-hand", "leaves", "generated_from_trainer"]
    later = metadata(merge_card(card(tags=["vision", "beans"]), edited))
    assert later["tags"] == ["by-hand", "generated_from_trainer", "beans"]
    same = merge_card(card(tags=["by-hand"]), merge_card(card(tags=["vision", "beans"]), edited))
    assert "by-hand" in metadata(merge_card(card(tags=[]), same))["tags"]  # type: ignore[operator]


def test_the_hub_s_metadata_editor_may_write_the_same_in_another_way(card: Callable[..., str]) -> None:
    text = card(license="mit")
    body = text.split("---\n", 2)[2]
    block = yaml.safe_dump(dict(reversed(metadata(text).items())), default_style='"', sort_keys=False).strip()
    later = metadata(merge_card(card(license="apache-2.0"), f"---\n{block}\n---\n{body}"))
    assert later["license"] == "apache-2.0"
    assert next(iter(later)) != "license", "the new order stays"


def test_comments_in_the_metadata_stay_when_their_neighbours_go(card: Callable[..., str]) -> None:
    first = card(license="mit").replace("license: mit\n", "# chosen with care\nlicense: mit\n# up to here\n")
    later = merge_card(card(license=None), first)
    assert "license" not in metadata(later)
    assert "# chosen with care\n" in later and "# up to here\n" in later
    assert merge_card(card(license=None), later) == later


@pytest.mark.parametrize(
    "block",
    ["license: [", "a: b: c", "- a\n- list", "just words", "key: *nowhere", "\tlicense: mit"],
)
def test_metadata_that_cannot_be_read_is_kept_as_text(card: Callable[..., str], block: str) -> None:
    merged = merge_card(card(), f"---\n{block}\n---\n# Mine\n")
    ModelCard(merged)
    assert block in merged and "# Mine" in merged
    assert metadata(merged)["license"] == "apache-2.0"
    assert merge_card(card(), merged) == merged


@pytest.mark.parametrize(
    "block",
    [
        "{license: mit, extra: 1}",
        "base: &x [a]\nextra: *x\nlicense: mit",
        "? license\n: mit",
        '"license": mit',
        "1: one\nlicense: mit",
    ],
)
def test_metadata_in_unusual_yaml_keeps_its_values(card: Callable[..., str], block: str) -> None:
    merged = merge_card(card(), f"---\n{block}\n---\n# Mine\n")
    before = yaml.safe_load(block)
    assert {key: value for key, value in metadata(merged).items() if key in before} == before
    assert merge_card(card(), merged) == merged


def test_metadata_that_holds_itself_does_no_harm(card: Callable[..., str]) -> None:
    merged = merge_card(card(), "---\na: &x [*x]\nlicense: mit\n---\n# Mine\n")
    assert "license: mit" in merged and merge_card(card(), merged) == merged


@pytest.mark.parametrize("base", ["/home/ada/models/vit", "''"])
def test_a_base_model_that_nobody_can_load_gives_way(card: Callable[..., str], base: str) -> None:
    """PEFT writes a local path, or nothing for a model that was made from its configuration."""
    tag = f"base_model:adapter:{base.strip(chr(39))}"
    existing = f"---\nbase_model: {base}\nlibrary_name: peft\ntags:\n- '{tag}'\n- mine\n---\n# Mine\n"
    found = metadata(merge_card(card(), existing))
    assert found["base_model"] == "google/vit-base-patch16-224-in21k" and found["library_name"] == "peft"
    assert tag not in found["tags"] and "mine" in found["tags"]


def test_line_ends_of_windows_stay(card: Callable[..., str]) -> None:
    merged = merge_card(card(), HAND_WRITTEN.replace("\n", "\r\n"))
    assert merged.count("\r\n") == merged.count("\n") and "\r\r" not in merged
    assert merge_card(card(), merged) == merged


def test_a_lost_state_comment_makes_all_metadata_the_person_s(card: Callable[..., str]) -> None:
    without = re.sub(r"<!-- hub_callbacks:state .*\n", "", card(license="mit"))
    merged = merge_card(card(200, license="apache-2.0"), without)
    assert metadata(merged)["license"] == "mit" and "step 200 of" in merged
    assert merge_card(card(200, license="apache-2.0"), merged) == merged


def test_an_empty_readme_is_none(card: Callable[..., str]) -> None:
    assert merge_card(card(), None) == merge_card(card(), "") == merge_card(card(), "\n \n") == card()
    assert merge_card(card(), "---\n---\n# Mine\n").count("# Mine") == 1
