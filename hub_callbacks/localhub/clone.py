"""`git clone http://...`: read-only smart HTTP, https://git-scm.com/docs/http-protocol

The packs are made by the git of this machine. They hold pointers for large files; git-lfs gets the content over
the LFS routes.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from starlette.responses import Response

from .errors import HubError, bad_request, forbidden
from .registry import Repo
from .repos import readable_repo
from .web import Call, stream

_SERVICE = "git-upload-pack"
_PROTOCOL = re.compile(r"[a-z0-9=:.]{1,100}")
_PIECE = 1 << 16
_MAX_REQUEST = 64 * 1024 * 1024


def advertise_refs(call: Call) -> Response:
    """The first request of a clone or fetch: which refs there are."""
    if call.param("service") != _SERVICE:
        raise forbidden("This hub takes no git pushes: upload with huggingface_hub. Nothing was changed.")
    refs = b"".join(_run_git(call, readable_repo(call), None))
    content = b"001e# service=git-upload-pack\n0000" + refs
    return Response(content, headers=_headers("advertisement"))


def admit(call: Call) -> int:
    readable_repo(call)
    return _MAX_REQUEST


def upload_pack(call: Call) -> Response:
    """The objects that the client lacks, packed while they are sent."""
    repo = readable_repo(call)
    wanted = _unzipped(call, call.received.path)
    return stream(call, _run_git(call, repo, wanted), 200, _headers("result"))


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


def _run_git(call: Call, repo: Repo, wanted: Path | None) -> Iterator[bytes]:
    """What `git upload-pack` says: its refs, or what is wanted. It is started at once and never outlives this."""
    git = shutil.which("git")
    if git is None:
        raise HubError(501, "Cloning needs git on the hub's machine, where it is not installed")
    command = [git, "-c", "safe.directory=*", "upload-pack", "--strict", "--stateless-rpc"]
    command += [] if wanted else ["--advertise-refs"]
    environment = {"PATH": os.environ.get("PATH", ""), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    if _PROTOCOL.fullmatch(protocol := call.headers.get("git-protocol", "")):
        environment["GIT_PROTOCOL"] = protocol
    with open(wanted or os.devnull, "rb") as source:
        process = subprocess.Popen(
            [*command, str(repo.path)],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    assert process.stdout is not None
    return _pieces(process, process.stdout)


def _pieces(process: subprocess.Popen[bytes], output: IO[bytes]) -> Iterator[bytes]:
    try:
        while piece := output.read(_PIECE):
            yield piece
    finally:
        process.kill()
        process.wait()
        output.close()


def _headers(kind: str) -> dict[str, str]:
    return {"Content-Type": f"application/x-{_SERVICE}-{kind}", "Cache-Control": "no-cache"}
