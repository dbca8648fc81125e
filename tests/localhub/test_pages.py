"""The pages for people, over HTTP and in a browser."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub
from hub_callbacks.localhub.routes import OPERATIONS

from .browsing import CHROMIUM, Page, look, password
from .raw_http import raw

CARD = """---
license: mit
language: [en, de]
pipeline_tag: text-classification
library_name: transformers
datasets: glue
metrics: [accuracy, f1]
base_model: google/bert
---
<!-- hub_callbacks:intro -->
# A *small* model

| Step | Loss |
|:--|--:|
| 10 | 0.5 |

![Curves](logs/curves.png) <img src="logs/curves.png" width="40">
<img src="https://example.com/badge.svg" alt="badge">
[config](config.json) [other](/google/bert) [site](https://example.com) [top](#a-small-model) ~~old~~

<details><summary>More</summary>hidden text</details>
<!-- /hub_callbacks:intro -->
"""


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def filled(api: HfApi, model: str) -> str:
    """A model with a card, folders, a large file, and a commit that adds, modifies and deletes."""
    files = {
        "README.md": CARD.encode(),
        "config.json": b'{\n  "a": 1\n}\n',
        "logs/curves.png": png(),
        "old.txt": b"o",
    }
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    api.create_commit(model, operations, commit_message="fill", commit_description="All <b>files</b>.")
    api.create_commit(
        model,
        [
            CommitOperationAdd("weights/model.safetensors", b"w" * 1_500_000),
            CommitOperationAdd("config.json", b'{\n  "a": 2\n}\n'),
            CommitOperationDelete("old.txt"),
        ],
        commit_message="second",
    )
    return model


def push_card(hub: LocalHub, token: str, repo: str, content: bytes) -> None:
    """What the client would refuse to send, too."""
    lines = [
        {"key": "header", "value": {"summary": "card"}},
        {
            "key": "file",
            "value": {"path": "README.md", "content": b64encode(content).decode(), "encoding": "base64"},
        },
    ]
    answer = get_session().post(
        f"{hub.endpoint}/api/models/{repo}/commit/main",
        headers={"Authorization": f"Bearer {token}"},
        **raw("\n".join(map(json.dumps, lines)).encode()),
    )
    assert answer.status_code == 200, answer.text


def page(hub: LocalHub, path: str, token: str | None = None) -> Page:
    return Page(f"{hub.endpoint}{path}", password(token) if token else None)


def test_the_first_page_lists_public_repositories_newest_first(hub: LocalHub, api: HfApi, owner: str) -> None:
    for name in ("first", "second"):
        api.create_repo(name)
    api.create_repo("data", repo_type="dataset")
    answer = page(hub, f"/{owner}")
    assert answer.status == 200
    links = answer.links
    assert links[f"{owner}/first"] == f"/{owner}/first"
    assert links[f"{owner}/data"] == f"/datasets/{owner}/data"
    assert f"{owner}/second" in page(hub, "/").links
    assert page(hub, "/nobody-of-this-name").status == 404


def test_private_repositories_are_shown_to_their_owner_only(
    hub: LocalHub, api: HfApi, owner: str, token: str
) -> None:
    api.create_repo("secret", private=True)
    api.upload_file(path_or_fileobj=b"text", path_in_repo="a.txt", repo_id=f"{owner}/secret")
    sha = api.model_info(f"{owner}/secret").sha
    other = hub.add_user(f"other-{owner}")
    places = ["", "/tree/main", "/blob/main/a.txt", "/commits/main", f"/commit/{sha}", "/discussions/1"]
    for visitor in (None, other):
        for path in ("/", f"/{owner}"):
            assert "secret" not in page(hub, path, visitor).text
        for place in places:
            answer = page(hub, f"/{owner}/secret{place}", visitor)
            assert answer.status in (401, 404) and "no repository of this name" in answer.text
    assert f"{owner}/secret" in page(hub, "/", token).links
    for place in places[:-1]:
        assert page(hub, f"/{owner}/secret{place}", token).status == 200


def test_gated_files_and_differences_are_kept_from_others(hub: LocalHub, api: HfApi, filled: str) -> None:
    api.update_repo_settings(filled, gated="auto")
    assert page(hub, f"/{filled}").status == 200
    for place in ("blob/main/config.json", "commit/main"):
        answer = page(hub, f"/{filled}/{place}")
        assert answer.status == 401 and "restricted" in answer.text


def test_a_browser_can_sign_in_with_a_token(hub: LocalHub, token: str, owner: str) -> None:
    asked = page(hub, "/-/sign-in")
    assert asked.status == 401 and asked.answer.headers["WWW-Authenticate"].startswith("Basic ")
    wrong = page(hub, "/-/sign-in", "hf_wrong")
    assert wrong.status == 401 and wrong.answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert f"/{owner}" in page(hub, "/-/sign-in", token).links.values()


def test_a_signed_in_browser_cannot_be_made_to_write(hub: LocalHub, api: HfApi, token: str) -> None:
    answer = get_session().post(
        f"{hub.endpoint}/api/repos/create", headers={"Authorization": password(token)}, json={"name": "planted"}
    )
    assert answer.status_code == 403
    assert list(api.list_models(author=api.whoami()["name"])) == []


def test_a_card_is_rendered_with_its_metadata_pictures_and_links(hub: LocalHub, filled: str) -> None:
    answer = page(hub, f"/{filled}")
    for said in ("license mit", "language en de", "task text-classification", "library transformers"):
        assert said in answer.text
    for said in ("datasets glue", "metrics accuracy f1", "base model google/bert", "hidden text"):
        assert said in answer.text
    assert "pipeline_tag" not in answer.text and "hub_callbacks:" not in answer.answer.text
    picture = f"/{filled}/resolve/main/logs/curves.png"
    assert answer.all("img", "src") == [picture, picture]
    assert get_session().get(hub.endpoint + picture).content == png()
    assert "badge" in answer.all("img", "alt")
    assert answer.links["config"] == f"/{filled}/blob/main/config.json"
    assert answer.links["other"] == "/google/bert"
    assert answer.links["site"] == "https://example.com"
    assert answer.links["top"] == "#a-small-model" and "a-small-model" in answer.all("h1", "id")
    assert answer.all("th", "align") == ["left", "right"] and "style" not in dict(answer.elements)
    assert {"s", "em", "details"} <= {name for name, _ in answer.elements}


HOSTILE = {
    "script": "<script>document.title='run'</script>",
    "script in svg": "<svg><script>document.title='run'</script></svg>",
    "event": "<img src=x onerror=\"document.title='run'\">",
    "event in details": "<details open ontoggle=\"document.title='run'\">x</details>",
    "broken tag": "<img src=x onerror=document.title='run'//",
    "link": "[x](javascript:document.title='run') <a href=\"java&#x0A;script:document.title='run'\">x</a>",
    "broken address": "[x](http://[evil) ![x](http://[evil) <a href='http://[evil'>x</a> [x](%00) ![x](%2F%2Fa)",
    "data": "[x](data:text/html;base64,PHNjcmlwdD4=) ![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "reference": "[x][r]\n\n[r]: JaVaScRiPt:document.title='run'",
    "frame": "<iframe src=\"javascript:parent.document.title='run'\"></iframe><object data=x></object>",
    "form": '<form action="https://evil.example"><input name=q><button formaction="javascript:1">x</button>',
    "style": '<style>body{display:none}</style><p style="position:fixed;inset:0">x</p>',
    "meta": '<meta http-equiv="refresh" content="0;url=https://evil.example"><base href="https://evil.example/">',
    "comment": "<!-- --!><script>document.title='run'</script> -->",
    "markdown title": "![x](y.png 'a\"onerror=\"document.title=1')",
    "code": "```\"><script>document.title='run'</script>\n<script>1</script>\n```",
    "unclosed": "</article></main><script>document.title='run'</script><div>",
    "outside": "![x](../../../-/sign-in) ![x](//evil.example/a.png) ![x](/api/whoami-v2) ![x](\\\\evil\\a)",
    "metadata": "---\nlicense: \"<script>document.title='run'</script>\"\ntags: {a: b}\nlanguage: [[1]]\n---\nx",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_card_is_defused(hub: LocalHub, token: str, model: str, name: str) -> None:
    push_card(hub, token, model, HOSTILE[name].encode())
    answer = page(hub, f"/{model}")
    assert answer.status == 200 and answer.open == []
    names = {name for name, _ in answer.elements}
    assert not names & {"script", "iframe", "object", "embed", "form", "input", "button", "style", "base", "svg"}
    assert [attributes for name, attributes in answer.elements if "http-equiv" in attributes] == []
    for element, attributes in answer.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (element, attributes)
        href = attributes.get("href", "").lower()
        assert href.startswith(("/", "#", "http://", "https://")) or not href, href
        assert not href.startswith("//")
    assert all(source.startswith(f"/{model}/resolve/") for source in answer.all("img", "src"))


def test_no_page_may_run_script_or_load_from_elsewhere(hub: LocalHub, filled: str) -> None:
    places = ["", "/tree/main", "/blob/main/config.json", "/commits/main", "/commit/main", "/none/none"]
    for place in places[:-1]:
        policy = page(hub, f"/{filled}{place}").answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self';")


def test_pushed_pages_of_html_are_served_as_text_in_a_sandbox(hub: LocalHub, api: HfApi, model: str) -> None:
    for name in ("page.html", "page.xhtml", "picture.svg"):
        api.upload_file(path_or_fileobj=b"<script>1</script>", path_in_repo=name, repo_id=model)
        answer = get_session().get(f"{hub.endpoint}/{model}/resolve/main/{name}")
        assert "html" not in answer.headers["Content-Type"]
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_files_are_listed_with_sizes_and_their_last_commit(hub: LocalHub, filled: str) -> None:
    top = page(hub, f"/{filled}/tree/main")
    assert "weights/" in top.links and "old.txt" not in top.links
    assert top.links["second"].startswith(f"/{filled}/commit/")
    folder = page(hub, top.links["weights/"] and f"/{filled}/tree/main/weights")
    assert folder.links["model.safetensors"] == f"/{filled}/blob/main/weights/model.safetensors"
    assert folder.links["1.5 MB"] == f"/{filled}/resolve/main/weights/model.safetensors"
    assert folder.links[".."] == f"/{filled}/tree/main"


def test_files_are_shown_as_what_they_are(hub: LocalHub, filled: str) -> None:
    text = page(hub, f"/{filled}/blob/main/config.json")
    assert '"a": 2' in text.text and "3 lines" in text.text
    assert text.links["Download"] == f"/{filled}/resolve/main/config.json"
    picture = page(hub, f"/{filled}/blob/main/logs/curves.png")
    assert picture.all("img", "src") == [f"/{filled}/resolve/main/logs/curves.png"]
    large = page(hub, f"/{filled}/blob/main/weights/model.safetensors")
    assert "outside of git" in large.text and "SHA-256" in large.text
    assert page(hub, f"/{filled}/blob/main/none.txt").status == 404
    assert page(hub, f"/{filled}/tree/none").status == 404


def test_commits_say_what_they_changed(hub: LocalHub, api: HfApi, filled: str) -> None:
    listed = page(hub, f"/{filled}/commits/main")
    assert "second 1 added 1 modified 1 deleted" in listed.text
    assert listed.text.index("second") < listed.text.index("fill") < listed.text.index("initial commit")
    changed = page(hub, listed.links["second"])
    assert "added weights/model.safetensors 1.5 MB" in changed.text
    assert "modified config.json 13 bytes" in changed.text and "deleted old.txt 1 byte" in changed.text
    assert '- "a": 1 + "a": 2' in changed.text
    first = page(hub, listed.links["fill"])
    assert "All <b>files</b>." in first.text and '+ "a": 1' in first.text
    assert page(hub, listed.links["initial commit"]).status == 200


def test_branches_tags_and_pull_requests_can_be_chosen(hub: LocalHub, api: HfApi, filled: str) -> None:
    sha = api.list_repo_commits(filled)[1].commit_id
    api.create_branch(filled, branch="a/branch", revision=sha)
    api.create_tag(filled, tag="v1", revision=sha)
    api.upload_file(
        path_or_fileobj=b"---\nlicense: other\n---\n# Proposed",
        path_in_repo="README.md",
        repo_id=filled,
        create_pr=True,
    )
    for place, kind in (("", "card"), ("/tree/main", "tree"), ("/commits/main", "commits")):
        links = page(hub, f"/{filled}{place}").links
        assert {"main", "a/branch", "v1", "refs/pr/1"} <= set(links), kind
        assert page(hub, links["a/branch"]).status == 200
    assert "old.txt" in page(hub, page(hub, f"/{filled}/tree/main").links["a/branch"]).links
    assert "Proposed" in page(hub, page(hub, f"/{filled}").links["refs/pr/1"]).text
    assert page(hub, f"/{filled}/tree/{sha}").status == 200


def test_a_reload_shows_the_newest_state(hub: LocalHub, api: HfApi, filled: str) -> None:
    before = page(hub, f"/{filled}")
    api.upload_file(
        path_or_fileobj=b"# Newer", path_in_repo="README.md", repo_id=filled, commit_message="Newer card"
    )
    after = page(hub, f"/{filled}")
    assert "Newer card" not in before.text and "Newer card" in after.text and "small model" not in after.text
    assert after.answer.headers["Cache-Control"] == "no-cache"


def test_the_addresses_that_the_client_gives_open(hub: LocalHub, api: HfApi, filled: str) -> None:
    info = api.create_commit(filled, [CommitOperationAdd("a b.txt", b"x")], commit_message="third", create_pr=True)
    data = api.create_repo("data", repo_type="dataset")
    file = api.upload_file(path_or_fileobj=b"x", path_in_repo="f.txt", repo_id=data.repo_id, repo_type="dataset")
    folder = f"{hub.endpoint}/{filled}/tree/main/"
    for url in (
        info.commit_url,
        info.pr_url,
        str(data),
        str(file),
        file.commit_url,
        f"{hub.endpoint}/{filled}",
        folder,
    ):
        assert Page(url).status == 200, url
    assert "third" in Page(info.pr_url).text


def test_a_moved_repository_is_found_at_its_old_address(
    hub: LocalHub, api: HfApi, filled: str, owner: str
) -> None:
    api.move_repo(filled, f"{owner}/renamed")
    answer = page(hub, f"/{filled}/blob/main/config.json")
    assert str(answer.answer.url) == f"{hub.endpoint}/{owner}/renamed/blob/main/config.json"


def test_every_link_leads_somewhere(hub: LocalHub, api: HfApi, filled: str, owner: str) -> None:
    names = [
        "a b.txt",
        "50%.txt",
        "what?.txt",
        "ünï/cödé.txt",
        "a#b&c=d+e.txt",
        "<b>x</b>.txt",
        "%2F.txt",
        "d/ .md",
    ]
    api.create_commit(
        filled, [CommitOperationAdd(name, name.encode()) for name in names], commit_message="<i>names</i>"
    )
    api.create_branch(filled, branch="a/b%c")
    api.create_discussion(filled, "A <question>")
    pending, seen = [f"/{owner}"], {"/google/bert"}  # the card names what is not here
    while pending:
        path = pending.pop().split("#")[0]
        if path in seen or not path.startswith("/"):
            continue
        seen.add(path)
        found = page(hub, path)
        assert found.status == (401 if path == "/-/sign-in" else 200), path
        assert found.open == [] and not {"i", "b"} & {name for name, _ in found.elements}, path
        pending += [link for link in found.all("a", "href") + found.all("img", "src") if path != "/"]
    for name in names:
        assert any(path.startswith(f"/{filled}/blob/main/") and name in page(hub, path).text for path in seen), (
            name
        )


def test_long_lists_come_in_pages(hub: LocalHub, api: HfApi, model: str) -> None:
    for number in range(51):
        api.upload_file(
            path_or_fileobj=str(number).encode(),
            path_in_repo="n.txt",
            repo_id=model,
            commit_message=f"c-{number}-",
        )
    first = page(hub, f"/{model}/commits/main")
    assert "c-50-" in first.links and "c-0-" not in first.links
    assert "c-0-" in page(hub, f"/{model}/commits/main{first.links['Show more']}").links


def test_a_very_long_card_and_broken_text_are_no_trouble(hub: LocalHub, token: str, model: str) -> None:
    for content in (b"x " * 400_000, b"\xff\xfe# \x00", b"---\n: [\n---\n# Text", b"[" * 20_000, b"> " * 5_000):
        push_card(hub, token, model, content)
        assert page(hub, f"/{model}").status == 200
        assert page(hub, f"/{model}/blob/main/README.md").status == 200


def test_pages_leave_the_addresses_of_the_api_alone(hub: LocalHub) -> None:
    for path in ("/api/nothing", "/api/models/none/none", "/lfs/nothing/here", "/xet/nothing"):
        answer = get_session().get(f"{hub.endpoint}{path}")
        assert answer.status_code in (401, 404) and "error" in answer.json()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Path]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    yield tmp_path / "profile"


def test_a_browser_shows_pictures_and_styles_but_runs_no_script(
    hub: LocalHub, api: HfApi, filled: str, browser: Path, tmp_path: Path
) -> None:
    attacks = "\n\n".join(HOSTILE[name] for name in HOSTILE if name != "metadata")
    control = tmp_path / "control.html"
    control.write_text(f"<title>-</title>{HOSTILE['script']}")
    assert "<title>run</title>" in look(control.as_uri(), browser)
    api.upload_file(path_or_fileobj=(CARD + attacks).encode(), path_in_repo="README.md", repo_id=filled)
    hub.clear_requests()
    document = look(f"{hub.endpoint}/{filled}", browser)
    assert "A <em>small</em> model" in document and "<title>run</title>" not in document
    seen = {(request.path, request.status) for request in hub.requests}
    assert ("/-/style.css", 200) in seen and (f"/{filled}/resolve/main/logs/curves.png", 200) in seen


def test_the_documentation_names_every_operation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "embedded-hub.md").read_text()
    assert [name for name in sorted(OPERATIONS) if f"`{name}`" not in text] == []


def test_half_a_character_in_a_title_breaks_no_list_and_no_page(hub: LocalHub, model: str, token: str) -> None:
    answer = get_session().post(
        f"{hub.endpoint}/api/models/{model}/discussions",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        **raw(b'{"title": "half \\ud800 a character", "description": "\\udfff"}'),
    )
    assert answer.status_code == 200
    listed = get_session().get(f"{hub.endpoint}/api/models/{model}/discussions")
    assert [row["title"] for row in listed.json()["discussions"]] == ["half ? a character"]
    assert get_session().get(f"{hub.endpoint}/api/models/{model}/discussions/1").status_code == 200
    assert "half ? a character" in page(hub, f"/{model}/discussions/1").text
