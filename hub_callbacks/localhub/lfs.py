"""Handlers of Git LFS, the way in for large files without hf_xet.

LFS batch and multipart: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md and the client's `lfs.py`.
"""

from __future__ import annotations

import hmac
import importlib.util
import math
import time
import uuid
from typing import Any

from starlette.responses import JSONResponse, Response

from . import gitlfs, gitstore
from .content import SHA256
from .errors import HubError, bad_request, forbidden
from .housekeeping import PATIENCE
from .ranges import byte_range
from .registry import check_writer
from .repos import readable_repo
from .web import Call, ok, stream

_DOWNLOAD = "download"


def lfs_batch(call: Call) -> Response:
    wanted = call.json()
    if wanted.get("operation") == "download":
        return _batch_response("basic", _downloads(call, wanted.get("objects", [])))
    call.repo()
    # No flag tells whether this upload is for a pull request, which whoever can read may open.
    check_writer(call.viewer, call.user)
    transfers = wanted.get("transfers") or ["basic"]
    if "xet" in transfers and importlib.util.find_spec("hf_xet") is not None:
        transfer = "xet"
    else:
        transfer = "multipart" if "multipart" in transfers else "basic"
    objects = [_instructions(call, item, transfer) for item in wanted.get("objects", [])]
    return _batch_response(transfer, objects)


def lfs_get(call: Call) -> Response:
    """Sends an object to git-lfs."""
    sha256, size, _ = _check_link(call)
    part = byte_range(call, size)
    headers = {**part.headers, "Content-Type": "application/octet-stream"}
    return stream(call, call.hub.content.read(sha256, part.start, part.end), part.status, headers)


def admit_object(call: Call) -> int:
    """A link is for as many bytes as it says."""
    _, size, _ = _check_link(call)
    return size


def admit_part(call: Call) -> int:
    """Only the parts that were asked for, and none longer than agreed."""
    _, size, _ = _check_link(call)
    part_size = call.hub.lfs_part_size
    if not 1 <= int(call.args["part"]) <= math.ceil(size / part_size):
        raise bad_request(f"This upload has no part {call.args['part']}")
    return part_size


def lfs_put(call: Call) -> Response:
    """Takes a whole object."""
    sha256, size, _ = _check_link(call)
    upload = call.received
    if upload.size != size or upload.sha256 != sha256:
        raise bad_request(
            f"The upload of {sha256} has {upload.size} bytes with the sha256 {upload.sha256}; "
            f"expected were {size} bytes. Nothing was stored; upload it again."
        )
    call.hub.content.put(upload.path, sha256)
    call.hub.housekeeper.move_to_xet(sha256)
    return Response(headers={"ETag": f'"{upload.sha256}"'})


def lfs_put_part(call: Call) -> Response:
    """Takes one part of an object."""
    _, _, upload_id = _check_link(call)
    call.hub.content.put_part(call.received.path, upload_id, int(call.args["part"]))
    return Response(headers={"ETag": f'"{call.received.sha256}"'})


def lfs_complete(call: Call) -> Response:
    """Joins the parts."""
    sha256, size, upload_id = _check_link(call)
    temporary = call.hub.tmp / f"join-{uuid.uuid4().hex}"
    try:
        actual = call.hub.content.join_parts(upload_id, math.ceil(size / call.hub.lfs_part_size), temporary)
        if actual is None:
            raise bad_request("A part of this upload is missing. Nothing was stored; upload it again.")
        if actual != sha256:
            raise bad_request(f"The parts make up {actual}, not {sha256}. Nothing was stored.")
        call.hub.content.put(temporary, sha256)
    finally:
        temporary.unlink(missing_ok=True)
    call.hub.housekeeper.move_to_xet(sha256)
    call.hub.content.drop_parts(upload_id)
    return ok({"oid": sha256})


def lfs_verify(call: Call) -> Response:
    wanted = call.json()
    size = call.hub.content.size(str(wanted.get("oid")))
    if size is None or size != wanted.get("size"):
        raise HubError(404, "The object is not here or has another size; upload it again")
    return ok()


def lfs_duplicate(call: Call) -> Response:
    """Content is shared by all repositories: the caller only needs the rights and the content to be here."""
    call.repo()
    wanted = call.json()
    target = wanted.get("target") or {}
    call.hub.registry.writable(target.get("type") or "model", str(target.get("name")), call.viewer)
    failed = [
        {"sha256": file.get("sha256"), "error": "File not found"}
        for file in wanted.get("files", [])
        if call.hub.content.size(str(file.get("sha256"))) is None
    ]
    return ok({"failed": failed})


def _instructions(call: Call, item: dict[str, Any], transfer: str) -> dict[str, Any]:
    sha256, size = str(item.get("oid")), int(item.get("size") or 0)
    answer: dict[str, Any] = {"oid": sha256, "size": size}
    if not SHA256.fullmatch(sha256):
        return {**answer, "error": {"code": 422, "message": f"{sha256} is no sha256"}}
    if transfer == "xet" or call.hub.content.size(sha256) == size:
        return answer
    upload_id = uuid.uuid4().hex
    query = _right(call, sha256, size, upload_id)
    base = f"{call.endpoint}/lfs/{sha256}"
    verify = {"href": f"{base}/verify"}
    part_size = call.hub.lfs_part_size
    if transfer != "multipart" or size <= part_size:
        return {**answer, "actions": {"upload": {"href": f"{base}?{query}"}, "verify": verify}}
    header = {
        str(number): f"{base}/parts/{number}?{query}" for number in range(1, math.ceil(size / part_size) + 1)
    }
    upload = {"href": f"{base}/complete?{query}", "header": {**header, "chunk_size": str(part_size)}}
    return {**answer, "actions": {"upload": upload, "verify": verify}}


def _batch_response(transfer: str, objects: list[dict[str, Any]]) -> Response:
    answer = {"transfer": transfer, "objects": objects, "hash_algo": "sha256"}
    return JSONResponse(answer, media_type="application/vnd.git-lfs+json")


def _downloads(call: Call, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Links to content that this repository's history names, and to no other."""
    repo = readable_repo(call)
    missing = {str(item.get("oid")) for item in objects}
    found: dict[str, int] = {}
    for entry, _, _ in gitlfs.all_lfs_files(gitstore.open_repo(repo.path)):
        if not missing:
            break
        if entry.lfs and entry.lfs.sha256 in missing:
            missing.discard(entry.lfs.sha256)
            found[entry.lfs.sha256] = entry.size
    answers: list[dict[str, Any]] = []
    for item in objects:
        sha256 = str(item.get("oid"))
        answer = {"oid": sha256, "size": found.get(sha256, 0)}
        if sha256 in found and call.hub.content.size(sha256) is not None:
            link = f"{call.endpoint}/lfs/{sha256}?{_right(call, sha256, found[sha256], _DOWNLOAD)}"
            answers.append({**answer, "authenticated": True, "actions": {"download": {"href": link}}})
        else:
            answers.append({**answer, "error": {"code": 404, "message": "This repository has no such object"}})
    return answers


def _right(call: Call, sha256: str, size: int, upload_id: str) -> str:
    """The query of a link that carries its own right, as clients send no token to it."""
    expiry = int(time.time()) + PATIENCE
    signature = _sign(call, sha256, size, upload_id, expiry)
    return f"size={size}&upload={upload_id}&expiry={expiry}&signature={signature}"


def _sign(call: Call, sha256: str, size: int, upload_id: str, expiry: int) -> str:
    return call.hub.accounts.sign(f"{sha256}:{size}:{upload_id}:{expiry}")


def _check_link(call: Call) -> tuple[str, int, str]:
    """Checks a link of `_right`; one for an upload is none for a download."""
    sha256, upload_id = call.args["sha256"], call.param("upload") or ""
    size, expiry = call.number("size"), call.number("expiry")
    expected = _sign(call, sha256, size, upload_id, expiry)
    valid = hmac.compare_digest(expected, call.param("signature") or "")
    fits = (upload_id == _DOWNLOAD) == (call.method == "GET")
    if not valid or not fits or expiry < time.time():
        raise forbidden("This link is not valid or has expired; ask for a new one")
    return sha256, size, upload_id
