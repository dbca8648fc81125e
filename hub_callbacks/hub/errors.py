"""What an error of the Hub's client is: whether it passes by itself, how long the Hub asks to wait, what it says.

For pushes and downloads alike.
"""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from .client import address

TRANSIENT_STATUS = frozenset({408, 409, 412, 423, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524})
# A LookupError is none: the client looks its answers up by key, and some proxies answer in their own way.
_BUGS = (TypeError, ValueError, AttributeError, AssertionError, NotImplementedError)


class Refusal(Exception):
    """A push asks for what cannot be; each message says what to do."""

    all_pushes = False
    """Whether the other pushes to that place ask for it, too."""


class NotABranch(Refusal):
    """A revision names something that cannot be pushed to."""

    all_pushes = True


class NotThere(Refusal):
    """A repository is missing that is not to be created."""


class Gone(NotThere):
    """A repository that was there is not to be seen any more."""

    all_pushes = True


class AnotherRepository(Refusal):
    """Under the name of the run's repository there is another one, which more people see."""

    all_pushes = True


class NoCache(Refusal):
    """The client has no folder that it can write to."""

    all_pushes = True


class NoLargeFiles(Refusal):
    """The Hub hands out no token for the storage of large files."""

    all_pushes = True


class NotYours(Refusal):
    """A repository that was to be deleted does not belong to the token's user."""


def answered(error: BaseException) -> BaseException | None:
    """The error that carries the Hub's answer: it, or what it was raised from (LFS uploads are wrapped)."""
    link: BaseException | None = error
    while link is not None:
        if status_of(link) is not None:
            return link
        link = link.__cause__
    return None


def status_of(error: BaseException) -> int | None:
    """The status of the answer that an error carries itself."""
    return getattr(getattr(error, "response", None), "status_code", None)


def status_of_xet_token(error: BaseException) -> int | None:
    """The status with which the Hub refused a token for the storage of large files.

    hf_xet asks for it, and what it raises is the builtin `ConnectionError`, without a response: "Network error:
    Request error: HTTP status client error (403 Forbidden), domain: http://.../xet-write-token/main".
    """
    match = re.search(r"HTTP status \w+ error \((\d{3})\b.*/xet-\w+-token/", str(error))
    return int(match[1]) if match else None


def is_bug(error: BaseException) -> bool:
    """Whether it comes from a mistake in a program, and not from the Hub or the network."""
    return answered(error) is None and isinstance(error, _BUGS) and "JSONDecodeError" not in type(error).__name__


def is_transient(error: BaseException) -> bool:
    """Whether another attempt can work without anybody's help."""
    if isinstance(error, Refusal | OfflineModeIsEnabled):
        return False
    answer = answered(error)
    if answer is None:
        return not is_bug(error)
    status, text = status_of(answer), str(answer)
    if not _is_of_hub(answer):
        return True  # a storage's address that has expired, a proxy's page: the next attempt has others
    is_quota_for_now = status == 403 and "rate limit" in text.lower()
    # A file that was uploaded before the commit is not there any more: the next attempt uploads it.
    is_upload_gone = status == 400 and bool(re.search(r"LFS pointer .*does not exist", text, re.I))
    return status in TRANSIENT_STATUS or is_quota_for_now or is_upload_gone


def _is_of_hub(error: BaseException) -> bool:
    """Whether the Hub itself has answered: not the storage that it gave an address of, nor a proxy or firewall on
    the way, which answers with a page."""
    response: Any = error.response  # type: ignore[attr-defined]
    if response.headers.get("content-type", "").startswith("text/html"):
        return False
    is_upload = getattr(response.request, "method", "") == "PUT"  # to an address that expires
    host, own = (urlsplit(str(url)).hostname for url in (response.url, address()))
    return not is_upload and (host == own or "X-Error-Message" in response.headers)


def is_storage_full(error: BaseException) -> bool:
    return bool(re.search(r"storage (limit|quota)|quota (exceeded|reached)|storage .*exceed", str(error), re.I))


def is_without_token(error: BaseException) -> bool:
    """Whether there is no token to ask the Hub with whose it is."""
    return isinstance(error, LocalTokenNotFoundError)


def is_gone(error: BaseException) -> bool:
    """Whether the Hub says that it has no such repository or branch, or shows it not to this token."""
    return status_of(error) == 404 and isinstance(error, HfHubHTTPError)


def seconds_to_wait(error: BaseException) -> float:
    """What the Hub asks for, by `Retry-After` or the rate limit's `t=` (draft-ietf-httpapi-ratelimit-headers)."""
    answer = answered(error)
    if answer is None:
        return 0.0
    headers: Any = answer.response.headers  # type: ignore[attr-defined]
    value = headers.get("Retry-After", "")
    if value.strip().isdigit():
        return float(value)
    until = _moment(value)
    if until is not None:
        # By the Hub's clock, if it says what that shows: this machine's may be wrong.
        now = _moment(headers.get("Date", ""))
        return max(0.0, until - (time.time() if now is None else now))
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("RateLimit", ""))
    return float(limit[1]) if limit else 0.0


def _moment(date: str) -> float | None:
    """Seconds since the epoch of an HTTP date; `None` when it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None


def describe(error: BaseException) -> str:
    """For people; without the request's identifier, which is in the log: the same trouble is said once."""
    error = answered(error) or error
    status = status_of(error)
    message = getattr(error, "server_message", None) or str(error).strip() or type(error).__name__
    message = re.sub(r"\(Request ID: [^)]*\)", "", message)
    message = " ".join(line.strip() for line in message.splitlines() if line.strip())
    who = "The Hub" if status is None or _is_of_hub(error) else "A storage or a proxy, not the Hub,"
    return ((f"{who} answered {status}: " if status else f"{type(error).__name__}: ") + message).rstrip(". ")


def refused_metadata(error: BaseException) -> list[str] | None:
    """The Hub's complaints about a card's metadata, when that is what the error is about.

    The client raises `ValueError("Invalid metadata in README.md.\\n- ...")` before it uploads anything; the
    commit itself may answer 400.
    """
    text = str(error)
    if isinstance(error, ValueError) and text.startswith("Invalid metadata in README.md"):
        return [line.removeprefix("- ") for line in text.splitlines()[1:] if line.strip()] or [text]
    if status_of(error) == 400 and re.search(r"metadata|yaml|README", text, re.IGNORECASE):
        return [line for line in text.splitlines() if line.strip()]
    return None
