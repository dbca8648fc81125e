"""Handlers that serve files: HEAD, GET, ranges and conditional requests."""

from __future__ import annotations

import mimetypes
from urllib.parse import quote

from starlette.responses import Response

from . import gitstore
from .errors import HubError, entry_not_found
from .ranges import byte_range
from .repos import check_gate
from .web import Call, stream

# What people push must not run as a part of this site, not even when a browser opens it by itself.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"


def resolve(call: Call) -> Response:
    repo = call.repo()
    check_gate(call, repo)
    git, at = gitstore.open_at(repo.path, call.args["revision"])
    entry = gitstore.lookup(git, at, call.args["path"])
    if entry.is_folder:
        raise entry_not_found(entry.path, str(at.id))
    etag = f'"{entry.lfs.sha256 if entry.lfs else entry.oid}"'
    name = entry.path.rsplit("/", 1)[-1]
    headers = {
        "X-Repo-Commit": str(at.id),
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}",
        "Content-Type": _content_type(name),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": _POLICY,
    }
    if entry.lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.size)}
        if xet_hash := call.hub.content.xet_hash(entry.lfs.sha256):
            route = f"{call.endpoint}/api/{repo.type}s/{repo.id}/xet-read-token/{at.id}"
            headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{route}>; rel="xet-auth"'}
    if etag in call.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    part = byte_range(call, entry.size, etag)
    headers |= part.headers
    if call.method == "HEAD":
        return Response(status_code=part.status, headers=headers)
    if entry.lfs is None:
        return Response(git[entry.oid].data[part.start : part.end], status_code=part.status, headers=headers)
    try:
        chunks = call.hub.content.read(entry.lfs.sha256, part.start, part.end)
    except KeyError:
        raise HubError(404, f"The content of {entry.path} is not on this hub", "EntryNotFound") from None
    return stream(call, chunks, part.status, headers)


def _content_type(name: str) -> str:
    """As on the Hub, pages of HTML are served as text."""
    guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return "text/plain; charset=utf-8" if "html" in guessed else guessed
