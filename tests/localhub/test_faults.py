"""Trouble on demand."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import Answer, Fault, Hang, LocalHub, LoseResponse, Reset


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own pauses between its attempts."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def upload(api: HfApi, repo: str, name: str = "a.txt", size: int = 10) -> None:
    api.upload_file(path_or_fileobj=os.urandom(size), path_in_repo=name, repo_id=repo)


def titles(api: HfApi, repo: str) -> list[str]:
    return [commit.title for commit in api.list_repo_commits(repo)]


def test_a_refusal_reaches_the_client_with_its_headers(hub: LocalHub, api: HfApi, model: str) -> None:
    fault = Fault("commit", Answer(429, {"Retry-After": "7"}, "Slow down"))
    with hub.inject(fault) as injection:
        with pytest.raises(HfHubHTTPError, match="Slow down") as error:
            upload(api, model)
        assert error.value.response.status_code == 429
        assert error.value.response.headers["Retry-After"] == "7"
        assert injection.hits == 1
    upload(api, model)
    assert len(titles(api, model)) == 2


def test_a_fault_ends_after_its_times(hub: LocalHub, model: str) -> None:
    injection = hub.inject(Fault("repo_info", Answer(503), times=2))
    url = f"{hub.endpoint}/api/models/{model}"
    assert [get_session().get(url).status_code for _ in range(3)] == [503, 503, 200]
    assert injection.hits == 2


@pytest.mark.parametrize("operation", ["whoami", "create_repo", "validate_yaml", "resolve", "tree"])
def test_operations_are_hit_by_their_name(hub: LocalHub, api: HfApi, model: str, operation: str) -> None:
    calls = {
        "whoami": lambda: api.whoami(),
        "create_repo": lambda: api.create_repo("new"),
        "validate_yaml": lambda: api.upload_file(
            path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo="README.md", repo_id=model
        ),
        "resolve": lambda: api.get_hf_file_metadata(url=f"{hub.endpoint}/{model}/resolve/main/.gitattributes"),
        "tree": lambda: list(api.list_repo_tree(model)),
    }
    with hub.inject(Fault(operation, Answer(500))), pytest.raises(Exception, match="500"):
        calls[operation]()
    calls[operation]()


def test_large_uploads_are_hit(hub: LocalHub, api: HfApi, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for disabled, operations in ((False, ["xet_token"]), (True, ["lfs_batch", "lfs_put"])):
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", disabled)
        for operation in operations:
            with hub.inject(Fault(operation, Answer(403))) as injection, pytest.raises(Exception):  # noqa: B017
                upload(api, model, "w.bin", 5000)
            assert injection.hits
            assert len(titles(api, model)) == 1


def test_requests_are_hit_by_method_and_path(hub: LocalHub, api: HfApi, model: str) -> None:
    with hub.inject(Fault(r"GET /refs$", Answer(500))), pytest.raises(HfHubHTTPError):
        api.list_repo_refs(model)
    api.model_info(model)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no operation 'comit'"):
        Fault("comit", Reset())


@pytest.mark.parametrize("after", [0, 100_000])
def test_a_reset_connection_leaves_nothing(hub: LocalHub, api: HfApi, model: str, after: int) -> None:
    with hub.inject(Fault("commit", Reset(after), times=1)) as injection:
        with pytest.raises(Exception, match=r"(?i)reset|disconnected|broken|aborted"):
            upload(api, model, "a.txt", 3_000_000)
        assert injection.hits == 1
    assert titles(api, model) == ["initial commit"]
    assert [seen.status for seen in hub.requests if seen.operation == "commit"] == [None]
    assert list((hub.root / "tmp").iterdir()) == []


def test_an_lfs_upload_that_is_cut_is_not_served(
    hub: LocalHub, api: HfApi, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    data = os.urandom(900_000)
    with (
        hub.inject(Fault("lfs_put", Reset(100_000))),
        pytest.raises(Exception, match=r"(?i)reset|disconnected|broken|aborted|uploading"),
    ):
        api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=model)
    assert not list((hub.root / "lfs").rglob(hashlib.sha256(data).hexdigest()))
    assert titles(api, model) == ["initial commit"]
    api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id=model)


def test_a_lost_response_hides_a_commit_that_was_made(hub: LocalHub, api: HfApi, model: str) -> None:
    with (
        hub.inject(Fault("commit", LoseResponse(), times=1)),
        pytest.raises(Exception, match=r"(?i)reset|disconnected|broken|aborted"),
    ):
        upload(api, model)
    assert titles(api, model) == ["Upload a.txt with huggingface_hub", "initial commit"]


def test_a_hanging_request_goes_on_when_the_fault_is_cleared(hub: LocalHub, api: HfApi, model: str) -> None:
    injection = hub.inject(Fault("commit", Hang()))
    writer = threading.Thread(target=upload, args=(api, model))
    writer.start()
    while not injection.hits:
        threading.Event().wait(0.01)
    assert titles(api, model) == ["initial commit"]
    assert writer.is_alive()
    injection.clear()
    writer.join()
    assert len(titles(api, model)) == 2


def test_a_hang_of_some_seconds_delays_the_answer(hub: LocalHub, api: HfApi) -> None:
    start = time.monotonic()
    with hub.inject(Fault("whoami", Hang(0.5))):
        api.whoami()
    assert time.monotonic() - start >= 0.5


def test_uploads_stay_below_the_limit(hub: LocalHub, api: HfApi, model: str, transport: str) -> None:
    hub.throttle(1_000_000)
    start = time.monotonic()
    upload(api, model, "w.bin", 900_000)
    assert time.monotonic() - start >= 0.8
    hub.throttle(None)
    with pytest.raises(ValueError, match="above zero"):
        hub.throttle(0)


def test_the_log_names_method_path_status_and_operation(hub: LocalHub, api: HfApi, model: str, owner: str) -> None:
    before = len(hub.requests)
    api.repo_exists(f"{owner}/none")
    (seen,) = hub.requests[before:]
    assert (seen.method, seen.path, seen.status) == ("GET", f"/api/models/{owner}/none", 404)
    assert seen.operation == "repo_info"


def test_a_hub_with_hanging_requests_still_stops() -> None:
    hub = LocalHub().start()
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    injection = hub.inject(Fault("whoami", Hang()))
    caller = threading.Thread(target=lambda: api.whoami())
    caller.start()
    while not injection.hits:
        threading.Event().wait(0.01)
    hub.stop()
    caller.join()
