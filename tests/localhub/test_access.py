"""Who may see and change what."""

from __future__ import annotations

import json
from inspect import signature

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from hub_callbacks.localhub import LocalHub


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_whoami_names_the_user_and_the_role_of_the_token(hub: LocalHub, api: HfApi, owner: str) -> None:
    assert api.whoami()["name"] == owner
    reader = HfApi(endpoint=hub.endpoint, token=hub.add_token(owner, "read"))
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"


def test_an_unknown_token_is_refused_everywhere(hub: LocalHub, model: str) -> None:
    wrong = HfApi(endpoint=hub.endpoint, token="hf_wrong")
    for call in (wrong.model_info, wrong.list_repo_refs):
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as error:
            call(model)
        assert status_of(error) == 401


def test_a_missing_repository_is_404_for_users_and_401_for_strangers(
    api: HfApi, anonymous: HfApi, owner: str
) -> None:
    for repo_id in (f"{owner}/none", "none"):
        for call in (api.model_info, api.auth_check, api.list_repo_refs, api.delete_repo):
            with pytest.raises(RepositoryNotFoundError) as error:
                call(repo_id)
            assert status_of(error) == 404
        with pytest.raises(RepositoryNotFoundError):
            api.hf_hub_download(repo_id, "config.json")
        with pytest.raises(RepositoryNotFoundError) as error:
            anonymous.model_info(repo_id)
        assert status_of(error) == 401


def test_a_private_repository_looks_missing_to_others(
    api: HfApi, stranger: HfApi, anonymous: HfApi, hub: LocalHub, owner: str
) -> None:
    api.create_repo("secret", private=True)
    assert api.model_info(f"{owner}/secret").private
    for other, status in ((stranger, 404), (anonymous, 401)):
        with pytest.raises(RepositoryNotFoundError) as error:
            other.model_info(f"{owner}/secret")
        assert status_of(error) == status
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download(f"{owner}/secret", ".gitattributes")
        assert list(other.list_models(author=owner)) == []
        with pytest.raises(RepositoryNotFoundError):
            other.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=f"{owner}/secret")
    reader = HfApi(endpoint=hub.endpoint, token=hub.add_token(owner, "read"))
    assert [repo.id for repo in reader.list_models(author=owner)] == [f"{owner}/secret"]


def test_others_read_a_public_repository_but_do_not_write_to_it(
    api: HfApi, stranger: HfApi, anonymous: HfApi, model: str
) -> None:
    assert stranger.model_info(model).id == anonymous.model_info(model).id == model
    calls = [
        lambda who: who.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=model),
        lambda who: who.create_branch(model, branch="new"),
        lambda who: who.create_tag(model, tag="new"),
        lambda who: who.update_repo_settings(model, gated="auto"),
        lambda who: who.super_squash_history(model),
        lambda who: who.delete_repo(model),
    ]
    for call in calls:
        with pytest.raises(HfHubHTTPError) as error:
            call(stranger)
        assert status_of(error) == 403
        with pytest.raises(HfHubHTTPError) as error:
            call(anonymous)
        assert status_of(error) == 401
    assert [commit.title for commit in api.list_repo_commits(model)] == ["initial commit"]


def test_a_read_token_writes_nothing(hub: LocalHub, api: HfApi, model: str, owner: str) -> None:
    reader = HfApi(endpoint=hub.endpoint, token=hub.add_token(owner, "read"))
    for call in (
        lambda: reader.create_repo("other"),
        lambda: reader.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=model),
        lambda: reader.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=model, create_pr=True),
        lambda: reader.create_branch(model, branch="new"),
        lambda: reader.delete_repo(model),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            call()
        assert status_of(error) == 403
    assert reader.model_info(model).id == model


def test_a_foreign_namespace_is_forbidden_but_an_existing_repo_there_is_accepted(
    api: HfApi, stranger: HfApi, model: str, owner: str
) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        stranger.create_repo(f"{owner}/new")
    assert status_of(error) == 403
    assert stranger.create_repo(model, exist_ok=True).repo_id == model


def test_auth_check_passes_for_readers(api: HfApi, stranger: HfApi, model: str) -> None:
    api.auth_check(model)
    stranger.auth_check(model)


def test_auth_check_for_writing_passes_for_writers_only(
    hub: LocalHub, api: HfApi, stranger: HfApi, anonymous: HfApi, model: str, owner: str
) -> None:
    reader = HfApi(endpoint=hub.endpoint, token=hub.add_token(owner, "read"))
    hidden = api.create_repo("hidden", private=True).repo_id

    def check(who: HfApi, repo: str) -> None:
        if "write" in signature(who.auth_check).parameters:
            who.auth_check(repo, write=True)
        else:  # 0.36 asks for reading only
            url = f"{hub.endpoint}/api/models/{repo}/auth-check/write"
            hf_raise_for_status(get_session().get(url, headers=build_hf_headers(token=who.token)))

    check(api, model)
    check(api, hidden)
    for who, repo, status in (
        (reader, model, 403),
        (stranger, model, 403),
        (anonymous, model, 401),
        (stranger, hidden, 404),
        (api, f"{owner}/none", 404),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            check(who, repo)
        assert status_of(error) == status


def test_a_gated_repository_shows_its_facts_but_not_its_files(api: HfApi, stranger: HfApi, model: str) -> None:
    api.update_repo_settings(model, gated="manual")
    assert stranger.model_info(model).gated == "manual"
    with pytest.raises(GatedRepoError):
        stranger.hf_hub_download(model, ".gitattributes")
    assert api.hf_hub_download(model, ".gitattributes")
    api.update_repo_settings(model, gated=False)
    assert stranger.model_info(model).gated is False


def test_only_hashes_of_tokens_are_stored(hub: LocalHub, owner: str, token: str) -> None:
    stored = (hub.root / "accounts.json").read_text()
    assert token not in stored and hub.token not in stored
    assert owner in json.loads(stored)["users"]
