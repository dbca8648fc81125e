"""Cards that nobody should write: what is shown, listed and said about them."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import get_session
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_callbacks.localhub import LocalHub, cards
from hub_callbacks.localhub.metadata import MAX_LENGTH, Unreadable, as_json, read_yaml

from .browsing import Page, password
from .raw_http import raw


def grown(first: str, line: str) -> str:
    """Names that stand for ten times the one before: a few hundred bytes that are gigabytes, written out."""
    names = "abcdefghi"
    lines = [line.format(name=name, ten=",".join([f"*{last}"] * 10)) for last, name in pairwise(names)]
    return "\n".join([first, *lines])


READABLE = {
    "no number": "value: [.nan, .inf, -.inf]",
    "a date": "date: 2024-01-05\nat: 2024-01-05T10:00:00Z",
    "an integer without end": "seed: " + "9" * 5000,
    "an integer that nobody can write out": "seed: 0x" + "f" * 5000,
    "a number beyond all": "value: 1.0e+400",
    "tags of all sorts": "tags: [a, 1, [b], {c: d}, null, 2024-01-05, .nan]\nlibrary_name: [x]\n"
    "pipeline_tag: {y: z}",
    "keys of all sorts": "1: a\ntrue: b\nnull: c\n2024-01-05: d",
    "aliases": "base: &id001 {type: glue}\nsame: *id001\nmore:\n  <<: *id001\n  name: cola",
}
UNREADABLE = {
    "a day that does not exist": "date: 2024-02-30",
    "half a character": 'title: "\\ud800"',
    "no YAML": "a: [",
    "a list": "- a",
    "a tag of Python's": "a: !!python/object/apply:os.getcwd []",
    "words that are not what their tags say": "a: !!bool maybe",
    "no integer": "a: !!int ''",
    "a key that is a list": "? [a]\n: b",
    "aliases that grow": grown("a: &a [x,x,x,x,x,x,x,x,x,x]", "{name}: &{name} [{ten}]"),
    "merges that grow": grown("a: &a {x: 1}", "{name}: &{name} {{<<: [{ten}]}}"),
    "itself": "a: &a [*a]",
    "depth": "a: " + "[" * 50_000,
    "depth in lines": "\n".join(" " * depth + "a:" for depth in range(500)),
    "length": "a: " + "x" * MAX_LENGTH,
    "many values": "a: [" + "1," * 200_000 + "1]",
}
HOSTILE = READABLE | UNREADABLE


def put(hub: LocalHub, api: HfApi, repo: str, content: str, kind: str = "model") -> None:
    """Commits a card without the client's look at it."""
    file = {"path": "README.md", "encoding": "base64", "content": base64.b64encode(content.encode()).decode()}
    lines = [{"key": "header", "value": {"summary": "card"}}, {"key": "file", "value": file}]
    answer = get_session().post(
        f"{hub.endpoint}/api/{kind}s/{repo}/commit/main",
        headers={"authorization": f"Bearer {api.token}", "content-type": "application/x-ndjson"},
        **raw("\n".join(map(json.dumps, lines)).encode()),
    )
    assert answer.status_code == 200, answer.text


def strict(text: str) -> Any:
    """The value of text that is JSON by the rules, not by Python's."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", HOSTILE)
def test_everything_goes_on_beside_a_card(
    hub: LocalHub, api: HfApi, owner: str, tmp_path: Path, name: str
) -> None:
    kind = ("model", "dataset", "space")[len(name) % 3]
    repo = api.create_repo("hostile", repo_type=kind, space_sdk="static" if kind == "space" else None).repo_id
    put(hub, api, repo, f"---\n{HOSTILE[name]}\n---\n# What was said\n", kind)
    api.create_repo("harmless", repo_type=kind, space_sdk="static" if kind == "space" else None)

    assert api.repo_info(repo, repo_type=kind).id == repo
    folder = snapshot_download(
        repo, repo_type=kind, local_dir=tmp_path / "copy", token=api.token, endpoint=hub.endpoint
    )
    assert "What was said" in (Path(folder) / "README.md").read_text()
    listed = getattr(api, f"list_{kind}s")
    assert len(list(listed(author=owner))) == len(list(listed(author=owner, full=True))) == 2
    assert list(listed(author=owner, filter="no-such-tag")) == []
    for path in (f"{kind}s?author={owner}&full=1", f"{kind}s/{repo}", f"{kind}s/{repo}/revision/main?blobs=1"):
        answer = get_session().get(f"{hub.endpoint}/api/{path}")
        assert strict(answer.content.decode()) and len(answer.content) < 20_000
    for path in ("", owner, repo if kind == "model" else f"{kind}s/{repo}"):
        page = Page(f"{hub.endpoint}/{path}", password(str(api.token)))
        assert page.status == 200
    assert ("What was said" in page.text) == (name != "length")
    assert ("metadata of this card cannot be read" in page.text) == (name in UNREADABLE)
    assert ("unreadable card" in Page(f"{hub.endpoint}/{owner}").text) == (name in UNREADABLE)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_read_is_a_bad_card(hub: LocalHub, name: str) -> None:
    wanted = {"content": f"---\n{HOSTILE[name]}\n---\n", "repoType": "dataset"}
    answer = get_session().post(f"{hub.endpoint}/api/validate-yaml", json=wanted)
    errors = [error["message"] for error in strict(answer.content.decode())["errors"]]
    assert (answer.status_code == 400) == bool(errors)
    assert any("not valid" in error or "an object" in error for error in errors) == (name in UNREADABLE)
    assert len(answer.content) < 5000


def test_a_long_list_of_mistakes_is_cut(hub: LocalHub) -> None:
    card = f"license: [{','.join(['none'] * 9000)}]\nmodel-index: [{','.join(['{}'] * 9000)}]"
    wanted = {"content": f"---\n{card}\n---\n", "repoType": "model"}
    answer = get_session().post(f"{hub.endpoint}/api/validate-yaml", json=wanted)
    assert answer.status_code == 400 and len(answer.content) < 20_000


def test_what_a_card_says_is_said_in_json(hub: LocalHub, api: HfApi, model: str) -> None:
    said = {}
    for name in READABLE:
        put(hub, api, model, f"---\n{READABLE[name]}\n---\n")
        answer = get_session().get(f"{hub.endpoint}/api/models/{model}")
        said[name] = strict(answer.content.decode())
    assert said["no number"]["cardData"] == {"value": [None, None, None]}
    assert said["a date"]["cardData"]["date"] == "2024-01-05"
    assert said["a number beyond all"]["cardData"] == {"value": None}
    assert set(said["keys of all sorts"]["cardData"]) == {"1", "true", "null", "2024-01-05"}
    assert said["aliases"]["cardData"]["same"] == {"type": "glue"}
    assert said["aliases"]["cardData"]["more"] == {"type": "glue", "name": "cola"}
    assert said["tags of all sorts"]["tags"] == ["a", "1", "2024-01-05", "x"]


def test_equal_content_is_read_once(
    hub: LocalHub, api: HfApi, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []

    def reading(text: str) -> tuple[Any, int]:
        texts.append(text)
        return read_yaml(text)

    monkeypatch.setattr(cards, "read_yaml", reading)
    for name in ("a", "b"):
        put(hub, api, api.create_repo(name).repo_id, f"---\ntags: [{owner}]\n---\n")
    for _ in range(2):
        assert len(list(api.list_models(author=owner, filter=owner))) == 2
    assert texts.count(f"tags: [{owner}]\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "<div>" * 3000,
        "".join(f"<b a{number}>" for number in range(100)) + "<p>text</p>" * 2000,
        "![" * 3000,
        "|a" * 500 + "\n" + "|-" * 500 + "\n" + "|b\n" * 500,
        "many words " * 10_000,
    ],
    ids=["elements", "elements in elements", "links", "table", "length"],
)
def test_more_marks_than_a_person_writes_are_shown_as_text(
    hub: LocalHub, api: HfApi, model: str, text: str
) -> None:
    put(hub, api, model, f"---\nlicense: mit\n---\n{text}")
    page = Page(f"{hub.endpoint}/{model}")
    assert page.all("article", "class") == ["card"] and "license mit" in page.text
    assert " ".join(text.split()) in page.text
    assert len(page.answer.content) < 6 * len(text)


@given(
    st.lists(
        st.sampled_from(
            ["a", ": ", "- ", "\n", "\n  ", "[", "]", "{", "}", ", ", "&a ", "*a", "<<", "!!int ", "? ", "|\n"]
        )
        | st.sampled_from(
            ["1:1", "0x", "2024-13-01", ".nan", "~", '"', "'", "\\ud800", "!", "#", "%", "=", "---\n", "\t"]
        )
        | st.text(max_size=3),
        max_size=12,
    ).map("".join)
)
@settings(deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value, size = read_yaml(text)
    except Unreadable as error:
        assert str(error).encode()
        return
    assert size >= 0
    assert strict(json.dumps(as_json(value), ensure_ascii=False, allow_nan=False).encode().decode()) == as_json(
        value
    )
