"""The life of repositories."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hub_callbacks.localhub import LocalHub, gitstore

from .browsing import Page


def test_a_new_repository_has_one_commit_by_its_owner_with_gitattributes(api: HfApi, owner: str) -> None:
    url = api.create_repo("new")
    assert url.repo_id == f"{owner}/new"
    (commit,) = api.list_repo_commits(f"{owner}/new")
    assert (commit.title, commit.authors) == ("initial commit", [owner])
    assert api.list_repo_files(f"{owner}/new") == [".gitattributes"]


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_all_kinds_of_repositories_work_alike(api: HfApi, kind: str, owner: str) -> None:
    sdk = "static" if kind == "space" else None
    url = api.create_repo("thing", repo_type=kind, space_sdk=sdk)
    assert (url.repo_type, url.repo_id) == (kind, f"{owner}/thing")
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="a/b.txt", repo_id=f"{owner}/thing", repo_type=kind)
    path = api.hf_hub_download(f"{owner}/thing", "a/b.txt", repo_type=kind)
    with open(path, "rb") as file:
        assert file.read() == b"hello"
    assert api.repo_info(f"{owner}/thing", repo_type=kind).id == f"{owner}/thing"
    api.delete_repo(f"{owner}/thing", repo_type=kind)
    assert not api.repo_exists(f"{owner}/thing", repo_type=kind)


def test_creating_what_exists_is_refused_unless_allowed(api: HfApi, model: str, owner: str) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo(model)
    assert error.value.response.status_code == 409
    assert error.value.response.json()["url"].endswith(f"/{owner}/model")
    assert api.create_repo(model, exist_ok=True).repo_id == model


@pytest.mark.parametrize("name", ["a--b", ".hidden", "a..b", "x" * 97])
def test_names_that_are_not_possible_are_refused(hub: LocalHub, api: HfApi, name: str, token: str) -> None:
    from huggingface_hub.utils import get_session

    answer = get_session().post(
        f"{hub.endpoint}/api/repos/create",
        json={"name": name},
        headers={"authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 400


def test_ids_are_found_without_regard_to_case(api: HfApi, owner: str) -> None:
    api.create_repo("CamelCase")
    assert api.model_info(f"{owner.upper()}/camelcase").id == f"{owner}/CamelCase"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("camelCASE")


def test_a_deleted_repository_is_gone_and_its_name_free(api: HfApi, model: str) -> None:
    api.delete_repo(model)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(model)
    api.delete_repo(model, missing_ok=True)
    api.create_repo(model)


def test_settings_are_kept_and_returned(api: HfApi, model: str) -> None:
    api.update_repo_settings(model, private=True, gated="auto")
    info = api.model_info(model)
    assert (info.private, info.gated) == (True, "auto")
    api.update_repo_settings(model, private=False)
    assert api.model_info(model).private is False


def test_a_moved_repository_redirects_from_its_old_id(api: HfApi, model: str, owner: str) -> None:
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="a.txt", repo_id=model)
    api.move_repo(model, f"{owner}/renamed")
    assert api.model_info(model).id == f"{owner}/renamed"
    assert api.hf_hub_download(model, "a.txt")
    api.upload_file(path_or_fileobj=b"more", path_in_repo="b.txt", repo_id=model)
    assert api.file_exists(f"{owner}/renamed", "b.txt")
    api.create_repo("other")
    with pytest.raises(HfHubHTTPError, match=f"A model repository called {owner}/renamed already exists"):
        api.move_repo(f"{owner}/other", f"{owner}/renamed")


def test_info_has_the_card_the_files_and_only_the_wanted_fields(api: HfApi, model: str) -> None:
    card = b"---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: fill-mask\ntags:\n- trainer\n---\n# Hi\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=model)
    api.upload_file(path_or_fileobj=b"1" * 100, path_in_repo="w.bin", repo_id=model)
    info = api.model_info(model, files_metadata=True)
    assert info.card_data is not None and info.card_data.license == "mit"
    assert (info.library_name, info.pipeline_tag) == ("transformers", "fill-mask")
    assert {"trainer", "license:mit"} <= set(info.tags or [])
    files = {file.rfilename: file for file in info.siblings or []}
    assert files["README.md"].size == len(card) and files["README.md"].lfs is None
    large = files["w.bin"].lfs
    assert large is not None and large.size == 100 and files["w.bin"].blob_id
    assert large.pointer_size == 128 or large.pointer_size > 100
    short = api.model_info(model, expand=["private"])
    assert short.private is False and short.siblings is None


def test_the_list_of_an_author_is_sorted_and_limited(api: HfApi, stranger: HfApi, owner: str) -> None:
    for name in ("a", "b", "c"):
        api.create_repo(name)
    stranger.create_repo("d")
    assert {repo.id for repo in api.list_models(author=owner)} == {f"{owner}/a", f"{owner}/b", f"{owner}/c"}
    assert len(list(api.list_models(author=owner, sort="created_at", limit=2))) == 2
    both = {repo.id.split("/")[0] for repo in api.list_models()}
    assert {owner, f"not-{owner}"} <= both


def test_the_full_name_of_a_short_one_is_the_users(api: HfApi, owner: str) -> None:
    assert api.get_full_repo_name("m") == f"{owner}/m"


def test_the_folder_on_disk_is_an_ordinary_git_repository(
    hub: LocalHub, api: HfApi, model: str, owner: str
) -> None:
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="a.txt", repo_id=model)
    folder = hub.root / "repos" / "models" / f"{model}.git"
    log = subprocess.run(
        ["git", "-C", folder, "log", "--format=%an %s"], capture_output=True, text=True, check=True
    )
    assert log.stdout.splitlines() == [
        f"{owner} Upload a.txt with huggingface_hub",
        f"{owner} initial commit",
    ]
    subprocess.run(["git", "clone", "-q", folder, hub.root / "clone"], check=True)
    assert (hub.root / "clone" / "a.txt").read_text() == "hello"


def test_metadata_of_a_card_is_validated(hub: LocalHub, api: HfApi, model: str) -> None:
    from huggingface_hub.utils import get_session

    with pytest.raises(ValueError, match='"license" must be one of'):
        api.upload_file(path_or_fileobj=b"---\nlicense: none\n---\n", path_in_repo="README.md", repo_id=model)
    with pytest.raises(ValueError, match="not valid"):
        api.upload_file(path_or_fileobj=b"---\na: [\n---\n", path_in_repo="README.md", repo_id=model)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_file(path_or_fileobj=b"# No metadata", path_in_repo="README.md", repo_id=model)
    answer = get_session().post(
        f"{hub.endpoint}/api/validate-yaml",
        json={"content": "---\nlicense: none\n---\n", "repoType": "model"},
        headers={"accept": "text/plain"},
    )
    assert answer.text.startswith('- Error: "license" must be one of')


def test_every_name_that_a_repository_has_had_leads_to_it(api: HfApi, model: str, owner: str) -> None:
    for name in ("second", "third"):
        api.move_repo(model if name == "second" else f"{owner}/second", f"{owner}/{name}")
    assert [api.model_info(old).id for old in (model, f"{owner}/second")] == [f"{owner}/third"] * 2


def test_a_list_looks_only_at_what_it_shows(api: HfApi, owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        api.create_repo(name)
    opened: list[Path] = []

    def opening(path: Path) -> pygit2.Repository:
        opened.append(path)
        return open_repo(path)

    open_repo = gitstore.open_repo
    monkeypatch.setattr(gitstore, "open_repo", opening)
    assert [found.id for found in api.list_models(author=owner, limit=1)] == [f"{owner}/a"]
    assert len(opened) == 1


@pytest.mark.parametrize("when", ["before it is opened", "when it is open"])
@pytest.mark.parametrize("what", ["info", "files", "download", "list", "page"])
def test_a_read_during_a_rename_finds_the_new_name(
    hub: LocalHub, api: HfApi, model: str, owner: str, monkeypatch: pytest.MonkeyPatch, what: str, when: str
) -> None:
    api.upload_file(path_or_fileobj=b"hello", path_in_repo="a.txt", repo_id=model)
    moves = [lambda: api.move_repo(model, f"{owner}/renamed")]

    def opening(path: Path) -> pygit2.Repository:
        if when == "before it is opened" and moves:
            moves.pop()()
        git = open_repo(path)
        if moves:
            moves.pop()()
        return git

    open_repo = gitstore.open_repo
    monkeypatch.setattr(gitstore, "open_repo", opening)
    read: dict[str, Callable[[], object]] = {
        "info": lambda: api.model_info(model).id,
        "files": lambda: [file.path for file in api.list_repo_tree(model)],
        "download": lambda: Path(api.hf_hub_download(model, "a.txt")).read_text(),
        "list": lambda: [found.id for found in api.list_models(author=owner)],
        "page": lambda: Page(f"{hub.endpoint}/{model}").status,
    }
    expected = {
        "info": f"{owner}/renamed",
        "files": [".gitattributes", "a.txt"],
        "download": "hello",
        "list": [f"{owner}/renamed"],
        "page": 200,
    }
    assert read[what]() == expected[what]


def test_a_read_during_a_deletion_finds_nothing(
    api: HfApi, model: str, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening(path: Path) -> pygit2.Repository:
        monkeypatch.undo()
        api.delete_repo(model)
        return open_repo(path)

    open_repo = gitstore.open_repo
    monkeypatch.setattr(gitstore, "open_repo", opening)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(model)
