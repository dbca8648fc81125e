"""The card on the Hub: whose text it is, and whose metrics it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationCopy, ModelCard
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

import hub_callbacks.card as card_package
from hub_callbacks import HubSync, SettingsError
from hub_callbacks.card import clean_metadata, example
from hub_callbacks.card.content import view
from hub_callbacks.card.evaluations import read_evaluations
from hub_callbacks.localhub import Answer, Fault
from models import classifier
from runs import commit_titled, download, train


def card(tmp_path: Path, repo: str, revision: str | None = None) -> str:
    return (download(tmp_path, repo, revision) / "README.md").read_text()


def edit(api, repo: str, text: str) -> None:
    """Somebody edits the card in the Hub's web editor."""
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=f"local/{repo}")


def test_each_commit_shows_the_metrics_of_the_step_whose_weights_it_carries(hub, api, repo, tmp_path):
    trainer, _, _ = train(
        tmp_path, repo, hub_strategy="every_save", eval_strategy="steps", eval_steps=2, hub_always_push=True
    )
    losses = {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    for step, loss in losses.items():
        text = card(tmp_path, repo, commit_titled(api, repo, f"Training in progress, step {step}"))
        headline = text.split("## ")[0]
        assert f"{loss:.4g}" in headline.replace(",", "")
        assert f"step {step} of 8" in text or step == 8
    assert "Training in progress" not in card(tmp_path, repo)


def test_the_best_models_card_shows_the_best_steps_metrics(hub, api, repo, tmp_path):
    trainer, _, _ = train(
        tmp_path,
        repo,
        hub_strategy="end",
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
        learning_rate=1e-2,
    )
    best = trainer.state.best_global_step
    loss = next(
        row["eval_loss"] for row in trainer.state.log_history if row["step"] == best and "eval_loss" in row
    )
    assert best < 8
    assert f"{loss:.4g}" in card(tmp_path, repo).split("## ")[0]


def test_a_persons_readme_keeps_its_text_and_metadata(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    (tmp_path / repo / "README.md").write_text(
        "---\nlicense: apache-2.0\ndatasets:\n- mine/data\n---\n\n# My model\n\nI wrote this.\n"
    )
    train(tmp_path, repo, hub_strategy="every_save", hub_always_push=True)
    text = card(tmp_path, repo)
    assert text.count("I wrote this.") == 1 and text.count("# My model") == 1
    assert "## How it was trained" in text
    data = ModelCard(text).data
    assert data.license == "apache-2.0" and data.datasets == ["mine/data"]


def test_an_edit_on_the_hub_between_two_pushes_stays(hub, api, repo, tmp_path):
    class Editor(TrainerCallback):
        """Edits the card on the Hub as soon as the first push is there."""

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                callback.pushes[-1].result(timeout=60)
                text = card(tmp_path, repo)
                edit(api, repo, text.replace("# ", "Remote words.\n\n# ", 1) + "\nThe end is mine.\n")

    from transformers import Trainer

    from hub_callbacks import HubSyncCallback
    from models import Sentences, arguments

    callback = HubSyncCallback(hub_strategy="every_save", hub_always_push=True)
    trainer = Trainer(
        classifier(), arguments(tmp_path / repo), train_dataset=Sentences(), callbacks=[callback, Editor()]
    )
    trainer.train()
    callback.close()
    text = card(tmp_path, repo)
    assert text.count("Remote words.") == 1 and text.count("The end is mine.") == 1
    assert text.count("## How it was trained") == 1


def test_an_edit_at_the_very_moment_of_a_push_is_not_overwritten(hub, api, repo, tmp_path):
    """The branch moves between reading the card and the commit: refused with 412, read and merged again."""
    train(tmp_path, repo, hub_strategy="end")
    edit(api, repo, card(tmp_path, repo) + "\nMine.\n")
    with hub.inject(Fault("commit", Answer(412), times=1)) as fault:
        train(tmp_path, repo, classifier(seed=3), hub_strategy="end")
    assert fault.hits == 1
    assert card(tmp_path, repo).count("Mine.") == 1


def test_pefts_readme_keeps_its_text(hub, api, repo, tmp_path):
    model = get_peft_model(classifier(), LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS"))
    train(tmp_path, repo, model, hub_strategy="every_save")
    data = ModelCard(card(tmp_path, repo)).data
    assert data.library_name == "peft"
    assert "## How it was trained" in card(tmp_path, repo)


def test_refused_metadata_is_dropped_and_named_and_the_weights_land(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    (tmp_path / repo / "README.md").write_text("---\nlicense: no-such-licence\ntags:\n- kept\n---\nMine.\n")
    _, callback, _ = train(tmp_path, repo, hub_strategy="end")
    assert "license" in " ".join(callback.summary().notes)
    data = ModelCard(card(tmp_path, repo)).data
    assert data.license is None and "kept" in data.tags
    assert (download(tmp_path, repo) / "model.safetensors").is_file()


def test_of_a_list_only_what_the_hub_refuses_is_dropped_and_named(hub, api, repo, tmp_path):
    (tmp_path / repo).mkdir()
    (tmp_path / repo / "README.md").write_text("---\ntags: [kept, {bad: 1}, 3]\n---\nMine.\n")
    _, callback, _ = train(tmp_path, repo, hub_strategy="end")
    assert "left out: tags: {'bad': 1}, tags: 3" in " ".join(callback.summary().notes)
    text = card(tmp_path, repo)
    assert ModelCard(text).data.tags == ["kept", "generated_from_trainer"] and "{bad: 1}" in text


@pytest.mark.parametrize("broken", ["---\n: : :\n  - [\n---\nText.\n", "---\nno end of the metadata\n", "\0\0"])
def test_a_broken_readme_never_stops_the_weights(hub, api, repo, tmp_path, broken):
    (tmp_path / repo).mkdir()
    (tmp_path / repo / "README.md").write_text(broken)
    train(tmp_path, repo, hub_strategy="end")
    assert (download(tmp_path, repo) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "content", ["Von Jürgen.\n".encode("latin-1"), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"]
)
def test_a_readme_on_the_hub_that_cannot_be_read_stays_and_the_weights_land(hub, api, repo, tmp_path, content):
    api.create_repo(f"local/{repo}")
    api.upload_file(path_or_fileobj=content, path_in_repo="mine.md", repo_id=f"local/{repo}")
    copied = CommitOperationCopy("mine.md", "README.md")  # the client itself would look into a README.md
    api.create_commit(f"local/{repo}", [copied], commit_message="By way of git")
    _, callback, _ = train(tmp_path, repo, hub_strategy="end")
    assert (download(tmp_path, repo) / "README.md").read_bytes() == content
    assert (download(tmp_path, repo) / "model.safetensors").is_file()
    assert "README.md on the Hub is " in " ".join(callback.summary().notes)


def test_a_readme_on_the_hub_with_a_byte_order_mark_or_as_a_large_file_is_merged(hub, api, repo, tmp_path):
    api.create_repo(f"local/{repo}")
    attributes = b"*.md filter=lfs diff=lfs merge=lfs -text\n"
    api.upload_file(path_or_fileobj=attributes, path_in_repo=".gitattributes", repo_id=f"local/{repo}")
    edit(api, repo, "\ufeff---\nlicense: mit\n---\nVon Jürgen.\n")
    assert api.get_paths_info(f"local/{repo}", "README.md")[0].lfs
    train(tmp_path, repo, hub_strategy="end")
    text = card(tmp_path, repo)
    assert text.startswith("---\nlicense: mit\n") and "Von Jürgen." in text and "## How it was trained" in text


def test_the_picture_is_pushed_beside_the_card_and_shown_in_it(hub, api, repo, tmp_path):
    train(tmp_path, repo, hub_strategy="end", eval_strategy="steps", eval_steps=2)
    assert "(training_curves.png)" in card(tmp_path, repo)
    assert (download(tmp_path, repo) / "training_curves.png").read_bytes().startswith(b"\x89PNG")


def test_create_model_card_of_a_script_writes_merges_and_returns_the_card(hub, api, repo, tmp_path):
    trainer, _, _ = train(tmp_path, repo, hub_strategy="end")
    (tmp_path / repo / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    made = trainer.create_model_card(
        language="en", tags=["tiny"], finetuned_from="google/bert", dataset_tags="glue"
    )
    text = (tmp_path / repo / "README.md").read_text()
    assert isinstance(made, ModelCard) and made.content.strip() == text.strip()
    assert "Mine." in text and made.data.license == "mit" and "tiny" in made.data.tags
    assert made.data.base_model == "google/bert" and "glue" in made.data.datasets


def test_what_was_said_about_the_model_stays_in_later_cards(hub, api, repo, tmp_path):
    trainer, callback, _ = train(tmp_path, repo, hub_strategy="end")
    trainer.create_model_card(language="fr")
    trainer.push_to_hub(tags="kept")
    callback.close()
    data = ModelCard(card(tmp_path, repo)).data
    assert data.language in ("fr", ["fr"]) and "kept" in data.tags


def test_a_template_of_ones_own(hub, api, repo, tmp_path):
    template = tmp_path / "card.md.jinja"
    own = Path(card_package.__file__).parent / "template.md.jinja"
    template.write_text(own.read_text() + "\nMade with my own template.\n")
    train(tmp_path, repo, callback={"card_template": str(template)}, hub_strategy="end")
    assert "Made with my own template." in card(tmp_path, repo)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ title | no_such_filter }}", "no_such_filter"),
        ("{{ no_such_macro(title) }}", "no_such_macro"),
        ("{% if results %}{{ no_such_macro(results.rows) }}{% endif %}", "no_such_macro"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_makes_no_card_is_refused_before_training(tmp_path, text, why):
    (tmp_path / "bad.jinja").write_text(text)
    with pytest.raises(SettingsError, match=why):
        HubSync(output_dir=tmp_path, card_template=tmp_path / "bad.jinja")


@pytest.mark.parametrize(
    "text", ["{{ my_own }}", "{{ my.own | upper }}", "{{ usage.nothing | join }}", "# {{ title }}"]
)
def test_a_template_may_use_what_is_not_known(tmp_path, text):
    (tmp_path / "good.jinja").write_text(text)
    HubSync(output_dir=tmp_path, card_template=tmp_path / "good.jinja")


def test_a_template_is_tried_with_everything_that_a_card_can_show():
    metadata = clean_metadata(example.SETUP, example.PROGRESS, example.OPTIONS)
    evaluations = read_evaluations(example.SETUP, example.PROGRESS)
    values = view(
        example.SETUP, example.PROGRESS, example.OPTIONS, metadata.data, evaluations, picture="curves.png"
    )
    assert all(values.values()) and all(values["results"].values()) and values["headline"]["others"], values
    assert not metadata.problems


def test_a_template_that_cannot_work_is_refused_before_training(tmp_path):
    (tmp_path / "bad.jinja").write_text("{% if %}")
    with pytest.raises(SettingsError, match="no Jinja template"):
        train(tmp_path, "run", callback={"card_template": str(tmp_path / "bad.jinja")})
    with pytest.raises(SettingsError, match="cannot be read"):
        train(tmp_path, "run", callback={"card_template": str(tmp_path / "missing.jinja")})
