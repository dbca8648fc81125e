"""The files of one commit → git blobs: each on its own, or where they are many in one pack."""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from pathlib import Path

import pygit2

from .durable import publish

_FEW = 100
_MAX_PACK = 1 << 30
"""In bytes. Offsets beyond twice that would need another form of index."""

_BLOB = 3


class BlobWriter:
    """Writes blobs into a repository; used in a `with` block, whose end forgets what was not finished.

    A file and a flush for each are most of the time that a commit of many small files takes.

    Args:
        repo: The repository.
        tmp: A folder on the same disk for what is not finished.
    """

    def __init__(self, repo: pygit2.Repository, tmp: Path) -> None:
        self._repo = repo
        self._tmp = tmp
        self._few = _FEW
        self._packs: list[_Pack] = []

    def add(self, content: bytes) -> str:
        """Returns the blob's id; it may be in the repository only after `finish`."""
        if self._few:
            self._few -= 1
            return str(self._repo.create_blob(content))
        if not self._packs or self._packs[-1].size > _MAX_PACK:
            self._packs.append(_Pack(self._tmp / f"pack-{uuid.uuid4().hex}"))
        return str(self._packs[-1].add(content))

    def finish(self) -> None:
        """All blobs are in the repository and on the disk; nobody may move the repository meanwhile."""
        for pack in self._packs:
            pack.publish(Path(self._repo.path) / "objects" / "pack")

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for pack in self._packs:
            pack.discard()


class _Pack:
    """A pack that only grows, https://git-scm.com/docs/pack-format; `size` in bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._index = path.with_suffix(".idx")
        self._file = path.open("w+b")
        self._entries: dict[pygit2.Oid, tuple[int, int]] = {}  # checksum and offset
        self.size = self._file.write(b"PACK" + struct.pack(">II", 2, 0))

    def add(self, content: bytes) -> pygit2.Oid:
        oid = pygit2.hash(content)
        if oid not in self._entries:
            entry = _header(len(content)) + zlib.compress(content)
            self._entries[oid] = zlib.crc32(entry), self.size
            self.size += self._file.write(entry)
        return oid

    def publish(self, folder: Path) -> None:
        """Gives the pack its place; its index, which makes git see it, comes last."""
        self._file.seek(8)
        self._file.write(struct.pack(">I", len(self._entries)))
        self._file.seek(0)
        digest = hashlib.sha1()
        while piece := self._file.read(1 << 20):
            digest.update(piece)
        self._file.write(digest.digest())
        self._file.close()
        self._index.write_bytes(_index(self._entries, digest.digest()))
        publish(self._path, folder / f"pack-{digest.hexdigest()}.pack")
        publish(self._index, folder / f"pack-{digest.hexdigest()}.idx")

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
        self._index.unlink(missing_ok=True)


def _index(entries: dict[pygit2.Oid, tuple[int, int]], checksum: bytes) -> bytes:
    """Where each blob of a pack is, as git's second form of index says it."""
    rows = sorted((oid.raw, *entry) for oid, entry in entries.items())
    counts = [0] * 256
    for raw, _, _ in rows:
        counts[raw[0]] += 1
    upto = [sum(counts[: first + 1]) for first in range(256)]
    parts = [
        b"\xfftOc" + struct.pack(">I256I", 2, *upto),
        b"".join(raw for raw, _, _ in rows),
        struct.pack(f">{len(rows)}I", *(crc for _, crc, _ in rows)),
        struct.pack(f">{len(rows)}I", *(offset for _, _, offset in rows)),
        checksum,
    ]
    index = b"".join(parts)
    return index + hashlib.sha1(index).digest()


def _header(size: int) -> bytes:
    """The kind and the length of an object."""
    header = bytearray([_BLOB << 4 | size & 15])
    size >>= 4
    while size:
        header[-1] |= 0x80
        header.append(size & 0x7F)
        size >>= 7
    return bytes(header)
