"""Handlers of the Xet protocol, through which hf_xet stores and reads files: https://huggingface.co/docs/xet/api

The service lies under `/xet/{generation}`, an address that changes when content is deleted. Tokens for it come
from the hub's `xet-write-token` and `xet-read-token`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from starlette.responses import JSONResponse, Response

from . import holdings, xet_tokens
from .commits import check_may_upload
from .content import SHA256, read_file
from .errors import HubError, Moved, bad_request, forbidden
from .gitstore import open_repo, resolve
from .ranges import byte_range
from .registry import Repo
from .repos import check_gate
from .web import Call, ok, stream
from .xet import XetStore
from .xet_format import Segment, XetFile
from .xet_tokens import ForHub, ForRepo, ForXorb

_MAX_SIZE = 80 * 1024 * 1024
"""Of a xorb or shard in bytes; the protocol's own limit is 64 MiB before what its framing adds."""

OWN_SERVICE = "own"
"""In the place of the generation where the hub itself reads."""


def xet_token(call: Call) -> Response:
    repo = call.repo()
    access: Literal["read", "write"] = "write" if call.args["access"] == "write" else "read"
    revision = call.args["revision"]
    if access == "write":
        check_may_upload(call, repo, revision)
    else:
        check_gate(call, repo)
    commit = None if revision == "None" else str(resolve(open_repo(repo.path), revision).id)
    if importlib.util.find_spec("hf_xet") is None:
        raise HubError(501, "This hub runs without hf_xet; set HF_HUB_DISABLE_XET=1 in the client")
    url = f"{call.endpoint}/xet/{call.hub.content.xet.generation}"
    token, expiry = xet_tokens.make(call.hub.accounts, ForRepo(access, call.user, repo.type, repo.id, commit))
    headers = {
        "X-Xet-Cas-Url": url,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expiry),
    }
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": expiry}, headers=headers)


def admit(call: Call) -> int:
    _sender(call)
    return _MAX_SIZE


def put_xorb(call: Call) -> Response:
    if not call.received.size:
        raise bad_request("The xorb is empty")
    try:
        is_new = call.hub.content.xet.put_xorb(call.received.path, _hash(call.args["hash"]))
    except ValueError as error:
        raise bad_request(f"The xorb cannot be used: {error}. Nothing was stored.") from error
    return ok({"was_inserted": is_new})


def put_shard(call: Call) -> Response:
    try:
        files = call.hub.content.xet.put_shard(call.received.path, call.received.sha256, call.gone)
    except ValueError as error:
        raise bad_request(f"The shard cannot be used: {error}") from error
    call.hub.senders.add(_sender(call), [file.sha256 for file in files])
    for file in files:
        call.hub.housekeeper.move_to_xet(file.sha256)  # as its content may have come by LFS before
    return ok({"result": 1})


def get_xorb(call: Call) -> Response:
    xorb_hash = _hash(call.args["hash"])
    right = xet_tokens.read(call.hub.accounts, call.param("token") or "", ForXorb)
    if (right.service, right.xorb) != (call.args["service"], xorb_hash):
        raise xet_tokens.invalid()
    path = call.hub.content.xet.xorb(xorb_hash)
    if not path.is_file():
        raise HubError(404, "There is no such xorb")
    part = byte_range(call, path.stat().st_size)
    if part.start < right.start or part.end > right.end:
        raise forbidden(f"This address is for the bytes {right.start}-{right.end - 1} of the xorb")
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **part.headers}
    return stream(call, read_file(path, part.start, part.end), part.status, headers)


def reconstruction(call: Call) -> Response:
    """Says which chunks make up a file, or a range of it, and where to get them."""
    store = call.hub.content.xet
    file = _readable_file(call, _hash(call.args["hash"]))
    part = byte_range(call, file.size)
    terms, skipped = _cut(store, file.segments, part.start, part.end)
    fetches = {}
    for xorb in dict.fromkeys(term.xorb for term in terms):
        stored = store.layout(xorb).stored
        fetches[xorb] = [
            {
                "range": {"start": first, "end": last},
                "url": _address(call, xorb, stored[first], stored[last]),
                "url_range": {"start": stored[first], "end": stored[last] - 1},
            }
            for first, last in _merged((term.start, term.end) for term in terms if term.xorb == xorb)
        ]
    rows = [
        {
            "hash": term.xorb,
            "unpacked_length": term.size,
            "range": {"start": term.start, "end": term.end},
        }
        for term in terms
    ]
    return ok({"offset_into_first_range": skipped, "terms": rows, "fetch_info": fetches})


def _cut(store: XetStore, segments: tuple[Segment, ...], start: int, end: int) -> tuple[list[Segment], int]:
    """The chunks that cover the bytes from `start` to `end`, and how many bytes come before `start`."""
    terms: list[Segment] = []
    skipped = position = 0
    for segment in segments:
        if position >= end:
            break
        if position + segment.size <= start:
            position += segment.size
            continue
        unpacked = store.layout(segment.xorb).unpacked
        first = last = None
        for chunk in range(segment.start, segment.end):
            size = unpacked[chunk + 1] - unpacked[chunk]
            if position < end and position + size > start:
                last = chunk + 1
                if first is None:
                    first = chunk
                    skipped = skipped if terms else start - position
            position += size
        if first is not None and last is not None:
            terms.append(Segment(segment.xorb, unpacked[last] - unpacked[first], first, last))
    return terms, max(skipped, 0)


def _merged(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of chunks without overlap, as each term must lie within one of them."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _address(call: Call, xorb: str, start: int, end: int) -> str:
    service = call.args["service"]
    token, _ = xet_tokens.make(call.hub.accounts, ForXorb(service, xorb, start, end))
    return f"{call.endpoint}/xet/{service}/xorbs/{xorb}?token={token}"


def _readable_file(call: Call, xet_hash: str) -> XetFile:
    """A file that the caller's token opens.

    Raises:
        HubError: 401, 403, or 404 also for what is in other repositories only.
    """
    file = call.hub.content.xet.by_hash(xet_hash)
    if call.args["service"] == OWN_SERVICE:
        xet_tokens.read(call.hub.accounts, _token(call), ForHub)
        is_open = True
    else:
        right = xet_tokens.read(call.hub.accounts, _token(call), ForRepo)
        repo = _readable_repo(call, right)
        is_open = file is not None and holdings.has(repo, file.sha256, right.commit)
    if file is None or not is_open:
        raise HubError(404, "There is no such file")
    return file


def _readable_repo(call: Call, right: ForRepo) -> Repo:
    """The repository of a token, if whoever asked for it may still read there."""
    viewer = call.hub.accounts.reader(right.user)
    try:
        repo = call.hub.registry.get(right.kind, right.repo, viewer)
    except Moved as moved:
        repo = call.hub.registry.get(right.kind, moved.new_id, viewer)
    check_gate(replace(call, viewer=viewer), repo)
    return repo


def _sender(call: Call) -> str:
    """The user whose token takes content in."""
    right = xet_tokens.read(call.hub.accounts, _token(call), ForRepo)
    if right.access != "write" or call.args["service"] == OWN_SERVICE:
        raise xet_tokens.invalid()
    return right.user


def _token(call: Call) -> str:
    return call.headers.get("authorization", "").removeprefix("Bearer ").strip()


def _hash(text: str) -> str:
    if not SHA256.fullmatch(text):
        raise bad_request(f"{text} is no Xet hash")
    return text
