"""One pusher for an outbox, however many engines use it, and for as long as any of them does."""

from __future__ import annotations

import gc
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer

from hub_callbacks import HubSync, HubSyncCallback
from hub_callbacks.outbox.control import Orders
from hub_callbacks.training import shared_pusher
from hub_callbacks.training.engine import Engine
from models import Sentences, arguments, classifier
from savers import Run, wait_until
from training.test_pusher_process import is_running


@pytest.fixture
def run(hub, api, repo, tmp_path):
    with Run(tmp_path / repo, api, Orders(longest_wait=0.2)) as running:
        running.engine.start()
        yield running


def process_of(engine: Engine) -> int:
    process = engine._pusher._process
    assert process is not None
    return process.pid


def trainer(output_dir: Path) -> Any:
    return Trainer(classifier(), arguments(output_dir), train_dataset=Sentences(4), callbacks=[HubSyncCallback()])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: HubSync(output_dir=folder), id="a loop's verbs"),
        pytest.param(lambda folder: trainer(folder), id="a Trainer"),
    ],
)
def test_a_helper_that_comes_and_goes_does_not_end_the_pusher(run, make):
    run.save(1)
    assert run.engine.wait()
    pusher = process_of(run.engine)
    helper = make(run.output_dir)
    del helper
    gc.collect()
    run.save(2)
    assert run.engine.wait(30), str(run.engine.summary())
    assert process_of(run.engine) == pusher and is_running(pusher)
    assert run.titles()[:2] == ["step 1", "step 2"]


def test_engines_of_one_folder_share_a_pusher_by_whatever_name_they_know_it(run, tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(run.output_dir)
    monkeypatch.chdir(run.output_dir.parent)
    others = [Engine(HubSync(output_dir=name).settings) for name in (link, run.output_dir.name)]
    assert {id(engine._pusher) for engine in (run.engine, *others)} == {id(run.engine._pusher)}


def test_the_pusher_ends_with_the_last_of_its_engines(run):
    pusher = process_of(run.engine)
    other = Engine(run.settings)
    run.engine.close()
    assert is_running(pusher)
    other.start()
    assert process_of(other) == pusher
    other.close()
    wait_until(lambda: not is_running(pusher))


def test_closing_an_engine_twice_lets_go_once(run):
    other = Engine(run.settings)
    other.close()
    other.close()
    del other
    gc.collect()
    run.save(1)
    assert run.engine.wait(30)


def test_each_engine_hears_of_its_own_pushes(run):
    other = Engine(run.settings)
    first = run.save(1)
    assert first.result(timeout=60).commit_message == "step 1"
    assert other.summary().commits == 0 and run.engine.summary().commits == 1
    other.close()


def test_a_helper_without_a_token_takes_none_away(run):
    run.engine.use_token("hf_given_by_the_script")
    helper = Engine(run.settings)
    assert run.engine._pusher.orders.token == "hf_given_by_the_script"
    helper.use_token("hf_newer")
    assert run.engine._pusher.orders.token == "hf_newer"
    helper.close()


def test_another_outbox_has_another_pusher(run, tmp_path):
    other = Engine(HubSync(output_dir=tmp_path / "other").settings)
    assert other._pusher is not run.engine._pusher
    other.close()
    assert os.path.exists(f"/proc/{process_of(run.engine)}")


def test_a_token_that_was_set_in_the_environment_since_is_used(run, hub, monkeypatch):
    assert run.engine._pusher.orders.token is None
    monkeypatch.setenv("HF_TOKEN", "hf_set_in_the_next_cell")
    other = Engine(run.settings)
    assert run.engine._pusher.orders.token == "hf_set_in_the_next_cell"
    other.close()


def test_an_engine_may_be_collected_wherever_python_sees_fit(run, monkeypatch):
    """In the middle of what holds the lock of the pusher that it leaves, for one."""
    old = [Engine(run.settings)]
    real = run.engine._pusher._tell

    def tell(line: bytes) -> None:
        old.clear()
        gc.collect()
        real(line)

    monkeypatch.setattr(run.engine._pusher, "_tell", tell)
    made: list[Engine] = []
    thread = threading.Thread(target=lambda: made.append(Engine(run.settings)), daemon=True)
    thread.start()
    thread.join(20)
    assert made, "it hangs"
    monkeypatch.undo()
    made[0].close()
    run.save(1)
    assert run.engine.wait(30)


def test_a_forked_process_waits_for_no_lock_of_its_parents_threads(run):
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with shared_pusher._lock:
            is_held.set()
            may_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # ends a child that hangs
        shared_pusher.let_go(run.engine)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    may_go.set()
    thread.join()
    assert status == 0
