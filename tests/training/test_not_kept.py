"""Saves that the outbox's disk could not take once: they are tried again as long as their files are there."""

from __future__ import annotations

import errno
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers import Trainer

from hub_callbacks.errors import PushNotSent
from hub_callbacks.localhub import Answer, Fault, Hang
from hub_callbacks.outbox.queue import Outbox
from runs import below, digests, on_hub, root_of, train
from savers import Run, wait_until


@pytest.fixture
def disk(monkeypatch):
    """A disk with a quota: what is queued while it is `full` is refused."""

    class Disk:
        full = False

    submit = Outbox.submit

    def refusing(self, staged, push):
        if Disk.full and push.parts:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return submit(self, staged, push)

    monkeypatch.setattr(Outbox, "submit", refusing)
    return Disk


def refuse(monkeypatch, message, until):
    """A disk that takes the push of that title at its `until`-th try, not before; returns the tries."""
    tries = []
    submit = Outbox.submit

    def refusing(self, staged, push):
        if push.message == message:
            tries.append(push)
            if len(tries) < until:
                raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return submit(self, staged, push)

    monkeypatch.setattr(Outbox, "submit", refusing)
    return tries


def test_a_save_that_the_disk_could_not_take_arrives_when_it_can(hub, repo, tmp_path, monkeypatch, caplog):
    refuse(monkeypatch, "Training in progress, step 4", until=2)
    _, callback, saved = train(tmp_path, repo, hub_strategy="all_checkpoints")
    expected = root_of(saved.checkpoints[8])
    for step in (2, 4, 6, 8):
        expected |= below(f"checkpoint-{step}", saved.checkpoints[step])
    assert on_hub(tmp_path, repo) == expected
    assert callback.summary().lost == 0
    assert all(push.result() for push in callback.pushes)
    said = [record.getMessage() for record in caplog.records if "quota" in record.getMessage()]
    assert len(said) == 1 and "tried again" in said[0]


def test_a_save_is_tried_again_at_the_next_step(hub, repo, tmp_path, monkeypatch):
    tries = refuse(monkeypatch, "Training in progress, step 2", until=2)
    tried_before_step = []

    class Noting(Trainer):
        def training_step(self, *args, **options):
            tried_before_step.append(len(tries))
            return super().training_step(*args, **options)

    train(tmp_path, repo, trainer_class=Noting, max_steps=4, save_steps=2)
    assert tried_before_step == [0, 0, 2, 2]


def test_the_final_model_is_tried_again_too(hub, repo, tmp_path, monkeypatch):
    tries = refuse(monkeypatch, "End of training", until=2)
    _, callback, saved = train(tmp_path, repo, max_steps=2)
    assert len(tries) == 2 and callback.summary().lost == 0
    assert callback.pushes[-1].result()
    assert on_hub(tmp_path, repo) == root_of(saved.checkpoints[2])


def test_what_a_wait_has_to_wait_for_is_tried_again_meanwhile(hub, api, repo, tmp_path, monkeypatch):
    monkeypatch.setattr("hub_callbacks.training.engine.HURRY_EVERY", 0.05)
    tries = refuse(monkeypatch, "step 2", until=4)
    with (
        Run(tmp_path / repo, api) as run,
        ThreadPoolExecutor(1) as aside,
        hub.inject(Fault("commit", Hang())) as hanging,
    ):
        run.save(1)
        second = run.save(2)
        waiting = aside.submit(run.engine.wait)
        wait_until(lambda: len(tries) == 4, seconds=10)
        hanging.clear()
        assert waiting.result() and second.result(0)


def test_close_tells_of_what_the_disk_never_took(hub, api, repo, tmp_path, disk):
    with Run(tmp_path / repo, api) as run:
        disk.full = True
        future = run.save(1)
        run.engine.close(grace=0.1)
        with pytest.raises(PushNotSent, match="quota"):
            future.result(0)


def test_it_is_tried_again_between_saves_and_said_once(hub, api, repo, tmp_path, disk, caplog):
    with Run(tmp_path / repo, api) as run:
        disk.full = True
        future = run.save(1)
        for _ in range(3):
            run.engine.try_again(every=0)
        assert not future.done() and len([r for r in caplog.records if "tried again" in r.getMessage()]) == 1
        assert not run.engine.wait(0)
        disk.full = False
        assert run.engine.wait() and future.result()
        assert run.engine.summary().lost == 0


def test_what_the_disk_never_took_is_lost_at_the_end_and_said(hub, api, repo, tmp_path, disk, caplog):
    caplog.set_level(logging.WARNING)
    with Run(tmp_path / repo, api, finish_timeout=1.0) as run:
        disk.full = True
        future = run.save(1)
        summary = run.engine.finish()
    assert summary.lost == 1
    assert "will not reach the Hub" in caplog.text
    with pytest.raises(PushNotSent, match="quota"):
        future.result(0)


def test_ctrl_c_while_a_save_is_queued_leaves_no_future_that_never_ends(hub, api, repo, tmp_path, monkeypatch):
    def interrupted(self, staged, push):
        raise KeyboardInterrupt

    with Run(tmp_path / repo, api) as run:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Outbox, "submit", interrupted)
            run.save(1)
        with pytest.raises(PushNotSent, match="KeyboardInterrupt"):
            run.engine.pushes[-1].result(0)


def test_what_is_gone_when_there_is_room_again_is_lost(hub, api, repo, tmp_path, disk):
    with Run(tmp_path / repo, api) as run:
        disk.full = True
        future = run.save(1)
        (run.saved[0] / "optimizer.pt").unlink()
        disk.full = False
        second = run.save(2)
        with pytest.raises(PushNotSent, match="moved or deleted"):
            future.result(0)
        assert run.engine.wait() is not None and second.result(60)


def test_a_late_save_does_not_go_on_top_of_newer_ones(hub, api, repo, tmp_path, disk):
    with Run(tmp_path / repo, api, hub_strategy="checkpoint") as run:
        disk.full = True
        late = run.save(1)
        disk.full = False
        run.engine._tried = float("inf")  # not yet
        put, run.engine.try_again = run.engine.try_again, lambda **options: None
        run.save(2)
        run.end()
        run.engine.try_again = put
        run.engine._tried = 0.0
        assert run.engine.wait()
        assert on_hub(tmp_path, repo) == left_of(run, 2)
        assert late.result(0), "newer ones have brought all of it"
        assert run.engine.summary().lost == 0


def left_of(run, step):
    saved = digests(run.output_dir / f"checkpoint-{step}")
    return root_of(saved) | below("last-checkpoint", saved)


def test_what_was_sent_makes_room_at_the_end(hub, api, repo, tmp_path, monkeypatch):
    """The quota is used up by what waits."""
    submit = Outbox.submit

    def quota(self, staged, push):
        if push.message == "step 2" and any(waiting.message == "step 1" for waiting in self.pending()):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return submit(self, staged, push)

    monkeypatch.setattr(Outbox, "submit", quota)
    with Run(tmp_path / repo, api) as run, hub.inject(Fault("commit", Answer(520))) as away:
        run.save(1)
        second = run.save(2)
        run.wait_for_trouble()
        away.clear()
        assert run.engine.finish().lost == 0
        assert second.result(0)


def test_what_is_not_kept_yet_is_in_progress(hub, api, repo, tmp_path, disk):
    with Run(tmp_path / repo, api) as run:
        disk.full = True
        run.save(1)
        assert run.engine.push_in_progress
        disk.full = False


def test_ctrl_c_while_it_is_tried_again_loses_none_of_them(hub, api, repo, tmp_path, disk, monkeypatch):
    with Run(tmp_path / repo, api) as run:
        disk.full = True
        futures = [run.save(step) for step in (1, 2)]
        disk.full = False
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Outbox, "stage", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
            run.save(3)
        assert run.engine.wait() and all(future.result(0) for future in futures)
        with pytest.raises(PushNotSent, match="KeyboardInterrupt"):
            run.engine.pushes[2].result(0)


def test_a_part_that_was_left_out_is_lost_and_its_future_says_so(hub, api, repo, tmp_path):
    with Run(tmp_path / repo, api) as run:
        with hub.inject(Fault("*", Answer(520))):
            future = run.save(1)
            run.wait_for_trouble()
            for file in run.engine.outbox.pushes.glob("*/files/*.pt"):
                file.unlink()
        summary = run.engine.finish()
        assert (summary.commits, summary.lost) == (1, 1)
        with pytest.raises(PushNotSent, match="without checkpoint-1"):
            future.result(0)


def test_who_waits_for_the_pushes_does_not_wait_for_a_long_pause_to_end(hub, api, repo, tmp_path, monkeypatch):
    with Run(tmp_path / repo, api) as run:
        with hub.inject(Fault("*", Answer(520))):
            run.save(1)
            run.wait_for_trouble()
            for _ in range(40):  # a pause of minutes, as after an outage of hours
                run.engine._pusher.hurry()
                time.sleep(0.02)
        assert run.engine.wait(60)
