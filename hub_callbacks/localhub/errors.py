"""The refusals of the Hub, as exceptions that know their status, `X-Error-Code` and wording."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

_FULL = os.strerror(errno.ENOSPC)
"""What libgit2 says then, whose errors have no number."""


class HubError(Exception):
    """A refusal that is answered as JSON `{"error": message}` plus the `X-Error-*` headers.

    Args:
        status: HTTP status code.
        message: What the client shows to its user.
        code: `X-Error-Code`, which the client maps to an exception class.
        extra: Further fields of the JSON body.
        headers: Further response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


class Moved(Exception):
    """The repository lives under a new name; the answer is a redirect to the same path there."""

    def __init__(self, old_id: str, new_id: str) -> None:
        super().__init__(f"{old_id} moved to {new_id}")
        self.old_id = old_id
        self.new_id = new_id


def repo_not_found(logged_in: bool) -> HubError:
    """A repository that is missing, or that this caller must not know of."""
    if logged_in:
        return HubError(404, "Repository not found", "RepoNotFound")
    return HubError(401, "Invalid username or password.", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str | None = None) -> HubError:
    headers = {"X-Repo-Commit": commit} if commit else None
    return HubError(404, f"{path} does not exist on this revision", "EntryNotFound", headers=headers)


def forbidden(message: str) -> HubError:
    return HubError(403, message)


def no_room(error: Exception) -> HubError | None:
    """The refusal where the machine of the hub has no room left, on the disk or for open files; else None."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or _FULL in str(error):
        return HubError(507, "The disk of the hub is full, so nothing was stored. Make room there and try again.")
    if number in (errno.EMFILE, errno.ENFILE):
        return HubError(503, "The hub has too many files open, so nothing was done. Try again in a moment.")
    return None


def bad_request(message: str) -> HubError:
    return HubError(400, message)
