"""Trains for a while with whatever goes wrong at random, and then looks where each save is.

    python benchmarks/endurance.py --minutes 60 --seed 1

A training process saves a checkpoint every second or two, all with content of their own, and deletes all but the
two newest, so that the outbox has the only copy of most. Meanwhile, at random: answers of the Hub with an error,
resets, hangs, lost answers; the Hub away; a full disk; a clock that jumps; signals that batch systems send; all
files touched; a token that is not accepted, another user's token; the repository renamed; SIGKILL for the pusher,
the training or both, which is started again then. What hangs is given up after seconds, not after minutes.
At the end all of that is over, and `hub-callbacks sync` runs.

Each save that was queued then has to be on the Hub with the bytes that it had, or on the disk with a reason that a
person can read; and nothing may be in any other repository. Prints each save of which that is not true, and a line
of totals. Exit status 1 if there was one. The full disk needs the right to mount one; without it, it is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DISK = 400  # megabytes
SIZE = 300_000  # bytes of the weights: more than what is copied, so that they are linked

TRAINING = """
import json, os, random, shutil, sys, time
from pathlib import Path
from hub_callbacks import HubSync
from hub_callbacks.outbox.control import Orders
from hub_callbacks.settings import resolve
from hub_callbacks.training.engine import Engine
from hub_callbacks.training.plan import plan_save

output_dir, seed, size, queued = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), open(sys.argv[4], "a")
settings = resolve(overrides={"output_dir": output_dir, "hub_model_id": "endurance", "hub_private_repo": True,
                              "hub_strategy": "all_checkpoints", "finish_timeout": 5.0})
engine = Engine(settings, Orders(request_timeout=10, stall_timeout=20))
engine.start()
step = max([0, *(int(folder.name.split("-")[1]) for folder in output_dir.glob("checkpoint-*"))])
while True:
    step += 1
    folder = output_dir / f"checkpoint-{step}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"step": step}))
        (folder / "model.safetensors").write_bytes(random.Random(f"{seed} {step}").randbytes(size))
    except OSError as error:  # a full disk takes no checkpoint either: nothing was saved
        print(f"step {step} was not saved: {error}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.5)
        continue
    engine.try_again(every=5)
    future = engine.push(plan_save("all_checkpoints", folder, step, f"step {step}"), is_save=True)
    queued.write(f"{step}\\n")
    queued.flush()
    for old in sorted(output_dir.glob("checkpoint-*"), key=lambda f: int(f.name.split("-")[1]))[:-2]:
        shutil.rmtree(old, ignore_errors=True)
    time.sleep(random.uniform(0.5, 2.0))
"""

CLOCK = """
import os, time
_real, _file = time.time, os.environ.get("CLOCK_OFFSET")
def _jumping():
    try:
        with open(_file) as file:
            return _real() + float(file.read() or 0)
    except (OSError, ValueError):
        return _real()
if _file:
    time.time = _jumping
"""
"""As `sitecustomize`: the clock of the training and its pusher."""


class Endurance:
    """
    Args:
        hub: The embedded Hub.
        folder: Where the run, and all that belongs to it, lies.
        seed: Of what happens, and of the saved bytes.
    """

    def __init__(self, hub: Any, folder: Path, seed: int) -> None:
        from huggingface_hub import HfApi

        self.hub, self.seed, self.hub_token = hub, seed, str(hub.token)
        self.chance = random.Random(seed)
        self.disk = folder / "disk"
        self.output_dir = self.disk / "run"
        self.output_dir.mkdir(parents=True)
        self.queued, self.log = folder / "queued", folder / "training.log"
        self.home, self.clock = folder / "home", folder / "clock"
        self.home.mkdir()
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(CLOCK)
        self.site = folder / "site"
        self.api = HfApi(endpoint=hub.endpoint, token=hub.token)
        self.other_token = hub.add_user("somebody-else")
        self.name = "local/endurance"
        self.events: Counter[str] = Counter()
        self.training: subprocess.Popen[bytes] | None = None
        self.log_in(self.hub_token)

    # -- the training

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
        environment |= {
            "HF_ENDPOINT": self.hub.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "CLOCK_OFFSET": str(self.clock),
            "PYTHONPATH": f"{self.site}{os.pathsep}{ROOT}",
        }
        with self.log.open("ab") as log:
            self.training = subprocess.Popen(
                [sys.executable, "-c", TRAINING, self.output_dir, str(self.seed), str(SIZE), self.queued],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pusher(self) -> int | None:
        assert self.training is not None
        try:
            children = Path(f"/proc/{self.training.pid}/task/{self.training.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def log_in(self, token: str) -> None:
        (self.home / "token").write_text(token)

    # -- what goes wrong

    def answers(self) -> None:
        from hub_callbacks.localhub import Answer, Fault, Hang, LoseResponse, Reset

        operations = ("*", "repo_info", "preupload", "xet_token", "xet_put", "commit", "create_repo", "tree")
        actions = [Answer(s) for s in (400, 401, 403, 404, 409, 412, 429, 500, 503)]
        actions += [Answer(429, {"Retry-After": "86400"}), Answer(403, {"Content-Type": "text/html"})]
        actions += [Reset(after_bytes=100), Hang(), LoseResponse()]
        fault = Fault(self.chance.choice(operations), self.chance.choice(actions))
        with self.hub.inject(fault):
            time.sleep(self.chance.uniform(0.5, 6))

    def away(self) -> None:
        self.hub.stop()
        time.sleep(self.chance.uniform(0.5, 5))
        self.hub.start()

    def full_disk(self) -> None:
        full = self.disk / "full"
        try:
            with contextlib.suppress(OSError), full.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
            time.sleep(self.chance.uniform(0.5, 4))
        finally:
            full.unlink(missing_ok=True)

    def clock_jump(self) -> None:
        self.clock.write_text(str(self.chance.uniform(-1e6, 1e6)))

    def batch_signal(self) -> None:
        number = self.chance.choice([signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM])
        if pusher := self.pusher():
            os.kill(pusher, number)

    def touch(self) -> None:
        for here, _, files in os.walk(self.output_dir / "_hub_sync"):
            for file in files:
                with contextlib.suppress(OSError):
                    os.utime(os.path.join(here, file))

    def bad_token(self) -> None:
        self.log_in("hf_of_nobody")
        time.sleep(self.chance.uniform(0.5, 4))
        self.log_in(self.hub_token)

    def other_account(self) -> None:
        self.log_in(self.other_token)
        time.sleep(self.chance.uniform(0.5, 4))
        self.log_in(self.hub_token)

    def rename(self) -> None:
        if self.api.repo_exists(self.name):
            new = f"local/endurance-{self.chance.randrange(10**6)}"
            self.api.move_repo(self.name, new)
            self.name = new

    def kill(self) -> None:
        assert self.training is not None
        victims = self.chance.choice([["training"], ["pusher"], ["training", "pusher"]])
        pids = {"training": self.training.pid, "pusher": self.pusher()}
        for victim in victims:
            if pids[victim]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[victim], signal.SIGKILL)

    def one_thing(self, has_disk: bool) -> None:
        things: list[Callable[[], None]] = [
            *[self.answers] * 4,
            self.away,
            self.clock_jump,
            self.batch_signal,
            self.touch,
            self.bad_token,
            self.other_account,
            self.rename,
            *[self.kill] * 2,
            *([self.full_disk] if has_disk else []),
        ]
        thing = self.chance.choice(things)
        self.events[thing.__name__] += 1
        thing()

    def run(self, seconds: float, has_disk: bool) -> None:
        until = time.monotonic() + seconds
        self.start()
        while time.monotonic() < until:
            time.sleep(self.chance.uniform(0.1, 3))
            self.one_thing(has_disk)
            if self.training is not None and self.training.poll() is not None:
                self.events["starts"] += 1
                self.start()
        assert self.training is not None
        pusher = self.pusher()
        os.kill(self.training.pid, signal.SIGKILL)
        self.training.wait()
        if pusher:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pusher, signal.SIGKILL)
        self.clock.unlink(missing_ok=True)

    # -- where everything is

    def sync(self) -> int:
        code = "from hub_callbacks.cli import main; main()"
        environment = os.environ | {"HF_ENDPOINT": self.hub.endpoint, "HF_TOKEN": self.hub_token}
        command = [sys.executable, "-c", code, "sync", str(self.output_dir), "--patience", "120"]
        done = subprocess.run(command, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        print(f"sync ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.returncode

    def trouble_of(self, name: str, expected: str) -> str | None:
        """Why a file on the Hub is not the one that was saved, if it is not."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            file = hf_hub_download(self.name, name, token=self.hub_token, endpoint=self.hub.endpoint)
        except EntryNotFoundError as error:
            return f"the Hub has it in a commit, and does not hand it out: {error}"
        is_right = hashlib.sha256(Path(file).read_bytes()).hexdigest() == expected
        return None if is_right else "other bytes on the Hub"

    def check(self) -> Counter[str]:
        from hub_callbacks.outbox.queue import Outbox

        files = set(self.api.list_repo_files(self.name))
        outbox = Outbox(self.output_dir / "_hub_sync")
        entries: dict[str, list[Any]] = {}
        for entry in outbox.ledger.latest().values():
            entries.setdefault(entry.message, []).append(entry)
        log = self.log.read_text(errors="replace")
        found: Counter[str] = Counter()
        for step in sorted(set(map(int, self.queued.read_text().split()))):
            expected = hashlib.sha256(random.Random(f"{self.seed} {step}").randbytes(SIZE)).hexdigest()
            name = f"checkpoint-{step}/model.safetensors"
            if name in files:
                trouble = self.trouble_of(name, expected)
                found["WRONG" if trouble else "on the Hub"] += 1
                if trouble:
                    print(f"step {step}: {trouble}")
                continue
            known = entries.get(f"step {step}", [])
            reasons = [note for entry in known for note in (entry.why, *entry.notes) if note]
            reasons += re.findall(rf".*'step {step}'.* could not be put .*", log)
            if reasons:
                found["on the disk, with a reason"] += 1
                print(f"step {step}: {[entry.state for entry in known]}: {reasons[-1][:200]}")
            else:
                found["LOST"] += 1
                print(f"step {step}: neither on the Hub nor on the disk: {known}")
        elsewhere = {model.id for model in self.api.list_models()} - {self.name}
        others = type(self.api)(self.hub.endpoint, token=self.other_token)
        elsewhere |= {model.id for model in others.list_models()} - {self.name}
        for name in elsewhere:
            found["ELSEWHERE"] += 1
            print(f"there is a repository {name}")
        return found


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Mounts a small disk; whether that worked."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(place)]
    is_mounted = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, small_disk(Path(temporary, "disk")) as has_disk:
        folder = Path(temporary)
        os.environ["HF_HOME"] = str(folder / "own-home")
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        from hub_callbacks.localhub import LocalHub

        hub = LocalHub(folder / "hub", port=_free_port())
        with hub:
            run = Endurance(hub, folder, options.seed)
            run.run(60 * options.minutes, has_disk)
            hub.stop()  # what a request was at when the Hub went away is known to the next one
            hub.start()
            status = run.sync()
            found = run.check()
    bad = sum(count for what, count in found.items() if what.isupper()) + (status not in (0, 3))
    print(f"seed {options.seed}, {options.minutes:g} minutes: {dict(found)}; what happened: {dict(run.events)}")
    return 1 if bad else 0


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
