"""Requests beside the client's own methods, with the HTTP library that the client uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from huggingface_hub.utils import get_session


def raw(body: bytes | Iterator[bytes]) -> dict[str, Any]:
    """A body of bytes, in one piece or in pieces, as an argument of the client's session.

    0.36 uses requests, later ones httpx.
    """
    return {"content": body} if hasattr(get_session(), "event_hooks") else {"data": body}
