"""Large files by sha256, wherever their bytes lie: in the LFS folder or in the Xet store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from .durable import publish
from .xet import Connect, XetStore

CHUNK_SIZE = 1 << 20


class ContentStore:
    """Content-addressed storage of large files; equal content is stored once.

    Args:
        root: The hub's folder.
        connect: How this hub reaches its own Xet service.
    """

    def __init__(self, root: Path, connect: Connect) -> None:
        self._objects = root / "lfs"
        self._parts = root / "parts"
        self.xet = XetStore(root / "xet", connect)
        for folder in (self._objects, self._parts):
            folder.mkdir(parents=True, exist_ok=True)

    def size(self, sha256: str) -> int | None:
        """Size in bytes, or None where the content is missing."""
        path = self._path(sha256)
        if path.is_file():
            return path.stat().st_size
        found = self.xet.find(sha256)
        return found.size if found else None

    def confirm(self, sha256: str, size: int | None) -> int | None:
        """Like `size`, but None also where the bytes are not what their name says.

        Afterwards the content is safely on the disk, so that a commit may name it.
        """
        path = self._path(sha256)
        if path.is_file():
            actual = path.stat().st_size
            return actual if size is None or size == actual else None
        return self.size(sha256) if self.xet.verify(sha256, size) else None

    def xet_hash(self, sha256: str) -> str | None:
        """The Xet hash of content that the Xet store holds."""
        found = self.xet.find(sha256)
        return found.hash if found else None

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`."""
        path = self._path(sha256)
        return read_file(path, start, end) if path.is_file() else self.xet.read(sha256, start, end)

    def put(self, upload: Path, sha256: str) -> None:
        """Takes in a received file whose hash was already checked."""
        publish(upload, self._path(sha256))

    # Multipart uploads

    def put_part(self, upload: Path, upload_id: str, number: int) -> None:
        """Keeps one part until the upload is completed."""
        publish(upload, self._part(upload_id, number))

    def join_parts(self, upload_id: str, count: int, temporary: Path) -> str | None:
        """Joins the parts into `temporary`.

        Returns:
            The sha256 of the whole, or None where a part is missing.
        """
        digest = hashlib.sha256()
        with temporary.open("wb") as whole:
            for number in range(1, count + 1):
                part = self._part(upload_id, number)
                if not part.is_file():
                    return None
                for chunk in read_file(part, 0, part.stat().st_size):
                    digest.update(chunk)
                    whole.write(chunk)
        return digest.hexdigest()

    def drop_parts(self, upload_id: str) -> None:
        """Forgets a multipart upload."""
        shutil.rmtree(self._parts / upload_id, ignore_errors=True)

    def _path(self, sha256: str) -> Path:
        return self._objects / sha256[:2] / sha256[2:4] / sha256

    def _part(self, upload_id: str, number: int) -> Path:
        return self._parts / upload_id / f"{number:05d}"


def read_file(path: Path, start: int, end: int) -> Iterator[bytes]:
    """A slice of a file, chunk by chunk."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (chunk := file.read(min(CHUNK_SIZE, end - start))):
            start += len(chunk)
            yield chunk
