"""The Xet store: xorbs (blocks of compressed chunks) and shards (which chunks make up which file).

Both arrive from hf_xet clients through the handlers in `cas`. Only what is needed to serve them again is read
here: the file section of shards, and the headers of chunks. The formats:
https://huggingface.co/docs/xet/shard and https://huggingface.co/docs/xet/xorb
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from .durable import publish

_ROW_SIZE = 48
_BOOKEND = b"\xff" * 32
_HAS_VERIFICATION = 1 << 31
_HAS_METADATA = 1 << 30
_CHUNK_HEADER_SIZE = 8

Connect = Callable[[], "tuple[str, str, int]"]
"""Gives the address of this hub's own Xet service, a token for it and when that ends (Unix seconds)."""


@dataclass(frozen=True)
class Segment:
    """A run of chunks of one xorb; `size` is its unpacked length in bytes, `end` is exclusive."""

    xorb: str
    size: int
    start: int
    end: int


@dataclass(frozen=True)
class XetFile:
    """A file in the store, put together from segments."""

    hash: str
    sha256: str | None
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)


@dataclass(frozen=True)
class XorbLayout:
    """Where each chunk starts: in the stored xorb and, unpacked, in its content. One more than chunks."""

    stored: tuple[int, ...]
    unpacked: tuple[int, ...]


class XetStore:
    """Files by Xet hash and by sha256.

    Args:
        root: The store's folder; made where missing.
        connect: How this hub reaches its own service, as unpacking is hf_xet's work.
    """

    def __init__(self, root: Path, connect: Connect) -> None:
        self._shards = root / "shards"
        self._xorbs = root / "xorbs"
        self._connect = connect
        self._lock = threading.Lock()
        self._by_hash: dict[str, XetFile] = {}
        self._by_sha256: dict[str, XetFile] = {}
        self._verified: set[str] = set()
        self._session: Any = None
        for folder in (self._shards, self._xorbs):
            folder.mkdir(parents=True, exist_ok=True)
        for shard in self._shards.glob("*.mdb"):
            self._index(shard)

    def xorb(self, xorb_hash: str) -> Path:
        """Where a xorb lies."""
        return self._xorbs / xorb_hash[:2] / xorb_hash

    def put_xorb(self, upload: Path, xorb_hash: str) -> bool:
        """Takes a xorb in.

        Returns:
            Whether it is new.
        """
        target = self.xorb(xorb_hash)
        is_new = not target.is_file()
        if is_new:
            publish(upload, target)
        return is_new

    def put_shard(self, upload: Path, name: str) -> None:
        """Takes a shard in, under a name made from its content.

        Raises:
            ValueError: It is broken, or names a xorb that is not here.
        """
        for file in read_shard(upload):
            for segment in file.segments:
                if not self.xorb(segment.xorb).is_file():
                    raise ValueError(f"the xorb {segment.xorb} is missing")
        target = self._shards / f"{name}.mdb"
        publish(upload, target)
        self._index(target)

    def by_hash(self, xet_hash: str) -> XetFile | None:
        return self._by_hash.get(xet_hash)

    def find(self, sha256: str) -> XetFile | None:
        """The file with this content."""
        return self._by_sha256.get(sha256)

    def layout(self, xorb_hash: str) -> XorbLayout:
        """Where the chunks of a xorb lie."""
        return _layout(self.xorb(xorb_hash))

    def verify(self, sha256: str, size: int | None = None) -> bool:
        """Whether the store's content really has this sha256, which the client only claimed."""
        found = self.find(sha256)
        if found is None or (size is not None and size != found.size):
            return False
        if sha256 not in self._verified:
            digest = hashlib.sha256()
            for chunk in self.read(sha256, 0, found.size):
                digest.update(chunk)
            if digest.hexdigest() != sha256:
                return False
            self._verified.add(sha256)
        return True

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`.

        Raises:
            KeyError: The content is not here.
        """
        import hf_xet

        found = self._by_sha256[sha256]
        if start >= end:
            return
        with self._lock:
            if self._session is None:
                self._session = hf_xet.XetSession()
        endpoint, token, expiry = self._connect()
        group = self._session.new_download_stream_group(
            endpoint=endpoint, token=token, token_expiry_unix_secs=expiry
        )
        yield from group.download_stream(hf_xet.XetFileInfo(found.hash, found.size), start=start, end=end)

    def _index(self, shard: Path) -> None:
        with self._lock:
            for file in read_shard(shard):
                self._by_hash[file.hash] = file
                if file.sha256:
                    self._by_sha256[file.sha256] = file


def read_shard(path: Path) -> list[XetFile]:
    """The files that a shard describes.

    Raises:
        ValueError: It is broken.
    """
    data = path.read_bytes()
    files = []
    offset = _ROW_SIZE
    try:
        while data[offset : offset + 32] != _BOOKEND:
            file_hash = _hex(data[offset : offset + 32])
            flags, count = struct.unpack_from("<II", data, offset + 32)
            rows = [offset + _ROW_SIZE * (index + 1) for index in range(count)]
            segments = tuple(
                Segment(_hex(data[row : row + 32]), *struct.unpack_from("<III", data, row + 36)) for row in rows
            )
            offset += _ROW_SIZE * (1 + count * (2 if flags & _HAS_VERIFICATION else 1))
            sha256 = None
            if flags & _HAS_METADATA:
                sha256 = _hex(data[offset : offset + 32])
                offset += _ROW_SIZE
            files.append(XetFile(file_hash, sha256, segments))
    except struct.error as error:
        raise ValueError("the shard ends too early") from error
    return files


@lru_cache(maxsize=256)
def _layout(path: Path) -> XorbLayout:
    stored, unpacked = [], []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        offset = 0
        # A footer, which some clients add, starts with the letters XETBLOB instead of version 0.
        while offset + _CHUNK_HEADER_SIZE <= len(data) and data[offset] == 0:
            packed = int.from_bytes(data[offset + 1 : offset + 4], "little")
            stored.append(_CHUNK_HEADER_SIZE + packed)
            unpacked.append(int.from_bytes(data[offset + 5 : offset + 8], "little"))
            offset += stored[-1]
    return XorbLayout(tuple(accumulate(stored, initial=0)), tuple(accumulate(unpacked, initial=0)))


def _hex(raw: bytes) -> str:
    """Hashes are written as four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
