"""Handlers of Git LFS, the way in for large files without hf_xet.

LFS batch and multipart: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md and the client's `lfs.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import math
import re
import time
import uuid
from typing import Any

from starlette.responses import JSONResponse, Response

from .errors import HubError, bad_request, forbidden
from .registry import check_writer
from .web import Call, Upload, ok

_LINK_LIFETIME = 24 * 3600
_SHA256 = re.compile(r"[0-9a-f]{64}")


def lfs_batch(call: Call) -> Response:
    repo = call.repo()
    # No flag tells whether this upload is for a pull request, which whoever can read may open.
    check_writer(call.viewer, call.viewer.user if call.viewer else repo.owner)
    wanted = call.json()
    if wanted.get("operation") != "upload":
        raise bad_request("This hub serves LFS downloads through its resolve addresses only")
    transfers = wanted.get("transfers") or ["basic"]
    if "xet" in transfers and importlib.util.find_spec("hf_xet") is not None:
        transfer = "xet"
    else:
        transfer = "multipart" if "multipart" in transfers else "basic"
    objects = [_instructions(call, item, transfer) for item in wanted.get("objects", [])]
    answer = {"transfer": transfer, "objects": objects, "hash_algo": "sha256"}
    return JSONResponse(answer, media_type="application/vnd.git-lfs+json")


def lfs_put(call: Call) -> Response:
    """Takes a whole object."""
    sha256, size, _ = _check_link(call)
    upload = _received(call)
    if upload.size != size or upload.sha256 != sha256:
        raise bad_request(
            f"The upload of {sha256} has {upload.size} bytes with the sha256 {upload.sha256}; "
            f"expected were {size} bytes. Nothing was stored; upload it again."
        )
    call.hub.content.put(upload.path, sha256)
    return Response(headers={"ETag": f'"{upload.sha256}"'})


def lfs_put_part(call: Call) -> Response:
    """Takes one part of an object."""
    _, _, upload_id = _check_link(call)
    upload = _received(call)
    call.hub.content.put_part(upload.path, upload_id, int(call.args["part"]))
    return Response(headers={"ETag": f'"{upload.sha256}"'})


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
    if not _SHA256.fullmatch(sha256):
        return {**answer, "error": {"code": 422, "message": f"{sha256} is no sha256"}}
    if transfer == "xet" or call.hub.content.confirm(sha256, size) is not None:
        return answer
    upload_id = uuid.uuid4().hex
    expiry = int(time.time()) + _LINK_LIFETIME
    signature = _sign(call, sha256, size, upload_id, expiry)
    query = f"size={size}&upload={upload_id}&expiry={expiry}&signature={signature}"
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


def _sign(call: Call, sha256: str, size: int, upload_id: str, expiry: int) -> str:
    text = f"{sha256}:{size}:{upload_id}:{expiry}".encode()
    return hmac.new(call.hub.accounts.secret, text, hashlib.sha256).hexdigest()


def _check_link(call: Call) -> tuple[str, int, str]:
    """Upload links carry their own right, as the client sends no token to them."""
    sha256, upload_id = call.args["sha256"], call.param("upload") or ""
    size, expiry = int(call.param("size") or 0), int(call.param("expiry") or 0)
    expected = _sign(call, sha256, size, upload_id, expiry)
    if not hmac.compare_digest(expected, call.param("signature") or "") or expiry < time.time():
        raise forbidden("This upload link is not valid or has expired; ask for a new one")
    return sha256, size, upload_id


def _received(call: Call) -> Upload:
    if call.upload is None:
        raise bad_request("The upload has no body")
    return call.upload
