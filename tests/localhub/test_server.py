"""Starting, stopping, restarting, and surviving a SIGKILL."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hub_callbacks.localhub import LocalHub

ADDRESS = re.compile(r"HF_ENDPOINT=(\S+)(?: HF_TOKEN=(\S+))?$")


class ServerProcess:
    """`python -m hub_callbacks.localhub`, stopped at the end whatever happens."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "hub_callbacks.localhub", "--root", str(root), "--port", "0"]
        repository = Path(__file__).parents[2]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().strip()
        match = ADDRESS.search(self.line)
        assert match is not None, self.line
        self.endpoint, self.token = match.groups()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def servers() -> Iterator[list[ServerProcess]]:
    started: list[ServerProcess] = []
    yield started
    for server in started:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def test_a_stopped_hub_leaves_no_port_thread_or_folder() -> None:
    before = set(threading.enumerate())
    with LocalHub() as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("m")
        root, port = hub.root, int(hub.endpoint.rsplit(":", 1)[1])
    assert not root.exists()
    left = [thread.name for thread in set(threading.enumerate()) - before]
    assert [name for name in left if "tqdm" not in name] == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_restart_finds_repositories_users_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(5000)
    with LocalHub(tmp_path) as hub, monkeypatch.context() as patch:
        # 0.36 compares the address in the answer with its own.
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        assert hub.first_start
        token = hub.add_user("somebody")
        reader = hub.add_token("somebody", "read")
        api = HfApi(endpoint=hub.endpoint, token=token)
        api.create_repo("m", private=True)
        api.create_repo("n")
        api.move_repo("somebody/n", "somebody/o")
        api.upload_file(path_or_fileobj=data, path_in_repo="w.bin", repo_id="somebody/m")
        api.create_discussion("somebody/m", "A question")
    with LocalHub(tmp_path) as hub:
        assert not hub.first_start
        api = HfApi(endpoint=hub.endpoint, token=reader)
        assert api.model_info("somebody/m").private
        assert api.model_info("somebody/n").id == "somebody/o"
        path = api.hf_hub_download("somebody/m", "w.bin", local_dir=tmp_path / "back")
        assert Path(path).read_bytes() == data
        assert [item.title for item in api.get_repo_discussions("somebody/m")] == ["A question"]
        assert HfApi(endpoint=hub.endpoint, token=hub.token).whoami()["name"] == "local"


def test_two_hubs_do_not_share_a_folder(tmp_path: Path) -> None:
    with LocalHub(tmp_path), pytest.raises(RuntimeError, match="Another hub already works on"):
        LocalHub(tmp_path).start()
    with LocalHub(tmp_path):
        pass


def test_a_taken_port_is_an_error_and_leaves_the_folder_free(tmp_path: Path) -> None:
    with LocalHub() as hub:
        port = int(hub.endpoint.rsplit(":", 1)[1])
        with pytest.raises(OSError):
            LocalHub(tmp_path, port=port).start()
    with LocalHub(tmp_path):
        pass


def test_a_hub_that_is_not_running_says_so() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = LocalHub().endpoint


def test_users_and_roles_are_checked(hub: LocalHub) -> None:
    with pytest.raises(ValueError, match="already exists"):
        hub.add_user("LOCAL")
    with pytest.raises(ValueError, match="cannot be the name"):
        hub.add_user("a/b")
    with pytest.raises(ValueError, match="no user called"):
        hub.add_token("nobody")
    with pytest.raises(ValueError, match="role"):
        hub.add_token("local", "admin")  # type: ignore[arg-type]


def test_the_process_prints_its_address_and_at_first_its_token(
    tmp_path: Path, servers: list[ServerProcess]
) -> None:
    first = ServerProcess(tmp_path)
    servers.append(first)
    assert HfApi(endpoint=first.endpoint, token=first.token).whoami()["name"] == "local"
    assert first.end(signal.SIGTERM) == 0
    second = ServerProcess(tmp_path)
    servers.append(second)
    assert second.token is None
    assert HfApi(endpoint=second.endpoint, token=first.token).whoami()["name"] == "local"
    assert second.end(signal.SIGINT) == 0


WRITER = """
import sys, threading
from huggingface_hub import HfApi

api = HfApi()


def write(number):
    for step in range(1000):
        name = f"{sys.argv[1]}-{number}-{step}"
        info = api.upload_file(
            path_or_fileobj=name.encode() * 1000,
            path_in_repo=f"{name}.{'bin' if step % 2 else 'txt'}",
            repo_id="local/m",
            commit_message=name,
        )
        sys.stdout.write(f"{name} {info.oid}\\n")
        sys.stdout.flush()


for number in range(3):
    threading.Thread(target=write, args=(number,)).start()
"""


@pytest.mark.parametrize("disable_xet", ["0", "1"])
def test_commits_survive_a_sigkill_wholly_or_not_at_all(
    tmp_path: Path, servers: list[ServerProcess], disable_xet: str
) -> None:
    acknowledged: dict[str, str] = {}
    token = ""
    for turn in range(2):
        server = ServerProcess(tmp_path)
        servers.append(server)
        token = server.token or token
        HfApi(endpoint=server.endpoint, token=token).create_repo("m", exist_ok=True)
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.endpoint,
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_XET": disable_xet,
        }
        command = [sys.executable, "-c", WRITER, str(turn)]
        writer = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(10)]
        server.end(signal.SIGKILL)
        writer.kill()
        lines += writer.stdout.readlines()
        writer.stdout.close()
        writer.wait()
        acknowledged.update(dict(line.split() for line in lines if line.endswith("\n")))
    assert len(acknowledged) >= 20
    folder = tmp_path / "repos" / "models" / "local" / "m.git"
    subprocess.run(["git", "-C", folder, "fsck", "--strict"], check=True)
    with LocalHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token=token)
        history = {commit.commit_id: commit.title for commit in api.list_repo_commits("local/m")}
        assert {oid: name for name, oid in acknowledged.items()}.items() <= history.items()
        files = set(api.list_repo_files("local/m")) - {".gitattributes"}
        assert {path.rsplit(".", 1)[0] for path in files} == set(history.values()) - {"initial commit"}
        for path in files:
            local = api.hf_hub_download("local/m", path, local_dir=tmp_path / "back")
            assert Path(local).read_bytes() == path.rsplit(".", 1)[0].encode() * 1000
        assert list((hub.root / "tmp").iterdir()) == []
