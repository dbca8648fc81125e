"""README.md of `output_dir`, which libraries write over."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import Trainer, TrainerCallback

from hub_callbacks import HubSyncCallback
from hub_callbacks.card import combine_edits, example, merge_card, render_card
from hub_callbacks.training.readme import Readme, is_librarys
from models import Sentences, arguments, classifier
from runs import download, train

MINE = "---\nlicense: mit\n---\n\n# Mine\n\nI wrote this.\n"


def librarys(step: int) -> str:
    return f"---\ntags:\n- generated_from_trainer\n---\n\n# Model Card\n\nTrained until {step}.\n\n## Citation\n"


def test_what_a_person_wrote_stays_beside_the_librarys_newest_text(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(MINE)
    local = Readme(tmp_path)
    for step in (1, 2, 3):
        readme.write_text(librarys(step))
        assert local.bring_up(tmp_path) == readme
    text = readme.read_text()
    for once in ("license: mit", "I wrote this.", "Trained until 3.", "# Model Card", "## Citation"):
        assert text.count(once) == 1, once
    assert "until 1" not in text and "until 2" not in text


def test_the_next_run_still_knows_whose_text_is_whose(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(MINE)
    local = Readme(tmp_path)
    readme.write_text(librarys(1))
    local.bring_up(tmp_path)
    readme.write_text(readme.read_text().replace("I wrote this.", "I wrote that."))
    local = Readme(tmp_path)  # another process
    readme.write_text(librarys(2))
    local.bring_up(tmp_path)
    text = readme.read_text()
    assert "I wrote that." in text and "until 2" in text and "until 1" not in text


def test_what_a_person_wrote_just_before_the_library_stays(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    local = Readme(tmp_path)
    for step, mine in enumerate(["I wrote this.", "I wrote that.", "I wrote more."]):
        before = readme.read_text() if readme.exists() else "# Mine\n\nText.\n"
        readme.write_text(before.replace("Text.", mine).replace("I wrote this.", mine).replace("that", "more"))
        local.look()
        readme.write_text(librarys(step))
        local.bring_up(tmp_path)
    text = readme.read_text()
    assert text.count("I wrote more.") == 1 and "until 2" in text
    assert not any(old in text for old in ("this", "that", "until 0", "until 1"))


@pytest.mark.parametrize("there", ["", " \n", librarys(2), None])
def test_a_look_at_what_no_person_wrote_forgets_nothing(tmp_path: Path, there: str | None) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(MINE)
    local = Readme(tmp_path)
    readme.unlink()
    if there is not None:
        readme.write_text(there)
    local.look()
    readme.write_text(librarys(3))
    local.bring_up(tmp_path)
    assert "I wrote this." in readme.read_text() and "until 3" in readme.read_text()


def test_a_card_in_the_checkpoint_is_merged_into_a_persons_readme(tmp_path: Path) -> None:
    readme, checkpoint = tmp_path / "README.md", tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    local = Readme(tmp_path)
    (checkpoint / "README.md").write_text(librarys(1))
    assert local.bring_up(checkpoint) == checkpoint / "README.md"  # nothing else is there
    readme.write_text(MINE)
    for step in (2, 3):
        (checkpoint / "README.md").write_text(librarys(step))
        assert local.bring_up(checkpoint) == readme
    text = readme.read_text()
    assert text.count("I wrote this.") == 1 and "until 3" in text and "until 2" not in text


@pytest.mark.parametrize("readme", [MINE, "---\ntags: generated_from_trainer\n", "\0generated_from_trainer", ""])
def test_a_readme_that_no_library_wrote_is_left_as_it_is(tmp_path: Path, readme: str) -> None:
    (tmp_path / "README.md").write_text("Before.")
    local = Readme(tmp_path)
    (tmp_path / "README.md").write_text(readme)
    local.bring_up(tmp_path)
    assert (tmp_path / "README.md").read_text() == readme and not is_librarys(readme)


def test_the_card_of_an_earlier_run_gives_way_to_this_ones(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(librarys(1))
    local = Readme(tmp_path)
    readme.write_text(librarys(2))
    local.bring_up(tmp_path)
    assert "until 2" in readme.read_text() and "until 1" not in readme.read_text()
    aside = tmp_path / "_hub_sync" / "set-aside" / "README.md"
    assert aside.read_text() == librarys(1)  # a person may have written into it
    readme.write_text(librarys(3))
    local.bring_up(tmp_path)
    assert aside.read_text() == librarys(1)


def test_a_full_disk_leaves_what_the_library_wrote(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    readme = small_disk / "README.md"
    readme.write_text(MINE)
    local = Readme(small_disk)
    readme.write_text(librarys(1))
    with pytest.raises(OSError), (small_disk / "full").open("wb") as full:
        full.write(b"0" * 2_000_000)
    assert local.bring_up(small_disk) == readme
    assert readme.read_text() == librarys(1) and "could not be merged" in caplog.text
    (small_disk / "full").unlink()
    local.bring_up(small_disk)
    assert "I wrote this." in readme.read_text() and "until 1" in readme.read_text()


def test_a_readme_that_cannot_be_read_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    local = Readme(tmp_path)
    local.path = tmp_path / ("long" * 100) / "README.md"
    assert local.bring_up(tmp_path) is None
    assert "could not be merged" in caplog.text


def test_a_subclass_whose_own_card_fails_pushes_all_the_same(hub, api, repo, tmp_path, caplog):
    class Fails(Trainer):
        def create_model_card(self, **said):
            raise RuntimeError("no card today")

    trainer, callback, _ = train(tmp_path, repo, trainer_class=Fails, hub_strategy="end")
    assert trainer.push_to_hub(license="mit") is not None
    callback.close()
    assert "Fails.create_model_card failed" in caplog.text
    assert ModelCard.load(download(tmp_path, repo) / "README.md").data.license == "mit"


def test_a_subclass_that_was_never_trained_knows_the_repository_in_its_card(hub, api, repo, tmp_path):
    class Own(Trainer):
        def create_model_card(self, model_name):
            text = f"# Card of {model_name}, at {self.hub_model_id}.\n"
            (Path(self.args.output_dir) / "README.md").write_text(text)

    callback = HubSyncCallback()
    trainer = Own(classifier(), arguments(tmp_path / repo), train_dataset=Sentences(), callbacks=[callback])
    trainer.push_to_hub()
    callback.close()
    text = (download(tmp_path, repo) / "README.md").read_text()
    assert f"# Card of {repo}, at local/{repo}." in text or f"# Card of {repo}, at {repo}." in text


TOP = """
# My model

I wrote this.

## Usage

| A | B |
|:--|:--|
| 1 | 2 |

```python
print("mine")
```

Last words of the top.
"""
END = """
## Limits

Not for tomatoes.

```python
print("tomatoes")
```

The last words.
"""
LIBRARYS = """---
library_name: transformers
tags:
- generated_from_trainer
---

# Model Card for {name}

This model was fine-tuned.
It has been trained until {step}.

## Usage

```python
print("the library's")
```

## Training procedure



| A | B |
|:--|:--|
{rows}

### Framework versions

- Library: 1.0

## Citations

```bibtex
@software{{it}}
```
"""


def of_library(step: int, name: str = "None") -> str:
    return LIBRARYS.format(step=step, name=name, rows="\n".join(f"| {i} | {i}.5 |" for i in range(step)))


class Trained:
    """A folder that a library writes into at each save, and what is on the Hub."""

    def __init__(self, folder: Path) -> None:
        self.readme = folder / "README.md"
        self.local = Readme(folder)
        self.on_hub: str | None = None

    def save(self, step: int, name: str = "None") -> None:
        self.local.look()
        self.readme.write_text(of_library(step, name))
        self.push(step)

    def push(self, step: int) -> None:
        self.local.bring_up(self.readme.parent)
        card = render_card(example.SETUP, example.PROGRESS | {"step": step}, example.OPTIONS)
        local = self.readme.read_text()
        self.on_hub = merge_card(card.text, combine_edits(local, self.on_hub, self.on_hub))

    def edit(self, old: str, new: str) -> None:
        text = self.readme.read_text()
        assert text.count(old) == 1
        self.readme.write_text(text.replace(old, new))


@pytest.mark.parametrize("end", ["", END], ids=["top", "top and end"])
def test_a_persons_text_stays_whole_and_where_it_is(tmp_path: Path, end: str) -> None:
    (tmp_path / "README.md").write_text(TOP)
    run = Trained(tmp_path)
    run.save(1)
    if end:
        run.edit("@software{it}\n```\n", f"@software{{it}}\n```\n{end}")
    run.save(2)
    run.push(2)  # after an evaluation
    assert run.on_hub is not None
    run.on_hub = run.on_hub.replace("I wrote this.\n", "I wrote this.\n\nFrom the web.\n")
    run.on_hub = run.on_hub.replace("## Citations\n", "## Citations\n\nCite us.\n")
    run.save(3)
    run.edit("Last words", "The last words")
    run.push(3)
    hub, run = run.on_hub, Trained(tmp_path)  # another process
    run.on_hub = hub
    run.save(4)
    run.save(5, "my-model")
    top = TOP.replace("Last words", "The last words")
    written = of_library(5, "my-model").partition("---\n\n")[2]
    assert top + "\n" + written + end in run.readme.read_text().replace("```\n\n<", "```\n<")
    top = top.replace("this.\n", "this.\n\nFrom the web.\n")
    written = written.replace("## Citations\n", "## Citations\n\nCite us.\n")
    assert run.on_hub is not None and top + "\n" + written in run.on_hub
    assert end in run.on_hub.partition(written)[2]
    for once in ("From the web.", "Cite us.", "Not for tomatoes.", "I wrote this.", "## How it was trained"):
        assert run.on_hub.count(once) == (once != "Not for tomatoes." or bool(end)), once


LATIN = "# Mine, by Jürgen\n".encode("latin-1")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3\n"


@pytest.mark.parametrize("mine", [LATIN, POINTER])
def test_what_cannot_be_read_stays_though_a_library_writes_over_it(tmp_path: Path, mine, caplog) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes(mine)
    local = Readme(tmp_path)
    for step in (1, 2):
        local.look()
        readme.write_text(librarys(step))
        assert local.bring_up(tmp_path) is None and readme.read_bytes() == mine
    assert local.bring_up(tmp_path) is None and caplog.text.count("stays as it is") == 1
    readme.write_text(MINE)
    local.look()
    readme.write_text(librarys(3))
    assert local.bring_up(tmp_path) == readme
    assert "I wrote this." in readme.read_text() and "until 3" in readme.read_text()


@pytest.mark.parametrize("before", ["", MINE])
def test_what_becomes_unreadable_during_a_training_stays(tmp_path: Path, before: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(before)
    local = Readme(tmp_path)
    readme.write_bytes(LATIN)
    local.look()
    readme.write_text(librarys(1))
    local.bring_up(tmp_path)
    assert readme.read_bytes() == LATIN


def test_a_library_writes_over_utf_16_and_lines_of_windows(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes("# Jürgens Modell\r\n\r\nVon mir.\r\n".encode("utf-16"))
    local = Readme(tmp_path)
    readme.write_text(librarys(1))
    local.bring_up(tmp_path)
    text = readme.read_bytes().decode()
    assert "# Jürgens Modell\r\n\r\nVon mir.\r\n" in text and "until 1" in text


@pytest.mark.parametrize("mine", ["Von Jürgen.\n".encode("latin-1"), "Von Jürgen.\n".encode("utf-16")])
def test_a_readme_in_another_encoding_is_read_or_left_alone_wherever_it_is(hub, api, repo, tmp_path, caplog, mine):
    (tmp_path / repo).mkdir()
    readme = tmp_path / repo / "README.md"
    readme.write_bytes(mine)
    trainer, _, _ = train(tmp_path, repo, hub_strategy="every_save")
    assert readme.read_bytes() == mine
    made = trainer.create_model_card()
    assert "## How it was trained" in made.content
    is_read = mine.startswith(b"\xff\xfe")
    assert is_read or readme.read_bytes() == mine
    assert not is_read or readme.read_bytes().decode() == str(made)
    for text in ((download(tmp_path, repo) / "README.md").read_text(), str(made)):
        assert ("Von Jürgen." in text) == is_read and "\ufffd" not in text and "## How it was trained" in text
    assert caplog.text.count("stays as it is") == (not is_read)


class Writes(Trainer):
    """Writes a card before each save, as TRL's do."""

    def _save_checkpoint(self, *args, **kwargs):
        (Path(self.args.output_dir) / "README.md").write_text(librarys(self.state.global_step))
        super()._save_checkpoint(*args, **kwargs)


class Person(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 1:
            (Path(args.output_dir) / "README.md").write_text(MINE)


@pytest.mark.parametrize(
    "when",
    [
        {"save_steps": 2},
        {"save_strategy": "epoch"},
        {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss"},
    ],
    ids=["steps", "epoch", "best"],
)
def test_what_a_person_wrote_before_a_save_stays_whenever_that_is(hub, repo, tmp_path, when):
    callback = HubSyncCallback()
    trainer = Writes(
        classifier(),
        arguments(tmp_path / repo, max_steps=4, **when),
        train_dataset=Sentences(),
        eval_dataset=Sentences(8),
        callbacks=[callback, Person()],
    )
    trainer.train()
    callback.close()
    for folder in (tmp_path / repo, download(tmp_path, repo)):
        text = (folder / "README.md").read_text()
        assert text.count("I wrote this.") == 1 and text.count("Trained until") == 1, text
