"""The formats of the Xet protocol, as far as they are read here: files in shards, headers of chunks.

https://huggingface.co/docs/xet/shard and https://huggingface.co/docs/xet/xorb
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from sys import intern

from .xet_hashes import written

_ROW_SIZE = 48
_BOOKEND = b"\xff" * 32
_HAS_VERIFICATION = 1 << 31
_HAS_METADATA = 1 << 30
_CHUNK_HEADER_SIZE = 8
_HASH_SIZE = 32
_HASHES_FOLLOW = b"\xffhashes\n"
"""Written behind the chunks of a xorb, as its hashes are, once they were computed from its content."""

_MAX_SEGMENTS = 1 << 18
"""In the files of one shard: each takes memory, and the client makes them of megabytes."""
_MAX_FILE = 10**12
"""Bytes of one file; what repeats one segment can name more than anybody will ever read."""
_MAX_CHUNK = 128 * 1024
_MAX_CHUNKS = 8192
"""In one xorb; the protocol's own limits."""


@dataclass(frozen=True)
class Segment:
    """A run of chunks of one xorb; `size` is its unpacked length in bytes, `end` is exclusive."""

    xorb: str
    size: int
    start: int
    end: int


@dataclass(frozen=True)
class XetFile:
    """A file, put together from segments.

    Args:
        hash: Its Xet hash.
        sha256: The sha256 of its content; empty where nobody said it.
        segments: What it consists of.
    """

    hash: str
    sha256: str
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)


@dataclass(frozen=True)
class XorbLayout:
    """Where each chunk starts: in the stored xorb and, unpacked, in its content. One more than chunks."""

    stored: Sequence[int]
    unpacked: Sequence[int]

    def has(self, segment: Segment) -> bool:
        """Whether a segment lies within this xorb and is as long as it says."""
        return (
            0 <= segment.start < segment.end < len(self.unpacked)
            and self.unpacked[segment.end] - self.unpacked[segment.start] == segment.size
        )


def read_shard(path: Path) -> list[XetFile]:
    """The files that a shard describes, each once.

    Raises:
        ValueError: It is broken, or its files have too many segments or bytes.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < _ROW_SIZE:
            raise ValueError("the shard ends too early")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _files(data)


def _files(data: mmap.mmap) -> list[XetFile]:
    found: dict[str, XetFile] = {}
    left = _MAX_SEGMENTS
    offset = _ROW_SIZE
    while data[offset : offset + 32] != _BOOKEND:
        if offset + _ROW_SIZE > len(data):
            raise ValueError("the shard ends too early")
        file_hash = written(data[offset : offset + 32])
        flags, count = struct.unpack_from("<II", data, offset + 32)
        first = offset + _ROW_SIZE
        offset = first + _ROW_SIZE * count * (2 if flags & _HAS_VERIFICATION else 1)
        metadata = offset
        offset += _ROW_SIZE if flags & _HAS_METADATA else 0
        if offset > len(data):
            raise ValueError("the shard ends too early")
        if (left := left - count - 1) < 0:
            raise ValueError(f"its files have more than {_MAX_SEGMENTS} segments")
        rows = range(first, first + _ROW_SIZE * count, _ROW_SIZE)
        segments = tuple(
            Segment(intern(written(data[row : row + 32])), *struct.unpack_from("<III", data, row + 36))
            for row in rows
        )
        sha256 = written(data[metadata : metadata + 32]) if flags & _HAS_METADATA else ""
        file = XetFile(file_hash, sha256, segments)
        if file.size > _MAX_FILE:
            raise ValueError(f"a file of it has more than {_MAX_FILE} bytes")
        found[file_hash] = file
    return list(found.values())


def read_layout(path: Path) -> XorbLayout:
    """Where the chunks of a xorb lie.

    Raises:
        OSError: It is not there.
        ValueError: It is broken.
    """
    status = path.stat()
    return _layout(path, status.st_ino, status.st_size)


@lru_cache(maxsize=256)
def _layout(path: Path, inode: int, size: int) -> XorbLayout:
    stored, unpacked = array("I"), array("I")
    place = 0
    with path.open("rb") as file:
        # A footer, which some clients add, starts with the letters XETBLOB instead of version 0.
        while len(header := file.read(_CHUNK_HEADER_SIZE)) == _CHUNK_HEADER_SIZE and header[0] == 0:
            packed = int.from_bytes(header[1:4], "little")
            place += _CHUNK_HEADER_SIZE + packed
            stored.append(_CHUNK_HEADER_SIZE + packed)
            unpacked.append(int.from_bytes(header[5:8], "little"))
            if place > size:
                raise ValueError("its last chunk is not whole")
            if not 0 < unpacked[-1] <= _MAX_CHUNK or len(stored) > _MAX_CHUNKS:
                raise ValueError(f"it has more than {_MAX_CHUNKS} chunks, or one of more than {_MAX_CHUNK} bytes")
            file.seek(packed, os.SEEK_CUR)
    return XorbLayout(array("Q", accumulate(stored, initial=0)), array("Q", accumulate(unpacked, initial=0)))


def write_hashes(path: Path, hashes: Sequence[bytes]) -> None:
    """Notes the hashes of a xorb's chunks in its file, in place of what a client wrote there."""
    end = read_layout(path).stored[-1]
    with path.open("r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(_HASHES_FOLLOW + b"".join(hashes))


def read_hashes(path: Path) -> list[bytes] | None:
    """The hashes of a xorb's chunks; None where nobody has computed them yet.

    Raises:
        OSError: It is not there.
    """
    with path.open("rb") as file:
        file.seek(read_layout(path).stored[-1])
        if file.read(len(_HASHES_FOLLOW)) != _HASHES_FOLLOW:
            return None
        content = file.read()
    return [content[start : start + _HASH_SIZE] for start in range(0, len(content), _HASH_SIZE)]
