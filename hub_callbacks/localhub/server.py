"""Running the hub: in a thread of a Python program, or as a process."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from .accounts import OrganizationRole, Role
from .faults import Fault, Injection, Seen
from .running import DEFAULT_USER, LOOPBACK, Running

_PART_SIZE = 64 * 1024 * 1024


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
        names: Names by which it is called beside its address and "localhost"; requests to others are refused.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        port: int = 0,
        host: str = LOOPBACK,
        lfs_part_size: int = _PART_SIZE,
        names: Iterable[str] = (),
    ) -> None:
        self._wanted_root = root
        self._wanted_port = port
        self._host = host
        self._part_size = lfs_part_size
        self._names = tuple(names)
        self._token: str | None = None
        self._running: Running | None = None

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
            self._running = Running(self._wanted_root, self._host, self._wanted_port, self._part_size, self._names)
        return self

    def stop(self) -> None:
        """Stops answering and frees the port; a temporary folder is removed."""
        running, self._running, self._token = self._running, None, None
        if running is not None:
            running.stop()

    def __enter__(self) -> LocalHub:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _now(self) -> Running:
        if self._running is None:
            raise RuntimeError("The hub is not running: call start() or use it in a `with` block.")
        return self._running


def serve(root: str | Path, port: int, host: str = LOOPBACK, names: Iterable[str] = ()) -> None:
    """Runs a hub until the process gets SIGINT or SIGTERM, and prints one line with its address.

    The first start of a folder also prints the token of the user "local"; it cannot be read again later.

    Args:
        root: Folder for repositories, users and large files.
        port: TCP port; 0 takes a free one.
        host: Address to listen on.
        names: Names by which it is called beside its address and "localhost".

    Raises:
        RuntimeError: Another hub works on the same folder, or other machines would reach one without tokens.
        OSError: The address is in use or not allowed.
    """
    # Each connection and each file that is read takes one; the soft limit is made for programs that use select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with LocalHub(root, port, host, names=names) as hub:
        token = f" HF_TOKEN={hub.token}" if hub.first_start else ""
        print(f"Hub at {hub.endpoint} - use it with: HF_ENDPOINT={hub.endpoint}{token}", flush=True)
        ended.wait()
