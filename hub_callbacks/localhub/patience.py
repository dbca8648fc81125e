"""How long a client may take to send and to read: one that stalls holds a connection, files, and processes."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .faults import Connections

_SENDING = 120.0
"""Seconds that may pass until 16 KiB more of a body have come, or its end."""
_PIECE = 16 * 1024
_READING = 300.0
"""Seconds that a client may take to make room for a piece of an answer of a megabyte, or for anything at all."""


class Patience:
    """ASGI layer in front of all others that ends the connections of clients that stall.

    Args:
        app: What answers.
        connections: The open connections.
    """

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = tuple(scope["client"])
        left, missing, ended = _SENDING, _PIECE, False

        async def patient_receive() -> Message:
            nonlocal left, missing, ended
            if ended:
                return await receive()
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                message = await asyncio.wait_for(receive(), left)
            except asyncio.TimeoutError:
                self._connections.reset(client)
                ended = True
                return {"type": "http.disconnect"}
            left -= loop.time() - began
            missing -= len(message.get("body", b""))
            if missing <= 0:
                left, missing = _SENDING, _PIECE
            ended = not message.get("more_body")
            return message

        async def patient_send(message: Message) -> None:
            try:
                await asyncio.wait_for(send(message), _READING)
            except asyncio.TimeoutError:
                self._connections.reset(client)
            else:
                if not message.get("more_body"):
                    self._watch(client, 0)

        await self._app(scope, patient_receive, patient_send)

    def _watch(self, client: tuple[str, int], before: int) -> None:
        """Looks after what was handed over whole, and nobody waits for."""
        unsent = self._connections.unsent(client)
        if unsent and unsent == before:
            self._connections.reset(client)
        elif unsent:
            asyncio.get_running_loop().call_later(_READING, self._watch, client, unsent)
