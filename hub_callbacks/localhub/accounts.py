"""Users, organisations and access tokens. Only hashes of tokens are stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from .durable import read_json, write_json
from .errors import HubError

Role = Literal["read", "write"]

OrganizationRole = Literal["read", "write", "admin"]
"""What a member may do in an organisation's repositories; all but "read" write."""

ASK_FOR_PASSWORD = {"WWW-Authenticate": 'Basic realm="Hub: any user name, with a token as the password"'}
"""Response headers that make a browser or git ask its user."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_RESERVED = {"api", "lfs", "xet", "models", "datasets", "spaces"}


@dataclass(frozen=True)
class Identity:
    """Who is calling, and with which rights.

    Args:
        user: The user's name.
        role: What the token allows.
        token_name: How the token is called.
        organizations: The user's organisations, with the role in each.
    """

    user: str
    role: Role
    token_name: str
    organizations: Mapping[str, OrganizationRole] = field(default_factory=dict)

    def may_read(self, namespace: str) -> bool:
        """Whether private and gated repositories of this user or organisation are open to the caller."""
        return self.user.lower() == namespace.lower() or self._role_in(namespace) is not None

    def may_write(self, namespace: str) -> bool:
        """Whether the caller may change the repositories of this user or organisation, given the right token."""
        return self.user.lower() == namespace.lower() or self._role_in(namespace) in ("write", "admin")

    def _role_in(self, organization: str) -> OrganizationRole | None:
        wanted = organization.lower()
        return next((role for name, role in self.organizations.items() if name.lower() == wanted), None)


class Accounts:
    """The users and organisations of one hub, kept in one JSON file.

    Args:
        path: The file; it is made on the first change.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        stored = read_json(path, {})
        self._users: dict[str, dict[str, Any]] = stored.get("users", {})
        self._organizations: dict[str, dict[str, OrganizationRole]] = stored.get("organizations", {})
        self._tokens: dict[str, dict[str, str]] = stored.get("tokens", {})
        self._secret: str = stored.get("secret") or secrets.token_hex(32)

    def sign(self, text: str) -> str:
        """What only this hub can say about a text, with a key that is stable over restarts."""
        return hmac.new(bytes.fromhex(self._secret), text.encode(), hashlib.sha256).hexdigest()

    @property
    def has_tokens(self) -> bool:
        """Whether anybody ever got a token."""
        return bool(self._tokens)

    def canonical(self, name: str) -> str | None:
        """A user's or an organisation's name as registered, found without regard to case."""
        known = (*self._users, *self._organizations)
        return next((found for found in known if found.lower() == name.lower()), None)

    def is_user(self, name: str) -> bool:
        """Whether this, as registered, is a user's name."""
        return name in self._users

    def members(self, organization: str) -> Mapping[str, OrganizationRole] | None:
        """The members of an organisation, named as registered, with their roles; None where there is none."""
        return self._organizations.get(organization)

    def organizations_of(self, user: str) -> dict[str, OrganizationRole]:
        """The organisations that a user is a member of, with the role in each."""
        return {name: members[user] for name, members in self._organizations.items() if user in members}

    def add_user(self, name: str) -> None:
        """Registers a user.

        Raises:
            ValueError: The name is taken or cannot be a namespace.
        """
        with self._lock:
            self._check_free(name)
            self._users[name] = {}
            self._save()

    def add_organization(self, name: str, members: Mapping[str, OrganizationRole]) -> None:
        """Registers an organisation.

        Args:
            name: The first part of its repositories' ids.
            members: Users and what each of them may do.

        Raises:
            ValueError: The name is taken or cannot be a namespace; a member is no user, or a role none.
        """
        with self._lock:
            self._check_free(name)
            known: dict[str, OrganizationRole] = {}
            for user, role in members.items():
                if role not in get_args(OrganizationRole):
                    allowed = ", ".join(map(repr, get_args(OrganizationRole)))
                    raise ValueError(f"A member's role is one of {allowed}, not {role!r}. Nothing was changed.")
                known[self._registered_user(user)] = role
            self._organizations[name] = known
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
            owner = self._registered_user(user)
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
        return Identity(entry["user"], role, entry["name"], self.organizations_of(entry["user"]))

    def reader(self, user: str) -> Identity | None:
        """Somebody who identified before, such as to get a link, with the rights to read that they have now."""
        return Identity(user, "read", "", self.organizations_of(user)) if self.is_user(user) else None

    def _registered_user(self, name: str) -> str:
        found = self.canonical(name)
        if found is None or not self.is_user(found):
            raise ValueError(f"There is no user called {name!r}; add the user first. Nothing was changed.")
        return found

    def _check_free(self, name: str) -> None:
        if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
            raise ValueError(
                f"{name!r} cannot be the name of a user or an organisation: use letters, digits, '.', '_' and "
                f"'-', and none of {', '.join(sorted(_RESERVED))}. Nothing was changed."
            )
        if self.canonical(name) is not None:
            raise ValueError(f"A user or an organisation called {name!r} already exists. Nothing was changed.")

    def _save(self) -> None:
        stored = {
            "users": self._users,
            "organizations": self._organizations,
            "tokens": self._tokens,
            "secret": self._secret,
        }
        write_json(self._path, stored, private=True)


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode().partition(":")[2]
    except ValueError:  # it is no base64, or no text
        return ""


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
