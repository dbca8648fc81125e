"""What a handler gets (`Call`) and the routing table's row (`Route`)."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pygit2
from anyio import CapacityLimiter, to_thread
from starlette.responses import JSONResponse, Response, StreamingResponse

from .accounts import Accounts, Identity
from .content import ContentStore
from .errors import HubError, bad_request
from .housekeeping import Housekeeper
from .registry import Registry, Repo
from .senders import Senders


@dataclass(frozen=True)
class Hub:
    """The state that all handlers share; `lfs_part_size` in bytes, larger LFS uploads come in parts."""

    accounts: Accounts
    registry: Registry
    content: ContentStore
    senders: Senders
    housekeeper: Housekeeper
    tmp: Path
    lfs_part_size: int


@dataclass(frozen=True)
class Upload:
    """A request body that was streamed to a temporary file; it is deleted after the call if still there.

    Its `sha256` is empty where the route does not ask for it.
    """

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Call:
    """One request.

    Args:
        hub: The shared state.
        method: HTTP method.
        path: The path as sent, still percent-encoded.
        args: The named, decoded parts of the path.
        query: Query parameters.
        headers: Request headers, names in lower case.
        endpoint: The hub's address as this client sees it.
        viewer: Who is calling; None for anonymous.
        threads: Whose threads run the handler, and read what it streams.
        gone: Set when the client has left, so that nobody waits for the answer any more.
        body: The whole body, for routes that take it in memory.
        upload: The streamed body, for routes that take a file.
    """

    hub: Hub
    method: str
    path: str
    args: Mapping[str, str]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    endpoint: str
    viewer: Identity | None
    threads: CapacityLimiter
    gone: threading.Event = field(default_factory=threading.Event)
    body: bytes = b""
    upload: Upload | None = None

    @property
    def user(self) -> str:
        """The name of who is calling; empty for anonymous, whom `check_writer` refuses."""
        return self.viewer.user if self.viewer else ""

    @property
    def received(self) -> Upload:
        """The streamed body, in a handler whose route takes a file."""
        assert self.upload is not None
        return self.upload

    def param(self, name: str) -> str | None:
        """A query parameter's last value; `name[]` counts as `name`."""
        values = self.params(name)
        return values[-1] if values else None

    def params(self, name: str) -> list[str]:
        return [*self.query.get(name, []), *self.query.get(f"{name}[]", [])]

    def number(self, name: str, default: int = 0) -> int:
        """A query parameter that counts something; a bad request where it does not."""
        text = self.param(name) or str(default)
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise bad_request(f'"{name}" must be a number')
        return int(text)

    def flag(self, name: str) -> bool:
        return (self.param(name) or "").lower() in ("1", "true")

    def json(self) -> dict[str, Any]:
        """The JSON object in the body; an absent body is an empty one."""
        try:
            value = json.loads(self.body) if self.body else {}
        except (ValueError, RecursionError) as error:
            raise bad_request(f"The request's body is no valid JSON: {error}") from error
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise bad_request("The request's body must be a JSON object")
        return value

    def form(self) -> Mapping[str, list[str]]:
        return parse_qs(self.body.decode(errors="replace"), keep_blank_values=True)

    @property
    def kind(self) -> str:
        """The repository type that the path names: "model", "dataset" or "space"."""
        return (self.args.get("kind") or "models").removesuffix("s")

    def repo(self) -> Repo:
        """The path's repository, if the caller may see it."""
        return self.hub.registry.get(self.kind, self.args["repo"], self.viewer)

    def writable_repo(self) -> Repo:
        """The path's repository, if the caller may change it."""
        return self.hub.registry.writable(self.kind, self.args["repo"], self.viewer)


Handler = Callable[[Call], Response]

Admission = Callable[[Call], int]
"""Asked before a body is taken: refuses the call, or says how many bytes the body may have."""


def following(handler: Handler) -> Handler:
    """A repository that is moved or deleted while it is read answers as one that was: a redirect, or not found."""

    @wraps(handler)
    def answer(call: Call) -> Response:
        try:
            return handler(call)
        except (pygit2.GitError, KeyError, HubError) as error:
            if "repo" in call.args and getattr(error, "status", 404) == 404:
                call.hub.registry.settle()
                call.repo()
            raise

    return answer


@dataclass(frozen=True)
class Route:
    """A method and a pattern over the percent-encoded path, and who answers.

    `max_body` is in bytes, and counts for bodies that are taken in memory.
    """

    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    handler: Handler
    operation: str
    admission: Admission | None = None
    hashed: bool = False
    max_body: int = 4 * 1024 * 1024


_PARTS = {
    "kind": r"(?P<kind>models|datasets|spaces)",
    "prefix": r"(?:(?P<kind>datasets|spaces)/)?",
    "repo": r"(?P<repo>[^/]+(?:/[^/]+)?)",
    "path": r"(?P<path>.+)",
    "page": r"(?!(?:api|lfs|xet|-)/)(?P<repo>[^/]+/[^/]+)",
    "name": r"(?!(?:api|lfs|xet|-|models|datasets|spaces)$)[^/]+",
}


def route(
    methods: str,
    template: str,
    handler: Handler,
    operation: str | None = None,
    admission: Admission | None = None,
    hashed: bool = False,
    max_body: int = Route.max_body,
) -> Route:
    """Builds a row of the table.

    Args:
        methods: Such as `"GET|HEAD"`.
        template: A path with `{name}` for one segment, and `{kind}`, `{prefix}`, `{repo}`, `{path}`, and
            for the addresses of pages, which leave those of the API alone, `{page}` and `{name}`.
        handler: Answers the call.
        operation: Its name in the request log and in faults; the handler's name where left out.
        admission: Who may send how much, for a body that is taken as a file; others are taken in memory.
        hashed: Whether the file's sha256 is wanted, too.
        max_body: Bytes that a body in memory may have.
    """
    name = operation or handler.__name__
    pattern = re.sub(r"\{(\w+)\}", lambda m: _PARTS.get(m.group(1), rf"(?P<{m.group(1)}>[^/]+)"), template)
    answer = following(handler)
    return Route(tuple(methods.split("|")), re.compile(pattern), answer, name, admission, hashed, max_body)


@dataclass(frozen=True)
class Page:
    """One page of a list and the number at which the next one starts."""

    items: list[Any]
    next_start: int | None


def paginate(call: Call, items: Iterable[Any], size: int) -> Page:
    """Cuts the page that the `cursor` parameter asks for out of a list."""
    start = call.number("cursor")
    end = start + size
    page = list(islice(items, start, end + 1))
    return Page(page[:size], end if len(page) > size else None)


def page_response(call: Call, page: Page, rows: list[Any]) -> Response:
    """Answers with rows and, where there are more, the `Link` to the next page."""
    headers = {}
    if page.next_start is not None:
        pairs = [(key, value) for key, values in call.query.items() for value in values if key != "cursor"]
        query = "&".join(f"{quote(key)}={quote(value)}" for key, value in pairs)
        url = f"{call.endpoint}{call.path}?{query}{'&' if query else ''}cursor={page.next_start}"
        headers["Link"] = f'<{url}>; rel="next"'
    return _Json(rows, headers=headers)


def stream(call: Call, chunks: Iterator[bytes], status: int, headers: Mapping[str, str]) -> Response:
    """An answer that is read piece by piece while it is sent."""

    async def pieces() -> AsyncIterator[bytes]:
        while piece := await to_thread.run_sync(next, chunks, b"", limiter=call.threads):
            yield piece

    return StreamingResponse(pieces(), status, headers)


class _Json(JSONResponse):
    """Halves of characters, which strings of JSON and Python can hold and UTF-8 cannot, become question marks."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode(errors="replace")


def ok(value: Any = None, status: int = 200) -> Response:
    """A JSON answer; an empty object where there is nothing to say."""
    return _Json({} if value is None else value, status)
