"""Trouble on demand, for tests: refusals, cut connections, hanging and lost answers, slow uploads; and a log.

with hub.inject(Fault("commit", LoseResponse(), times=1)):
    api.create_commit(...)  # is done on the hub, but the client never hears of it
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .routes import OPERATIONS, OWN_XET_SERVICE, find_route

_POLL = 0.02
_LONGEST_LOG = 100_000
_LONGEST_PATH = 500


@dataclass(frozen=True)
class Answer:
    """Answers with this status instead of handling the request.

    Args:
        status: HTTP status code.
        headers: Such as `{"Retry-After": "3"}`.
        message: The text of the JSON error.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "Injected fault"


@dataclass(frozen=True)
class Reset:
    """Resets the connection before anything is handled, once so many bytes of the body have come."""

    after_bytes: int = 0


@dataclass(frozen=True)
class Hang:
    """Does nothing for so many seconds (None: until the fault is cleared), then handles the request."""

    seconds: float | None = None


@dataclass(frozen=True)
class LoseResponse:
    """Handles the request wholly, then resets the connection instead of answering."""


@dataclass(frozen=True)
class Fault:
    """Which requests are in trouble, and how.

    Args:
        on: An operation's name (see `OPERATIONS`, such as "commit"), `"METHOD regex"` over the path, or `"*"`.
        action: What happens to them.
        times: How many requests are hit; None for all until the fault is cleared.

    Raises:
        ValueError: There is no such operation.
    """

    on: str
    action: Answer | Reset | Hang | LoseResponse
    times: int | None = None

    def __post_init__(self) -> None:
        if self.on != "*" and " " not in self.on and self.on not in OPERATIONS:
            raise ValueError(
                f"There is no operation {self.on!r}. Use one of {', '.join(sorted(OPERATIONS))}, "
                "'METHOD path-regex' or '*'."
            )

    def hits(self, method: str, path: str, operation: str | None) -> bool:
        """Whether a request is meant."""
        if " " in self.on:
            wanted_method, pattern = self.on.split(" ", 1)
            return method == wanted_method and re.search(pattern, path) is not None
        return self.on in ("*", operation)


class Injection:
    """A fault at work; leave its `with` block or call `clear` to end it."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        """How many requests it has hit."""
        self._cleared = threading.Event()
        self._lock = threading.Lock()

    @property
    def cleared(self) -> bool:
        return self._cleared.is_set()

    def clear(self) -> None:
        """Ends the fault; requests that hang in it go on."""
        self._cleared.set()

    def claim(self, method: str, path: str, operation: str | None) -> bool:
        """Whether it hits this request; counts it then."""
        with self._lock:
            spent = self.fault.times is not None and self.hits >= self.fault.times
            if self.cleared or spent or not self.fault.hits(method, path, operation):
                return False
            self.hits += 1
            return True

    def __enter__(self) -> Injection:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


@dataclass(frozen=True)
class Seen:
    """A finished request; `status` is None where no answer was sent.

    Of a path the log keeps 500 characters.
    """

    method: str
    path: str
    status: int | None
    operation: str | None


class Connections:
    """The open connections by the client's address, so that one can be reset."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}

    def opened(self, transport: asyncio.Transport) -> None:
        self._transports[_peer(transport)] = transport

    def closed(self, transport: asyncio.Transport) -> None:
        self._transports.pop(_peer(transport), None)

    def unsent(self, client: tuple[str, int]) -> int:
        """How many bytes the client has not made room for yet."""
        transport = self._transports.get(client)
        return transport.get_write_buffer_size() if transport is not None else 0

    def reset(self, client: tuple[str, int]) -> None:
        """Ends a connection so that the client sees a reset, not an orderly end."""
        transport = self._transports.get(client)
        if transport is not None:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            transport.abort()


class Trouble:
    """ASGI layer in front of the hub that injects faults, slows uploads down and keeps the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.connections = Connections()
        self.seen: deque[Seen] = deque(maxlen=_LONGEST_LOG)
        self.bytes_per_second: float | None = None
        self._app = app
        self._injections: list[Injection] = []
        self._is_closing = False
        self._free_at = 0.0

    def inject(self, fault: Fault) -> Injection:
        injection = Injection(fault)
        self._injections = [*(item for item in self._injections if not item.cleared), injection]
        return injection

    def clear(self) -> None:
        """Ends all faults."""
        for injection in self._injections:
            injection.clear()
        self._injections = []

    def close(self) -> None:
        """The hub stops: requests that hang in faults, and those that still come, are cut off."""
        self._is_closing = True
        self.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["raw_path"].decode("ascii", "replace")
        if path.startswith(f"{OWN_XET_SERVICE}/"):
            await self._app(scope, receive, send)
            return
        found = find_route(scope["method"], path)
        operation = found[0].operation if found else None
        status: int | None = None
        noted = False

        def note() -> None:
            nonlocal noted
            if not noted:
                noted = True
                self.seen.append(Seen(scope["method"], path[:_LONGEST_PATH], status, operation))

        async def noted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body"):
                note()  # before the client can know that the answer is complete
            await send(message)

        injection = next((item for item in self._injections if item.claim(scope["method"], path, operation)), None)
        try:
            await self._run(injection, scope, self._paced(receive), noted_send)
        finally:
            note()

    async def _run(self, injection: Injection | None, scope: Scope, receive: Receive, send: Send) -> None:
        action = injection.fault.action if injection else None
        if isinstance(action, Answer):
            await _drain(receive)
            response = JSONResponse({"error": action.message}, action.status, action.headers)
            response.headers["X-Error-Message"] = action.message
            await response(scope, receive, send)
        elif isinstance(action, Reset):
            await _drain(receive, action.after_bytes)
            await self._reset(scope, receive)
        elif isinstance(action, LoseResponse):
            await self._app(scope, receive, _discard)
            await self._reset(scope, receive)
        else:
            if isinstance(action, Hang) and injection is not None:
                await _hang(injection, action.seconds)
            if self._is_closing:
                await self._reset(scope, receive)
            else:
                await self._app(scope, receive, send)

    async def _reset(self, scope: Scope, receive: Receive) -> None:
        self.connections.reset(tuple(scope["client"]))
        while (await receive())["type"] != "http.disconnect":
            pass

    def _paced(self, receive: Receive) -> Receive:
        """All uploads together stay below the limit, as on one line."""

        async def paced_receive() -> Message:
            message = await receive()
            rate, size = self.bytes_per_second, len(message.get("body", b""))
            if rate is not None and size:
                now = asyncio.get_running_loop().time()
                self._free_at = max(self._free_at, now) + size / rate
                await asyncio.sleep(self._free_at - now)
            return message

        return paced_receive


async def _drain(receive: Receive, limit: int | None = None) -> None:
    """Reads the body, or so many bytes of it."""
    size = 0
    while limit is None or size < limit:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def _hang(injection: Injection, seconds: float | None) -> None:
    loop = asyncio.get_running_loop()
    end = None if seconds is None else loop.time() + seconds
    while not injection.cleared and (end is None or loop.time() < end):
        await asyncio.sleep(_POLL)


async def _discard(message: Message) -> None:
    del message


def _peer(transport: asyncio.Transport) -> tuple[str, int]:
    address: Any = transport.get_extra_info("peername")
    return str(address[0]), int(address[1])
