"""Python processes for tests, without the seconds that each would spend on importing torch and transformers."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import forkserver

# Read while modules are imported or while the interpreter starts: too late in a fork.
_READ_EARLY = ("ACCELERATE_", "HF_", "HUGGINGFACE_", "OMP_", "PYTHON", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_")
# Read when they are used, or when hf_xet is, or seen to by the fork server itself (see `forkserver._become`).
_READ_LATE = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET", "HF_TOKEN", "HF_XET_", "PYTHONPATH")
_ENVIRONMENT = dict(os.environ)
"""That of the fork server: this process's before a test changes it; see `note_environment`."""


def note_environment() -> None:
    """The environment is what tests begin with: all that they need is imported, and some imports change it."""
    _ENVIRONMENT.clear()
    _ENVIRONMENT.update(os.environ)


def start(arguments: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """Starts `python *arguments` in a session of its own.

    It is a fork of the fork server, unless a variable that the server has read at its start has another value.

    Args:
        arguments: A path, `-c` or `-m` first.
        options: `stdin`, `stdout`, `stderr`, `text`, `cwd` and `env` as for `subprocess.Popen`.
    """
    environment = options.get("env") or os.environ
    has_all = {"HF_ENDPOINT", "HF_HOME"} <= environment.keys()
    if has_all and _read_early(environment) == _read_early(_ENVIRONMENT):
        return _Fork(list(map(str, arguments)), **options)
    return start_anew(arguments, **options)


def start_anew(arguments: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """The same with a new interpreter, which imports all by itself."""
    return subprocess.Popen([sys.executable, *map(str, arguments)], start_new_session=True, **options)


def run(
    arguments: Sequence[str | Path],
    timeout: float = 240,
    start: Callable[..., subprocess.Popen[Any]] = start,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """What a Python process has said and how it ended; where it hangs, all of its session is killed.

    Args:
        start: `start` or `start_anew`.
        options: As for `start`.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(arguments, **pipes, text=True, **options)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def kill_group(process: int) -> None:
    """Kills a process that leads a session and those that it has started, but for those that lead another one."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def _read_early(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_EARLY) and not name.startswith(_READ_LATE)
    }


class _Fork(subprocess.Popen[Any]):
    """A `Popen` whose process is a child of the fork server, which starts it and waits for it."""

    def _execute_child(  # type: ignore[override]
        self,
        args: list[str],
        executable: Any,
        preexec_fn: Any,
        close_fds: Any,
        pass_fds: Any,
        cwd: Any,
        env: Mapping[str, str] | None,
        startupinfo: Any,
        creationflags: Any,
        shell: Any,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        *rest: Any,
    ) -> None:
        self._report, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = (p2cread, c2pwrite, errwrite)
        streams = [standard if stream == -1 else stream for standard, stream in enumerate(given)]
        request = json.dumps([args, dict(os.environ if env is None else env), str(cwd or os.getcwd())])
        try:
            with report:
                socket.send_fds(_server(), [request.encode()], [report.fileno(), *streams])
            self.pid = int(self._report.recv(16))
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _wait(self, timeout: float | None) -> int:
        ended = select.poll()
        ended.register(self._report, select.POLLIN)
        if self.returncode is None and not ended.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with self._waitpid_lock:  # several threads may wait for one process
            if self.returncode is None:
                # The end of the server is that of the process, too.
                self.returncode = int(self._report.recv(16) or -signal.SIGKILL)
        return self.returncode

    def _internal_poll(self, *args: Any, **options: Any) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode


@functools.cache
def _server() -> socket.socket:
    """Where the fork server takes requests. It ends with this process, and kills what it has forked."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own = {
        "HF_HOME": forkserver.HOME,
        "HF_ENDPOINT": forkserver.ENDPOINT,
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a thread of pyarrow's
    }
    environment = {name: value for name, value in _ENVIRONMENT.items() if name not in ("HF_TOKEN", "PYTHONPATH")}
    with theirs:
        server = subprocess.Popen(
            [sys.executable, forkserver.__file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        server.wait()

    return ours
