"""Handlers for the life of repositories and for who may do what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pygit2
from starlette.responses import JSONResponse, Response

from . import gitlfs, gitstore
from .accounts import ASK_FOR_PASSWORD
from .cards import card_at
from .errors import HubError, bad_request
from .registry import REPO_TYPES, Repo, check_writer
from .web import Call, ok, page_response, paginate

_LFS_SUFFIXES = re.findall(
    r"\S+",
    "7z arrow bin bz2 ckpt ftz gz h5 joblib lfs.* mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl "
    "pt pth rar safetensors tar.* tar tflite tgz wasm xz zip zst",
)
_LFS_NAMES = [
    *(f"*.{suffix}" for suffix in _LFS_SUFFIXES),
    "saved_model/**/*",
    "*tfevents*",
]
_GIT_ATTRIBUTES = "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in _LFS_NAMES)
_BASIC_FIELDS = ("_id", "id", "modelId")


def create_repo(call: Call) -> Response:
    wanted = call.json()
    kind = wanted.get("type") or "model"
    if kind not in REPO_TYPES or not isinstance(wanted.get("name"), str):
        raise bad_request("A repo needs a name and a type out of " + ", ".join(REPO_TYPES))
    owner = wanted.get("organization") or call.user
    check_writer(call.viewer, owner)
    repo_id = f"{call.hub.accounts.canonical(owner)}/{wanted['name']}"
    repo = Repo(kind, repo_id, Path(), private=_private(wanted) or False)
    try:
        repo = call.hub.registry.create(repo, {".gitattributes": _GIT_ATTRIBUTES.encode()}, call.user)
    except HubError as error:
        if "existing" in error.extra:
            existing = Repo(kind, error.extra["existing"], Path())
            error.extra = {"url": f"{call.endpoint}/{existing.web_path}"}
        raise
    return ok({"url": f"{call.endpoint}/{repo.web_path}", "name": repo.id, "id": repo.id})


def delete_repo(call: Call) -> Response:
    wanted = call.json()
    owner = wanted.get("organization") or call.user
    repo_id = f"{owner}/{wanted.get('name')}"
    repo = call.hub.registry.writable(wanted.get("type") or "model", repo_id, call.viewer)
    sha256s = gitlfs.all_sha256s(gitstore.open_repo(repo.path))
    call.hub.registry.delete(repo)
    call.hub.housekeeper.collect(sha256s)
    return ok()


def move_repo(call: Call) -> Response:
    wanted = call.json()
    kind = wanted.get("type") or "model"
    repo = call.hub.registry.writable(kind, str(wanted.get("fromRepo")), call.viewer)
    target = str(wanted.get("toRepo"))
    if target.count("/") != 1:
        raise bad_request(f"Invalid repo name: {target}")
    owner, name = target.split("/")
    check_writer(call.viewer, owner)
    target = f"{call.hub.accounts.canonical(owner)}/{name}"
    try:
        repo = call.hub.registry.move(repo, target)
    except HubError as error:
        error.extra = {}
        raise
    return ok({"url": f"{call.endpoint}/{repo.web_path}"})


def update_settings(call: Call) -> Response:
    repo = call.writable_repo()
    wanted = call.json()
    changes: dict[str, Any] = {}
    if (private := _private(wanted)) is not None:
        changes["private"] = private
    if "gated" in wanted:
        if wanted["gated"] not in ("auto", "manual", False):
            raise bad_request('"gated" must be one of "auto", "manual" and false')
        changes["gated"] = wanted["gated"]
    repo = call.hub.registry.update(repo, **changes)
    return ok({"private": repo.private, "gated": repo.gated})


def auth_check(call: Call) -> Response:
    check_gate(call, call.repo())
    return ok()


def auth_check_write(call: Call) -> Response:
    call.writable_repo()
    return ok()


def check_gate(call: Call, repo: Repo) -> None:
    """Raises: HubError: `GatedRepo` where only its owner, or the members of that organisation, may read files."""
    if not repo.gated or (call.viewer is not None and call.viewer.may_read(repo.owner)):
        return
    status = 401 if call.viewer is None else 403
    message = f"Access to {repo.type} {repo.id} is restricted and you are not in the authorized list."
    raise HubError(status, message, "GatedRepo")


def readable_repo(call: Call) -> Repo:
    """The repository whose files the caller may read; git asks its user for a password where that could help."""
    try:
        repo = call.repo()
        check_gate(call, repo)
    except HubError as error:
        if error.status == 401:
            error.headers |= ASK_FOR_PASSWORD
        raise
    return repo


def repo_info(call: Call) -> Response:
    repo = call.repo()
    git, at = gitstore.open_at(repo.path, call.args.get("revision") or gitstore.DEFAULT_BRANCH)
    files = [_sibling(call, entry, call.flag("blobs")) for entry in gitstore.list_files(git, at)]
    return ok(_expanded(call, {**_info(repo, at), "siblings": files}))


def list_repos(call: Call) -> Response:
    registry = call.hub.registry
    repos = registry.list(call.kind, call.param("author"), call.viewer)
    if search := call.param("search"):
        repos = [repo for repo in repos if search.lower() in repo.id.lower()]
    if wanted := set(call.params("filter")):
        repos = [repo for repo, _, at in registry.heads(repos) if wanted <= set(card_at(at).tags)]
    sort = call.param("sort")
    if sort == "createdAt":
        repos.sort(key=lambda repo: repo.created_at, reverse=True)
    elif sort == "lastModified":
        times = [(at.commit_time, repo) for repo, _, at in registry.heads(repos)]
        repos = [repo for _, repo in sorted(times, key=lambda pair: pair[0], reverse=True)]
    page = paginate(call, repos, call.number("limit", 1000))
    rows = []
    for repo, git, at in registry.heads(page.items):
        info = _info(repo, at)
        if call.flag("full") or "siblings" in call.params("expand"):
            info["siblings"] = [_sibling(call, entry, False) for entry in gitstore.list_files(git, at)]
        rows.append(_expanded(call, info))
    return page_response(call, page, rows)


def _expanded(call: Call, info: dict[str, Any]) -> dict[str, Any]:
    """Only the fields that were asked for, where some were."""
    expand = call.params("expand")
    return {key: info[key] for key in info if not expand or key in (*_BASIC_FIELDS, *expand)}


def describe_file(call: Call, entry: gitstore.Entry, lfs_id: str) -> dict[str, Any]:
    """The fields that trees and infos share; `lfs_id` is how the sha256 is called there."""
    if entry.lfs is None:
        return {"size": entry.size}
    lfs = {lfs_id: entry.lfs.sha256, "size": entry.lfs.size, "pointerSize": entry.lfs.pointer_size}
    row: dict[str, Any] = {"size": entry.size, "lfs": lfs}
    if xet_hash := call.hub.content.xet_hash(entry.lfs.sha256):
        row["xetHash"] = xet_hash
    return row


def _info(repo: Repo, at: pygit2.Commit) -> dict[str, Any]:
    card = card_at(at)
    info: dict[str, Any] = {
        "_id": repo.id,
        "id": repo.id,
        "author": repo.owner,
        "sha": str(at.id),
        "lastModified": gitstore.iso_date(at.commit_time),
        "createdAt": repo.created_at,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.tags,
        "cardData": card.data or None,
        "usedStorage": 0,
    }
    if repo.type == "model":
        info["modelId"] = repo.id
        info |= {key: card.data[key] for key in ("pipeline_tag", "library_name") if card.data.get(key)}
    return info


def _sibling(call: Call, entry: gitstore.Entry, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    return {"rfilename": entry.path, "blobId": entry.oid, **describe_file(call, entry, "sha256")}


def _private(wanted: dict[str, Any]) -> bool | None:
    """2.x clients say `visibility`, 0.36 says `private`."""
    if "visibility" in wanted:
        return bool(wanted["visibility"] == "private")
    private = wanted.get("private")
    return None if private is None else bool(private)


def not_found(call: Call) -> Response:
    return JSONResponse({"error": "Sorry, we can't find the page you are looking for."}, status_code=404)
