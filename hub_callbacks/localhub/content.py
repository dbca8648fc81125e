"""Large files by sha256, wherever their bytes lie: in the LFS folder or in the Xet store.

What comes by LFS is moved into the Xet store in the background, where hf_xet is there to do it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from .claims import Claims
from .durable import publish
from .xet import Connect, XetStore

CHUNK_SIZE = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")


class ContentStore:
    """Content-addressed storage of large files; equal content is stored once.

    Args:
        root: The hub's folder.
        connect: How this hub reaches its own Xet service.
    """

    def __init__(self, root: Path, connect: Connect) -> None:
        self._objects = root / "lfs"
        self._parts = root / "parts"
        self._packing = root / "packing"
        self._moving = threading.Lock()
        self.xet = XetStore(root / "xet", connect)
        self.claims = Claims()
        shutil.rmtree(self._packing, ignore_errors=True)
        for folder in (self._objects, self._parts, self._packing):
            folder.mkdir(parents=True, exist_ok=True)

    def size(self, sha256: str) -> int | None:
        """Size in bytes, or None where the content is missing."""
        path = self._path(sha256)
        try:
            return path.stat().st_size if path else None
        except FileNotFoundError:
            found = self.xet.find(sha256)
            return found.size if found else None

    def xet_hash(self, sha256: str) -> str | None:
        """The Xet hash of content that the Xet store holds."""
        found = self.xet.find(sha256)
        return found.hash if found else None

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`.

        Raises:
            KeyError: The content is not here.
        """
        try:
            if (path := self._path(sha256)) is None:
                raise KeyError(sha256)
            return read_file(path, start, end)
        except FileNotFoundError:
            found = self.xet.find(sha256)
            if found is None:
                raise KeyError(sha256) from None
            return self.xet.read(found, start, end)

    def put(self, upload: Path, sha256: str) -> None:
        """Takes in a received file whose hash was already checked."""
        path = self._path(sha256)
        assert path is not None
        publish(upload, path)

    def move_to_xet(self, sha256: str) -> None:
        """Moves a file that came by LFS into the Xet store; readers do not notice.

        Raises:
            RuntimeError: It was stopped.
        """
        path = self._path(sha256)
        with self._moving:
            if path is None or not path.is_file():
                return
            work = self._packing / uuid.uuid4().hex
            work.mkdir()
            try:
                if self.xet.find(sha256) is None:
                    self.xet.pack(path, work)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            if self.xet.find(sha256) is not None:
                path.unlink()

    def lfs_files(self, before: float | None = None) -> list[str]:
        """What lies in the LFS folder, and came before a time in Unix seconds."""
        files = [path for path in self._objects.glob("*/*/*") if SHA256.fullmatch(path.name)]
        return [path.name for path in files if before is None or path.stat().st_mtime < before]

    def remove(self, sha256s: Collection[str], needed: Collection[str]) -> None:
        """Deletes content for good.

        Args:
            sha256s: What is to be deleted.
            needed: What of it is kept; commits add to it until the claims' lock is held.
        """
        with self._moving, self.claims.lock:
            doomed = [sha256 for sha256 in sha256s if sha256 not in needed]
            for path in filter(None, map(self._path, doomed)):
                path.unlink(missing_ok=True)
            self.xet.remove(doomed)

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

    def drop_old_parts(self, before: float) -> None:
        """Forgets multipart uploads of which nothing came since a time in Unix seconds."""
        for folder in self._parts.iterdir():
            if folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, sha256: str) -> Path | None:
        """None for what is no sha256, so that no name leads out of the folder."""
        if not SHA256.fullmatch(sha256):
            return None
        return self._objects / sha256[:2] / sha256[2:4] / sha256

    def _part(self, upload_id: str, number: int) -> Path:
        return self._parts / upload_id / f"{number:05d}"


def read_file(path: Path, start: int, end: int) -> Iterator[bytes]:
    """A slice of a file, chunk by chunk."""
    return _slice(path.open("rb"), start, end)


def _slice(file: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < end and (chunk := file.read(min(CHUNK_SIZE, end - start))):
            start += len(chunk)
            yield chunk
