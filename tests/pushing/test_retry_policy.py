"""What each answer of the Hub means for a push."""

from __future__ import annotations

import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from hub_callbacks.hub.client import address
from hub_callbacks.hub.errors import TRANSIENT_STATUS, NotABranch, refused_metadata
from hub_callbacks.pushing.pusher import TRY_NEW_AFTER
from hub_callbacks.pushing.retry_policy import LONGEST_ASKED, retry_policy


class HubError(Exception):
    def __init__(
        self,
        status: int,
        text: str = "said so",
        headers: dict[str, str] | None = None,
        url: str | None = None,
        method: str | None = None,
    ) -> None:
        super().__init__(text)
        request = SimpleNamespace(method=method or ("PUT" if url else "POST"))
        self.response = SimpleNamespace(
            status_code=status, headers=headers or {}, url=url or f"{address()}/api/models", request=request
        )


@pytest.mark.parametrize("status", sorted(TRANSIENT_STATUS))
def test_passing_trouble_is_tried_again(status):
    assert retry_policy(HubError(status)).again


@pytest.mark.parametrize(
    "error",
    [ConnectionError("refused"), TimeoutError(), OSError("reset"), RuntimeError("xet: broken"), KeyError("url")],
)
def test_trouble_without_an_answer_is_tried_again(error):
    verdict = retry_policy(error)
    assert verdict.again
    assert type(error).__name__ in verdict.why


@pytest.mark.parametrize(
    ("status", "todo", "all_pushes"),
    [
        (401, "hf auth login", True),
        (402, "storage", True),
        (403, "write rights", True),
        (404, "hub_model_id", False),
        (413, "max_shard_size", False),
        (422, "file name", False),
        (400, "", False),
    ],
)
def test_a_refusal_stops_and_says_what_to_do(status, todo, all_pushes):
    verdict = retry_policy(HubError(status))
    assert not verdict.again
    assert verdict.all_pushes is all_pushes
    assert todo in verdict.why
    assert "stays in the outbox" in verdict.why


def test_a_refusal_is_seen_through_what_the_client_wraps_it_in():
    wrapped = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    wrapped.__cause__ = HubError(403)
    assert not retry_policy(wrapped).again
    wrapped.__cause__ = HubError(503)
    assert retry_policy(wrapped).again


STORAGE = "https://storage.example/bucket/object?X-Amz-Expires=900"
HTML = {"content-type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    "error",
    [
        HubError(403, "Request has expired", url=STORAGE),
        HubError(400, "RequestTimeout", url=STORAGE),
        HubError(403, "Request has expired", url=f"{address()}/lfs/object", method="PUT"),
        HubError(403, "Request has expired", url=STORAGE, method="GET"),
        HubError(403, "Request has expired", url=STORAGE, method="POST"),
        HubError(403, "<html>Blocked by the firewall</html>", HTML),
        HubError(404, "<html>Not found</html>", HTML),
    ],
)
def test_what_the_hub_itself_has_not_said_is_no_refusal(error):
    """A storage's address that has expired, a proxy's page."""
    policy = retry_policy(error)
    assert policy.again and "not the Hub, answered" in policy.why


@pytest.mark.parametrize("change", [str.upper, lambda url: url.replace("http:", "https:")])
def test_the_hub_is_known_by_its_host_however_that_is_written(change):
    assert not retry_policy(HubError(403, url=change(f"{address()}/api/models"), method="POST")).again


def test_the_hub_is_known_by_its_own_header_wherever_it_answers():
    error = HubError(403, headers={"X-Error-Message": "No rights"}, url=STORAGE, method="POST")
    assert not retry_policy(error).again


def test_a_token_in_the_environment_is_said_to_be_the_one_that_is_not_accepted(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "HF_TOKEN=... hub-callbacks sync" in retry_policy(HubError(401)).why
    assert "hub_token is what is not accepted" in retry_policy(HubError(401), has_own_token=True).why
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in retry_policy(HubError(401)).why


def test_what_asks_for_days_is_not_waited_for():
    assert retry_policy(HubError(503, headers={"Retry-After": "259200"})).after == LONGEST_ASKED == 600


def test_something_new_is_tried_after_a_minute_on_a_hub_that_is_away():
    assert TRY_NEW_AFTER == 60


def test_a_full_account_is_not_a_passing_quota():
    assert not retry_policy(HubError(403, "Private repository storage limit reached")).again
    assert retry_policy(HubError(403, "You hit the rate limit")).again


def test_a_file_that_vanished_between_upload_and_commit_is_uploaded_again():
    text = "Your push was rejected because an LFS pointer pointed to a file that does not exist."
    assert retry_policy(HubError(400, text)).again


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "soon"}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=3;t=55'}, 0),
        ({}, 0),
    ],
)
def test_the_hub_says_how_long_to_wait(headers, seconds):
    assert retry_policy(HubError(429, headers=headers)).after == seconds


def test_the_hub_may_say_until_when_to_wait():
    after = retry_policy(HubError(503, headers={"Retry-After": formatdate(time.time() + 100, usegmt=True)})).after
    assert 90 < after <= 100


def test_until_when_is_told_by_the_clock_of_the_hub():
    year = 365 * 24 * 3600
    headers = {
        name: formatdate(moment, usegmt=True) for name, moment in {"Date": year, "Retry-After": year + 9}.items()
    }
    assert retry_policy(HubError(503, headers=headers)).after == 9


@pytest.mark.parametrize("error", [TypeError("x"), AttributeError("x"), AssertionError("x")])
def test_a_bug_is_not_tried_again_for_ever(error):
    verdict = retry_policy(error)
    assert not verdict.again and "report" in verdict.why


def test_a_tag_cannot_be_pushed_to():
    verdict = retry_policy(NotABranch("'v1' is a tag"))
    assert not verdict.again and verdict.all_pushes


def test_the_same_trouble_is_worded_the_same():
    first, second = (retry_policy(HubError(403, f"No. (Request ID: Root=1-{n})")).why for n in "ab")
    assert first == second


def test_complaints_about_the_metadata_are_found():
    error = ValueError('Invalid metadata in README.md.\n- "license" must be one of a, b')
    assert refused_metadata(error) == ['"license" must be one of a, b']
    assert refused_metadata(HubError(400, "invalid yaml")) == ["invalid yaml"]
    assert refused_metadata(HubError(500, "metadata")) is None
    assert refused_metadata(ValueError("other")) is None
