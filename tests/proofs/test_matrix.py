"""Each step of a push meets each kind of trouble: nothing is raised, nothing is lost, nothing comes twice."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from hub_callbacks.localhub import Answer, Fault, Hang, LoseResponse, Reset
from savers import assert_tells_the_truth, expected, on_hub, wait_until

OPERATIONS = ("create_repo", "preupload", "xet_token", "lfs_batch", "lfs_put", "commit", "validate_yaml")
FAULTS = {
    "500": Answer(500),
    "503": Answer(503),
    "429": Answer(429, {"Retry-After": "1"}),
    "400": Answer(400),
    "html": Answer(403, {"Content-Type": "text/html"}),
    "401": Answer(401),
    "403": Answer(403),
    "404": Answer(404),
    "409": Answer(409),
    "412": Answer(412),
    "reset": Reset(after_bytes=200),
    "hang": Hang(),
    "lost": LoseResponse(),
    "stopped": Hang(),
}
IN_EACH_TEST_RUN = {
    ("create_repo", "403"),
    ("create_repo", "stopped"),
    ("preupload", "503"),
    ("preupload", "html"),
    ("xet_token", "hang"),
    ("xet_token", "401"),
    ("xet_token", "429"),
    ("lfs_batch", "404"),
    ("lfs_put", "reset"),
    ("lfs_put", "400"),
    ("lfs_put", "403"),
    ("commit", "500"),
    ("commit", "429"),
    ("commit", "412"),
    ("commit", "lost"),
    ("commit", "hang"),
    ("validate_yaml", "reset"),
}
CELLS = [
    pytest.param(operation, fault, marks=() if (operation, fault) in IN_EACH_TEST_RUN else pytest.mark.slow)
    for operation in OPERATIONS
    for fault in FAULTS
    if fault != "400" or operation == "lfs_put"  # what the Hub itself answers so is refused for good
]


@pytest.mark.parametrize(("operation", "fault"), CELLS)
@pytest.mark.usefixtures("in_thread")
def test_trouble_stops_nothing_and_loses_nothing(operation, fault, hub, run, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", operation.startswith("lfs"))
    injection = hub.inject(Fault(operation, FAULTS[fault]))
    run.engine.start()
    futures = [run.save(1)]
    if fault == "stopped":
        wait_until(lambda: injection.hits)
        hub.stop()
    run.wait_for_trouble()
    futures.append(run.save(2))
    if (operation, fault) != ("commit", "lost"):  # there the next attempt finds that it has arrived
        summary = run.engine.summary()
        assert not any(future.done() for future in futures)
        assert (summary.waiting, summary.commits, summary.lost) == (2, 0, 0)
        assert summary.why

    if fault == "stopped":
        hub.start()
        monkeypatch.setenv("HF_TOKEN", hub.token)
        run.api.token = hub.token
    else:
        injection.clear()
    futures += [run.save(3), run.end()]  # what was refused is tried again with the next save
    assert run.engine.wait(), str(run.engine.summary())
    assert on_hub(hub, run.repo, tmp_path / "cache") == expected(run.saved)
    assert all(future.result().oid for future in futures)
    assert_tells_the_truth(run)
