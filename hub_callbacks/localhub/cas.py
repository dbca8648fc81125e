"""Handlers of the Xet protocol, through which hf_xet stores and reads files: https://huggingface.co/docs/xet/api

The service lies under `/xet/{generation}`, an address that changes when content is deleted. Tokens for it come
from the hub's `xet-write-token` and `xet-read-token`.
"""

from __future__ import annotations

import hmac
import importlib.util
import time
from collections.abc import Iterable

from starlette.responses import JSONResponse, Response

from .accounts import Accounts
from .commits import check_may_upload
from .content import SHA256, read_file
from .errors import HubError, bad_request
from .gitstore import open_repo, resolve
from .ranges import byte_range
from .web import Call, ok, stream
from .xet import XetStore
from .xet_format import Segment

_MAX_SIZE = 80 * 1024 * 1024
"""Of a xorb or shard in bytes; the protocol's own limit is 64 MiB before what its framing adds."""

TOKEN_LIFETIME = 3600
"""Seconds for which a token, or the address of a xorb, is valid."""


def xet_token(call: Call) -> Response:
    repo = call.repo()
    access, revision = call.args["access"], call.args["revision"]
    if access == "write":
        check_may_upload(call, repo, revision)
    if revision != "None":
        resolve(open_repo(repo.path), revision)
    if importlib.util.find_spec("hf_xet") is None:
        raise HubError(501, "This hub runs without hf_xet; set HF_HUB_DISABLE_XET=1 in the client")
    url = f"{call.endpoint}/xet/{call.hub.content.xet.generation}"
    token, expiry = make_token(call.hub.accounts, access)
    headers = {
        "X-Xet-Cas-Url": url,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expiry),
    }
    return JSONResponse({"casUrl": url, "accessToken": token, "exp": expiry}, headers=headers)


def make_token(accounts: Accounts, right: str) -> tuple[str, int]:
    """A signed token for a right, and when it ends (Unix seconds).

    Args:
        accounts: Whose key signs it.
        right: "read", "write" or the hash of one xorb.
    """
    expiry = int(time.time()) + TOKEN_LIFETIME
    return f"{right}.{expiry}.{_sign(accounts, right, expiry)}", expiry


def admit(call: Call) -> int:
    _check(call, "write")
    return _MAX_SIZE


def put_xorb(call: Call) -> Response:
    if not call.received.size:
        raise bad_request("The xorb is empty")
    is_new = call.hub.content.xet.put_xorb(call.received.path, _hash(call.args["hash"]))
    return ok({"was_inserted": is_new})


def put_shard(call: Call) -> Response:
    try:
        files = call.hub.content.xet.put_shard(call.received.path, call.received.sha256)
    except ValueError as error:
        raise bad_request(f"The shard cannot be used: {error}") from error
    for file in files:
        call.hub.housekeeper.move_to_xet(file.sha256)  # as its content may have come by LFS before
    return ok({"result": 1})


def get_xorb(call: Call) -> Response:
    xorb_hash = _hash(call.args["hash"])
    _check_token(call, call.param("token") or "", xorb_hash)
    path = call.hub.content.xet.xorb(xorb_hash)
    if not path.is_file():
        raise HubError(404, "There is no such xorb")
    part = byte_range(call, path.stat().st_size)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **part.headers}
    return stream(call, read_file(path, part.start, part.end), part.status, headers)


def reconstruction(call: Call) -> Response:
    """Says which chunks make up a file, or a range of it, and where to get them."""
    _check(call, "read")
    store = call.hub.content.xet
    file = store.by_hash(_hash(call.args["hash"]))
    if file is None:
        raise HubError(404, "There is no such file")
    part = byte_range(call, file.size)
    terms, skipped = _cut(store, file.segments, part.start, part.end)
    fetches = {}
    for xorb in dict.fromkeys(term.xorb for term in terms):
        stored = store.layout(xorb).stored
        token, _ = make_token(call.hub.accounts, xorb)
        fetches[xorb] = [
            {
                "range": {"start": first, "end": last},
                "url": f"{call.endpoint}/xet/{call.args['service']}/xorbs/{xorb}?token={token}",
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


def _check(call: Call, right: str) -> None:
    token = call.headers.get("authorization", "").removeprefix("Bearer ").strip()
    if right == "read" and token.startswith("write."):
        right = "write"
    _check_token(call, token, right)


def _check_token(call: Call, token: str, right: str) -> None:
    """Raises: HubError: 401, the token is made up, for something else, or has ended."""
    given, _, rest = token.partition(".")
    expiry, _, signature = rest.partition(".")
    if (
        given != right
        or not expiry.isdigit()
        or int(expiry) < time.time()
        or not hmac.compare_digest(signature, _sign(call.hub.accounts, right, int(expiry)))
    ):
        raise HubError(401, "This Xet token is not valid or has expired; ask for a new one")


def _sign(accounts: Accounts, right: str, expiry: int) -> str:
    return accounts.sign(f"xet:{right}:{expiry}")


def _hash(text: str) -> str:
    if not SHA256.fullmatch(text):
        raise bad_request(f"{text} is no Xet hash")
    return text
