"""Whether a push that failed is tried again, and when; or what somebody has to do first."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass

from ..hub.errors import (
    OfflineModeIsEnabled,
    Refusal,
    answered,
    describe,
    is_bug,
    is_gone,
    is_storage_full,
    is_transient,
    is_without_token,
    seconds_to_wait,
    status_of,
)
from ..outbox.ledger import REFUSED, WAITING, WAITING_FOR_NODES
from .node_files import LOOK_EVERY, Awaited, DamagedNodeFiles

LONGEST_ASKED = 600.0
"""Seconds that are waited where more is asked for: twice the window that the Hub counts requests in. What asks for
days is no Hub, and what is saved meanwhile is worth a try."""
_STAY = "What was saved stays in the outbox."
_STORAGE = (
    "The account's storage or plan does not allow it. Free space or upgrade the plan, then run "
    "`hub-callbacks sync`."
)
_WHAT_TO_DO = {
    401: "The token is missing, wrong or expired. Log in with `hf auth login` or set HF_TOKEN; "
    "what waits is sent as soon as a token is accepted.",
    402: _STORAGE,
    403: "The token may not write there. Use a token with write rights to this repository "
    "(https://huggingface.co/settings/tokens), or change hub_model_id.",
    404: "The repository or branch is gone, or this token cannot see it. Check hub_model_id and hub_revision.",
    413: "It is larger than the Hub accepts. Save smaller files (max_shard_size).",
    422: "The Hub does not accept a file name or file in it.",
}


@dataclass(frozen=True)
class RetryPolicy:
    """
    Args:
        why: What happened, for people; no token in it.
        state: What the ledger says of the push meanwhile: `WAITING`, `WAITING_FOR_NODES` or `REFUSED`.
        after: Seconds that the Hub asks to wait.
        at_most: Seconds after which to try again at the latest.
        all_pushes: Whether the other pushes to the same repository will fare no better.
    """

    why: str
    state: str
    after: float = 0.0
    at_most: float = math.inf
    all_pushes: bool = False

    @property
    def again(self) -> bool:
        """Whether another attempt can work without anybody's help."""
        return self.state != REFUSED

    def seconds_before(self, attempt: int, longest: float) -> float:
        """How long to wait before an attempt: exponential with full jitter, so that jobs which lost the Hub
        together do not come back together; not shorter than the Hub asks for.

        Args:
            attempt: Number of failures in a row.
            longest: Seconds, where the Hub does not ask for more.
        """
        backoff = random.uniform(0, min(longest, 2.0 ** min(attempt - 1, 32)))
        return min(max(backoff, self.after), self.at_most)


def retry_policy(error: BaseException, has_own_token: bool = False) -> RetryPolicy:
    """What the exception that ended an attempt means.

    Args:
        has_own_token: Whether the token is that of the settings, not one of the environment or of a login.
    """
    if isinstance(error, Awaited):
        return RetryPolicy(str(error), state=WAITING_FOR_NODES, at_most=LOOK_EVERY)
    if isinstance(error, DamagedNodeFiles):
        return RetryPolicy(f"{error}. {_STAY} The next save is not affected.", state=REFUSED)
    if isinstance(error, Refusal):
        return RetryPolicy(f"{error} {_STAY}", state=REFUSED, all_pushes=error.all_pushes)
    if isinstance(error, OfflineModeIsEnabled):
        why = (
            f"HF_HUB_OFFLINE is set, so that nothing is sent from here. {_STAY} Where there is a network, "
            "HF_HUB_OFFLINE=0 hub-callbacks sync DIR sends it."
        )
        return RetryPolicy(why, state=REFUSED, all_pushes=True)
    if is_without_token(error):
        return RetryPolicy(f"There is no token. {_STAY} {_WHAT_TO_DO[401]}", state=REFUSED, all_pushes=True)
    why = describe(error)
    if is_bug(error):
        return RetryPolicy(f"{why}. {_STAY} This looks like a bug; please report it.", state=REFUSED)
    if is_transient(error):
        return RetryPolicy(why, state=WAITING, after=min(seconds_to_wait(error), LONGEST_ASKED))
    return _refused(answered(error) or error, why, has_own_token)


def _refused(error: BaseException, why: str, has_own_token: bool) -> RetryPolicy:
    if is_storage_full(error):
        return RetryPolicy(f"{why}. {_STAY} {_STORAGE}", state=REFUSED, all_pushes=True)
    status = status_of(error)
    advice = _WHAT_TO_DO.get(status or 0, "")
    if status == 401 and has_own_token:
        advice = (
            "hub_token is what is not accepted. Set another one, or leave it out and log in; `hub-callbacks sync` "
            "sends what waits with the token of HF_TOKEN or of a login."
        )
    elif status == 401 and os.environ.get("HF_TOKEN"):
        advice = (
            "HF_TOKEN in the environment of the training is what is not accepted, and a new login does not "
            "replace it there. Send what waits from a shell with another one: HF_TOKEN=... hub-callbacks sync DIR."
        )
    text = f"{why}. {_STAY} {advice}".strip()
    return RetryPolicy(text, state=REFUSED, all_pushes=status in (401, 402, 403) or is_gone(error))
