"""Users and their access tokens. Only hashes of tokens are stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .durable import read_json, write_json
from .errors import HubError

Role = Literal["read", "write"]

ASK_FOR_PASSWORD = {"WWW-Authenticate": 'Basic realm="Hub: any user name, with a token as the password"'}
"""Response headers that make a browser or git ask its user."""

_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True)
class Identity:
    """Who is calling, and with which rights."""

    user: str
    role: Role
    token_name: str


class Accounts:
    """The users of one hub, kept in one JSON file.

    Args:
        path: The file; it is made on the first change.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        stored = read_json(path, {})
        self._users: dict[str, dict[str, Any]] = stored.get("users", {})
        self._tokens: dict[str, dict[str, str]] = stored.get("tokens", {})
        self._secret: str = stored.get("secret") or secrets.token_hex(32)

    @property
    def secret(self) -> bytes:
        """Key that signs upload addresses; stable over restarts."""
        return bytes.fromhex(self._secret)

    @property
    def has_tokens(self) -> bool:
        """Whether anybody ever got a token."""
        return bool(self._tokens)

    def canonical(self, name: str) -> str | None:
        """The user's name as registered, found without regard to case."""
        return next((user for user in self._users if user.lower() == name.lower()), None)

    def add_user(self, name: str) -> None:
        """Registers a user.

        Raises:
            ValueError: The name is taken or cannot be a namespace.
        """
        if not _USER_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot be a user name: use letters, digits, '.', '_' and '-'. Nothing was changed."
            )
        with self._lock:
            if self.canonical(name) is not None:
                raise ValueError(f"A user called {name!r} already exists. Nothing was changed.")
            self._users[name] = {}
            self._save()

    def add_token(self, user: str, role: Role = "write") -> str:
        """Makes a new token; this is the only time that it can be read.

        Raises:
            ValueError: There is no such user, or the role is neither "read" nor "write".
        """
        if role not in ("read", "write"):
            raise ValueError(f"A token's role is 'read' or 'write', not {role!r}. Nothing was changed.")
        token = "hf_" + secrets.token_urlsafe(26).replace("-", "x").replace("_", "y")
        with self._lock:
            owner = self.canonical(user)
            if owner is None:
                raise ValueError(f"There is no user called {user!r}; add the user first. Nothing was changed.")
            name = f"{role}-{len(self._tokens) + 1}"
            self._tokens[_digest(token)] = {"user": owner, "role": role, "name": name}
            self._save()
        return token

    def identify(self, authorization: str | None) -> Identity | None:
        """The caller behind an `Authorization` header; None for an anonymous one.

        Browsers and git send the token as a password ("Basic"). That gives read rights only: a browser adds it
        to whatever request another site makes it send.

        Raises:
            HubError: The header holds something that is no valid token (401).
        """
        if not authorization:
            return None
        scheme, _, value = authorization.partition(" ")
        is_password = scheme.lower() == "basic"
        token = _password(value) if is_password else value if scheme.lower() == "bearer" else ""
        entry = self._tokens.get(_digest(token.strip()))
        if entry is None:
            headers = ASK_FOR_PASSWORD if is_password else None
            raise HubError(401, "Invalid credentials in Authorization header", headers=headers)
        role: Role = "write" if entry["role"] == "write" and not is_password else "read"
        return Identity(entry["user"], role, entry["name"])

    def _save(self) -> None:
        write_json(self._path, {"users": self._users, "tokens": self._tokens, "secret": self._secret})


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
