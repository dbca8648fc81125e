"""The routing table: each address of the Hub that this one answers, and the name of the operation behind it."""

from __future__ import annotations

from . import cards, cas, clone, commits, discussions, history, lfs, pages, people, repos, resolve
from .web import Route, route

OWN_XET_SERVICE = f"/xet/{cas.OWN_SERVICE}"
"""Where the hub itself reads; neither logged nor in trouble."""

_LONGEST_PATH = 16 * 1024
"""To compare a longer one with all patterns takes too long."""

_API = "/api/{kind}/{repo}"

_CARD = 16 * 1024 * 1024
"""Bytes of a body with a README.md, which may have 10 MiB as each regular file."""
_TEXT = 256 * 1024
"""Bytes of a body with what somebody has written into a form."""

ROUTES: tuple[Route, ...] = (
    # People
    route("GET", "/api/whoami-v2", people.whoami),
    route("GET", "/api/users/(?P<name>[^/]+)/overview", people.user_overview),
    route("GET", "/api/organizations/(?P<name>[^/]+)/overview", people.organization_overview),
    route("GET", "/api/organizations/(?P<name>[^/]+)/members", people.organization_members),
    # Repositories
    route("POST", "/api/validate-yaml", cards.validate_yaml, max_body=_CARD),
    route("POST", "/api/repos/create", repos.create_repo),
    route("DELETE", "/api/repos/delete", repos.delete_repo),
    route("POST", "/api/repos/move", repos.move_repo),
    route("GET", "/api/{kind}", repos.list_repos),
    # Content
    route("POST", f"{_API}/preupload/{{revision}}", commits.preupload),
    route("POST", f"{_API}/commit/{{revision}}", commits.commit, admission=commits.admit_commit),
    route("GET", f"{_API}/xet-(?P<access>read|write)-token/{{revision}}", cas.xet_token),
    route("POST", "/{prefix}{repo}.git/info/lfs/objects/batch", lfs.lfs_batch),
    route("PUT", "/lfs/{sha256}", lfs.lfs_put, admission=lfs.admit_object, hashed=True),
    route("PUT", r"/lfs/{sha256}/parts/(?P<part>\d+)", lfs.lfs_put_part, "lfs_put", lfs.admit_part, hashed=True),
    route("GET", "/lfs/{sha256}", lfs.lfs_get),
    route("POST", "/lfs/{sha256}/complete", lfs.lfs_complete),
    route("POST", "/lfs/{sha256}/verify", lfs.lfs_verify),
    route("POST", f"{_API}/lfs-files/duplicate", lfs.lfs_duplicate),
    route("POST", "/xet/{service}/v1/xorbs/[^/]+/{hash}", cas.put_xorb, "xet_put", cas.admit),
    route("POST", "/xet/{service}(?:/v1)?/shards", cas.put_shard, "xet_put", cas.admit, hashed=True),
    route("GET", "/xet/{service}/v1/reconstructions/{hash}", cas.reconstruction, "xet_get"),
    route("GET", "/xet/{service}/xorbs/{hash}", cas.get_xorb, "xet_get"),
    # Reading
    route("GET|HEAD", "/{prefix}{repo}/(?:resolve|raw)/{revision}/{path}", resolve.resolve),
    route("GET", f"{_API}/tree/{{revision}}(?:/{{path}})?", history.tree),
    route("POST", f"{_API}/paths-info/{{revision}}", history.paths_info),
    route("GET", f"{_API}/commits/{{revision}}", history.commits),
    # Refs and history
    route("GET", f"{_API}/refs", history.refs),
    route("POST", f"{_API}/branch/{{branch}}", history.create_branch),
    route("DELETE", f"{_API}/branch/{{branch}}", history.delete_branch),
    route("POST", f"{_API}/tag/{{revision}}", history.create_tag),
    route("DELETE", f"{_API}/tag/{{tag}}", history.delete_tag),
    route("POST", f"{_API}/super-squash/{{branch}}", history.super_squash),
    route("GET", f"{_API}/lfs-files", history.lfs_files),
    route("POST", f"{_API}/lfs-files/batch", history.delete_lfs_files),
    # Discussions and pull requests
    route("POST", f"{_API}/discussions", discussions.create_discussion, max_body=_TEXT),
    route("GET", f"{_API}/discussions", discussions.list_discussions),
    route("GET", rf"{_API}/discussions/(?P<number>\d+)", discussions.discussion_details),
    route("POST", rf"{_API}/discussions/(?P<number>\d+)/merge", discussions.merge_pull_request, max_body=_TEXT),
    route(
        "POST", rf"{_API}/discussions/(?P<number>\d+)/{{resource}}", discussions.change_discussion, max_body=_TEXT
    ),
    # The repository itself; last, as an id may have one part or two
    route("PUT", f"{_API}/settings", repos.update_settings),
    route("GET", f"{_API}/auth-check", repos.auth_check),
    route("GET", f"{_API}/auth-check/write", repos.auth_check_write),
    route("GET", f"{_API}/revision/{{revision}}", repos.repo_info),
    route("GET", _API, repos.repo_info),
    # git clone
    route("GET", "/{prefix}{repo}[.]git/info/refs", clone.advertise_refs),
    route("GET", "/{prefix}{repo}/info/refs", clone.advertise_refs),
    route("POST", "/{prefix}{repo}[.]git/git-upload-pack", clone.upload_pack, admission=clone.admit),
    route("POST", "/{prefix}{repo}/git-upload-pack", clone.upload_pack, admission=clone.admit),
    # Pages for people
    route("GET|HEAD", "/", pages.home_page),
    route("GET|HEAD", "/-/style.css", pages.style_sheet),
    route("GET|HEAD", "/-/sign-in", pages.sign_in),
    route("GET|HEAD", "/{prefix}{page}/tree/{revision}(?:/{path})?/?", pages.tree_page),
    route("GET|HEAD", "/{prefix}{page}/blob/{revision}/{path}", pages.blob_page),
    route("GET|HEAD", "/{prefix}{page}/commits/{revision}", pages.commits_page),
    route("GET|HEAD", "/{prefix}{page}/commit/{revision}", pages.commit_page),
    route("GET|HEAD", r"/{prefix}{page}/discussions/(?P<number>\d+)", pages.discussion_page),
    route("GET|HEAD", "/{prefix}{page}", pages.repo_page),
    route("GET|HEAD", "/(?P<owner>{name})", pages.owner_page),
)

OPERATIONS = frozenset(entry.operation for entry in ROUTES)


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The row for a request, with the parts of its path, still percent-encoded.

    Args:
        method: HTTP method.
        path: The path as sent, without the query.
    """
    if len(path) > _LONGEST_PATH:
        return None
    for entry in ROUTES:
        if method in entry.methods and (match := entry.pattern.fullmatch(path)):
            return entry, {name: value for name, value in match.groupdict().items() if value is not None}
    return None
