"""Running the hub: in a thread of a Python program, or as a process."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import uvicorn
from filelock import FileLock, Timeout
from uvicorn.protocols.http.h11_impl import H11Protocol

from . import gitstore
from .accounts import Accounts, OrganizationRole, Role
from .app import App
from .cas import make_token
from .content import ContentStore
from .faults import Fault, Injection, Seen, Trouble
from .housekeeping import Housekeeper
from .registry import Registry
from .routes import OWN_XET_SERVICE
from .web import Hub

DEFAULT_USER = "local"
_LOOPBACK = "127.0.0.1"
_PART_SIZE = 64 * 1024 * 1024
_GRACE = 2
_MAX_HEADERS = 64 * 1024


class LocalHub:
    """A Hub on this machine, for the unmodified clients.

        with LocalHub() as hub:
            api = HfApi(endpoint=hub.endpoint, token=hub.token)

    Args:
        root: Folder for repositories, users and large files, kept over restarts. None: a temporary one, which
            is removed at the end.
        port: TCP port; 0 takes a free one.
        host: Address to listen on. Other machines reach the hub only if this is not a loopback address, which
            needs a folder that has tokens already.
        lfs_part_size: LFS uploads above this many bytes come in parts of this size.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        port: int = 0,
        host: str = _LOOPBACK,
        lfs_part_size: int = _PART_SIZE,
    ) -> None:
        self._wanted_root = root
        self._wanted_port = port
        self._host = host
        self._part_size = lfs_part_size
        self._token: str | None = None
        self._running: _Running | None = None

    @property
    def root(self) -> Path:
        """The folder in use."""
        return self._now.root

    @property
    def endpoint(self) -> str:
        """What `HF_ENDPOINT` is set to, such as `http://127.0.0.1:8090`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._now.port}"

    @property
    def first_start(self) -> bool:
        """Whether nobody had a token of this hub before."""
        return self._now.first_start

    @property
    def token(self) -> str:
        """A token of the user "local" with write rights; the same one as long as this object runs."""
        if self._token is None:
            self._token = self.add_token(DEFAULT_USER)
        return self._token

    @property
    def requests(self) -> list[Seen]:
        """The requests that were finished so far, in that order; the last 100 000 of them."""
        return list(self._now.trouble.seen)

    def clear_requests(self) -> None:
        """Empties the list of requests."""
        self._now.trouble.seen.clear()

    def add_user(self, name: str) -> str:
        """Registers a user and returns a token with write rights.

        Raises:
            ValueError: The name is taken or not possible.
        """
        self._now.accounts.add_user(name)
        return self.add_token(name)

    def add_token(self, user: str, role: Role = "write") -> str:
        """Returns a new token of a user, with "read" or "write" rights.

        Raises:
            ValueError: There is no such user or role.
        """
        return self._now.accounts.add_token(user, role)

    def add_organization(self, name: str, members: Mapping[str, OrganizationRole]) -> None:
        """Registers an organisation, in whose name its members create repositories.

        Args:
            name: The first part of its repositories' ids.
            members: Users and what they may do there: "read" its private repositories, or "write"; "admin" is the
                same as "write" on this hub.

        Raises:
            ValueError: The name is taken or not possible; a member is no user, or a role none.
        """
        self._now.accounts.add_organization(name, members)

    def inject(self, fault: Fault) -> Injection:
        """Brings a fault into action; it ends with its `clear()`, or with its `with` block."""
        return self._now.trouble.inject(fault)

    def clear_faults(self) -> None:
        """Ends all faults."""
        self._now.trouble.clear()

    def throttle(self, bytes_per_second: float | None) -> None:
        """Limits what all uploads together may send; None for no limit.

        Raises:
            ValueError: The limit is not above zero.
        """
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second must be above zero or None, not {bytes_per_second}")
        self._now.trouble.bytes_per_second = bytes_per_second

    def start(self) -> LocalHub:
        """Starts answering.

        Raises:
            RuntimeError: Another hub works on the same folder, or other machines would reach one without tokens.
            OSError: The address is in use or not allowed.
        """
        if self._running is None:
            self._running = _Running(self._wanted_root, self._host, self._wanted_port, self._part_size)
        return self

    def stop(self) -> None:
        """Stops answering and frees the port; a temporary folder is removed."""
        running, self._running, self._token = self._running, None, None
        if running is not None:
            running.stop()

    def __enter__(self) -> LocalHub:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _now(self) -> _Running:
        if self._running is None:
            raise RuntimeError("The hub is not running: call start() or use it in a `with` block.")
        return self._running


def serve(root: str | Path, port: int, host: str = _LOOPBACK) -> None:
    """Runs a hub until the process gets SIGINT or SIGTERM, and prints one line with its address.

    The first start of a folder also prints the token of the user "local"; it cannot be read again later.

    Args:
        root: Folder for repositories, users and large files.
        port: TCP port; 0 takes a free one.
        host: Address to listen on.

    Raises:
        RuntimeError: Another hub works on the same folder, or other machines would reach one without tokens.
        OSError: The address is in use or not allowed.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with LocalHub(root, port, host) as hub:
        token = f" HF_TOKEN={hub.token}" if hub.first_start else ""
        print(f"Hub at {hub.endpoint} - use it with: HF_ENDPOINT={hub.endpoint}{token}", flush=True)
        ended.wait()


class _Running:
    """One run of the server: its folder, its socket and its thread."""

    def __init__(self, root: str | Path | None, host: str, port: int, lfs_part_size: int) -> None:
        gitstore.flush_always()
        self._temporary = root is None
        self.root = Path(tempfile.mkdtemp(prefix="localhub-") if root is None else root).resolve()
        self.root.mkdir(parents=True, exist_ok=True)
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
        hub = Hub(self.accounts, registry, content, self.housekeeper, tmp, lfs_part_size)
        self.trouble = Trouble(App(hub))
        self._server = uvicorn.Server(_config(self.trouble))
        self._thread = threading.Thread(target=self._run, name="localhub", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("The hub could not start; its log says why.")
            time.sleep(0.005)
        self.housekeeper.start()

    def stop(self) -> None:
        self.trouble.clear()
        self.housekeeper.stop()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self._lock.release()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def _own_xet_service(self, host: str) -> tuple[str, str, int]:
        reachable = {"0.0.0.0": _LOOPBACK, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        token, expiry = make_token(self.accounts.secret, "read")
        return f"http://{reachable}:{self.port}{OWN_XET_SERVICE}", token, expiry

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


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
    except OSError:
        listener.close()
        raise
    return listener


def _config(trouble: Trouble) -> uvicorn.Config:
    class Protocol(H11Protocol):
        """Tells the fault layer about connections, which an ASGI application cannot see."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            trouble.connections.opened(transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            trouble.connections.closed(self.transport)
            super().connection_lost(exc)

    return uvicorn.Config(
        trouble,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=_MAX_HEADERS,
        timeout_graceful_shutdown=_GRACE,
    )
