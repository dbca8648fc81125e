"""Where the Hub's client talks to, and how long it waits for an answer."""

from __future__ import annotations

import os
import tempfile

from huggingface_hub import constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled

CONNECT_TIMEOUT = 20.0
"""Seconds; a route that is not there is noticed long before one that is slow."""

_XORB = 64 * 2**20
"""Bytes of the block that hf_xet sends at a time: one for each connection."""
_INGESTION = 150 * 2**20
"""Bytes that it holds of each file that it reads: two such blocks, and what is read ahead."""
_HIGH_PERFORMANCE = ("HF_XET_HIGH_PERFORMANCE", "HF_XET_HP")
_FIXED = 110 * 2**20
"""Bytes of the rest of a process that uploads."""


def address() -> str:
    """The Hub's address, as the client read it when it was imported."""
    return constants.ENDPOINT


def cache_trouble() -> str | None:
    """Why large files cannot go through the client's cache, if they cannot: it has to write there."""
    try:
        os.makedirs(constants.HF_HOME, exist_ok=True)
        tempfile.TemporaryFile(dir=constants.HF_HOME).close()
    except OSError as error:
        return (
            f"HF_HOME is {constants.HF_HOME}, which cannot be written to ({error.strerror}), and large files go "
            "through a cache there. Set HF_HOME to a folder that can be written to."
        )
    return None


def limit_requests(seconds: float) -> None:
    """Sets a time-out for the client's requests: on its own it waits for an answer for ever.

    For the whole process, and for good: the client makes itself a new session after a refused connection.
    """
    session = get_session()
    if hasattr(session, "event_hooks"):  # an httpx client: huggingface_hub 1 and newer
        from huggingface_hub import set_client_factory

        make, hooks = type(session), session.event_hooks
        timeout = type(session.timeout)(seconds, connect=min(CONNECT_TIMEOUT, seconds))
        set_client_factory(lambda: make(event_hooks=hooks, follow_redirects=True, timeout=timeout))
        return
    import requests
    from huggingface_hub import configure_http_backend

    class Session(requests.Session):
        def request(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if constants.HF_HUB_OFFLINE:  # the client's own session sees to that, too
                raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
            kwargs["timeout"] = kwargs.get("timeout") or (min(CONNECT_TIMEOUT, seconds), seconds)
            return super().request(*args, **kwargs)

    configure_http_backend(Session)


def bound_uploads(memory: int) -> None:
    """Bounds what this process takes while it uploads: on its own, hf_xet holds what a link takes in a minute,
    more than 4 GiB at most, and opens up to 64 connections.

    Half is for reading files, half for sending them. Whoever has set one of hf_xet's own variables for that
    decides alone. It reads them when it is used for the first time: measured with hf_xet 1.8.

    Args:
        memory: Bytes, about.
    """
    names = [name for name in os.environ if name.startswith("HF_XET_")]
    is_fast = any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in _HIGH_PERFORMANCE)
    if is_fast or any(name.endswith(("_UPLOAD_CONCURRENCY", "_FILE_INGESTION")) for name in names):
        return
    files = min(max(memory // 2 // _INGESTION, 1), 8)
    connections = min(max((memory - _FIXED - files * _INGESTION) // _XORB, 1), 64)
    os.environ["HF_XET_DATA_MAX_CONCURRENT_FILE_INGESTION"] = str(files)
    os.environ["HF_XET_CLIENT_AC_MAX_UPLOAD_CONCURRENCY"] = str(connections)
