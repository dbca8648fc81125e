"""The pusher's process: its life beside, after and without the training process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

import interpreters
from hub_callbacks.errors import PushNotSent
from hub_callbacks.localhub import Fault, Hang
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.content import NOTED
from hub_callbacks.outbox.control import STALLED, Orders
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.pushing import process as pusher_process
from hub_callbacks.training import pusher_process as held
from hub_callbacks.training.pusher_process import RESTARTS
from outboxes import put
from savers import Run, assert_tells_the_truth, digests, expected, on_hub, wait_until


def is_running(process: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def pusher_of(run: Run) -> int:
    process = run.engine._pusher._process
    assert process is not None
    return process.pid


@pytest.fixture
def forked_pushers():
    """None: here they are started as the library does it."""


@pytest.fixture
def run(hub, api, repo, tmp_path) -> Iterator[Run]:
    with Run(tmp_path / repo, api, Orders(longest_wait=0.2)) as running:
        running.engine.start()
        yield running


@pytest.fixture
def no_pause(monkeypatch):
    """A pusher that died is started again at once."""
    monkeypatch.setattr(held.time, "sleep", lambda seconds: None)


def test_the_pusher_has_a_session_and_a_priority_of_its_own(run):
    run.save(1)
    assert run.engine.wait()
    pusher = pusher_of(run)
    assert os.getsid(pusher) == pusher != os.getsid(0)
    assert os.getpriority(os.PRIO_PROCESS, pusher) == os.getpriority(os.PRIO_PROCESS, 0) + pusher_process.NICENESS


def test_the_pusher_imports_neither_torch_nor_transformers(run):
    run.save(1)
    assert run.engine.wait()
    mapped = Path(f"/proc/{pusher_of(run)}/maps").read_text()
    assert "huggingface" in mapped or "_ssl" in mapped or "libssl" in mapped
    assert "libtorch" not in mapped


def test_nothing_is_left_running_after_close(run):
    run.save(1)
    assert run.engine.wait()
    pusher = pusher_of(run)
    run.engine.close()
    assert not is_running(pusher)


def test_close_cuts_an_upload_that_does_not_end_and_leaves_it_in_the_outbox(run, hub):
    with hub.inject(Fault("commit", Hang())) as hanging:
        run.save(1)
        wait_until(lambda: hanging.hits)
        pusher = pusher_of(run)
        run.engine.close(grace=0)
        assert not is_running(pusher)
    assert run.engine.summary().waiting == 1
    assert len(run.engine.outbox.pending()) == 1


def test_a_pusher_that_dies_is_started_again_and_sends_what_it_left(run, hub, tmp_path, no_pause, caplog):
    with hub.inject(Fault("commit", Hang())) as hanging:
        run.save(1)
        wait_until(lambda: hanging.hits)
        os.kill(pusher_of(run), signal.SIGKILL)
        wait_until(lambda: "is started again" in caplog.text)
    run.save(2)
    assert run.engine.wait()
    assert on_hub(hub, run.repo, tmp_path / "cache") == expected(run.saved)
    assert_tells_the_truth(run)


def test_a_pusher_that_dies_again_and_again_is_given_up_and_the_end_does_not_wait(run, hub, no_pause, caplog):
    with hub.inject(Fault("create_repo", Hang())):
        run.save(1)
        for deaths in range(1, RESTARTS + 2):
            wait_until(lambda: run.engine._pusher.is_alive)
            os.kill(pusher_of(run), signal.SIGKILL)
            wait_until(lambda n=deaths: len(run.engine._pusher._deaths) == n)
        wait_until(lambda: run.engine._pusher.is_given_up)
        assert "`hub-callbacks sync` sends it" in caplog.text
        assert not run.engine.wait()
        run.save(2)
        assert not run.engine._pusher.is_alive
    waiting = run.engine.outbox.pending()[-2:]
    assert [push.message for push in waiting] == ["step 1", "step 2"]
    wait_until(lambda: all((push.folder / NOTED).exists() for push in waiting))  # a changed time is no loss then


def test_signals_that_batch_systems_send_to_all_processes_end_no_pusher(run, hub):
    run.save(1)
    assert run.engine.wait()
    pusher = pusher_of(run)
    for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT", "SIGPIPE", "SIGALRM", "SIGXCPU"):
        for _ in range(RESTARTS + 1):
            os.kill(pusher, getattr(signal, name))
    run.save(2)
    assert run.engine.wait()
    assert pusher_of(run) == pusher and not run.engine._pusher._deaths


def test_after_sigterm_the_pusher_has_time_to_end_what_it_is_at(run, hub, api):
    with hub.inject(Fault("commit", Hang())) as hanging:
        future = run.save(1)
        wait_until(lambda: hanging.hits)
        os.kill(pusher_of(run), signal.SIGTERM)
    assert future.result(60)
    assert not run.engine._pusher._deaths


def test_after_sigterm_it_ends_before_a_batch_system_kills_it():
    assert 0 < pusher_process.TERMINATION_GRACE < 30


def test_after_sigterm_it_ends_even_so(hub, api, repo, tmp_path, monkeypatch):
    (tmp_path / "outbox").mkdir()
    code = (
        "import sys; from hub_callbacks.pushing import process; process.TERMINATION_GRACE = 0.5; "
        "process.main(sys.argv[1])"
    )
    pusher = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "outbox")], stdin=subprocess.PIPE)
    pusher.stdin.write(b"{}\n")
    pusher.stdin.flush()
    wait_until((tmp_path / "outbox" / "pusher.log").exists)
    wait_until((tmp_path / "outbox" / "drainer.lock").exists)
    pusher.terminate()
    assert pusher.wait(60) == 128 + signal.SIGTERM
    pusher.stdin.close()


PRINTS = "print('a line that is not its own', flush=True)\n"


def test_what_others_print_is_no_news(hub, api, repo, tmp_path, monkeypatch):
    """A `sitecustomize` prints before the pusher runs, hf_xet where it cannot write its log."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        PRINTS + "import os, threading\nthreading.Timer(1, os.write, [1, b'-7 of hf_xet\\n']).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with Run(tmp_path / repo, api) as run:
        run.engine.start()
        for step in (1, 2):
            assert run.save(step).result(60)
        assert run.engine.wait()
        wait_until(lambda: "of hf_xet" in (run.engine.outbox.root / "pusher.log").read_text())


BOUNDS = """
import os, sys
from hub_callbacks.pushing import process
process.push_all = lambda *_: print(*(f"{n}={v}" for n, v in os.environ.items() if n.startswith("HF_XET_")))
process.main(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("memory", "own", "files", "connections"),
    [
        (2**30, {}, "3", "7"),
        (2**29, {}, "1", "3"),
        (400_000_000, {}, "1", "1"),
        (2**40, {}, "8", "64"),
        (2**30, {"HF_XET_HIGH_PERFORMANCE": "0"}, "3", "7"),
        (2**30, {"HF_XET_HIGH_PERFORMANCE": "1"}, None, None),
        (2**30, {"HF_XET_HP": "true"}, None, None),
        (2**30, {"HF_XET_FIXED_UPLOAD_CONCURRENCY": "9"}, None, None),
        (2**30, {"HF_XET_MAX_CONCURRENT_FILE_INGESTION": "12"}, None, None),
        (2**30, {"HF_XET_CLIENT_AC_MAX_UPLOAD_CONCURRENCY": "20"}, None, "20"),
    ],
)
def test_what_uploads_take_is_bounded(tmp_path, memory, own, files, connections):
    orders = json.dumps(asdict(Orders(max_upload_memory=memory)))
    command = [sys.executable, "-c", BOUNDS, tmp_path / "outbox"]
    said = subprocess.run(
        command, input=f"{orders}\n", env=os.environ | own, capture_output=True, text=True
    ).stderr
    bounds = dict(word.split("=") for word in said.split() if word.startswith("HF_XET_"))
    assert bounds.get("HF_XET_DATA_MAX_CONCURRENT_FILE_INGESTION") == files
    assert bounds.get("HF_XET_CLIENT_AC_MAX_UPLOAD_CONCURRENCY") == connections
    assert bounds.items() >= own.items()


def test_the_pusher_takes_the_memory_that_was_set(run, api, repo, tmp_path):
    with Run(tmp_path / "other" / repo, api, max_upload_memory=2**29) as other:
        assert other.engine._pusher.orders.max_upload_memory == 2**29
        with Run(tmp_path / "other" / repo, api) as third:  # of the same outbox: nobody gets more than was allowed
            assert third.engine._pusher.orders.max_upload_memory == 2**29


def test_news_that_cannot_be_told_leave_the_pusher_looked_after(run, hub, monkeypatch, caplog, no_pause):
    monkeypatch.setattr(run.engine._pusher, "_on_news", lambda: 1 / 0)
    run.save(1)
    wait_until(lambda: "could not be told" in caplog.text)
    os.kill(pusher_of(run), signal.SIGKILL)
    wait_until(lambda: "is started again" in caplog.text)


def test_why_no_pusher_can_start_is_told(hub, api, repo, tmp_path, monkeypatch, no_pause):
    """A proxy that the client has no package for, for one."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os\nif 'PUSHER_FAILS' in os.environ:\n"
        "    import huggingface_hub\n"
        "    def fails(*args, **kwargs):\n"
        "        raise ImportError('Using SOCKS proxy, but the socksio package is not installed.')\n"
        "    huggingface_hub.HfApi.__init__ = fails\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("PUSHER_FAILS", "1")
    with Run(tmp_path / repo, api, finish_timeout=5) as run:
        future = run.save(1)
        assert not run.engine.wait()
        assert "socksio" in run.engine.summary().why
        wait_until(lambda: run.engine._pusher.is_given_up)
    with pytest.raises(PushNotSent, match="socksio"):
        future.result(0)


FAILS = """
import sys
from hub_callbacks.pushing import process
def fail(outbox, control):
    raise ImportError(f"no proxy for {control.orders.token}")
process.push_all = fail
process.main(sys.argv[1])
"""


def test_why_no_pusher_can_start_is_told_without_the_token(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    push = put(outbox)
    orders = json.dumps(asdict(Orders(token="my-own-token")))
    command = [sys.executable, "-c", FAILS, outbox.root]
    assert subprocess.run(command, input=f"{orders}\n", text=True, capture_output=True).returncode == 1
    assert "no proxy for [token]" in outbox.ledger.latest()[push.id].why
    assert "my-own-token" not in outbox.ledger.path.read_text()


def test_an_output_dir_that_was_deleted_does_not_come_back(run, tmp_path, caplog):
    run.save(1)
    assert run.engine.wait()
    pusher = pusher_of(run)
    wait_until(lambda: not any(run.engine.outbox.staging.iterdir()))  # what was sent is gone
    shutil.rmtree(run.output_dir)
    wait_until(lambda: not is_running(pusher))
    wait_until(lambda: not run.engine._pusher.is_alive)
    assert not run.output_dir.exists() and "started again" not in caplog.text


def test_without_processes_the_pushes_go_by_a_thread(hub, api, repo, tmp_path, monkeypatch, caplog):
    def refuse(*args: object, **kwargs: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(held.subprocess, "Popen", refuse)
    with Run(tmp_path / repo, api) as run:
        run.engine.start()
        run.save(1)
        assert run.engine.wait()
        assert "they go by a thread" in caplog.text
        assert on_hub(hub, run.repo, tmp_path / "cache") == expected(run.saved)
        thread = run.engine._pusher._thread
        assert thread is not None
        run.engine.close()
        assert not thread.is_alive()


def test_an_upload_that_hf_xet_cannot_end_is_ended(hub, api, repo, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("HF_XET_CLIENT_READ_TIMEOUT", "600s")
    with Run(tmp_path / repo, api, Orders(longest_wait=0.2, stall_timeout=1.5)) as run:
        run.engine.start()
        with hub.inject(Fault("xet_put", Hang())) as hanging:
            run.save(1)
            wait_until(lambda: hanging.hits)
            first = pusher_of(run)
            wait_until(lambda: f"status {STALLED}" in caplog.text)
            assert not is_running(first)
            why = [entry.why for entry in run.engine.outbox.ledger.all_entries() if entry.state == ledger.WAITING]
            assert "nothing has moved" in (why[0] or "")
        assert run.engine.wait()
        assert run.engine._pusher._deaths == []
        assert_tells_the_truth(run)


def test_how_much_of_a_slow_upload_has_arrived_is_known(hub, api, repo, tmp_path, upload_path, monkeypatch):
    """What the watch over uploads that hang sees of one that is slow; see `tests/pushing/test_stall.py`."""
    monkeypatch.delenv("HF_XET_CLIENT_READ_TIMEOUT", raising=False)  # other tests shorten it
    hub.throttle(1_000_000)
    with Run(tmp_path / repo, api) as run:
        run.engine.start()
        run.save(1, size=12_000_000)  # more than the buffers between the two take at once
        wait_until(lambda: run.engine._pusher.sent > 1_000_000)
        arrived, size = run.engine._sizes()
        assert 1_000_000 < arrived < 36_200_000 < size + 1_000_000
        hub.throttle(None)
        assert run.engine.wait()
        assert run.engine._sizes() == (size, size)
        assert ledger.WAITING not in [entry.state for entry in run.engine.outbox.ledger.all_entries()]


def test_an_outbox_may_be_deleted_again_and_again(run, api, repo, tmp_path):
    for step in range(1, RESTARTS + 3):
        assert run.save(step).result(60)
        run.engine.outbox.root.rename(tmp_path / f"gone-{step}")  # in one go, whatever the pusher writes meanwhile
    assert run.engine._pusher._deaths == []


def test_an_outbox_that_was_deleted_and_made_anew_is_left_to_its_own_pusher(run, api, repo, tmp_path):
    run.save(1)
    assert run.engine.wait()
    orphan = pusher_of(run)
    assert run.engine._pusher._process is not None
    run.engine._pusher._stopping = True  # as after the end of the training process: nobody starts it again
    run.engine.outbox.root.rename(tmp_path / "gone")
    outbox = Outbox(run.engine.outbox.root)
    with outbox.lock():
        put(outbox, target=run.engine.target)
        os.write(run.engine._pusher._process.stdin.fileno(), b"new\n")
        wait_until(lambda: not is_running(orphan))
        assert len(outbox.pending()) == 1
    assert api.list_repo_commits(f"local/{repo}")[0].title == "step 1"


def test_the_copy_in_a_forked_process_leaves_the_pusher_alone(run):
    run.save(1)
    assert run.engine.wait()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            run.engine._pusher.stop()
            run.engine._pusher.ring()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_running(pusher_of(run))
    run.save(2)
    assert run.engine.wait()


def test_the_log_is_bounded(tmp_path):
    log = tmp_path / pusher_process.LOG
    root = logging.getLogger()
    before = list(root.handlers)
    root.handlers.clear()
    try:
        pusher_process._log_to(log, pusher_process.Control(orders=Orders(token="secret-token")))
        for _ in range(3000):
            root.warning("%s secret-token", "x" * 1000)
        for handler in root.handlers:
            handler.close()
    finally:
        root.handlers[:] = before
    logs = list(tmp_path.glob(f"{pusher_process.LOG}*"))
    assert sum(path.stat().st_size for path in logs) <= 2 * pusher_process.LOG_SIZE
    assert b"secret-token" not in b"".join(path.read_bytes() for path in logs)


# -- the training process ends


SCRIPT = """
import os, sys, time
from pathlib import Path
from outboxes import put
from savers import Run
from hub_callbacks.outbox.control import STALLED, Orders
run = Run(Path(sys.argv[1]), None, Orders(longest_wait=0.2))
run.engine.start()
print(run.engine._pusher._process.pid, flush=True)
run.save(1)
print("saved", flush=True)
"""


class Script:
    """A training script in a process group of its own; `end` is what it does after its first save."""

    def __init__(self, output_dir: Path, end: str) -> None:
        self.outbox = Outbox(output_dir / "_hub_sync")
        # It needs no torch: a new interpreter is as fast.
        self.process = interpreters.start_anew(
            ["-c", SCRIPT + textwrap.dedent(end), output_dir],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        assert self.process.stdout is not None
        self.pusher = int(self.process.stdout.readline())
        assert self.process.stdout.readline() == "saved\n"

    def wait(self) -> str:
        """Its exit; returns what it wrote to standard error."""
        errors = self.process.communicate()[1]
        return str(errors)


@pytest.fixture
def script(tmp_path, repo) -> Iterator[type[Script]]:
    scripts: list[Script] = []

    def start(end: str) -> Script:
        scripts.append(Script(tmp_path / repo, end))
        return scripts[-1]

    yield start  # type: ignore[misc]
    for made in scripts:
        for process in (made.process.pid, made.pusher):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        made.process.communicate()


def arrived(hub, repo, tmp_path) -> bool:
    checkpoint = tmp_path / repo / "checkpoint-1"
    return digests(checkpoint, "checkpoint-1/").items() <= on_hub(hub, f"local/{repo}", tmp_path / "cache").items()


@pytest.mark.parametrize(
    "end", ["", "raise RuntimeError('loss is nan')", "sys.exit(3)"], ids=["return", "exception", "exit"]
)
def test_a_script_that_ends_sends_what_it_has_and_leaves_no_process(script, hub, repo, tmp_path, end):
    made = script(end)
    errors = made.wait()
    assert made.process.returncode == {"": 0, "sys.exit(3)": 3}.get(end, 1)
    assert "Exception ignored" not in errors
    assert not is_running(made.pusher)
    assert arrived(hub, repo, tmp_path)


def test_ctrl_c_reaches_the_training_alone(script, hub, repo, tmp_path):
    with hub.inject(Fault("commit", Hang())) as hanging:
        made = script("time.sleep(600)")
        wait_until(lambda: hanging.hits)
        os.killpg(made.process.pid, signal.SIGINT)
        hanging.clear()
        errors = made.wait()
    assert "KeyboardInterrupt" in errors
    assert arrived(hub, repo, tmp_path)
    assert not is_running(made.pusher)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_pusher_outlives_the_training_until_the_outbox_is_empty(script, hub, repo, tmp_path, number):
    with hub.inject(Fault("commit", Hang())) as hanging:
        made = script("time.sleep(600)")
        wait_until(lambda: hanging.hits)
        os.killpg(made.process.pid, number)
        made.wait()
        assert is_running(made.pusher)
        assert made.outbox.pending()
    wait_until(lambda: not is_running(made.pusher))
    assert arrived(hub, repo, tmp_path)
    assert made.outbox.pending() == []


def test_a_pusher_that_is_left_alone_leaves_when_there_is_nothing_to_send(script, hub):
    made = script("time.sleep(600)")
    wait_until(lambda: not made.outbox.pending())
    os.killpg(made.process.pid, signal.SIGKILL)
    made.wait()
    wait_until(lambda: not is_running(made.pusher))
