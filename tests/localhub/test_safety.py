"""Paths that try to lead out, requests that are too large, and strangers on the network."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hub_callbacks.localhub import LocalHub

from .raw_http import raw

SECRET = "what nobody may read"
NAMES = [
    *("..", ".", "...", ". .", "..\u200b", "\u2025", "\u2024\u2024", "．．", "..\0", "\0", "~", "-", " "),
    *(".git", ".GIT", ".gi\u200ct", ".git ", ".git.", "git~1", ".git::$INDEX_ALLOCATION", ".\uff47it"),
    *("C:", "\\\\host", "aux", "%2e%2e", "%2f", "..%2f..", "hub.json", "accounts.json", "secret.txt"),
    *("é", "e\u0301", "\ud800", "\U0001f917", "a\nb", "a", "b.txt", "config", "objects", "HEAD", "hooks"),
]
PATHS = st.builds(
    lambda start, parts, separators: start + "".join(map("".join, zip(parts, separators, strict=False)))[:-1],
    st.sampled_from(["", "", "", "/", "\\", "//", "C:\\", "file:///", "../", "..\\"]),
    st.lists(st.sampled_from(NAMES) | st.text(max_size=4), min_size=1, max_size=6),
    st.lists(st.sampled_from(["/", "/", "\\", "//", "\u2215", "\uff0f"]), min_size=6, max_size=6),
)
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Cellar:
    """A hub of its own, with secrets beside and in its folder."""

    def __init__(self, hub: LocalHub, outside: Path) -> None:
        self.hub, self.outside, self.token = hub, outside, hub.token
        self.port = int(hub.endpoint.rsplit(":", 1)[1])
        for name, private in (("m", False), ("hidden", True)):
            wanted = {"name": name, "private": private}
            url = f"{hub.endpoint}/api/repos/create"
            assert get_session().post(url, json=wanted, headers=self.headers).status_code == 200
        assert self.commit("hidden", "secret.txt", SECRET.encode())[0] == 200

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def commit(self, repo: str, path: str, content: bytes) -> tuple[int, str]:
        lines = [
            {"key": "header", "value": {"summary": "x"}},
            {
                "key": "file",
                "value": {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"},
            },
        ]
        answer = get_session().post(
            f"{self.hub.endpoint}/api/models/local/{repo}/commit/main",
            headers=self.headers,
            **raw("\n".join(map(json.dumps, lines)).encode()),
        )
        return answer.status_code, answer.text

    def get(self, address: str, method: str = "GET") -> tuple[int, bytes]:
        """Sends an address as it is, which no client of today would."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, address, skip_host=True)
            connection.putheader("Host", "hub")
            connection.putheader("Content-Length", "0")
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def files(self) -> set[str]:
        """All files on the disk but git's own objects and the hub's passing ones."""
        found = {str(path.relative_to(self.outside)) for path in self.outside.rglob("*")}
        return {path for path in found if "/objects/" not in path and "/tmp/" not in path}


@pytest.fixture(scope="module")
def cellar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cellar]:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text(SECRET)
    (outside / "deep" / "root").mkdir(parents=True)
    with LocalHub(outside / "deep" / "root", names=["hub"]) as hub:
        (hub.root / "secret.txt").write_text(SECRET)
        yield Cellar(hub, outside)


@MANY
@example("..\\ddd")
@example("a/.GIT/hooks/post-update")
@example("a/.g\u200dit/config")
@example("/".join("a" * 600))
@example("\ud800")
@given(PATHS)
def test_no_committed_path_leaves_the_repository(cellar: Cellar, path: str) -> None:
    before = cellar.files()
    status, text = cellar.commit("m", path, b"content")
    assert status in (200, 422), text
    assert cellar.files() == before
    parts = path.replace("\\", "/").split("/")
    astray = {"..", ".", ".git"} & {part.lower() for part in parts}
    assert status == 422 or not (astray or path.startswith(("/", "\\")) or "\0" in path)
    if status == 200:
        plain = "/".join(part for part in path.split("/") if part)
        assert cellar.get(f"/local/m/resolve/main/{quote(plain, safe='')}") == (200, b"content")


def test_what_was_committed_is_accepted_by_git(cellar: Cellar) -> None:
    for path in ("é", "e\u0301", "a\nb", "aux", "con.txt", "~", "-", ".gitignore", "x.git", "git~", "a:b"):
        assert cellar.commit("m", path, b"content")[0] == 200
    folder = cellar.hub.root / "repos" / "models" / "local" / "m.git"
    checked = subprocess.run(["git", "-C", folder, "fsck", "--strict"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@MANY
@given(
    st.sampled_from(
        [
            *("/local/m/resolve/main/{}", "/local/m/raw/{}/secret.txt", "/{}/resolve/main/secret.txt", "/{}"),
            *("/local/m/tree/main/{}", "/local/m/blob/main/{}", "/local/m/commit/{}", "/datasets/{}"),
            *("/api/models/local/m/tree/main/{}", "/api/models/{}", "/api/models/local/m/revision/{}"),
            *("/lfs/{}", "/xet/own/xorbs/{}", "/xet/{}/v1/reconstructions/{}", "/local/{}/info/refs"),
            *("/api/models/local/m/commits/main?cursor={}", "/api/models?limit={}", "/-/{}"),
        ]
    ),
    PATHS,
    st.booleans(),
)
def test_no_address_leads_to_a_file_outside_of_its_repository(
    cellar: Cellar, place: str, path: str, encoded: bool
) -> None:
    written = quote(path.encode("utf-8", "surrogatepass"), safe="" if encoded else "/.\\~:").replace("\\", "%5C")
    status, content = cellar.get(place.replace("{}", written))
    assert status != 500 and SECRET.encode() not in content
    assert status in (200, 303, 307, 400, 401, 403, 404, 405, 416, 422, 501)


@pytest.mark.parametrize("name", ["m.git", "M.GIT", "notes.ipynb", "..", "a/b", "", "a\0b", "é"])
def test_repositories_have_names_that_are_safe(cellar: Cellar, name: str) -> None:
    before = cellar.files()
    answer = get_session().post(
        f"{cellar.hub.endpoint}/api/repos/create", json={"name": name}, headers=cellar.headers
    )
    assert answer.status_code == 400, answer.text
    assert cellar.files() == before


def test_regular_files_have_a_limit(cellar: Cellar) -> None:
    status, text = cellar.commit("m", "large.txt", bytes(10 * 1024 * 1024 + 1))
    assert status == 400 and "larger than 10 MiB" in text
    status, text = cellar.commit("m", "larger.txt", bytes(30 * 1024 * 1024))
    assert status == 400 and "larger than 10 MiB" in text
    assert cellar.commit("m", "large.txt", bytes(10 * 1024 * 1024))[0] == 200


def send(port: int, head: bytes, body: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head + b"\r\n\r\n" + body)
        return connection.recv(100)


def test_headers_have_a_limit(cellar: Cellar) -> None:
    assert b" 400 " in send(cellar.port, f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * 300_000}".encode())
    assert b" 200 " in send(cellar.port, f"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * 30_000}".encode())


@pytest.mark.parametrize("credentials", ["Basic ÿ", "Basic /w==", "Bearer ÿ", "Bearer a.ÿ", "ÿ", "Basic"])
def test_credentials_that_are_none_are_refused(cellar: Cellar, credentials: str) -> None:
    for address in ("/", f"/xet/any/v1/reconstructions/{'0' * 64}"):
        head = f"GET {address} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {credentials}".encode("latin-1")
        assert b" 401 " in send(cellar.port, head)
    head = f"GET /lfs/{'0' * 64}?size=3&upload=x&expiry=1&signature=%C3%BF HTTP/1.1\r\nHost: localhost"
    assert b" 403 " in send(cellar.port, head.encode())


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("address", "body", "status"),
    [
        ("/api/repos/create", b" " * 5_000_000, 413),
        ("/api/repos/create", b" " * 1000, 400),
        ("/api/repos/create", b"[" + b"{}," * 300_000 + b"{}]", 413),
        ("/api/models/local/m/discussions", b" " * 300_000, 413),
        ("/api/validate-yaml", b'{"content": "%s"}' % (b"x" * 11_000_000), 200),
    ],
)
def test_bodies_in_memory_have_a_limit(
    cellar: Cellar, declared: bool, address: str, body: bytes, status: int
) -> None:
    sent = raw(body if declared else iter([body]))
    answer = get_session().post(f"{cellar.hub.endpoint}{address}", headers=cellar.headers, **sent)
    assert answer.status_code == status


def test_bodies_in_memory_have_a_limit_together(cellar: Cellar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub_callbacks.localhub.app._MAX_BODIES", 1500)
    url = f"{cellar.hub.endpoint}/api/repos/create"
    assert get_session().post(url, headers=cellar.headers, **raw(bytes(2000))).status_code == 503
    assert get_session().post(url, headers=cellar.headers, **raw(b" " * 1000)).status_code == 400
    assert cellar.hub._now._app._in_memory == 0


def test_nothing_is_stored_of_bodies_from_those_who_may_not_send_them(
    cellar: Cellar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger cannot fill the disk: the answer comes before the body is taken."""
    spooled: list[Path] = []

    async def never(request: object, path: Path, *rest: object) -> None:
        spooled.append(path)
        raise AssertionError

    monkeypatch.setattr("hub_callbacks.localhub.app._spool", never)
    sha256 = "0" * 64
    for method, address, status in (
        ("POST", "/api/models/local/m/commit/main", b" 401 "),
        ("PUT", f"/lfs/{sha256}?size=3&upload=x&expiry=99999999999&signature=00", b" 403 "),
        ("PUT", f"/lfs/{sha256}/parts/1?size=3&upload=x&expiry=99999999999&signature=00", b" 403 "),
        ("POST", f"/xet/any/v1/xorbs/default/{sha256}", b" 401 "),
        ("POST", "/xet/any/v1/shards", b" 401 "),
        ("POST", "/local/hidden.git/git-upload-pack", b" 401 "),
    ):
        head = f"{method} {address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000"
        assert status in send(cellar.port, head.encode(), bytes(10_000_000)), address
    assert spooled == []


def test_an_upload_is_not_longer_than_its_link_says(cellar: Cellar) -> None:
    session = get_session()
    batch = session.post(
        f"{cellar.hub.endpoint}/local/m.git/info/lfs/objects/batch",
        json={"operation": "upload", "objects": [{"oid": "1" * 64, "size": 1000}], "transfers": ["basic"]},
        headers=cellar.headers,
    ).json()
    link = batch["objects"][0]["actions"]["upload"]["href"]
    before = cellar.files()
    assert session.request("PUT", link, **raw(bytes(1001))).status_code == 413
    assert session.request("PUT", link.replace("?", "/parts/2?"), **raw(bytes(10))).status_code == 400
    assert session.request("PUT", link, **raw(bytes(1000))).status_code == 400  # another sha256
    assert cellar.files() == before


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hub.invalid"])
def test_a_hub_without_tokens_listens_on_this_machine_only(tmp_path: Path, host: str) -> None:
    with pytest.raises(RuntimeError, match="no token was made for it yet"):
        LocalHub(tmp_path, host=host).start()
    with LocalHub(tmp_path):  # the folder is free
        pass


def test_a_hub_with_tokens_listens_elsewhere_too(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        token = hub.token
    with LocalHub(tmp_path, host="0.0.0.0") as hub:
        port = hub.endpoint.rsplit(":", 1)[1]
        assert HfApi(endpoint=f"http://127.0.0.1:{port}", token=token).whoami()["name"] == "local"


def test_the_file_of_accounts_is_for_its_owner_only(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        token = hub.token
    mode = stat.S_IMODE((tmp_path / "accounts.json").stat().st_mode)
    assert mode == 0o600
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            assert token.encode() not in (Path(folder) / name).read_bytes()
