"""The command line: what it says, what it does, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from huggingface_hub.utils import get_session
from typer.testing import CliRunner

import hub_callbacks.hub.repository  # noqa: F401  # `read_only` may not be able to read where it is
from hub_callbacks.cli import app
from hub_callbacks.localhub import Answer, Fault
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.push import MODEL, Target
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.outbox.snapshot import COPY_BELOW
from hub_callbacks.settings import resolve
from hub_callbacks.training.engine import Engine
from hub_callbacks.training.plan import plan_save
from outboxes import put
from runs import titles


@pytest.fixture
def waiting(hub, repo, tmp_path):
    """The folder of a run with two pushes that have not been sent: its Hub was away."""
    run = tmp_path / repo
    with hub.inject(Fault("*", Answer(503))):
        sync = Engine(resolve(overrides={"output_dir": run, "hub_always_push": True, "finish_timeout": 0}))
        for step in (1, 2):
            checkpoint = run / f"checkpoint-{step}"
            checkpoint.mkdir(parents=True)
            (checkpoint / "model.safetensors").write_bytes(b"weights %d" % step)
            sync.push(plan_save("every_save", checkpoint, step, f"step {step}"))
        sync.close()
    return run


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_status_shows_what_waits_and_why(waiting):
    result = call("status", waiting)
    assert result.exit_code == 1
    assert "step 1" in result.output and "step 2" in result.output


def test_a_push_for_another_version_waits_and_says_so(waiting):
    manifest = Outbox(waiting / "_hub_sync").pushes / "000002" / "manifest.json"
    manifest.write_text('{"format": 99}')
    result = call("sync", waiting)
    assert result.exit_code == 1 and "1 push is not sent" in result.output
    (row,) = [row for row in json.loads(call("status", waiting, "--json").stdout) if row["waits"]]
    assert row["push"] == "000002" and "format 99" in row["why"]


def test_status_as_json(waiting):
    rows = json.loads(call("status", waiting, "--json").output)
    assert [(row["push"], row["message"], row["waits"]) for row in rows] == [
        ("000001", "step 1", True),
        ("000002", "step 2", True),
    ]
    assert all(row["bytes"] > 0 for row in rows)


def test_sync_sends_what_waits(api, repo, waiting):
    result = call("sync", waiting)
    assert result.exit_code == 0 and "done" in result.output
    assert titles(api, repo) == ["step 1", "step 2"]
    assert call("status", waiting).exit_code == 0


def test_sync_works_on_a_copy_of_the_outbox_somewhere_else(api, repo, waiting, tmp_path):
    weights = waiting / "checkpoint-3/model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(os.urandom(COPY_BELOW + 1))
    put(
        Outbox(waiting / "_hub_sync"),
        {MODEL: weights},
        target=Target(f"local/{repo}"),
        message="step 3",
        keep=True,
    )
    # As cp, scp and tar do: the times are those of the copy.
    shutil.copytree(waiting / "_hub_sync", tmp_path / "login-node" / "_hub_sync", copy_function=shutil.copyfile)
    assert call("sync", tmp_path / "login-node" / "_hub_sync").exit_code == 0
    assert titles(api, repo) == ["step 1", "step 2", "step 3"]


def test_a_push_under_way_when_its_sender_was_killed_waits(repo, waiting):
    outbox = Outbox(waiting / "_hub_sync")
    outbox.record(ledger.Entry("000001", ledger.RUNNING, message="step 1"))

    def state() -> str:
        row, *_ = json.loads(call("status", waiting, "--json").output)
        assert row["waits"]
        return row["state"]

    assert state() == "waiting"
    with outbox.lock():
        assert state() == "running"


def test_a_push_that_only_creates_the_repository_is_nothing_that_waits(hub, repo, tmp_path):
    with hub.inject(Fault("*", Answer(503))):
        sync = Engine(resolve(overrides={"output_dir": tmp_path / repo}))
        sync.start()
        sync.close()
        assert call("sync", tmp_path / repo, "--patience", 0).exit_code == 0
    assert len(Outbox(tmp_path / repo / "_hub_sync").pending()) == 1
    result = call("status", tmp_path / repo)
    assert result.exit_code == 0 and "create the repository" in result.output


@pytest.fixture
def read_only():
    """The folder of a run with one push, where this process may read and not write."""
    folder = Path(tempfile.mkdtemp())
    put(Outbox(folder / "_hub_sync"), message="step 1")
    places = [folder, *folder.rglob("*")]
    for path in places:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        yield folder
    finally:
        os.seteuid(user)
        for path in places:
            path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.parametrize("words", [("sync",), ("drop", "--all", "--yes")], ids=["sync", "drop"])
def test_a_folder_that_cannot_be_written_to_is_said_and_nothing_is_claimed(read_only, words):
    result = call(words[0], read_only, *words[1:])
    assert result.exit_code == 2, result.output
    assert "cannot be written to (Permission denied)" in result.output and "still there" in result.output
    assert "step 1" not in result.output
    assert [push.message for push in Outbox(read_only / "_hub_sync").pending()] == ["step 1"]


def test_sync_sends_from_the_other_folders_when_one_cannot_be_written_to(api, repo, waiting, tmp_path):
    (tmp_path / "other/_hub_sync/pushes").mkdir(parents=True)
    (tmp_path / "other/_hub_sync/drainer.lock").mkdir()  # so that nobody, root neither, can take it
    assert call("sync", tmp_path / "other", waiting).exit_code == 2
    assert titles(api, repo) == ["step 1", "step 2"]


def test_sync_ends_when_nothing_works_and_says_so(hub, waiting):
    with hub.inject(Fault("*", Answer(503))):
        result = call("sync", waiting, "--patience", 1)
    assert result.exit_code == 1 and "2 pushes are not sent" in result.output


def test_sync_as_json_lists_what_is_left(hub, waiting):
    with hub.inject(Fault("*", Answer(403))):
        result = call("sync", waiting, "--json")
    assert result.exit_code == 1
    left = json.loads(result.output)["left"]
    assert [row["state"] for row in left] == ["refused", "refused"]


def test_sync_watch_sends_what_comes_until_ctrl_c(api, repo, waiting):
    code = "from hub_callbacks import cli; cli.WATCH_EVERY = 0.1; cli.main()"
    watcher = subprocess.Popen(
        [sys.executable, "-c", code, "sync", "--watch", str(waiting)], stdout=subprocess.PIPE, text=True
    )

    def wait_for(message: str) -> None:
        while not re.search(f"done +{message}", line := watcher.stdout.readline()):
            assert line, "it has ended"

    try:
        wait_for("step 2")
        put(Outbox(waiting / "_hub_sync"), target=Target(f"local/{repo}"), message="step 3")
        wait_for("step 3")
    finally:
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(timeout=60) == 0
    assert titles(api, repo) == ["step 1", "step 2", "step 3"]


def test_drop_takes_a_push_out(api, repo, waiting):
    assert call("drop", waiting, "1", "--yes").exit_code == 0
    assert call("sync", waiting).exit_code == 0
    assert titles(api, repo) == ["step 2"]


def test_drop_asks_first(waiting):
    result = CliRunner().invoke(app, ["drop", str(waiting), "--all"], input="n\n")
    assert result.exit_code == 1
    assert call("status", waiting).exit_code == 1


def test_drop_of_what_does_not_wait_is_an_error(waiting):
    result = call("drop", waiting, "77", "--yes")
    assert result.exit_code == 2 and "000077" in result.output


@pytest.mark.parametrize("command", ["status", "sync", "drop"])
def test_a_folder_without_an_outbox_is_an_error(tmp_path, command):
    result = call(command, tmp_path)
    assert result.exit_code == 2 and "no outbox" in result.output


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("a port that is none", "65535"), ("a port that is taken", "in use"), ("a file for a folder", "no folder")],
)
def test_serve_says_what_it_cannot_do(hub, tmp_path, monkeypatch, trouble, words):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process's own stay
    (tmp_path / "file").touch()
    root, port = tmp_path / "hub", "0"
    if "none" in trouble:
        port = "99999"
    elif "taken" in trouble:
        port = hub.endpoint.rpartition(":")[2]
    else:
        root = tmp_path / "file"
    result = call("serve", "--root", root, "--port", port)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert words in result.output and "Errno" not in result.output


@pytest.mark.parametrize(
    "start", [["-c", "from hub_callbacks.cli import main; main()", "serve"], ["-m", "hub_callbacks.localhub"]]
)
def test_serve_prints_where_it_is_and_answers_to_the_names_it_was_given(tmp_path, start):
    options = ["--root", str(tmp_path / "hub"), "--port", "0", "--name", "a.example", "--name", "b.example"]
    server = subprocess.Popen([sys.executable, *start, *options], stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("Hub at http://127.0.0.1:")
        answers = [
            get_session().get(line.split()[2], headers={"Host": f"{name}.example"}).status_code for name in "abc"
        ]
        assert answers == [200, 200, 421]
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0
