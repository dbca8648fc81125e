"""Pushing by way of huggingface_hub: repository, branch, commit, what is there already. `downloads` reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    get_token,
    hf_hub_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from ..checkpoints.manifest import FileFacts
from ..outbox.push import Target
from .client import limit_requests
from .errors import NotABranch, NotThere, NotYours

Uploaded = list[CommitOperationAdd | CommitOperationCopy]
"""Files that are ready to be committed."""


@dataclass(frozen=True)
class Found:
    """A repository that is there.

    Args:
        repo_id: With its owner.
        created: When it was made; another one of the same name has another time.
        contents: What is in it, for people.
    """

    repo_id: str
    created: str
    contents: str


@dataclass(frozen=True)
class Remote:
    """A repository and branch as they are at one commit.

    Args:
        repo_id: With its owner.
        revision: Branch.
        head: Identifier of the commit.
        root: Paths of the files at the root.
        folders: Names of the folders at the root.
        private: Its visibility.
    """

    repo_id: str
    revision: str
    head: str
    root: frozenset[str]
    folders: frozenset[str] = frozenset()
    private: bool | None = None


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
        limit_requests(request_timeout)

    @property
    def hub(self) -> str:
        """The Hub's address."""
        return self._api.endpoint

    @property
    def token(self) -> str | None:
        return self._given_token() or get_token()

    def ensure(self, target: Target) -> str:
        """Creates the repository, unless the target says not to, and the branch if they are missing.

        Returns:
            The repository's name with its owner.

        Raises:
            NotABranch: when the revision is a tag or a commit.
            NotThere: when it is missing and is not to be created.
        """
        key = (target, self.token)
        if key not in self._ensured:
            repo_id = self._create(target) if target.create else self._require(target)
            if target.revision not in (None, "main"):
                self._ensure_branch(repo_id, target.revision, target.from_scratch)
            self._ensured[key] = repo_id
        return self._ensured[key]

    def _create(self, target: Target) -> str:
        url = self._api.create_repo(target.repo_id, private=target.private, exist_ok=True, token=self.token)
        return str(url.repo_id)

    def _require(self, target: Target) -> str:
        found = self.find(target)
        if found is None:
            raise NotThere(
                f"There is no repository {target.repo_id} that this token can see, and with create_repo=False "
                "none is created. Create it, or push with create_repo=True."
            )
        return found.repo_id

    def find(self, target: Target) -> Found | None:
        """The repository, if it is there and this token can see it."""
        name = target.repo_id
        repo_id = name if "/" in name else f"{self._api.whoami(token=self.token)['name']}/{name}"
        try:
            info = self._api.model_info(repo_id, token=self.token)
        except RepositoryNotFoundError:
            return None
        assert info.created_at is not None
        files = info.siblings or []
        contents = f"{len(files)} files, the last commit {str(info.sha)[:8]}, and all its branches and tags"
        return Found(info.id, info.created_at.isoformat(), contents)

    def require_owner(self, repo_id: str) -> None:
        """
        Raises:
            NotYours: when the repository belongs to neither the token's user nor an organization of theirs.
        """
        user = self._api.whoami(token=self.token)
        owners = {user["name"], *(org["name"] for org in user.get("orgs", ()))}
        if repo_id.partition("/")[0].lower() not in {owner.lower() for owner in owners}:
            raise NotYours(
                f"{repo_id} is not {user['name']}'s, and is not deleted. Push without delete_existing_repo, or "
                "with the owner's token."
            )

    def delete(self, repo_id: str) -> None:
        """Deletes a repository with all that is in it.

        Raises:
            NotYours: when the Hub says that the token may not.
        """
        try:
            self._api.delete_repo(repo_id, token=self.token, missing_ok=True)
        except HfHubHTTPError as error:
            if error.response.status_code != 403:
                raise
            raise NotYours(f"This token may not delete {repo_id}, and it was not deleted: {error}") from None
        self.forget()

    def set_tag(self, remote: Remote, tag: str, commit: str) -> None:
        """Makes a Git tag name a commit; one that names another is moved."""
        refs = self._api.list_repo_refs(remote.repo_id, token=self.token)
        there = {ref.name: ref.target_commit for ref in refs.tags}
        if there.get(tag) == commit:
            return
        if tag in there:
            self._api.delete_tag(remote.repo_id, tag=tag, token=self.token)
        self._api.create_tag(remote.repo_id, tag=tag, revision=commit, token=self.token)

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
        if target.private is None:
            return []
        return wrong_visibility(target, repo_id, self._api.repo_info(repo_id, token=self.token).private)

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
                "Set hub_revision, or the revision of the push, to another name."
            )
        if len(branch) == 40 and all(character in "0123456789abcdef" for character in branch):
            raise NotABranch(
                f"{branch!r} is the identifier of a commit, and only a branch can be pushed to. "
                "Set hub_revision, or the revision of the push, to the name of one."
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
        info = self._api.repo_info(repo_id, revision=revision, token=self.token)
        assert info.sha is not None
        tree = list(self._api.list_repo_tree(repo_id, revision=info.sha, token=self.token))
        files = frozenset(entry.path for entry in tree if isinstance(entry, RepoFile))
        folders = frozenset(entry.path for entry in tree) - files
        return Remote(repo_id, revision, info.sha, files, folders, info.private)

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

    def files_below(self, remote: Remote, folder: str) -> dict[str, FileFacts | None]:
        """The files under a folder, at the commit of `remote`; empty when there is no such folder.

        Returns:
            Path → size and sha256, where it is stored by pointer, as large files are.
        """
        try:
            tree = self._api.list_repo_tree(
                remote.repo_id, folder, recursive=True, revision=remote.head, token=self.token
            )
            return {
                entry.path: FileFacts(entry.lfs.size, entry.lfs.sha256) if entry.lfs else None
                for entry in tree
                if isinstance(entry, RepoFile)
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
        self._upload(remote, operations)  # and lets go of the content of those that it uploads
        for operation in operations:
            if isinstance(operation.path_or_fileobj, str | Path):
                operation.path_or_fileobj = Path(operation.path_or_fileobj).read_bytes()
        return list(operations)

    def _upload(self, remote: Remote, operations: Sequence[object]) -> None:
        """Sends what is new and large among the additions.

        Asked by itself, the client leaves out, without a word, what a `.gitignore` names.
        """
        self._api.preupload_lfs_files(
            remote.repo_id,
            [operation for operation in operations if isinstance(operation, CommitOperationAdd)],
            revision=remote.revision,
            token=self.token,
            gitignore_content="# nothing\n",
        )

    def add(self, remote: Remote, uploaded: Uploaded, texts: Mapping[str, bytes], message: str) -> CommitInfo:
        """Makes one commit of new files, whatever others have put on the branch since `remote` was read.

        Only for paths that nobody else writes to: there a late answer to a request does no harm.
        """
        return self.commit(remote, uploaded, texts, (), message, "", may_have_moved=True)

    def commit(
        self,
        remote: Remote,
        uploaded: Uploaded,
        texts: Mapping[str, bytes],
        deletions: Collection[str],
        message: str,
        description: str,
        *,
        may_have_moved: bool = False,
    ) -> CommitInfo:
        """Makes one commit; none where it would change nothing.

        It is refused (412) when the branch has moved since `remote` was read: so a request that was given up,
        and that the Hub carries out late, never lands on top of what was pushed meanwhile.

        Args:
            uploaded: What `upload` gave.
            texts: Path in the repository → content, of what is made here: the card, manifests.
            deletions: Paths in the repository; a folder's ends with `/`.
            may_have_moved: Whether it is made even so.
        """
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            operation for operation in uploaded if operation.path_in_repo not in texts
        ]
        operations += [CommitOperationAdd(path, content) for path, content in texts.items()]
        self._upload(remote, operations)
        operations += [CommitOperationDelete(path, is_folder=path.endswith("/")) for path in deletions]
        return self._api.create_commit(
            remote.repo_id,
            operations,
            commit_message=message,
            commit_description=description,
            revision=remote.revision,
            parent_commit=None if may_have_moved else remote.head,
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


def wrong_visibility(target: Target, repo_id: str, private: bool | None) -> list[str]:
    """What people should know where a repository is not as private as they want it."""
    if target.private is None or private is None or private == target.private:
        return []
    return [
        f"{repo_id} was there before and is {'private' if private else 'public'}, "
        f"although hub_private_repo is {target.private}; that is changed in the repository's settings"
    ]
