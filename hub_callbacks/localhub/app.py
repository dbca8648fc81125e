"""The ASGI application: finds the handler, receives the body, answers, and turns refusals into answers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, unquote

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from .errors import HubError, Moved, no_room
from .repos import not_found
from .routes import find_route
from .web import Call, Handler, Hub, Route, Upload

logger = logging.getLogger(__name__)

_MAX_DRAINED = 64 * 1024 * 1024
_MAX_BODIES = 128 * 1024 * 1024
"""Bytes of all bodies that are in memory at a time."""
_MAX_VALUES = 200_000
"""Lists, objects and fields in a body; each takes up to forty times the memory that it took on the way."""
_WRITE_SIZE = 1 << 20
_THREADS = 20
_CHECKING_THREADS = 64
_NOT_FOUND = Route((), re.compile(""), not_found, "")


class App:
    """The hub as an ASGI application.

    Args:
        hub: The state that all handlers share.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._threads = CapacityLimiter(_THREADS)
        # Other handlers wait for the Xet service when they unpack a file, so reading from it has its own threads.
        self._xet_threads = CapacityLimiter(_THREADS)
        # To check what comes can take long, and waits for the Xet service, too; so does a clone for its git.
        self._checking_threads = CapacityLimiter(_CHECKING_THREADS)
        self._clone_threads = CapacityLimiter(_CHECKING_THREADS)
        self._in_memory = 0
        self._working: set[int] = set()
        self._changed = threading.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        wanted_id = request.headers.get("x-request-id") or request.headers.get("x-amzn-trace-id")
        response.headers["X-Request-Id"] = wanted_id or uuid.uuid4().hex
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii", "replace")
        try:
            return await self._handle(request, path)
        except HubError as error:
            await _drain(request)
            return refusal(error)
        except Moved as moved:
            await _drain(request)
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(path.replace(moved.old_id, moved.new_id, 1) + query, status_code=307)
        except ClientDisconnect:
            raise
        except Exception as error:
            if (refused := no_room(error)) is not None:
                logger.error("%s %s: %s", request.method, path[:500], error)
                await _drain(request)
                return refusal(refused)
            logger.exception("%s %s failed", request.method, path)
            return refusal(HubError(500, "Internal Error - the hub's log says more"))

    async def _handle(self, request: Request, path: str) -> Response:
        route, parts = find_route(request.method, path) or (_NOT_FOUND, {})
        is_xet = path.startswith("/xet/")
        # Also for addresses that are not there, which hf_xet tries first.
        threads = self._threads
        if is_xet:
            threads = self._xet_threads if request.method == "GET" else self._checking_threads
        elif route.operation == "upload_pack":
            threads = self._clone_threads
        # The Xet service has tokens of its own.
        authorization = None if is_xet else request.headers.get("authorization")
        viewer = self._hub.accounts.identify(authorization)
        call = Call(
            hub=self._hub,
            method=request.method,
            path=path,
            args={name: unquote(value) for name, value in parts.items()},
            query=parse_qs(request.url.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in request.headers.items()},
            endpoint=f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}",
            viewer=viewer,
            threads=threads,
        )
        if route is _NOT_FOUND:
            return route.handler(call)
        if route.admission is None:
            body = bytearray()
            try:
                await self._read_small(request, route.max_body, body)
                call = replace(call, body=bytes(body))
                return await self._run(route.handler, call, request)
            finally:
                self._in_memory -= len(body)
        limit = await to_thread.run_sync(route.admission, call, limiter=threads)
        spooled = self._hub.tmp / f"body-{uuid.uuid4().hex}"
        try:
            upload = await _spool(request, spooled, limit, route.hashed, threads)
            call = replace(call, upload=upload)
            return await self._run(route.handler, call, request)
        finally:
            spooled.unlink(missing_ok=True)

    async def _run(self, handler: Handler, call: Call, request: Request) -> Response:
        """Runs a handler, and tells it when nobody waits for its answer any more."""

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            call.gone.set()

        watching = asyncio.create_task(watch())
        try:
            return await to_thread.run_sync(self._work, handler, call, limiter=call.threads)
        finally:
            watching.cancel()

    async def _read_small(self, request: Request, limit: int, body: bytearray) -> None:
        """Reads a body into memory; what of it is there counts with those of other requests."""
        async for chunk in request.stream():
            body += chunk
            self._in_memory += len(chunk)
            if len(body) > limit:
                raise HubError(413, f"A request of this kind has at most {limit} bytes")
            if self._in_memory > _MAX_BODIES:
                raise HubError(503, "The hub has too much to read. Nothing was done; try again in a moment.")
        if sum(map(body.count, (b"{", b"[", b"&"))) > _MAX_VALUES:
            raise HubError(413, f"A request has at most {_MAX_VALUES} values")

    def _work(self, handler: Handler, call: Call) -> Response:
        thread = threading.get_ident()
        with self._changed:
            self._working.add(thread)
        try:
            return handler(call)
        finally:
            with self._changed:
                self._working.discard(thread)
                self._changed.notify_all()

    def is_idle(self, seconds: float) -> bool:
        """Whether no handler works but the caller, or none does within some seconds.

        One goes on when its request is cut off.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self._working <= {threading.get_ident()}, seconds)


def refusal(error: HubError) -> Response:
    """A refusal as the Hub words it: in the body and in headers."""
    message = error.message.encode(errors="replace").decode()
    line = "".join(letter if letter.isprintable() else " " for letter in message)
    headers = {**error.headers, "X-Error-Message": line.encode("latin-1", "replace").decode("latin-1").strip()}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": message, **error.extra}, error.status, headers)


async def _drain(request: Request) -> None:
    """Takes what is left of a short body, as not every client reads an answer while it is still sending."""
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _MAX_DRAINED:
                return
    except (ClientDisconnect, RuntimeError):
        return


async def _spool(request: Request, path: Path, limit: int, hashed: bool, threads: CapacityLimiter) -> Upload:
    """Streams a body to a file; memory holds one piece of about a megabyte."""
    digest = hashlib.sha256()
    size = 0
    with path.open("wb") as file:

        def write(piece: bytes) -> None:
            file.write(piece)
            if hashed:
                digest.update(piece)

        pending = bytearray()
        async for chunk in request.stream():
            pending += chunk
            if size + len(pending) > limit:
                raise HubError(413, f"This request may have at most {limit} bytes. Nothing was stored.")
            if len(pending) >= _WRITE_SIZE:
                await to_thread.run_sync(write, bytes(pending), limiter=threads)
                size += len(pending)
                pending.clear()
        write(bytes(pending))
        size += len(pending)
    return Upload(path, size, digest.hexdigest() if hashed else "")
