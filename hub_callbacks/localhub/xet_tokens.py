"""The signed tokens of the Xet service, each for one thing and for an hour."""

from __future__ import annotations

import base64
import hmac
import json
import time
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

from .accounts import Accounts
from .errors import HubError

LIFETIME = 3600
"""Seconds for which a token is valid."""


@dataclass(frozen=True)
class ForRepo:
    """Opens the content of one repository, or takes content that is to be committed there.

    Args:
        access: What for.
        user: Who asked for it, whose rights count when it is used; empty for anonymous.
        kind: The repository's type.
        repo: Its id.
        commit: The commit it was asked for, or none.
    """

    access: Literal["read", "write"]
    user: str
    kind: str
    repo: str
    commit: str | None


@dataclass(frozen=True)
class ForXorb:
    """Opens the bytes of a xorb from `start` up to, not including, `end`: beside them may lie what others own."""

    service: str
    xorb: str
    start: int
    end: int


@dataclass(frozen=True)
class ForHub:
    """Opens all content for the hub itself."""


Right = ForRepo | ForXorb | ForHub
_Wanted = TypeVar("_Wanted", bound=Right)


def make(accounts: Accounts, right: Right) -> tuple[str, int]:
    """A token for a right, and when it ends (Unix seconds)."""
    expiry = int(time.time()) + LIFETIME
    text = json.dumps([type(right).__name__, expiry, asdict(right)])
    payload = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"{payload}.{_sign(accounts, payload)}", expiry


def read(accounts: Accounts, token: str, kind: type[_Wanted]) -> _Wanted:
    """The right that a token gives.

    Raises:
        HubError: 401, the token is made up, for something else, or has ended.
    """
    payload, _, signature = token.partition(".")
    if not hmac.compare_digest(signature.encode(), _sign(accounts, payload).encode()):
        raise invalid()
    name, expiry, fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if name != kind.__name__ or expiry < time.time():
        raise invalid()
    return kind(**fields)


def invalid() -> HubError:
    return HubError(401, "This Xet token is not valid or has expired; ask for a new one")


def _sign(accounts: Accounts, payload: str) -> str:
    return accounts.sign(f"xet:{payload}")
