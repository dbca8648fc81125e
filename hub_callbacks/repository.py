"""Pushing by way of huggingface_hub: repository, branch, commit, what is there already. `downloads` reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    get_session,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from .checkpoint_manifest import FileFacts
from .manifest import Target

CONNECT_TIMEOUT = 20.0  # seconds

Uploaded = list[CommitOperationAdd | CommitOperationCopy]
"""Files that are ready to be committed."""


class NotABranch(Exception):
    """`hub_revision` names something that cannot be pushed to."""


@dataclass(frozen=True)
class Remote:
    """A repository and branch as they are at one commit.

    Args:
        repo_id: With its owner.
        revision: Branch.
        head: Identifier of the commit.
        root: Paths of the files at the root.
        folders: Names of the folders at the root.
    """

    repo_id: str
    revision: str
    head: str
    root: frozenset[str]
    folders: frozenset[str] = frozenset()


class Repository:
    """Calls to the Hub with the newest token there is.

    Args:
        given_token: Looks up the token that the user set; `None` leaves it to huggingface_hub, which reads
            `HF_TOKEN` or the file of `hf auth login`. Asked anew for each call.
        request_timeout: Seconds that a request may go on without a byte in either direction.
    """

    def __init__(
        self, given_token: Callable[[], str | None] = lambda: None, request_timeout: float = 120.0
    ) -> None:
        self._given_token = given_token
        self._ensured: dict[tuple[Target, str | None], str] = {}
        self._api = HfApi(library_name="hub_callbacks")
        _limit_requests(request_timeout)

    @property
    def token(self) -> str | None:
        return self._given_token() or get_token()

    def ensure(self, target: Target) -> str:
        """Creates the repository and the branch if they are missing.

        Returns:
            The repository's name with its owner.

        Raises:
            NotABranch: when the revision is a tag or a commit.
        """
        key = (target, self.token)
        if key not in self._ensured:
            url = self._api.create_repo(target.repo_id, private=target.private, exist_ok=True, token=self.token)
            if target.revision not in (None, "main"):
                self._ensure_branch(url.repo_id, target.revision, target.from_scratch)
            self._ensured[key] = url.repo_id
        return self._ensured[key]

    def rehearse(self, target: Target) -> list[str]:
        """Finds out, before there is anything to push, whether it can be pushed.

        Returns:
            What people should know about the repository.

        Raises:
            HfHubHTTPError: 403, when the token may not write there.
        """
        repo_id = self.ensure(target)
        # Asks how a file would have to be uploaded, which takes the right to write, and uploads nothing.
        self._api.preupload_lfs_files(
            repo_id, [CommitOperationAdd("README.md", b"")], revision=target.revision, token=self.token
        )
        if target.private is not None:
            info = self._api.repo_info(repo_id, token=self.token)
            if bool(info.private) != target.private:
                return [
                    f"{repo_id} was there before and is {'private' if info.private else 'public'}, "
                    f"although hub_private_repo is {target.private}; that is changed in the repository's settings"
                ]
        return []

    def forget(self) -> None:
        """The repository or branch may be gone: the next `ensure` asks the Hub again."""
        self._ensured.clear()

    def _ensure_branch(self, repo_id: str, branch: str, from_scratch: bool) -> None:
        refs = self._api.list_repo_refs(repo_id, token=self.token)
        if branch in {ref.name for ref in refs.branches} or branch.startswith("refs/pr/"):
            return
        if branch in {ref.name for ref in refs.tags}:
            raise NotABranch(
                f"{branch!r} is a tag of {repo_id}, and only a branch can be pushed to. "
                "Set hub_revision to another name."
            )
        if len(branch) == 40 and all(character in "0123456789abcdef" for character in branch):
            raise NotABranch(
                f"{branch!r} is the identifier of a commit, and only a branch can be pushed to. "
                "Set hub_revision to the name of one."
            )
        first = self._api.list_repo_commits(repo_id, token=self.token)[-1].commit_id if from_scratch else None
        self._api.create_branch(repo_id, branch=branch, revision=first, exist_ok=True, token=self.token)

    def squash(self, remote: Remote, message: str) -> None:
        """Drops the history of a branch: its files stay, and what only older commits refer to is freed."""
        self._api.super_squash_history(
            remote.repo_id, branch=remote.revision, commit_message=message, token=self.token
        )

    def look(self, target: Target) -> Remote:
        """The state of the branch, to build a commit on."""
        repo_id = self.ensure(target)
        revision = target.revision or "main"
        head = self._api.repo_info(repo_id, revision=revision, token=self.token).sha
        assert head is not None
        tree = list(self._api.list_repo_tree(repo_id, revision=head, token=self.token))
        files = frozenset(entry.path for entry in tree if isinstance(entry, RepoFile))
        return Remote(repo_id, revision, head, files, frozenset(entry.path for entry in tree) - files)

    def branch(self, target: Target, branch: str) -> Remote | None:
        """A branch as it is, its root not looked at; `None` when there is none.

        Args:
            target: Says which repository.
        """
        repo_id = self.ensure(target)
        try:
            head = self._api.repo_info(repo_id, revision=branch, token=self.token).sha
        except RevisionNotFoundError:
            return None
        assert head is not None
        return Remote(repo_id, branch, head, frozenset())

    def open_branch(self, target: Target, branch: str) -> Remote:
        """A branch as it is, its root not looked at; made if there is none."""
        return self.branch(target, branch) or self.look(replace(target, revision=branch, from_scratch=False))

    def remove_branch(self, target: Target) -> str:
        """Deletes the branch of `target` if it is there; returns the repository's name with its owner."""
        repo_id = self.ensure(replace(target, revision=None, from_scratch=False))
        assert target.revision is not None
        refs = self._api.list_repo_refs(repo_id, token=self.token)
        if target.revision in {ref.name for ref in refs.branches}:
            self._api.delete_branch(repo_id, branch=target.revision, token=self.token)
        return repo_id

    def files_below(self, remote: Remote, folder: str) -> list[str]:
        """Paths of all files under a folder, at the commit of `remote`; empty when there is no such folder."""
        try:
            tree = self._api.list_repo_tree(
                remote.repo_id, folder, recursive=True, revision=remote.head, token=self.token
            )
            return [entry.path for entry in tree if isinstance(entry, RepoFile)]
        except EntryNotFoundError:
            return []

    def large_files_below(self, remote: Remote, folder: str) -> dict[str, FileFacts]:
        """Path → size and sha256 of the files under a folder that are stored by pointer, as large ones are."""
        try:
            tree = self._api.list_repo_tree(
                remote.repo_id, folder, recursive=True, revision=remote.head, token=self.token
            )
            return {
                entry.path: FileFacts(entry.lfs.size, entry.lfs.sha256)
                for entry in tree
                if isinstance(entry, RepoFile) and entry.lfs
            }
        except EntryNotFoundError:
            return {}

    def read_text(self, remote: Remote, path: str) -> str:
        """The text of a file at the commit of `remote`."""
        return self.read_bytes(remote, path).decode(errors="replace")

    def read_bytes(self, remote: Remote, path: str) -> bytes:
        """The content of a file at the commit of `remote`."""
        with tempfile.TemporaryDirectory() as cache:
            file = hf_hub_download(
                remote.repo_id,
                path,
                revision=remote.head,
                cache_dir=cache,
                token=self.token,
                library_name="hub_callbacks",
            )
            return Path(file).read_bytes()

    @staticmethod
    def copy_of(remote: Remote, source: str, path: str) -> CommitOperationCopy:
        """A large file of `remote`, to be committed under another path without being sent again."""
        return CommitOperationCopy(source, path, src_revision=remote.head)

    @staticmethod
    def addition(path: str, content: bytes) -> CommitOperationAdd:
        return CommitOperationAdd(path, content)

    def upload(self, remote: Remote, files: Mapping[str, Path]) -> Uploaded:
        """Sends the large files and reads the small ones: from here on, changes on disk change nothing.

        What is there already with the same content is not sent again.

        Args:
            files: Path in the repository → local file.

        Returns:
            What `commit` needs of them; it takes the same ones again when it has failed.
        """
        operations = [CommitOperationAdd(path, file) for path, file in files.items()]
        self._api.preupload_lfs_files(
            remote.repo_id, operations, revision=remote.revision, token=self.token
        )  # and lets go of the content of those that it uploads
        for operation in operations:
            if isinstance(operation.path_or_fileobj, str | Path):
                operation.path_or_fileobj = Path(operation.path_or_fileobj).read_bytes()
        return list(operations)

    def add(self, remote: Remote, uploaded: Uploaded, texts: Mapping[str, bytes], message: str) -> CommitInfo:
        """Makes one commit of new files, whatever others have put on the branch since `remote` was read.

        Only for paths that nobody else writes to: there a late answer to a request does no harm.
        """
        additions = [CommitOperationAdd(path, content) for path, content in texts.items()]
        return self._api.create_commit(
            remote.repo_id,
            [*uploaded, *additions],
            commit_message=message,
            revision=remote.revision,
            token=self.token,
        )

    def commit(
        self,
        remote: Remote,
        uploaded: Uploaded,
        texts: Mapping[str, bytes],
        deletions: Collection[str],
        message: str,
        description: str,
    ) -> CommitInfo:
        """Makes one commit; none where it would change nothing.

        It is refused (412) when the branch has moved since `remote` was read: so a request that was given up,
        and that the Hub carries out late, never lands on top of what was pushed meanwhile.

        Args:
            uploaded: What `upload` gave.
            texts: Path in the repository → content, of what is made here: the card, manifests.
            deletions: Paths in the repository; a folder's ends with `/`.
        """
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            operation for operation in uploaded if operation.path_in_repo not in texts
        ]
        operations += [CommitOperationAdd(path, content) for path, content in texts.items()]
        operations += [CommitOperationDelete(path, is_folder=path.endswith("/")) for path in deletions]
        return self._api.create_commit(
            remote.repo_id,
            operations,
            commit_message=message,
            commit_description=description,
            revision=remote.revision,
            parent_commit=remote.head,
            token=self.token,
        )


def facts_of(uploaded: Uploaded) -> dict[str, FileFacts]:
    """Path in the repository → size and sha256 of what `Repository.upload` has sent.

    The upload has made the hashes already; what it did not have to hash is read once more here.
    """
    return {
        operation.path_in_repo: FileFacts(operation.upload_info.size, operation.upload_info.sha256.hex())
        for operation in uploaded
        if isinstance(operation, CommitOperationAdd)
    }


def _limit_requests(seconds: float) -> None:
    """Sets a time-out for the client's requests: on its own it waits for an answer for ever.

    For the whole process, and for good: the client makes itself a new session after a refused connection.
    """
    session = get_session()
    if hasattr(session, "event_hooks"):  # an httpx client: huggingface_hub 1 and newer
        from huggingface_hub import set_client_factory

        make, hooks = type(session), session.event_hooks
        timeout = type(session.timeout)(seconds, connect=min(CONNECT_TIMEOUT, seconds))
        set_client_factory(lambda: make(event_hooks=hooks, follow_redirects=True, timeout=timeout))
        return
    import requests
    from huggingface_hub import configure_http_backend, constants

    class Session(requests.Session):
        def request(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            if constants.HF_HUB_OFFLINE:  # the client's own session sees to that, too
                raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
            kwargs["timeout"] = kwargs.get("timeout") or (min(CONNECT_TIMEOUT, seconds), seconds)
            return super().request(*args, **kwargs)

    configure_http_backend(Session)


__all__ = [
    "CommitInfo",
    "EntryNotFoundError",
    "HfHubHTTPError",
    "NotABranch",
    "OfflineModeIsEnabled",
    "Remote",
    "Repository",
    "Uploaded",
    "facts_of",
]
