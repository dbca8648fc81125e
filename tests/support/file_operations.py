"""What a command did to a folder: its system calls, as strace notes them, and the operations that they are."""

from __future__ import annotations

import codecs
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ROOT = 0
"""The folder itself, as a node; it was there before."""
CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,lseek,truncate,ftruncate,fallocate,rename,renameat,"
    "renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,sync,syncfs,"
    "sendfile,copy_file_range,ioctl,clone,clone3,fork,vfork"
)


@dataclass(frozen=True)
class Write:
    node: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Resize:
    node: int
    size: int


@dataclass(frozen=True)
class Enter:
    """A new name in a folder: of a new file or folder, or a hard link."""

    folder: int
    name: str
    node: int
    is_folder: bool = False


@dataclass(frozen=True)
class Leave:
    folder: int
    name: str


@dataclass(frozen=True)
class Move:
    folder: int
    name: str
    to: int
    new_name: str
    node: int


@dataclass(frozen=True)
class Flush:
    node: int


Operation = Write | Resize | Enter | Leave | Move | Flush


class Recording:
    """The operations on one folder, in order, and the folder as the running system sees it."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.contents: dict[int, bytearray] = {}
        self.names: dict[int, dict[str, int]] = {ROOT: {}}

    def do(self, operation: Operation) -> None:
        self.operations.append(operation)
        rename(self.names, operation)
        write(self.contents, operation)

    def find(self, path: str) -> int | None:
        node: int | None = ROOT
        for name in PurePosixPath(path).parts:
            node = self.names[node].get(name) if node in self.names else None
        return node

    def make(self, path: str, is_folder: bool) -> int:
        node = 1 + len(self.contents) + len(self.names)
        if is_folder:
            self.names[node] = {}
        else:
            self.contents[node] = bytearray()
        self.do(Enter(self.parent(path), PurePosixPath(path).name, node, is_folder))
        return node

    def parent(self, path: str) -> int:
        folder = self.find(str(PurePosixPath(path).parent))
        assert folder is not None, f"{path}: its folder is not known"
        return folder


def rename(names: dict[int, dict[str, int]], operation: Operation) -> None:
    """What an operation does to the names in each folder."""
    match operation:
        case Enter(folder, name, node):
            names.setdefault(folder, {})[name] = node
        case Leave(folder, name):
            names.setdefault(folder, {}).pop(name, None)
        case Move(folder, name, to, new_name, node):
            if names.setdefault(folder, {}).get(name) == node:
                del names[folder][name]
            names.setdefault(to, {})[new_name] = node


def write(contents: dict[int, bytearray], operation: Operation) -> None:
    """What an operation does to the contents of each file."""
    match operation:
        case Write(node, offset, data):
            content = contents[node]
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
        case Resize(node, size):
            content = contents[node]
            del content[size:]
            content.extend(bytes(size - len(content)))


def record(command: Sequence[str], trace: Path, **options: object) -> None:
    """Runs a command with all the processes that it starts, and notes their system calls.

    Raises:
        subprocess.CalledProcessError: when it fails.
    """
    strace = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-s", "100000000", "-e", "signal=none"]
    subprocess.run([*strace, "-e", f"trace={CALLS}", "-o", str(trace), *command], check=True, **options)  # type: ignore[call-overload]


def has_strace() -> bool:
    return shutil.which("strace") is not None


_LINE = re.compile(rb"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(rb"<\.\.\. (\w+) resumed>", re.DOTALL)
_CALL = re.compile(rb"(\w+)\((.*)\) += (-?\d+)(.*)", re.DOTALL)
_TEXT = rb'"((?:[^"\\]|\\.)*)"'
_STRING = re.compile(_TEXT, re.DOTALL)
_PATH = re.compile(rb"(?:(?:AT_FDCWD|\d+)<([^>]*)>(?:\(deleted\))?, )?" + _TEXT)
_FILE = re.compile(rb"(\d+)<([^>]*)>")
_SHARED = re.compile(rb"\bCLONE_FILES\b")


def read_trace(trace: Path, folder: Path) -> Recording:
    """The operations of a trace on what is below `folder`, which was empty when it began."""
    calls = list(_whole_calls(trace))
    reader = _Reader(str(folder.resolve()), _file_tables(calls))
    for process, name, arguments, result, rest in calls:
        reader.take(process, name, arguments, result, rest)
    return reader.recording


_Call = tuple[int, str, bytes, int, bytes]


def _whole_calls(trace: Path) -> Iterable[_Call]:
    """The calls that succeeded, in the order in which they ended."""
    begun: dict[bytes, bytes] = {}
    with trace.open("rb") as lines:
        for line in lines:
            parts = _LINE.fullmatch(line.rstrip(b"\n"))
            if parts is None:
                continue
            process, text = parts.groups()
            if text.endswith(b"<unfinished ...>"):
                begun[process] = text.removesuffix(b"<unfinished ...>")
                continue
            if resumed := _RESUMED.match(text):
                text = begun.pop(process, b"") + text[resumed.end() :]
            call = _CALL.fullmatch(text)
            if call and int(call[3]) >= 0:
                yield int(process), call[1].decode(), call[2], int(call[3]), call[4]


def _file_tables(calls: list[_Call]) -> dict[int, int]:
    """Thread → the one that it shares its open files with."""
    starts = ("clone", "clone3", "fork", "vfork")
    return {result: process for process, name, text, result, _ in calls if name in starts and _SHARED.search(text)}


@dataclass
class _Reader:
    folder: str
    sharing: dict[int, int]
    recording: Recording = field(default_factory=Recording)
    offsets: dict[tuple[int, int], int] = field(default_factory=dict)

    def take(self, process: int, name: str, arguments: bytes, result: int, rest: bytes) -> None:
        while process in self.sharing:
            process = self.sharing[process]
        if name in ("open", "openat", "creat"):
            self._open(process, name, arguments, result)
        elif name in ("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir"):
            self._names(name, self._paths(arguments))
        elif name in ("mkdir", "mkdirat"):
            (path,) = self._paths(arguments)
            if path is not None:
                self.recording.make(path, is_folder=True)
        elif name == "truncate":
            (path,) = self._paths(arguments)
            if path is not None and (node := self.recording.find(path)) is not None:
                self.recording.do(Resize(node, int(arguments.rpartition(b",")[2])))
        elif name in ("symlink", "symlinkat", "sync", "syncfs", "clone", "clone3", "fork", "vfork"):
            pass  # nothing here makes symbolic links; to take no notice of a flush is the severer way
        elif file := _FILE.match(arguments):
            self._file(process, name, int(file[1]), file[2], arguments, result)

    def _inside(self, path: str) -> str | None:
        if path == self.folder:
            return "."
        return path.removeprefix(self.folder + "/") if path.startswith(self.folder + "/") else None

    def _paths(self, arguments: bytes) -> list[str | None]:
        return [
            self._inside(os.path.join(_plain(base or b""), _plain(text)))
            for base, text in _PATH.findall(arguments)
        ]

    def _open(self, process: int, name: str, arguments: bytes, result: int) -> None:
        path = self._paths(arguments)[0]
        if path is None:
            return
        node = self.recording.find(path)
        flags = b"O_CREAT|O_TRUNC" if name == "creat" else arguments
        assert b"O_TMPFILE" not in flags, "files without a name are not understood"
        if node is None and b"O_CREAT" in flags:
            self.recording.make(path, is_folder=False)
        elif node is not None and b"O_TRUNC" in flags and self.recording.contents[node]:
            self.recording.do(Resize(node, 0))
        self.offsets.pop((process, result), None)
        if b"O_APPEND" not in flags:
            self.offsets[process, result] = 0

    def _names(self, name: str, paths: list[str | None]) -> None:
        if paths == [None] or paths == [None, None]:
            return
        assert None not in paths, f"{name} from or to outside: {paths}"
        known = [path for path in paths if path is not None]
        source = self.recording.parent(known[0]), PurePosixPath(known[0]).name
        if len(known) == 1:
            self.recording.do(Leave(*source))
            return
        node = self.recording.find(known[0])
        target = self.recording.parent(known[1]), PurePosixPath(known[1]).name
        assert node is not None, known
        self.recording.do(Enter(*target, node) if name.startswith("link") else Move(*source, *target, node))

    def _file(self, process: int, name: str, number: int, path: bytes, arguments: bytes, result: int) -> None:
        inside = self._inside(_plain(path))
        if name in ("sendfile", "copy_file_range", "ioctl"):
            self._copy(process, name, arguments, result)
        if inside is None or (node := self.recording.find(inside)) is None:
            return
        if name in ("fsync", "fdatasync"):
            self.recording.do(Flush(node))
        elif name in ("ftruncate", "fallocate"):
            size = sum(int(n) for n in re.findall(rb", (\d+)", arguments))
            self.recording.do(Resize(node, max(size, 0 if name == "ftruncate" else self._size(node))))
        elif name == "lseek" and (process, number) in self.offsets:
            self.offsets[process, number] = result
        elif "write" in name:
            data = b"".join(codecs.escape_decode(text)[0] for text in _STRING.findall(arguments))[:result]
            at = int(arguments.rpartition(b",")[2]) if name.startswith("pwrite") else None
            self._append(process, number, node, data, at)

    def _size(self, node: int) -> int:
        return len(self.recording.contents[node])

    def _append(self, process: int, number: int, node: int, data: bytes, at: int | None = None) -> None:
        place = self.offsets.get((process, number), self._size(node)) if at is None else at
        if data:
            self.recording.do(Write(node, place, data))
        if at is None and (process, number) in self.offsets:
            self.offsets[process, number] = place + len(data)

    def _copy(self, process: int, name: str, arguments: bytes, result: int) -> None:
        """A copy inside the kernel: the trace says only from where to where."""
        files = [(int(number), _plain(path)) for number, path in _FILE.findall(arguments)]
        if name == "ioctl" and b"FICLONE" not in arguments:
            return
        (target, path), (_, source_path) = files if name != "copy_file_range" else files[::-1]
        inside, source = self._inside(path), self._inside(source_path)
        node = None if inside is None else self.recording.find(inside)
        if node is None:
            return
        offsets = [int(number) for number in re.findall(rb"\[(\d+)\]", arguments)]
        content: bytes | bytearray
        if source is None:
            content = Path(source_path).read_bytes()
        else:
            found = self.recording.find(source)
            assert found is not None, source
            content = self.recording.contents[found]
        if name == "ioctl":
            self._append(process, target, node, bytes(content), 0)
            return
        start = offsets[0] if offsets else self._size(node)
        self._append(process, target, node, bytes(content[start : start + result]))


def _plain(escaped: bytes) -> str:
    return os.fsdecode(codecs.escape_decode(escaped)[0])
