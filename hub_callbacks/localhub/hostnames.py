"""Which names the hub answers to.

A website can make its own name lead to this machine; its scripts could then read what the hub says as if it were
theirs. But the browser still tells that name, in `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from .app import refusal
from .errors import HubError

_EVERYWHERE = ("0.0.0.0", "::")


class OwnNames:
    """ASGI layer in front of all others: a request to another name is not handled, logged or hit by faults.

    Args:
        app: What answers.
        host: The address that the hub listens on.
        names: Further names of it.
    """

    def __init__(self, app: ASGIApp, host: str, names: Iterable[str]) -> None:
        self._app = app
        self._host = host
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = Request(scope).headers.get("host", "")
        if is_own(header, self._host, self._names):
            await self._app(scope, receive, send)
            return
        name = host_name(header)
        message = (
            f"This hub does not answer to the name {name!r}, under which any website could read it. "
            f"Use its address, or start it with --name {name}"
        )
        await refusal(HubError(421, message))(scope, receive, send)


def is_own(header: str, host: str, names: Collection[str]) -> bool:
    """Whether a request is meant for this hub.

    Args:
        header: `Host` as sent; empty where there was none, which no browser does.
        host: The address that the hub listens on.
        names: Its further names, in lower case.
    """
    name = host_name(header)
    if not header or name in ("localhost", host.lower()) or name in names:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # Nobody can make an address lead elsewhere. Behind a forwarded port it is none that this machine knows of.
    return address.is_loopback or host in _EVERYWHERE


def host_name(header: str) -> str:
    """The name in a `Host` header, without its port."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")
