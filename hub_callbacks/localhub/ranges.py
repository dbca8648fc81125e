"""The `Range` header, RFC 9110 section 14: one range of bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

from .errors import HubError
from .web import Call

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Part(NamedTuple):
    """What to send: the bytes from `start` up to, not including, `end`, with a status and headers that say so."""

    start: int
    end: int
    status: int
    headers: dict[str, str]


def byte_range(call: Call, size: int, etag: str | None = None) -> Part:
    """What to send of something with `size` bytes.

    Args:
        call: The request.
        size: Number of bytes.
        etag: What `If-Range` is compared with.

    Raises:
        HubError: 416, the range lies outside.
    """
    match = _RANGE.fullmatch(call.headers.get("range", "").strip())
    if match is None or not any(match.groups()) or call.headers.get("if-range", etag) != etag:
        return Part(0, size, 200, {"Content-Length": str(size)})
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    else:
        start, end = max(size - int(last), 0), size
    if start >= end:
        message = f"The range lies outside of the file, which has {size} bytes"
        raise HubError(416, message, headers={"Content-Range": f"bytes */{size}"})
    headers = {"Content-Length": str(end - start), "Content-Range": f"bytes {start}-{end - 1}/{size}"}
    return Part(start, end, 206, headers)
