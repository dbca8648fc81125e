"""One run of the server: its folder, its socket, its threads."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pygit2
import uvicorn
from filelock import FileLock, Timeout
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from .accounts import Accounts
from .app import App
from .content import ContentStore
from .faults import Trouble
from .hostnames import OwnNames
from .housekeeping import Housekeeper
from .patience import Patience
from .registry import Registry
from .routes import OWN_XET_SERVICE
from .senders import Senders
from .web import Hub
from .xet_tokens import ForHub, make

DEFAULT_USER = "local"
_MAX_CACHED_FOLDER = 4 * 1024 * 1024  # bytes: some 100,000 files
_MAX_CACHE = 64 * 1024 * 1024  # bytes, of all git objects together
LOOPBACK = "127.0.0.1"
_GRACE = 2
_MAX_HEADERS = 64 * 1024
# Seconds. Above the 5 s after which clients let go of an idle connection themselves: a server that closes it first
# resets a request that is on its way.
_KEEP_ALIVE = 75


class Running:
    """One run of the server: its folder, its socket and its thread."""

    def __init__(
        self, root: str | Path | None, host: str, port: int, lfs_part_size: int, names: Iterable[str]
    ) -> None:
        # From now on git objects and refs of this process are flushed to the disk when they are written.
        pygit2.settings.enable_fsync_gitdir(True)
        # A folder of many files stays in memory while a call looks at them: it is read once and not for each.
        pygit2.settings.cache_object_limit(pygit2.enums.ObjectType.TREE, _MAX_CACHED_FOLDER)
        pygit2.settings.cache_max_size(_MAX_CACHE)
        self._temporary = root is None
        self.root = Path(tempfile.mkdtemp(prefix="localhub-") if root is None else root).resolve()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = (
                f"The hub cannot keep its repositories in {self.root}: it is no folder, or none can be made there."
            )
            raise OSError(error.errno, f"{why} Choose another folder.") from error
        self._lock = FileLock(self.root / "hub.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise RuntimeError(
                f"Another hub already works on {self.root}. Stop it first, or choose another folder; "
                "nothing was changed."
            ) from error
        try:
            self.accounts = Accounts(self.root / "accounts.json")
            _check_exposure(host, self.accounts)
            self._socket = _listen(host, port)
        except (OSError, RuntimeError):
            self._lock.release()
            raise
        self.port = int(self._socket.getsockname()[1])
        tmp = self.root / "tmp"
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir()
        self.first_start = not self.accounts.has_tokens
        if self.accounts.canonical(DEFAULT_USER) is None:
            self.accounts.add_user(DEFAULT_USER)
        content = ContentStore(self.root, lambda: self._own_xet_service(host))
        registry = Registry(self.root)
        self.housekeeper = Housekeeper(registry, content)
        senders = Senders(self.root / "senders.txt")
        hub = Hub(self.accounts, registry, content, senders, self.housekeeper, tmp, lfs_part_size)
        self._content = content
        self._app = App(hub)
        self.trouble = Trouble(self._app)
        self._server = uvicorn.Server(_config(self.trouble, OwnNames(self.trouble, host, names)))
        serve = partial(self._server.run, sockets=[self._socket])
        self._thread = threading.Thread(target=serve, name="localhub", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("The hub could not start; its log says why.")
            time.sleep(0.005)
        self.housekeeper.start()

    def stop(self) -> None:
        self.trouble.close()
        self.housekeeper.stop()
        self._server.should_exit = True
        self._thread.join()
        while not self._app.is_idle(0.05):  # what it writes, the next hub on this folder has to know
            self._content.xet.abandon()
        self._content.xet.close()
        self._socket.close()
        self._lock.release()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def _own_xet_service(self, host: str) -> tuple[str, str, int]:
        reachable = {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        token, expiry = make(self.accounts, ForHub())
        return f"http://{reachable}:{self.port}{OWN_XET_SERVICE}", token, expiry


def _check_exposure(host: str, accounts: Accounts) -> None:
    """Raises: RuntimeError: other machines could reach a hub that nobody has a token of."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback and not accounts.has_tokens:
        raise RuntimeError(
            f"This hub would listen on {host}, where other machines reach it, and no token was made for it yet. "
            "Nothing was started. Start it once on 127.0.0.1: that prints a token. Then start it on this address."
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sends small pieces at once (TCP_NODELAY) only where it is.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        why = f"The hub cannot listen on {host}, port {port}: {error.strerror}."
        raise OSError(
            error.errno, f"{why} Choose another port (0 takes a free one), or another address."
        ) from error
    return listener


def _config(trouble: Trouble, app: ASGIApp) -> uvicorn.Config:
    class Protocol(H11Protocol):
        """Tells the fault layer about connections, which an ASGI application cannot see."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            trouble.connections.opened(transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            trouble.connections.closed(self.transport)
            super().connection_lost(exc)

    return uvicorn.Config(
        Patience(app, trouble.connections),
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=_MAX_HEADERS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
