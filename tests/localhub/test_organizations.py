"""Organisations: what their members may do, and how they are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from hub_callbacks.localhub import LocalHub

from .browsing import Page, password


@pytest.fixture
def team(hub: LocalHub, api: HfApi, owner: str) -> str:
    """An organisation that the test's user writes for."""
    name = f"Team-{owner}"
    hub.add_user(f"reads-{owner}")
    hub.add_user(f"writes-{owner}")
    hub.add_organization(name, {owner: "admin", f"reads-{owner}": "read", f"writes-{owner}": "write"})
    return name


def client(hub: LocalHub, user: str) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.add_token(user))


def test_whoami_lists_the_organisations_with_the_role_in_each(
    hub: LocalHub, api: HfApi, stranger: HfApi, owner: str, team: str
) -> None:
    assert [(org["name"], org["roleInOrg"]) for org in api.whoami()["orgs"]] == [(team, "admin")]
    assert [org["roleInOrg"] for org in client(hub, f"reads-{owner}").whoami()["orgs"]] == ["read"]
    assert stranger.whoami()["orgs"] == []


def test_members_who_write_create_fill_and_delete_repositories(
    hub: LocalHub, owner: str, team: str, transport: str
) -> None:
    for user in (owner, f"writes-{owner}"):
        member = client(hub, user)
        url = member.create_repo(f"{team.lower()}/{user}", private=True)
        assert url.repo_id == f"{team}/{user}"
        data = os.urandom(5000)
        member.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=url.repo_id)
        assert Path(member.hf_hub_download(url.repo_id, "w.bin")).read_bytes() == data
        assert member.list_repo_commits(url.repo_id)[0].authors == [user]
        member.update_repo_settings(url.repo_id, gated="auto")
        member.delete_repo(url.repo_id)
        assert not member.repo_exists(url.repo_id)


def test_members_who_read_see_private_repositories_and_change_nothing(
    hub: LocalHub, api: HfApi, owner: str, team: str
) -> None:
    repo = api.create_repo(f"{team}/secret", private=True).repo_id
    api.update_repo_settings(repo, gated="manual")
    reader = client(hub, f"reads-{owner}")
    assert reader.model_info(repo).private
    assert reader.hf_hub_download(repo, ".gitattributes")
    assert [found.id for found in reader.list_models(author=team)] == [repo]
    for call in (
        lambda: reader.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo),
        lambda: reader.create_branch(repo, branch="new"),
        lambda: reader.update_repo_settings(repo, private=False),
        lambda: reader.create_repo(f"{team}/other"),
        lambda: reader.move_repo(repo, f"reads-{owner}/mine"),
        lambda: reader.delete_repo(repo),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            call()
        assert error.value.response.status_code == 403


def test_others_see_what_is_public_and_create_nothing(api: HfApi, stranger: HfApi, team: str) -> None:
    hidden = api.create_repo(f"{team}/hidden", private=True).repo_id
    shown = api.create_repo(f"{team}/shown").repo_id
    assert [found.id for found in stranger.list_models(author=team)] == [shown]
    with pytest.raises(RepositoryNotFoundError):
        stranger.model_info(hidden)
    with pytest.raises(HfHubHTTPError, match="403"):
        stranger.create_repo(f"{team}/other")
    api.update_repo_settings(shown, gated="auto")
    with pytest.raises(GatedRepoError):
        stranger.hf_hub_download(shown, ".gitattributes")


def test_repositories_move_between_a_member_and_the_organisation(
    hub: LocalHub, api: HfApi, model: str, owner: str, team: str
) -> None:
    api.move_repo(model, f"{team.lower()}/model")
    assert api.model_info(model).id == f"{team}/model"
    with pytest.raises(HfHubHTTPError, match="403"):
        client(hub, f"writes-{owner}").move_repo(f"{team}/model", model)
    api.move_repo(f"{team}/model", model)
    assert api.model_info(f"{team}/model").id == model


def test_overviews_and_the_list_of_members(hub: LocalHub, api: HfApi, owner: str, team: str) -> None:
    api.create_repo(f"{team}/m")
    api.create_repo(f"{team}/d", repo_type="dataset", private=True)
    organization = api.get_organization_overview(team.lower())
    assert (organization.name, organization.num_users) == (team, 3)
    assert (organization.num_models, organization.num_datasets) == (1, 1)
    members = {member.username for member in api.list_organization_members(team)}
    assert members == {owner, f"reads-{owner}", f"writes-{owner}"}
    user = api.get_user_overview(owner)
    assert (user.username, [org.name for org in user.orgs], user.num_models) == (owner, [team], 0)
    for call in (api.get_organization_overview, api.get_user_overview):
        with pytest.raises(HfHubHTTPError, match="does not exist"):
            call("nobody-of-this-name")


def test_an_organisation_has_a_page(hub: LocalHub, api: HfApi, token: str, team: str) -> None:
    api.create_repo(f"{team}/secret", private=True)
    assert f"{team}/secret" in Page(f"{hub.endpoint}/{team}", password(token)).links
    assert f"{team}/secret" not in Page(f"{hub.endpoint}/{team}").links


def test_names_roles_and_members_of_an_organisation_are_checked(hub: LocalHub, owner: str, team: str) -> None:
    before = (hub.root / "accounts.json").read_text()
    for name, members, trouble in (
        (team.upper(), {}, "already exists"),
        (owner, {}, "already exists"),
        ("api", {}, "cannot be the name"),
        ("a/b", {}, "cannot be the name"),
        ("new", {"nobody-of-this-name": "read"}, "no user called"),
        ("new", {team: "read"}, "no user called"),
        ("new", {owner: "owner"}, "A member's role"),
    ):
        with pytest.raises(ValueError, match=trouble):
            hub.add_organization(name, members)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no user called"):
        hub.add_token(team)
    assert (hub.root / "accounts.json").read_text() == before


def test_a_restart_finds_organisations(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        hub.add_user("a")
        hub.add_organization("team", {"a": "write"})
    with LocalHub(tmp_path) as hub:
        member = client(hub, "a")
        assert [org["name"] for org in member.whoami()["orgs"]] == ["team"]
