"""Pushing by way of huggingface_hub: repository, branch, commit, what is there already. `downloads` reads."""

from __future__ import annotations

import copy
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
    ModelInfo,
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
from ..outbox.places import Place, Places
from ..outbox.push import Target
from .client import cache_trouble, limit_requests
from .errors import (
    AnotherRepository,
    Gone,
    NoCache,
    NoLargeFiles,
    NotABranch,
    NotThere,
    NotYours,
    status_of,
    status_of_xet_token,
)

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
        places: What is remembered of the repositories; `None` remembers it as long as this object lives.
    """

    def __init__(
        self,
        given_token: Callable[[], str | None] = lambda: None,
        request_timeout: float = 120.0,
        places: Places | None = None,
    ) -> None:
        self._given_token = given_token
        self.places = places or Places()
        self._news: dict[str, str] = {}
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

    def ensure(self, target: Target, is_beginning: bool = False) -> str:
        """Makes sure of the repository and the branch.

        A repository that was there before and is gone is not made again by what merely has something to send: it
        may have been deleted for a reason, and was perhaps not as public as a new one would be.

        Args:
            is_beginning: Whether one that is missing is made in any case, unless the target says not to.

        Returns:
            The repository's name with its owner.

        Raises:
            NotABranch: when the revision is a tag or a commit.
            NotThere: when it is missing and is not to be created.
        """
        key = (target, self.token)
        if key not in self._ensured:
            repo_id = self._find_or_create(target, is_beginning)
            if target.revision not in (None, "main"):
                self._ensure_branch(repo_id, target.revision, target.from_scratch)
            self._ensured[key] = repo_id
        return self._ensured[key]

    def _find_or_create(self, target: Target, is_beginning: bool) -> str:
        known = self.places.get(self.hub, target.repo_id)
        name = self._name_of(target)
        info = self._info(name)
        if info is None:
            self._require_creation(target, name, is_beginning or known is None or known.is_deleted)
            private = target.private if known is None or target.private is not None else known.private
            name = self._api.create_repo(name, private=private, exist_ok=True, token=self.token).repo_id
            info = self._info(name)
        place = Place(name, target.private) if info is None else _place(info)
        self._note(target, place)
        return place.repo_id

    def _require_creation(self, target: Target, name: str, is_allowed: bool) -> None:
        if not target.create:
            raise NotThere(
                f"There is no repository {name} that this token can see, and with create_repo=False "
                "none is created. Create it, or push with create_repo=True."
            )
        if not is_allowed:
            raise Gone(
                f"{name} is gone: it was deleted, or this token cannot see it. It is not made again without "
                "being asked for. Create it as it is to be, or use a token that sees it, then run "
                "`hub-callbacks sync`; the next start of the training makes it, too."
            )

    def _note(self, target: Target, place: Place) -> None:
        known = self.places.get(self.hub, target.repo_id)
        before = target.repo_id if known is None else known.repo_id
        if "/" in before and before.lower() != place.repo_id.lower():
            self._news[place.repo_id] = f"{before} is called {place.repo_id} now, and pushes go there"
        elif known is not None and not known.is_deleted and _is_another(known, place):
            if known.private and place.private is False:
                raise AnotherRepository(
                    f"{before} is another repository than the private one that this run has begun with: it was "
                    "made anew, and is public. Make it private, or choose another hub_model_id."
                )
            self._news[place.repo_id] = f"{place.repo_id} was made anew since the last push, and pushes go there"
        self.places.note(self.hub, target.repo_id, place)

    def notes_on(self, target: Target, repo_id: str, private: bool | None) -> list[str]:
        """What people should know of the place that a push goes to."""
        notes = [self._news[repo_id]] if repo_id in self._news else []
        if target.private is not None and private is not None and private != target.private:
            notes.append(
                f"{repo_id} was there before and is {'private' if private else 'public'}, "
                f"although hub_private_repo is {target.private}; that is changed in the repository's settings"
            )
        return notes

    def told(self, repo_id: str) -> None:
        """What `notes_on` has said of news has reached people: it is said once."""
        self._news.pop(repo_id, None)

    def _name_of(self, target: Target) -> str:
        """With its owner: the one that it had first, else the token's user."""
        name = self.places.name_of(self.hub, target.repo_id)
        return name if "/" in name else f"{self._api.whoami(token=self.token)['name']}/{name}"

    def _info(self, repo_id: str) -> ModelInfo | None:
        """What the Hub says of a repository, its files left out; one that was renamed has its new name."""
        try:
            return self._api.model_info(repo_id, expand=["sha", "private", "createdAt"], token=self.token)
        except RepositoryNotFoundError as error:
            if status_of(error) != 404:  # 401: the token is what is wrong
                raise
            return None

    def find(self, target: Target) -> Found | None:
        """The repository, if it is there and this token can see it."""
        try:
            info = self._api.model_info(self._name_of(target), token=self.token)
        except RepositoryNotFoundError:
            return None
        assert info.created_at is not None
        files = info.siblings or []
        contents = f"{len(files)} files, the last commit {str(info.sha)[:8]}, and all its branches and tags"
        return Found(info.id, info.created_at.isoformat(), contents)

    def user(self) -> str | None:
        """Whose token it is; `None` for one that may not say."""
        try:
            return str(self._api.whoami(token=self.token)["name"])
        except HfHubHTTPError:
            return None

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
        self.places.delete(self.hub, repo_id)  # before: the answer may get lost
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
        repo_id = self.ensure(target, is_beginning=True)
        self._preupload(repo_id, target.revision, [CommitOperationAdd("README.md", b"")])
        place = self.places.get(self.hub, target.repo_id)
        return self.notes_on(target, repo_id, None if place is None else place.private)

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

    def look(self, target: Target, is_beginning: bool = False) -> Remote:
        """The state of the branch, to build a commit on; see `ensure`."""
        repo_id = self.ensure(target, is_beginning)
        revision = target.revision or "main"
        info = self._api.model_info(
            repo_id, revision=revision, expand=["sha", "private", "createdAt"], token=self.token
        )
        assert info.sha is not None
        self._note(target, _place(info))
        if info.id != repo_id:
            self.forget()
        tree = list(self._api.list_repo_tree(info.id, revision=info.sha, token=self.token))
        files = frozenset(entry.path for entry in tree if isinstance(entry, RepoFile))
        folders = frozenset(entry.path for entry in tree) - files
        return Remote(info.id, revision, info.sha, files, folders, info.private)

    def branch(self, target: Target, branch: str) -> Remote | None:
        """A branch as it is, its root not looked at; `None` when there is none.

        Args:
            target: Says which repository.
        """
        repo_id = self.ensure(target)
        try:
            head = self._api.model_info(repo_id, revision=branch, expand=["sha"], token=self.token).sha
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

        What is there already with the same content is not sent again; a file that goes to several paths is read,
        hashed and sent once.

        Args:
            files: Path in the repository → local file.

        Returns:
            What `commit` needs of them; it takes the same ones again when it has failed.
        """
        operations: dict[Path, CommitOperationAdd] = {}
        for path, file in files.items():
            if file not in operations:
                operations[file] = CommitOperationAdd(path, file)
        self._upload(remote, list(operations.values()))  # and lets go of the content of those that it uploads
        for operation in operations.values():
            if isinstance(operation.path_or_fileobj, str | Path):
                operation.path_or_fileobj = Path(operation.path_or_fileobj).read_bytes()
        return self._under_all_paths(remote, files, operations)

    def _under_all_paths(
        self, remote: Remote, files: Mapping[str, Path], operations: Mapping[Path, CommitOperationAdd]
    ) -> Uploaded:
        """What was read and sent under one path, under each path that it goes to."""
        large = {
            path
            for path, file in files.items()
            if operations[file].path_in_repo != path
            and operations[file].path_or_fileobj == b""
            and operations[file].upload_info.size
        }
        there = {}
        if large:
            found = self._api.get_paths_info(remote.repo_id, list(large), revision=remote.head, token=self.token)
            there = {file.path: file.lfs.sha256 for file in found if isinstance(file, RepoFile) and file.lfs}
        uploaded: Uploaded = []
        for path, file in files.items():
            operation = operations[file]
            if path in large:
                uploaded.append(_at(operation, path, there.get(path)))
            elif operation.path_in_repo == path:
                uploaded.append(operation)
            else:
                uploaded.append(CommitOperationAdd(path, operation.path_or_fileobj))
        return uploaded

    def _upload(self, remote: Remote, operations: Sequence[object]) -> None:
        """Sends what is new and large among the additions.

        Asked by itself, the client leaves out, without a word, what a `.gitignore` names.
        """
        additions = [operation for operation in operations if isinstance(operation, CommitOperationAdd)]
        try:
            self._preupload(remote.repo_id, remote.revision, additions)
        except OSError as error:
            if (trouble := cache_trouble()) is not None:
                raise NoCache(trouble) from error
            status = status_of_xet_token(error)
            if status not in (401, 403, 404):
                raise
            self._preupload(remote.repo_id, remote.revision, [CommitOperationAdd("README.md", b"")])  # says why
            raise NoLargeFiles(
                f"The Hub takes no large files for {remote.repo_id} with this token, though it takes others "
                f"(status {status} for the token of its storage). Use one that may write to all of it."
            ) from error

    def _preupload(self, repo_id: str, revision: str | None, additions: list[CommitOperationAdd]) -> None:
        """Asks how files have to be uploaded, which takes the right to write, and uploads the large ones."""
        self._api.preupload_lfs_files(
            repo_id, additions, revision=revision, token=self.token, gitignore_content="# nothing\n"
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


def _place(info: ModelInfo) -> Place:
    return Place(info.id, info.private, info.created_at.isoformat() if info.created_at else None)


def _is_another(known: Place, place: Place) -> bool:
    return known.created is not None and place.created not in (None, known.created)


def _at(operation: CommitOperationAdd, path: str, there: str | None) -> CommitOperationAdd:
    """What was uploaded already, under another path.

    Args:
        there: The sha256 of what is under that path, by which the client leaves out what changes nothing. It has
            no public way to say that content is there already: else it would read, hash and chunk it once more.
    """
    other = copy.copy(operation)
    other.path_in_repo = path
    other._remote_oid = there
    return other


def facts_of(uploaded: Uploaded) -> dict[str, FileFacts]:
    """Path in the repository → size and sha256 of what `Repository.upload` has sent.

    The upload has made the hashes already; what it did not have to hash is read once more here.
    """
    return {
        operation.path_in_repo: FileFacts(operation.upload_info.size, operation.upload_info.sha256.hex())
        for operation in uploaded
        if isinstance(operation, CommitOperationAdd)
    }
