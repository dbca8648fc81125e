"""What an error of a push means: try again, and when; or stop, and what somebody has to do."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ..hub.repository import HfHubHTTPError, OfflineModeIsEnabled, Refusal
from .parts import LOOK_EVERY, Awaited, DamagedParts

TRANSIENT_STATUS = frozenset({408, 409, 412, 423, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524})
# A LookupError is none: the client looks its answers up by key, and some proxies answer in their own way.
_BUGS = (TypeError, ValueError, AttributeError, AssertionError, NotImplementedError)
_STAY = "What was saved stays in the outbox."

_WHAT_TO_DO = {
    401: "The token is missing, wrong or expired. Log in with `hf auth login` or set HF_TOKEN; "
    "what waits is sent as soon as a token is accepted.",
    403: "The token may not write there. Use a token with write rights to this repository "
    "(https://huggingface.co/settings/tokens), or change hub_model_id.",
    402: "The account's storage or plan does not allow it. Free space or upgrade the plan, then run "
    "`hub-callbacks sync`.",
    404: "The repository or branch is gone, or this token cannot see it. Check hub_model_id and hub_revision.",
    413: "It is larger than the Hub accepts. Save smaller files (max_shard_size).",
    422: "The Hub does not accept a file name or file in it.",
}


@dataclass(frozen=True)
class Verdict:
    """
    Args:
        why: What happened, for people; no token in it.
        again: Whether another attempt can work without anybody's help.
        after: Seconds that the Hub asks to wait.
        at_most: Seconds after which to try again at the latest.
        all_pushes: Whether the other pushes to the same repository will fare no better.
    """

    why: str
    again: bool
    after: float = 0.0
    at_most: float = math.inf
    all_pushes: bool = False


def judge(error: BaseException) -> Verdict:
    """Judges the exception that ended an attempt."""
    if isinstance(error, Awaited):
        return Verdict(str(error), again=True, at_most=LOOK_EVERY)
    if isinstance(error, DamagedParts):
        return Verdict(f"{error}. {_STAY} The next save is not affected.", again=False)
    if isinstance(error, Refusal):
        return Verdict(f"{error} {_STAY}", again=False, all_pushes=error.all_pushes)
    if isinstance(error, OfflineModeIsEnabled):
        why = f"HF_HUB_OFFLINE is set. {_STAY} `hub-callbacks sync` sends it where there is a network."
        return Verdict(why, again=False, all_pushes=True)
    answered = _answered(error)
    if answered is None:
        if isinstance(error, _BUGS) and "JSONDecodeError" not in type(error).__name__:
            return Verdict(f"{_say(error)}. {_STAY} This looks like a bug; please report it.", again=False)
        return Verdict(_say(error), again=True)
    error, response = answered, answered.response  # type: ignore[attr-defined]
    status = response.status_code
    if status in TRANSIENT_STATUS or _is_quota_for_now(status, error) or _is_upload_gone(status, error):
        return Verdict(_say(error), again=True, after=_asked_to_wait(response))
    if _is_storage(error):
        return Verdict(f"{_say(error)}. {_STAY} {_WHAT_TO_DO[402]}", again=False, all_pushes=True)
    todo = _WHAT_TO_DO.get(status, "")
    gone = status == 404 and isinstance(error, HfHubHTTPError)
    return Verdict(
        f"{_say(error)}. {_STAY} {todo}".strip(),
        again=False,
        all_pushes=status in (401, 402, 403) or gone,
    )


def _answered(error: BaseException) -> BaseException | None:
    """The error that carries the Hub's answer: it, or what it was raised from (LFS uploads are wrapped)."""
    link: BaseException | None = error
    while link is not None:
        if getattr(getattr(link, "response", None), "status_code", None) is not None:
            return link
        link = link.__cause__
    return None


def refused_metadata(error: BaseException) -> list[str] | None:
    """The Hub's complaints about a card's metadata, when that is what the error is about.

    The client raises `ValueError("Invalid metadata in README.md.\\n- ...")` before it uploads anything; the
    commit itself may answer 400.
    """
    text = str(error)
    if isinstance(error, ValueError) and text.startswith("Invalid metadata in README.md"):
        return [line.removeprefix("- ") for line in text.splitlines()[1:] if line.strip()] or [text]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 400 and re.search(r"metadata|yaml|README", text, re.IGNORECASE):
        return [line for line in text.splitlines() if line.strip()]
    return None


def _is_quota_for_now(status: int, error: BaseException) -> bool:
    return status == 403 and "rate limit" in str(error).lower()


def _is_upload_gone(status: int, error: BaseException) -> bool:
    """Whether a file that was uploaded before the commit is not there any more: the next attempt uploads it."""
    return status == 400 and bool(re.search(r"LFS pointer .*does not exist", str(error), re.I))


def _is_storage(error: BaseException) -> bool:
    return bool(re.search(r"storage (limit|quota)|quota (exceeded|reached)|storage .*exceed", str(error), re.I))


def _asked_to_wait(response: Any) -> float:
    """Seconds from `Retry-After`, or from the rate limit's `t=` (draft-ietf-httpapi-ratelimit-headers)."""
    headers = response.headers
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


def _say(error: BaseException) -> str:
    """Without the request's identifier, which is in the log: the same trouble is said once."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    message = getattr(error, "server_message", None) or str(error).strip() or type(error).__name__
    message = re.sub(r"\(Request ID: [^)]*\)", "", message)
    message = " ".join(line.strip() for line in message.splitlines() if line.strip())
    return ((f"The Hub answered {status}: " if status else f"{type(error).__name__}: ") + message).rstrip(". ")
