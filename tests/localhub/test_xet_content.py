"""Xorbs and shards are checked when they come: whoever may write to one repository stores for all."""

from __future__ import annotations

import os
import shutil
import struct
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import hf_xet
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_callbacks.localhub import LocalHub
from hub_callbacks.localhub.xet import XetStore
from hub_callbacks.localhub.xet_format import read_layout, read_shard
from hub_callbacks.localhub.xet_hashes import chunk_nodes, file_hash, xorb_hash
from hub_callbacks.pytest_plugin import client_at

from .raw_http import raw

ROW = 48
MEGABYTE = 1 << 20


@dataclass(frozen=True, repr=False)
class Wire:
    """What the real client sent for one file, and the way to send it again."""

    hub: LocalHub
    data: bytes
    xorb_hash: str
    xorb: bytes
    shard: bytes

    @property
    def session(self) -> Any:
        return get_session()

    def put_xorb(self, name: str, content: bytes) -> int:
        return self._post(f"v1/xorbs/default/{name}", content)

    def put_shard(self, content: bytes) -> int:
        return self._post("v1/shards", content)

    def _post(self, path: str, content: bytes) -> int:
        url = f"{self.hub.endpoint}/api/models/local/m/xet-write-token/main"
        given = self.session.get(url, headers={"Authorization": f"Bearer {self.hub.token}"}).json()
        headers = {"Authorization": f"Bearer {given['accessToken']}"}
        answer = self.session.post(f"{given['casUrl']}/{path}", headers=headers, **raw(content))
        return int(answer.status_code)

    def upload(self, data: bytes, path: str = "w.bin") -> None:
        api = HfApi(endpoint=self.hub.endpoint, token=self.hub.token)
        api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id="local/m")

    def download(self, path: str = "w.bin") -> bytes:
        return bytes(self.session.get(f"{self.hub.endpoint}/local/m/resolve/main/{path}").content)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    root = tmp_path_factory.mktemp("wire")
    data = os.urandom(300_000)
    sent: dict[str, Any] = {}
    put_xorb, put_shard = XetStore.put_xorb, XetStore.put_shard

    def seen_xorb(store: XetStore, upload: Path, name: str) -> bool:
        sent.update(xorb_hash=name, xorb=upload.read_bytes())
        return put_xorb(store, upload, name)

    def seen_shard(store: XetStore, upload: Path, *rest: Any) -> Any:
        sent["shard"] = upload.read_bytes()
        return put_shard(store, upload, *rest)

    with (
        LocalHub(root / "hub") as hub,
        client_at(hub.endpoint, hub.token, root / "cache"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(XetStore, "put_xorb", seen_xorb)
        patch.setattr(XetStore, "put_shard", seen_shard)
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("m")
        Wire(hub, data, "", b"", b"").upload(data)
        patch.undo()
        yield Wire(hub, data, **sent)


@pytest.fixture
def new_hub(wire: Wire, tmp_path: Path) -> Iterator[Wire]:
    """A hub to which nothing of it came yet."""
    with LocalHub(tmp_path / "hub") as hub, client_at(hub.endpoint, hub.token, tmp_path / "cache"):
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("m")
        yield Wire(hub, wire.data, wire.xorb_hash, wire.xorb, wire.shard)


@pytest.mark.parametrize("size", [1, 64, 1023, 1024, 1025, 5000, 200_000, 3_000_000])
def test_hashes_are_those_of_the_client(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    with hf_xet.XetSession().new_upload_commit(endpoint=f"local://{tmp_path / 'store'}") as upload:
        upload.start_upload_file(str(tmp_path / "f"))
    (found,) = hf_xet.hash_files([str(tmp_path / "f")])
    (xorb,) = (path for path in (tmp_path / "store").rglob("default.*") if path.suffix != ".tagset")
    chunks = chunk_nodes([data[start:end] for start, end in pairwise(read_layout(xorb).unpacked)])
    assert file_hash(chunks) == found.hash
    assert xorb_hash(chunks) == xorb.suffix[1:]


def test_a_xorb_under_anothers_hash_is_refused_and_spoils_no_upload(new_hub: Wire) -> None:
    other = bytearray(new_hub.xorb)
    other[100] ^= 1
    assert new_hub.put_xorb(new_hub.xorb_hash, bytes(other)) == 400
    new_hub.upload(new_hub.data)
    assert new_hub.download() == new_hub.data


def test_a_file_under_anothers_hash_is_refused_and_spoils_no_upload(new_hub: Wire) -> None:
    """Its segments are there, but make up something else."""
    other, mine = os.urandom(300_000), read_hash(new_hub.shard)
    sent: list[bytes] = []
    put_shard = XetStore.put_shard

    def seen(store: XetStore, upload: Path, *rest: Any) -> Any:
        sent.append(upload.read_bytes())
        return put_shard(store, upload, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(XetStore, "put_shard", seen)
        new_hub.upload(other, "other.bin")
    forged = sent[-1].replace(read_hash(sent[-1]), mine)
    assert new_hub.put_shard(forged) == 400
    new_hub.upload(new_hub.data)
    assert (new_hub.download(), new_hub.download("other.bin")) == (new_hub.data, other)


def test_xorbs_that_came_before_they_were_checked_are_replaced(wire: Wire, tmp_path: Path) -> None:
    shutil.copytree(wire.hub.root, tmp_path / "hub", ignore=shutil.ignore_patterns("*.lock", "index"))
    (xorb,) = tmp_path.glob("hub/xet/xorbs/*/*")
    xorb.write_bytes(wire.xorb[:-10] + bytes(10))
    (tmp_path / "hub" / "xet" / "generation").write_text('"0123"')
    with LocalHub(tmp_path / "hub") as hub, client_at(hub.endpoint, hub.token, tmp_path / "cache"):
        again = Wire(hub, wire.data, wire.xorb_hash, wire.xorb, wire.shard)
        assert again.put_shard(wire.shard) == 400
        again.upload(wire.data, "again.bin")
        assert again.download("again.bin") == wire.data


def read_hash(shard: bytes) -> bytes:
    return shard[ROW : ROW + 32]


def shard_of(*segments: tuple[bytes, int, int, int]) -> bytes:
    """A shard with one file."""
    rows = [bytes(ROW), bytes(32) + struct.pack("<IIQ", 0, len(segments), 0)]
    rows += [xorb + struct.pack("<IIII", 0, size, start, end) for xorb, size, start, end in segments]
    return b"".join(rows) + b"\xff" * 32 + bytes(16)


def memory_of(path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            read_shard(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "shard",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(ROW) + bytes(32) + struct.pack("<IIQ", 0, 50_000_000, 0), id="rows that are not there"),
        pytest.param(shard_of(*[(b"x" * 32, 1, 0, 1)] * 300_000), id="too many rows"),
        pytest.param(shard_of(*[(b"x" * 32, 1 << 31, 0, 1)] * 500), id="too many bytes"),
        pytest.param(shard_of((b"x" * 32, 1, 0, 1))[:-60], id="an end too early"),
    ],
)
def test_a_shard_that_promises_too_much_costs_nothing(tmp_path: Path, shard: bytes) -> None:
    (tmp_path / "shard").write_bytes(shard)
    assert memory_of(tmp_path / "shard") < MEGABYTE


def test_a_xorb_of_tiny_chunks_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "xorb").write_bytes(b"\0\0\0\0\0\1\0\0" * MEGABYTE)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 8192 chunks"):
        read_layout(tmp_path / "xorb")
    assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    tracemalloc.stop()


KINDS = st.sampled_from(["set", "word", "cut", "repeat"])
MUTATIONS = st.lists(st.tuples(KINDS, st.floats(0, 1), st.binary(min_size=4, max_size=4)), min_size=1, max_size=4)


def mutated(content: bytes, mutations: list[tuple[str, float, bytes]]) -> bytes:
    for what, where, value in mutations:
        place = int(where * len(content))
        if what == "set":
            content = content[:place] + value[:1] + content[place + 1 :]
        elif what == "word":
            place -= place % 4
            content = content[:place] + value + content[place + 4 :]
        elif what == "cut":
            content = content[:place]
        else:
            place -= place % ROW
            content = content[: place + ROW] + content[place : place + ROW] * value[0] + content[place + ROW :]
    return content


FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(FUZZ, max_examples=300)
@given(MUTATIONS)
def test_the_parsers_take_or_refuse_whatever_comes(wire: Wire, mutations: list[tuple[str, float, bytes]]) -> None:
    path = wire.hub.root / "fuzzed"
    for content, parser in ((wire.shard, read_shard), (wire.xorb[:200], read_layout), (wire.xorb, read_layout)):
        path.unlink(missing_ok=True)
        path.write_bytes(mutated(content, mutations))
        try:
            parser(path)
        except ValueError as error:
            assert str(error)


@settings(FUZZ, max_examples=25)
@given(MUTATIONS)
def test_the_service_takes_or_refuses_whatever_comes(
    wire: Wire, mutations: list[tuple[str, float, bytes]]
) -> None:
    xorb, shard = mutated(wire.xorb, mutations), mutated(wire.shard, mutations)
    assert wire.put_xorb("0" * 64, xorb) == 400
    assert wire.put_shard(shard) in (200, 400)
    assert wire.download() == wire.data
