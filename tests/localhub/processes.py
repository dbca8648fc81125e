"""The hub as a process, and writers that go on while it is killed and started again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

ADDRESS = re.compile(r"HF_ENDPOINT=(\S+)(?: HF_TOKEN=(\S+))?$")
_STALL = 120
"""Seconds without a commit after which the server, not the machine, is to blame."""

REPOSITORY = Path(__file__).parents[2]


class ServerProcess:
    """`python -m hub_callbacks.localhub`; whoever starts one ends it."""

    def __init__(self, root: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "hub_callbacks.localhub", "--root", str(root), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        match = ADDRESS.search(self.line)
        assert match is not None, self.line
        self.endpoint, self.token = match.groups()

    @property
    def port(self) -> int:
        return int(self.endpoint.rsplit(":", 1)[1])

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


WRITER = """
import hashlib, json, os, random, sys, threading, time
from huggingface_hub import CommitOperationAdd, HfApi

api = HfApi()
lock = threading.Lock()


def write(writer):
    numbers = random.Random(writer)
    for step in range(1_000_000):
        name = f"{writer}-{step}"
        files = {f"{name}/a.txt": name.encode(), f"{name}/b.bin": numbers.randbytes(numbers.randrange(200_000))}
        said = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        operations = [CommitOperationAdd(path, data) for path, data in files.items()]
        try:
            info = api.create_commit(
                "local/m", operations, commit_message=name, commit_description=json.dumps(said)
            )
        except Exception:
            time.sleep(0.05)
            continue
        with lock:
            print(name, info.oid, flush=True)


for number in range(4):
    threading.Thread(target=write, args=(f"{sys.argv[1]}{number}",)).start()
"""
"""Four threads; each commit says in its description what it holds, and is printed once it is acknowledged."""


@dataclass(frozen=True)
class Outcome:
    """What became of the commits of writers whose server was killed again and again."""

    acknowledged: int
    commits: int
    kills: int


def write_and_kill(root: Path, kills: int, seed: int, longest: float) -> Outcome:
    """Eight writers at once, four by Xet and four by LFS, while the server is killed at random and started again.

    Afterwards every acknowledged commit is in the history, and each commit that is there has all that it said.

    Args:
        root: The hub's folder.
        kills: How many SIGKILLs.
        seed: Of the instants.
        longest: Seconds for which a server lives at most after its first acknowledged commit.
    """
    instants = random.Random(seed)
    server = ServerProcess(root)
    token = server.token
    writers: list[subprocess.Popen[str]] = []
    acknowledged: dict[str, str] = {}
    try:
        environment = {**os.environ, "HF_ENDPOINT": server.endpoint, "HF_TOKEN": token, "HF_HOME": f"{root}-home"}
        create = "from huggingface_hub import HfApi; HfApi().create_repo('m')"
        subprocess.run([sys.executable, "-c", create], env=environment, check=True, stdout=subprocess.DEVNULL)
        for name, disabled in (("xet", "0"), ("lfs", "1")):
            writers.append(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, name],
                    env={**environment, "HF_HUB_DISABLE_XET": disabled},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
        readers = [threading.Thread(target=_collect, args=(writer, acknowledged)) for writer in writers]
        for reader in readers:
            reader.start()
        for _ in range(kills):
            _wait_for(acknowledged, len(acknowledged) + 1)
            time.sleep(instants.random() * longest)
            server.end(signal.SIGKILL)
            server = ServerProcess(root, server.port)
        _wait_for(acknowledged, len(acknowledged) + 8)
        server.end(signal.SIGKILL)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
        if server.process.poll() is None:
            server.end(signal.SIGKILL)
    for reader in readers:
        reader.join()
    return Outcome(len(acknowledged), _check(root, acknowledged), kills + 1)


def _wait_for(acknowledged: dict[str, str], count: int) -> None:
    ending = time.monotonic() + _STALL
    while len(acknowledged) < count:
        assert time.monotonic() < ending, "the started server takes no more commits"
        time.sleep(0.01)


def _collect(writer: subprocess.Popen[str], acknowledged: dict[str, str]) -> None:
    assert writer.stdout is not None
    with writer.stdout:
        for line in writer.stdout:
            if line.endswith("\n"):
                name, oid = line.split()
                acknowledged[oid] = name


def _check(root: Path, acknowledged: dict[str, str]) -> int:
    from huggingface_hub.utils import get_session

    from hub_callbacks.localhub import LocalHub

    folder = root / "repos" / "models" / "local" / "m.git"
    checked = subprocess.run(["git", "-C", folder, "fsck", "--strict"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    history = dict(_history(folder))
    missing = acknowledged.keys() - history.keys()
    assert not missing, f"acknowledged, but not there: {missing}"
    whole = {path: digest for files in history.values() for path, digest in files.items()}
    listed = subprocess.run(
        ["git", "-C", folder, "ls-tree", "-r", "--name-only", "main"], capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) - {".gitattributes"} == set(whole), "a commit is there by half"
    with LocalHub(root) as hub:
        assert list((root / "tmp").iterdir()) == []
        for path, digest in whole.items():
            answer = get_session().get(f"{hub.endpoint}/local/m/resolve/main/{quote(path)}")
            assert hashlib.sha256(answer.content).hexdigest() == digest, f"{path} is not what was committed"
    return len(history)


def _history(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Each commit but the first with the files that it says it has."""
    command = ["git", "-C", folder, "log", "--format=%H%x00%b%x01", "main"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for entry in log.split("\1"):
        oid, _, said = entry.strip().partition("\0")
        if said.strip():
            yield oid, json.loads(said)
