"""Handlers for the life of repositories and for who may do what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse, Response

from . import gitlfs, gitstore
from .accounts import ASK_FOR_PASSWORD
from .cards import card_data, card_tags
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
    info = _info(call, repo, call.args.get("revision") or gitstore.DEFAULT_BRANCH, call.flag("blobs"))
    if expand := call.params("expand"):
        info = {key: value for key, value in info.items() if key in (*_BASIC_FIELDS, *expand)}
    return ok(info)


def list_repos(call: Call) -> Response:
    kind = call.kind
    repos = call.hub.registry.list(kind, call.param("author"), call.viewer)
    if search := call.param("search"):
        repos = [repo for repo in repos if search.lower() in repo.id.lower()]
    rows = [_info(call, repo, gitstore.DEFAULT_BRANCH, False) for repo in repos]
    wanted_tags = set(call.params("filter"))
    rows = [row for row in rows if wanted_tags <= set(row["tags"])]
    if (sort := call.param("sort")) in ("lastModified", "createdAt", "downloads", "likes"):
        rows.sort(key=lambda row: row[sort], reverse=True)
    if not call.flag("full"):
        rows = [{key: value for key, value in row.items() if key != "siblings"} for row in rows]
    if expand := call.params("expand"):
        rows = [{key: row[key] for key in row if key in (*_BASIC_FIELDS, *expand)} for row in rows]
    page = paginate(call, rows, call.number("limit", 1000))
    return page_response(call, page, page.items)


def describe_file(call: Call, entry: gitstore.Entry, lfs_id: str) -> dict[str, Any]:
    """The fields that trees and infos share; `lfs_id` is how the sha256 is called there."""
    if entry.lfs is None:
        return {"size": entry.size}
    lfs = {lfs_id: entry.lfs.sha256, "size": entry.lfs.size, "pointerSize": entry.lfs.pointer_size}
    row: dict[str, Any] = {"size": entry.size, "lfs": lfs}
    if xet_hash := call.hub.content.xet_hash(entry.lfs.sha256):
        row["xetHash"] = xet_hash
    return row


def _info(call: Call, repo: Repo, revision: str, blobs: bool) -> dict[str, Any]:
    git, at = gitstore.open_at(repo.path, revision)
    card = card_data(gitstore.read_path(git, at, "README.md") or b"")
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
        "tags": card_tags(card),
        "cardData": card or None,
        "siblings": [_sibling(call, entry, blobs) for entry in gitstore.list_files(git, at)],
        "usedStorage": 0,
    }
    if repo.type == "model":
        info["modelId"] = repo.id
        info |= {key: card[key] for key in ("pipeline_tag", "library_name") if card.get(key)}
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
