"""The Xet store: xorbs (blocks of compressed chunks), and an index that says which chunks make up which file.

Both arrive from hf_xet clients through the handlers in `cas`. Packing and unpacking is hf_xet's work.

    xorbs/ab/abcd...    their chunks as they came, and the hashes of these
    index/....json      the files of one shard
    generation          changes when bytes are freed
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .durable import publish, read_json, write_json
from .xet_format import Segment, XetFile, XorbLayout, read_hashes, read_layout, read_shard, write_hashes
from .xet_hashes import Node, chunk_nodes, file_hash
from .xet_hashes import xorb_hash as xorb_hash_of

Connect = Callable[[], "tuple[str, str, int]"]
"""Gives the address of this hub's own Xet service, a token for it and when that ends (Unix seconds)."""

_FORMAT = "2-"
"""What generations begin with since xorbs are checked; clients send again what came before."""

_MEMORY = 16_000_000
"""Bytes that hf_xet may keep ready while a file is read."""

_BATCH = 1_000_000
"""Bytes whose hashes are computed at once."""
_CHECKERS = 2
"""Threads that look at xorbs. Each keeps the memory that it once took, so it is not the handlers' that do it."""

_LIMITS: dict[str, int | str] = {
    "reconstruction.download_buffer_size": _MEMORY,
    "reconstruction.download_buffer_perfile_size": _MEMORY,
    "reconstruction.download_buffer_limit": 4 * _MEMORY,
    "reconstruction.min_prefetch_buffer": _MEMORY,
    "reconstruction.min_reconstruction_fetch_size": _MEMORY,
    "reconstruction.max_reconstruction_fetch_size": _MEMORY,
    # What cannot be unpacked is asked for again and again, at first after three seconds, by default.
    "client.retry_base_delay": "10ms",
    "client.retry_max_duration": "1s",
}


class XetStore:
    """Files by Xet hash and by sha256.

    Args:
        root: The store's folder; made where missing.
        connect: How this hub reaches its own service.
    """

    def __init__(self, root: Path, connect: Connect) -> None:
        self._index = root / "index"
        self._xorbs = root / "xorbs"
        self._generation_file = root / "generation"
        self._connect = connect
        self._lock = threading.Lock()
        self._checkers = ThreadPoolExecutor(_CHECKERS, "localhub-checker")
        self._by_hash: dict[str, XetFile] = {}
        self._by_sha256: dict[str, XetFile] = {}
        self._shards: dict[str, list[XetFile]] = {}
        self._own_session: Any = None
        self._own_upload: Any = None
        self._checking: list[Any] = []
        for folder in (self._index, self._xorbs):
            folder.mkdir(parents=True, exist_ok=True)
        for path in self._index.glob("*.json"):
            self._remember(path.stem, [_file(row) for row in read_json(path, [])])
        self.generation: str = read_json(self._generation_file, "")
        """Part of the service's address. Clients remember by address which chunks are there already and do not
        send them again; so when chunks are deleted, the address changes."""
        if not self.generation.startswith(_FORMAT):
            self._begin_generation()

    # Xorbs

    def xorb(self, xorb_hash: str) -> Path:
        """Where a xorb lies."""
        return self._xorbs / xorb_hash[:2] / xorb_hash

    def put_xorb(self, upload: Path, xorb_hash: str) -> bool:
        """Takes a xorb in, if it has this hash: all who have its content rely on what lies under its name.

        Returns:
            Whether it is new.

        Raises:
            ValueError: It is broken, or has another hash.
        """
        target = self.xorb(xorb_hash)
        if self._is_checked(target):
            os.utime(target)
            return False
        # Under a name of its own, as nobody may read it by its hash before it is checked.
        unchecked = self.xorb(xorb_hash[:2] + secrets.token_hex(31))
        unchecked.parent.mkdir(exist_ok=True)
        upload.replace(unchecked)
        try:
            chunks = self._checkers.submit(self._chunks, unchecked.name).result()
            if (actual := xorb_hash_of(chunks)) != xorb_hash:
                raise ValueError(f"its content has the hash {actual}")
            write_hashes(unchecked, [chunk.hash for chunk in chunks])
            publish(unchecked, target)
        finally:
            unchecked.unlink(missing_ok=True)
        return True

    def layout(self, xorb_hash: str) -> XorbLayout:
        """Where the chunks of a xorb lie."""
        return read_layout(self.xorb(xorb_hash))

    # Files

    def put_shard(self, upload: Path, name: str, unwanted: threading.Event | None = None) -> list[XetFile]:
        """Takes in the files of a shard, under a name made from its content.

        What the client says about a file is not believed: its hashes are computed from the content.

        Args:
            upload: The shard.
            name: Made from its content.
            unwanted: Ends the work when it is set.

        Returns:
            The files as they are.

        Raises:
            ValueError: The shard is broken, or names chunks that are not here.
        """
        files = read_shard(upload)
        for segment in dict.fromkeys(segment for file in files for segment in file.segments):
            if not self._has(segment):
                raise ValueError(f"chunks {segment.start} to {segment.end} of the xorb {segment.xorb} are missing")
        with self._own_connection() as connection:
            checked = [self._checked(file, connection, unwanted or threading.Event()) for file in files]
        with self._lock:
            if not all(self.xorb(segment.xorb).is_file() for file in checked for segment in file.segments):
                raise ValueError("chunks of it were deleted meanwhile")
            if checked:
                write_json(self._index / f"{name}.json", [asdict(file) for file in checked])
                self._remember(name, checked)
        return checked

    def by_hash(self, xet_hash: str) -> XetFile | None:
        return self._by_hash.get(xet_hash)

    def find(self, sha256: str) -> XetFile | None:
        """The file with this content."""
        return self._by_sha256.get(sha256)

    def all_sha256s(self, before: float) -> list[str]:
        """The files that came before a time in Unix seconds."""
        with self._lock:
            shards = dict(self._shards)
        old = [files for name, files in shards.items() if _is_older(self._index / f"{name}.json", before)]
        return [file.sha256 for files in old for file in files]

    def read(self, file: XetFile, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`."""
        if start < end:
            yield from _read(self._connection(), file, start, end)

    @contextmanager
    def _own_connection(self) -> Iterator[Any]:
        """A connection that `abandon` ends."""
        connection = self._connection()
        self._checking.append(connection)
        try:
            yield connection
        finally:
            self._checking.remove(connection)

    def _connection(self) -> Any:
        endpoint, token, expiry = self._connect()
        return self._session().new_download_stream_group(
            endpoint=endpoint, token=token, token_expiry_unix_secs=expiry
        )

    def pack(self, path: Path, work: Path) -> None:
        """Takes in a file that came in one piece.

        Args:
            path: The file.
            work: An empty folder for the time being.

        Raises:
            RuntimeError: It was stopped by `abandon`.
        """
        upload = self._own_upload = self._session().new_upload_commit(endpoint=f"local://{work}")
        try:
            with upload:
                upload.start_upload_file(str(path))
        finally:
            self._own_upload = None
        for shard in work.rglob("*.mdb"):
            new = [file for file in read_shard(shard) if self.by_hash(file.hash) is None]
            for xorb in {segment.xorb for file in new for segment in file.segments}:
                if (packed := next(work.rglob(f"*.{xorb}"), None)) is not None:
                    self.put_xorb(packed, xorb)
            if new:
                self.put_shard(shard, shard.stem)

    def abandon(self) -> None:
        """Stops `pack` and `put_shard`, wherever they are."""
        if (upload := self._own_upload) is not None:
            upload.abort()
        for connection in list(self._checking):
            connection.abort()

    def close(self) -> None:
        """Ends its threads, once nothing comes any more."""
        self._checkers.shutdown()

    # Deleting

    def remove(self, sha256s: Collection[str]) -> None:
        """Deletes files, and the xorbs that no other file needs."""
        with self._lock:
            doomed = [file for file in map(self._by_sha256.get, sha256s) if file]
            if not doomed:
                return
            hashes = {file.hash for file in doomed}
            for name, files in list(self._shards.items()):
                left = [file for file in files if file.hash not in hashes]
                if len(left) < len(files):
                    self._replace(name, left)
            for file in doomed:
                self._by_hash.pop(file.hash, None)
                self._by_sha256.pop(file.sha256, None)
            self._begin_generation()
            for xorb in {segment.xorb for file in doomed for segment in file.segments} - self._needed_xorbs():
                self.xorb(xorb).unlink(missing_ok=True)

    def remove_leftovers(self, before: float) -> None:
        """Deletes xorbs that no file needs and that came before a time in Unix seconds."""
        with self._lock:
            needed = self._needed_xorbs()
            leftovers = [
                path for path in self._xorbs.glob("*/*") if path.name not in needed and _is_older(path, before)
            ]
            if leftovers:
                self._begin_generation()
            for path in leftovers:
                path.unlink(missing_ok=True)

    def _has(self, segment: Segment) -> bool:
        try:
            return self._is_checked(self.xorb(segment.xorb)) and self.layout(segment.xorb).has(segment)
        except OSError:
            return False

    def _is_checked(self, xorb: Path) -> bool:
        """Not so for one that came to an earlier version of this hub."""
        try:
            return read_hashes(xorb) is not None
        except (FileNotFoundError, ValueError):
            return False

    def _chunks(self, name: str) -> list[Node]:
        """Computes the hashes of a xorb's chunks."""
        ends = self.layout(name).unpacked
        segment = Segment(name, ends[-1], 0, len(ends) - 1)
        file = XetFile(secrets.token_hex(32), "", (segment,))
        found: list[Node] = []
        chunks: list[bytes] = []
        content = bytearray()
        with self._own_connection() as connection:
            for piece in self._pieces(file, connection):
                content += piece
                while len(found) + len(chunks) < segment.end:
                    number = len(found) + len(chunks)
                    size = ends[number + 1] - ends[number]
                    if len(content) < size:
                        break
                    chunks.append(bytes(content[:size]))
                    del content[:size]
                if sum(map(len, chunks)) >= _BATCH:
                    found += chunk_nodes(chunks)
                    chunks.clear()
        return found + chunk_nodes(chunks)

    def _checked(self, file: XetFile, connection: Any, unwanted: threading.Event) -> XetFile:
        known = self._by_hash.get(file.hash)
        if known is not None and known.segments == file.segments:
            return known
        # Who sends a shard is taken for somebody who has these files, and a hash alone is no proof of it.
        if file_hash(self._nodes(file, unwanted)) != file.hash:
            raise ValueError(f"the content of a file has another hash than {file.hash}")
        if known is not None:
            return known
        digest = hashlib.sha256()
        for piece in self._pieces(replace(file, hash=secrets.token_hex(32)), connection):
            _go_on(unwanted)
            digest.update(piece)
        return replace(file, sha256=digest.hexdigest())

    def _nodes(self, file: XetFile, unwanted: threading.Event) -> Iterator[Node]:
        """The hashes of a file's chunks."""
        xorb, hashes = "", None
        for segment in file.segments:
            _go_on(unwanted)
            if segment.xorb != xorb:
                xorb, hashes = segment.xorb, read_hashes(self.xorb(segment.xorb))
            if hashes is None:
                raise ValueError(f"the xorb {xorb} was never checked")
            ends = self.layout(xorb).unpacked
            for number in range(segment.start, segment.end):
                yield Node(hashes[number], ends[number + 1] - ends[number])

    def _pieces(self, file: XetFile, connection: Any) -> Iterator[bytes]:
        """The content of a file that nobody else may know of by its hash yet.

        Raises:
            ValueError: It cannot be unpacked.
        """
        self._by_hash[file.hash] = file
        try:
            if file.size:
                yield from _read(connection, file, 0, file.size)
        except (RuntimeError, OSError) as error:
            raise ValueError(f"what is in it cannot be read: {error}") from error
        finally:
            del self._by_hash[file.hash]

    def _needed_xorbs(self) -> set[str]:
        return {segment.xorb for files in self._shards.values() for file in files for segment in file.segments}

    def _remember(self, name: str, files: list[XetFile]) -> None:
        self._shards[name] = files
        for file in files:
            self._by_hash[file.hash] = file
            self._by_sha256[file.sha256] = file

    def _replace(self, name: str, files: list[XetFile]) -> None:
        path = self._index / f"{name}.json"
        if files:
            write_json(path, [asdict(file) for file in files])
            self._shards[name] = files
        else:
            path.unlink(missing_ok=True)
            del self._shards[name]

    def _begin_generation(self) -> None:
        self.generation = _FORMAT + secrets.token_hex(8)
        write_json(self._generation_file, self.generation)

    def _session(self) -> Any:
        import hf_xet

        with self._lock:
            if self._own_session is None:
                config = hf_xet.XetConfig()
                for name, value in _LIMITS.items():
                    config = config.with_config(name, value)
                self._own_session = hf_xet.XetSession(config)
            return self._own_session


def _read(connection: Any, file: XetFile, start: int, end: int) -> Iterator[bytes]:
    import hf_xet

    yield from connection.download_stream(hf_xet.XetFileInfo(file.hash, file.size), start=start, end=end)


def _go_on(unwanted: threading.Event) -> None:
    if unwanted.is_set():
        raise ValueError("its client has gone")


def _file(row: dict[str, Any]) -> XetFile:
    return XetFile(row["hash"], row["sha256"], tuple(Segment(**segment) for segment in row["segments"]))


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return path.stat().st_mtime < seconds
    except FileNotFoundError:
        return False
