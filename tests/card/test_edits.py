"""Which person's text is taken: the local one, the one on the Hub, or both."""

from __future__ import annotations

import re

import pytest
import yaml

from hub_callbacks.card import CardOptions, combine_edits, merge_card, render, render_card

from .conftest import golden_facts

LOCAL = """---
license: mit
---
# Leaf doctor

First paragraph.

Second paragraph.

Third paragraph.
"""


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "draw", lambda setup, progress: {"training_curves.png": b""})


def generated(step: int = 12, **said: object) -> str:
    setup, progress, _ = golden_facts("image_classification")
    return render_card(setup, progress | {"step": step, "finished": False}, CardOptions(**said)).text  # type: ignore[arg-type]


class Repository:
    """What a pusher does: combine, merge, push; with a person at the local file and one on the Hub."""

    def __init__(self, local: str | None, remote: str | None = None) -> None:
        self.local, self.remote, self.pushed = local, remote, None
        self.step = 0
        self.push()

    def push(self, **said: object) -> str:
        self.step += 1
        existing = combine_edits(self.local, self.remote, self.pushed)
        text = merge_card(generated(self.step, **said), existing)
        assert merge_card(generated(self.step, **said), text) == text
        self.pushed = self.remote = text
        return text

    def metadata(self) -> dict[str, object]:
        assert self.remote is not None
        found: dict[str, object] = yaml.safe_load(re.split(r"(?m)^---\s*$", self.remote)[1])
        return found

    def edit_local(self, old: str, new: str) -> None:
        assert self.local is not None and old in self.local
        self.local = self.local.replace(old, new, 1)

    def edit_remote(self, old: str, new: str) -> None:
        assert self.remote is not None and old in self.remote
        self.remote = self.remote.replace(old, new, 1)


def test_nothing_is_nothing() -> None:
    assert combine_edits(None, None, None) is None
    assert combine_edits(None, "remote", None) == "remote"
    assert combine_edits(None, None, "pushed") == "pushed", "a README that vanished keeps its text"


@pytest.mark.parametrize("local", [None, LOCAL])
def test_without_an_edit_nothing_changes_but_the_card(local: str | None) -> None:
    repo = Repository(local)
    size = {len(re.sub(r"step \d+|\w{8} ", "", repo.push())) for _ in range(8)}
    assert len(size) == 1


def test_a_local_edit_is_taken() -> None:
    repo = Repository(LOCAL)
    repo.edit_local("First paragraph.", "First paragraph, better.")
    repo.edit_local("Third paragraph.\n", "Third paragraph.\n\nFourth paragraph.\n")
    text = repo.push()
    assert "First paragraph, better." in text and "First paragraph.\n" not in text and "Fourth" in text


def test_a_local_deletion_is_a_deletion() -> None:
    repo = Repository(LOCAL)
    repo.edit_local("Second paragraph.\n\n", "")
    assert "Second paragraph." not in repo.push()
    assert "Second paragraph." not in repo.push()


def test_a_remote_edit_is_taken_and_stays_although_the_local_file_lacks_it() -> None:
    repo = Repository(LOCAL)
    repo.edit_remote("Second paragraph.", "Second paragraph, from the web.\n\nOne more from the web.")
    repo.edit_remote("license: mit", "license: gpl-3.0")
    for _ in range(3):
        text = repo.push()
        assert "Second paragraph, from the web." in text and "One more from the web." in text
        assert "Second paragraph.\n" not in text
        assert repo.metadata()["license"] == "gpl-3.0"


def test_a_remote_deletion_is_a_deletion() -> None:
    repo = Repository(LOCAL)
    repo.edit_remote("Second paragraph.\n\n", "")
    assert "Second paragraph." not in repo.push()
    assert "Second paragraph." not in repo.push()


def test_edits_of_both_are_both_taken() -> None:
    repo = Repository(LOCAL)
    repo.edit_local("First paragraph.", "First paragraph from here.")
    repo.edit_remote("Third paragraph.", "Third paragraph from there.")
    text = repo.push()
    assert "First paragraph from here." in text and "Third paragraph from there." in text
    assert text.count("paragraph") == 3


def test_a_local_edit_after_remote_edits_keeps_them() -> None:
    repo = Repository(LOCAL)
    repo.edit_remote("Second paragraph.", "Second paragraph.\n\nFrom the web.")
    repo.push()
    repo.edit_local("Third paragraph.", "Third paragraph, from here.")
    repo.edit_local("# Leaf doctor", "# Leaf doctor\n\nAn introduction.")
    text = repo.push()
    assert "From the web." in text and "Third paragraph, from here." in text and "An introduction." in text
    assert "Third paragraph.\n" not in text


def test_where_both_changed_the_same_line_both_texts_stand_the_remote_first() -> None:
    repo = Repository(LOCAL)
    repo.edit_local("Second paragraph.", "Here it says one thing.")
    repo.edit_remote("Second paragraph.", "There it says another.")
    text = repo.push()
    assert text.index("There it says another.") < text.index("Here it says one thing.")
    assert "Second paragraph." not in text
    assert repo.push().count("Here it says one thing.") == 1


def test_where_both_set_the_same_key_the_remote_value_wins() -> None:
    repo = Repository(LOCAL)
    repo.edit_local("license: mit", "license: bsd\nmine: 1\ntags: [local]")
    repo.edit_remote("license: mit", "license: gpl-3.0\ntheirs: 2")
    repo.edit_remote("tags:\n", "tags:\n- remote\n")
    repo.push()
    found = repo.metadata()
    assert (found["license"], found["mine"], found["theirs"]) == ("gpl-3.0", 1, 2)
    assert {"local", "remote", "generated_from_trainer"} <= set(found["tags"])  # type: ignore[call-overload]


def test_a_key_that_a_person_set_locally_wins_over_the_generated_one() -> None:
    repo = Repository("# Mine\n")
    repo.push(license="apache-2.0")
    repo.local = "---\nlicense: mit\n---\n# Mine\n"
    repo.push(license="apache-2.0")
    assert repo.metadata()["license"] == "mit"


def test_a_key_that_a_person_deleted_locally_goes() -> None:
    repo = Repository("---\nmine: 1\nother: 2\n---\n# Mine\n")
    repo.edit_local("mine: 1\n", "")
    repo.push()
    assert "mine" not in repo.metadata() and repo.metadata()["other"] == 2


def test_two_readmes_that_nobody_knows_of_are_both_kept() -> None:
    repo = Repository("# Local\n\nLocal words.\n", "---\nlicense: mit\n---\n# Remote\n\nRemote words.\n")
    for _ in range(3):
        text = repo.push()
        assert text.count("Local words.") == text.count("Remote words.") == 1
    assert repo.metadata()["license"] == "mit"


def test_a_run_that_is_resumed_elsewhere_finds_the_edits_of_the_hub() -> None:
    """Another machine: it has the local file, but not the card that was pushed last."""
    repo = Repository(LOCAL)
    repo.edit_remote("Second paragraph.", "Second paragraph, from the web.")
    repo.pushed = None
    text = repo.push()
    assert "Second paragraph, from the web." in text and "Second paragraph.\n" not in text


def test_a_local_card_that_was_written_by_the_engine_is_no_edit() -> None:
    """`create_model_card` writes the merged card to the output folder."""
    repo = Repository(LOCAL)
    repo.local = merge_card(generated(1), LOCAL)
    repo.edit_remote("Second paragraph.", "Second paragraph, from the web.")
    text = repo.push()
    assert "Second paragraph, from the web." in text and "Second paragraph.\n" not in text
    assert text.count("hub_callbacks:begin intro") == 1
    repo.edit_local("First paragraph.", "First paragraph, better.")
    text = repo.push()
    assert "First paragraph, better." in text and "Second paragraph, from the web." in text


def test_a_section_that_was_deleted_on_either_side_stays_deleted() -> None:
    pattern = r"(?s)<!-- hub_callbacks:begin environment.*?end environment -->\n"
    repo = Repository(LOCAL)
    repo.remote = re.sub(pattern, "", repo.remote or "")
    repo.edit_local("First", "The first")
    assert "## Environment" not in repo.push()
    repo = Repository(merge_card(generated(1), LOCAL))
    repo.local = re.sub(pattern, "", repo.local or "")
    assert "## Environment" not in repo.push()
    assert "## Environment" not in repo.push()


def test_a_section_that_was_edited_on_the_hub_is_kept_with_local_edits() -> None:
    repo = Repository(LOCAL)
    repo.edit_remote("## Environment\n", "## Where it was trained\n")
    repo.edit_local("First", "The first")
    text = repo.push()
    assert "## Where it was trained" in text and "The first" in text and "## Environment" not in text
    assert "## Where it was trained" in repo.push()


def test_line_ends_of_the_hub_s_editor_are_no_edit() -> None:
    repo = Repository(LOCAL)
    repo.remote = (repo.remote or "").replace("\n", "\r\n")
    repo.edit_local("First", "The first")
    text = repo.push()
    assert "The first" in text and text.count("paragraph") == 3


def test_the_state_comment_that_a_person_removed_comes_back() -> None:
    repo = Repository(LOCAL)
    repo.remote = re.sub(r"<!-- hub_callbacks:state .*\n", "", repo.remote or "")
    text = repo.push()
    assert text.count("hub_callbacks:state") == 1 and text.count("paragraph") == 3
