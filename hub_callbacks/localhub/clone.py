"""`git clone http://...`: read-only smart HTTP, https://git-scm.com/docs/http-protocol

The packs are made by the git of this machine. They hold pointers for large files; git-lfs gets the content over
the LFS routes.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import signal
import subprocess
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response, StreamingResponse

from .errors import HubError, bad_request, forbidden
from .repos import readable_repo
from .web import Call

_SERVICE = "git-upload-pack"
_PROTOCOL = re.compile(r"[a-z0-9=:.]{1,100}")
_PIECE = 1 << 16
_MAX_REQUEST = 64 * 1024 * 1024


def advertise_refs(call: Call) -> Response:
    """The first request of a clone or fetch: which refs there are."""
    if call.param("service") != _SERVICE:
        raise forbidden("This hub takes no git pushes: upload with huggingface_hub. Nothing was changed.")
    command = [*_command("--advertise-refs"), str(readable_repo(call).path)]
    refs = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=_environment(call)).stdout
    content = b"001e# service=git-upload-pack\n0000" + refs
    return Response(content, headers=_headers("advertisement"))


def admit(call: Call) -> int:
    readable_repo(call)
    return _MAX_REQUEST


def upload_pack(call: Call) -> Response:
    """The objects that the client lacks, packed while they are sent."""
    repo = readable_repo(call)
    wanted = _unzipped(call, call.received.path)
    # Opened at once, as the body is deleted after this.
    pieces = _packed([*_command(), str(repo.path)], _environment(call), wanted.open("rb"), call.threads)
    return StreamingResponse(pieces, 200, _headers("result"))


def _unzipped(call: Call, body: Path) -> Path:
    """Git zips what it asks for if that is long."""
    if call.headers.get("content-encoding") != "gzip":
        return body
    try:
        with gzip.open(body) as packed:
            content = packed.read(_MAX_REQUEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise bad_request("The request's body is not valid gzip") from error
    if len(content) > _MAX_REQUEST:
        raise HubError(413, f"A request of this kind has at most {_MAX_REQUEST} bytes")
    body.write_bytes(content)
    return body


def _command(*options: str) -> list[str]:
    git = shutil.which("git")
    if git is None:
        raise HubError(501, "Cloning needs git on the hub's machine, where it is not installed")
    return [git, "-c", "safe.directory=*", "upload-pack", "--strict", "--stateless-rpc", *options]


def _environment(call: Call) -> dict[str, str]:
    environment = {"PATH": os.environ.get("PATH", ""), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    if _PROTOCOL.fullmatch(protocol := call.headers.get("git-protocol", "")):
        environment["GIT_PROTOCOL"] = protocol
    return environment


async def _packed(
    command: list[str], environment: dict[str, str], wanted: IO[bytes], threads: CapacityLimiter
) -> AsyncIterator[bytes]:
    """What git answers. It and the processes that it starts end when nobody reads this any more."""
    with wanted:
        process = subprocess.Popen(
            command,
            stdin=wanted,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        while piece := await to_thread.run_sync(
            process.stdout.read, _PIECE, abandon_on_cancel=True, limiter=threads
        ):
            yield piece
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _headers(kind: str) -> dict[str, str]:
    return {"Content-Type": f"application/x-{_SERVICE}-{kind}", "Cache-Control": "no-cache"}
