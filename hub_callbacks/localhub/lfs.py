"""Handlers of Git LFS, the way in for large files without hf_xet.

LFS batch and multipart: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md and the client's `lfs.py`.
"""

from __future__ import annotations

import hmac
import importlib.util
import time
import uuid
from typing import Any, NamedTuple

from starlette.responses import JSONResponse, Response

from . import gitlfs, gitstore, holdings
from .content import SHA256
from .errors import HubError, bad_request, forbidden
from .housekeeping import PATIENCE
from .ranges import byte_range
from .registry import Repo, check_writer
from .repos import check_gate, readable_repo
from .web import Call, ok, stream

_DOWNLOAD = "download"
_MAX_PARTS = 10_000
"""Of one object, as in S3."""
_MAX_LINKS = 50_000
"""To parts, in one answer."""


class _Link(NamedTuple):
    """What a signed link is for, and who asked for it."""

    sha256: str
    size: int
    upload_id: str
    user: str


def lfs_batch(call: Call) -> Response:
    wanted = call.json()
    if wanted.get("operation") == "download":
        return _batch_response("basic", _downloads(call, wanted.get("objects", [])))
    repo = call.repo()
    check_gate(call, repo)
    # No flag tells whether this upload is for a pull request, which whoever can read may open.
    check_writer(call.viewer, call.user)
    transfers = wanted.get("transfers") or ["basic"]
    if "xet" in transfers and importlib.util.find_spec("hf_xet") is not None:
        transfer = "xet"
    else:
        transfer = "multipart" if "multipart" in transfers else "basic"
    items = wanted.get("objects", [])
    if sum(_parts(call, _size(item)) for item in items) > _MAX_LINKS:
        raise HubError(413, f"These objects would come in more than {_MAX_LINKS} parts; ask for fewer at once")
    objects = [_instructions(call, repo, item, transfer) for item in items]
    return _batch_response(transfer, objects)


def lfs_get(call: Call) -> Response:
    """Sends an object to git-lfs."""
    sha256, size, *_ = _check_link(call)
    part = byte_range(call, size)
    headers = {**part.headers, "Content-Type": "application/octet-stream"}
    return stream(call, call.hub.content.read(sha256, part.start, part.end), part.status, headers)


def admit_object(call: Call) -> int:
    """A link is for as many bytes as it says."""
    return _check_link(call).size


def admit_part(call: Call) -> int:
    """Only the parts that were asked for, and none longer than agreed."""
    size = _check_link(call).size
    part_size = call.hub.lfs_part_size
    if not 1 <= int(call.args["part"]) <= _parts(call, size):
        raise bad_request(f"This upload has no part {call.args['part']}")
    return part_size


def lfs_put(call: Call) -> Response:
    """Takes a whole object."""
    sha256, size, _, user = _check_link(call)
    upload = call.received
    if upload.size != size or upload.sha256 != sha256:
        raise bad_request(
            f"The upload of {sha256} has {upload.size} bytes with the sha256 {upload.sha256}; "
            f"expected were {size} bytes. Nothing was stored; upload it again."
        )
    call.hub.content.put(upload.path, sha256)
    call.hub.senders.add(user, [sha256])
    call.hub.housekeeper.move_to_xet(sha256)
    return Response(headers={"ETag": f'"{upload.sha256}"'})


def lfs_put_part(call: Call) -> Response:
    """Takes one part of an object."""
    call.hub.content.put_part(call.received.path, _check_link(call).upload_id, int(call.args["part"]))
    return Response(headers={"ETag": f'"{call.received.sha256}"'})


def lfs_complete(call: Call) -> Response:
    """Joins the parts."""
    sha256, size, upload_id, user = _check_link(call)
    temporary = call.hub.tmp / f"join-{uuid.uuid4().hex}"
    try:
        actual = call.hub.content.join_parts(upload_id, _parts(call, size), temporary)
        if actual is None:
            raise bad_request("A part of this upload is missing. Nothing was stored; upload it again.")
        if actual != sha256:
            raise bad_request(f"The parts make up {actual}, not {sha256}. Nothing was stored.")
        call.hub.content.put(temporary, sha256)
        call.hub.senders.add(user, [sha256])
    finally:
        temporary.unlink(missing_ok=True)
    call.hub.housekeeper.move_to_xet(sha256)
    call.hub.content.drop_parts(upload_id)
    return ok({"oid": sha256})


def lfs_verify(call: Call) -> Response:
    wanted, sha256 = call.json(), call.args["sha256"]
    is_meant = wanted.get("oid") == sha256 and wanted.get("size") == _check_link(call).size
    if not is_meant or call.hub.content.size(sha256) != wanted["size"]:
        raise HubError(404, "The object is not here or has another size; upload it again")
    return ok()


def lfs_duplicate(call: Call) -> Response:
    """Nothing is copied, as equal content is stored once; the caller may commit what the source has."""
    source = call.repo()
    check_gate(call, source)
    wanted = call.json()
    target = wanted.get("target") or {}
    call.hub.registry.writable(target.get("type") or "model", str(target.get("name")), call.viewer)
    sha256s = [str(file.get("sha256")) for file in wanted.get("files", [])]
    found = {
        sha256
        for sha256 in sha256s
        if call.hub.content.size(sha256) is not None and holdings.may_name(call, source, sha256)
    }
    call.hub.senders.add(call.user, found)
    failed = [{"sha256": sha256, "error": "File not found"} for sha256 in sha256s if sha256 not in found]
    return ok({"failed": failed})


def _instructions(call: Call, repo: Repo, item: dict[str, Any], transfer: str) -> dict[str, Any]:
    sha256, size = str(item.get("oid")), _size(item)
    answer: dict[str, Any] = {"oid": sha256, "size": size}
    if not SHA256.fullmatch(sha256):
        return {**answer, "error": {"code": 422, "message": f"{sha256} is no sha256"}}
    if size > _MAX_PARTS * call.hub.lfs_part_size:
        message = f"{sha256} has more than {_MAX_PARTS * call.hub.lfs_part_size} bytes, the most of one file"
        return {**answer, "error": {"code": 422, "message": message}}
    is_there = call.hub.content.size(sha256) == size and holdings.may_name(call, repo, sha256)
    if transfer == "xet" or is_there:
        return answer
    upload_id = uuid.uuid4().hex
    query = _right(call, sha256, size, upload_id)
    base = f"{call.endpoint}/lfs/{sha256}"
    verify = {"href": f"{base}/verify?{query}"}
    part_size = call.hub.lfs_part_size
    if transfer != "multipart" or size <= part_size:
        return {**answer, "actions": {"upload": {"href": f"{base}?{query}"}, "verify": verify}}
    header = {str(number): f"{base}/parts/{number}?{query}" for number in range(1, _parts(call, size) + 1)}
    upload = {"href": f"{base}/complete?{query}", "header": {**header, "chunk_size": str(part_size)}}
    return {**answer, "actions": {"upload": upload, "verify": verify}}


def _size(item: dict[str, Any]) -> int:
    size = item.get("size") or 0
    if not isinstance(size, int) or size < 0:
        raise bad_request(f'"size" must be a number of bytes, not {size!r}')
    return size


def _parts(call: Call, size: int) -> int:
    """How many parts something with `size` bytes comes in, at most one more than it may."""
    return min(-(-size // call.hub.lfs_part_size), _MAX_PARTS + 1)


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
    signature = _sign(call, _Link(sha256, size, upload_id, call.user), expiry)
    return f"size={size}&upload={upload_id}&user={call.user}&expiry={expiry}&signature={signature}"


def _sign(call: Call, link: _Link, expiry: int) -> str:
    return call.hub.accounts.sign(":".join(map(str, (*link, expiry))))


def _check_link(call: Call) -> _Link:
    """Checks a link of `_right`; one for an upload is none for a download."""
    size, expiry = call.number("size"), call.number("expiry")
    link = _Link(call.args["sha256"], size, call.param("upload") or "", call.param("user") or "")
    expected = _sign(call, link, expiry)
    valid = hmac.compare_digest(expected.encode(), (call.param("signature") or "").encode())
    fits = (link.upload_id == _DOWNLOAD) == (call.method == "GET")
    if not valid or not fits or expiry < time.time():
        raise forbidden("This link is not valid or has expired; ask for a new one")
    return link
