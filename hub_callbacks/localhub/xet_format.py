"""The formats of the Xet protocol, as far as they are read here: files in shards, headers of chunks.

https://huggingface.co/docs/xet/shard and https://huggingface.co/docs/xet/xorb
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

_ROW_SIZE = 48
_BOOKEND = b"\xff" * 32
_HAS_VERIFICATION = 1 << 31
_HAS_METADATA = 1 << 30
_CHUNK_HEADER_SIZE = 8


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

    stored: tuple[int, ...]
    unpacked: tuple[int, ...]

    def has(self, segment: Segment) -> bool:
        """Whether a segment lies within this xorb and is as long as it says."""
        return (
            0 <= segment.start < segment.end < len(self.unpacked)
            and self.unpacked[segment.end] - self.unpacked[segment.start] == segment.size
        )


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
            sha256 = ""
            if flags & _HAS_METADATA:
                sha256 = _hex(data[offset : offset + 32])
                offset += _ROW_SIZE
            files.append(XetFile(file_hash, sha256, segments))
    except struct.error as error:
        raise ValueError("the shard ends too early") from error
    return files


@lru_cache(maxsize=256)
def read_layout(path: Path) -> XorbLayout:
    """Where the chunks of a xorb lie.

    Raises:
        OSError: It is not there.
    """
    stored, unpacked = [], []
    with path.open("rb") as file:
        # A footer, which some clients add, starts with the letters XETBLOB instead of version 0.
        while len(header := file.read(_CHUNK_HEADER_SIZE)) == _CHUNK_HEADER_SIZE and header[0] == 0:
            packed = int.from_bytes(header[1:4], "little")
            stored.append(_CHUNK_HEADER_SIZE + packed)
            unpacked.append(int.from_bytes(header[5:8], "little"))
            file.seek(packed, os.SEEK_CUR)
    return XorbLayout(tuple(accumulate(stored, initial=0)), tuple(accumulate(unpacked, initial=0)))


def _hex(raw: bytes) -> str:
    """Hashes are written as four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
