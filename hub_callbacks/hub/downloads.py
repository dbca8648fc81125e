"""Reading checkpoints from the Hub: which there are, their manifests, and fetching one.

It runs in the training process too, before training, and leaves its HTTP client as it is.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tenacity
from huggingface_hub import HfApi, ModelInfo, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm
from tqdm.contrib.concurrent import thread_map

from ..checkpoints import manifest as checkpoint_manifest
from ..checkpoints.files import LAST_CHECKPOINT, checkpoint_step
from ..checkpoints.manifest import CheckpointManifest, FileFacts, sha256_of
from ..errors import ResumeError
from .errors import answered, is_transient

T = TypeVar("T")
ANSWER_WITHIN = 30.0
"""Seconds that the Hub has for the first answer."""
WORKERS = 8
"""Files that are downloaded at a time."""
TRIES = 6
"""Attempts before a download or a question counts as failed; a download goes on where it stopped."""
LONGEST_WAIT = 30.0  # seconds between two of them
HISTORY = 100
"""Commits that are looked through for an older `last-checkpoint`."""


@dataclass(frozen=True)
class HubCheckpoint:
    """A checkpoint folder at one commit.

    Args:
        step: What its name or manifest says.
        folder: Its name in the repository.
        commit: Identifier of the commit.
    """

    step: int
    repo_id: str
    folder: str
    commit: str

    def __str__(self) -> str:
        return f"{self.folder} (step {self.step}) of {self.repo_id} at {self.commit[:8]}"


class Damaged(Exception):
    """A checkpoint on the Hub is not what its manifest says, or has none."""


class Downloads:
    """
    Args:
        repo_id: `"owner/name"`, or `"name"` for a repository of the token's user.
        given_token: The token that the user set; `None` leaves it to huggingface_hub.

    Attributes:
        passed_over: What was found and cannot be trusted, in words.
        missing: Why there was nothing to look at, in words: no such repository or revision.
    """

    def __init__(self, repo_id: str, given_token: str | None = None) -> None:
        self._given_token = given_token
        self._api = HfApi(library_name="hub_callbacks")
        self._repo_id = repo_id
        self.passed_over: list[str] = []
        self.missing: str | None = None
        self._manifests: dict[HubCheckpoint, CheckpointManifest] = {}

    @property
    def _token(self) -> str | None:
        return self._given_token or get_token()

    @property
    def repo_id(self) -> str:
        """With its owner."""
        if "/" not in self._repo_id:
            user = _asking(lambda: self._api.whoami(token=self._token))
            self._repo_id = f"{user['name']}/{self._repo_id}"
        return self._repo_id

    def checkpoints(self, revision: str | None = None) -> Iterator[HubCheckpoint]:
        """The checkpoints at a branch, tag or commit, newest first, then older ones of the branch's history.

        Args:
            revision: `None` is `main`. With `{step}` in it, all branches that have a number there, the
                highest first.

        Returns:
            Nothing, where there is no such repository or revision yet; `missing` says so.
        """
        names = [revision]
        try:
            if revision and "{step}" in revision:
                names = list(self._branches(revision))
                if not names:
                    self.missing = f"{self.repo_id} has no branch with a name like {revision!r}"
            for name in names:
                yield from self._at(name)
        except RevisionNotFoundError:
            self.missing = f"{self.repo_id} has no branch, tag or commit {revision or 'main'!r}"
        except RepositoryNotFoundError:
            self.missing = f"there is no repository {self.repo_id}, or the token has no right to read it"

    def _branches(self, template: str) -> list[str]:
        before, _, after = template.partition("{step}")
        pattern = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
        self._info(None)
        branches = _asking(lambda: self._api.list_repo_refs(self.repo_id, token=self._token)).branches
        matches = [match for branch in branches if (match := pattern.fullmatch(branch.name))]
        return [match[0] for match in sorted(matches, key=lambda match: int(match[1]), reverse=True)]

    def _info(self, revision: str | None) -> ModelInfo:
        return _asking(
            lambda: self._api.model_info(self.repo_id, revision=revision, timeout=ANSWER_WITHIN, token=self._token)
        )

    def _at(self, revision: str | None) -> Iterator[HubCheckpoint]:
        info = self._info(revision)
        assert info.sha is not None
        names = {file.rfilename.partition("/")[0] for file in info.siblings or () if "/" in file.rfilename}
        found = [
            HubCheckpoint(step, self.repo_id, name, info.sha)
            for name in names
            if (step := checkpoint_step(name)) is not None
        ]
        if LAST_CHECKPOINT in names:
            try:
                found.append(self._last_checkpoint(info.sha))
            except Damaged as error:
                self.passed_over.append(f"{LAST_CHECKPOINT} of {self.repo_id} at {info.sha[:8]}: {error}")
        yield from sorted(found, key=lambda checkpoint: checkpoint.step, reverse=True)
        if LAST_CHECKPOINT in names:
            yield from self.older(info.sha)

    def older(self, commit: str, step: int | None = None) -> Iterator[HubCheckpoint]:
        """What `last-checkpoint` was before a commit, newest first; looks back `HISTORY` commits.

        Args:
            step: One that is looked for: commits whose title names it come first, however far back.
        """
        seen: set[int] = set()
        history = _asking(lambda: self._api.list_repo_commits(self.repo_id, revision=commit, token=self._token))
        titled = [known for known in history if step is not None and known.title.endswith(f"step {step}")]
        for known in titled + history[:HISTORY]:
            try:
                found = self._last_checkpoint(known.commit_id)
            except Damaged:
                continue
            if found.step not in seen and known.commit_id != commit:
                yield found
            seen.add(found.step)

    def _last_checkpoint(self, commit: str) -> HubCheckpoint:
        manifest = self._read_manifest(LAST_CHECKPOINT, commit)
        found = HubCheckpoint(manifest.step, self.repo_id, LAST_CHECKPOINT, commit)
        self._manifests[found] = manifest
        return found

    def manifest(self, checkpoint: HubCheckpoint) -> CheckpointManifest:
        """
        Raises:
            Damaged: when there is none that can be read.
            ResumeError: when it could not be downloaded.
        """
        if checkpoint not in self._manifests:
            found = self._read_manifest(checkpoint.folder, checkpoint.commit)
            if found.step != checkpoint.step:
                raise Damaged(f"its {checkpoint_manifest.NAME} is that of step {found.step}")
            self._manifests[checkpoint] = found
        return self._manifests[checkpoint]

    def _read_manifest(self, folder: str, commit: str) -> CheckpointManifest:
        with tempfile.TemporaryDirectory() as cache:
            try:
                file = self._download(f"{folder}/{checkpoint_manifest.NAME}", commit, cache_dir=cache)
                return checkpoint_manifest.load(file.read_bytes())
            except EntryNotFoundError:
                why = f"it has no {checkpoint_manifest.NAME}, so nothing says whether it is complete"
                raise Damaged(why) from None
            except ValueError as error:
                raise Damaged(str(error)) from None
            except Exception as error:
                raise ResumeError(
                    f"{folder} of {self.repo_id} is there, and its {checkpoint_manifest.NAME} could not be "
                    f"downloaded ({type(error).__name__}: {error}). Nothing is lost: start again when the Hub can "
                    "be reached."
                ) from error

    def fetch(self, checkpoint: HubCheckpoint, into: Path) -> Path:
        """Downloads the files that the manifest names, with a progress bar, and compares them with it.

        Args:
            into: Folder that may hold a part of them from an earlier attempt.

        Returns:
            The folder with the files.

        Raises:
            Damaged: when one is missing on the Hub or is not what the manifest says.
        """

        def fetch_one(named: tuple[str, FileFacts]) -> None:
            name, facts = named
            try:
                file = self._download(f"{checkpoint.folder}/{name}", checkpoint.commit, local_dir=into)
            except EntryNotFoundError:
                raise Damaged(f"{name} is missing") from None
            if file.stat().st_size != facts.size:
                raise Damaged(f"{name} has {file.stat().st_size:,} bytes in place of {facts.size:,}")
            if sha256_of(file) != facts.sha256:
                raise Damaged(f"{name} does not have the content that {checkpoint_manifest.NAME} names")

        thread_map(
            fetch_one,
            self.manifest(checkpoint).files.items(),
            max_workers=WORKERS,
            desc=f"Fetching {checkpoint.folder} (step {checkpoint.step})",
            tqdm_class=tqdm,
        )
        return into / checkpoint.folder

    def _download(
        self, path: str, commit: str, cache_dir: str | None = None, local_dir: Path | None = None
    ) -> Path:
        """Another attempt where one can work; a missing file is an answer, and no network is none."""

        def download() -> str:
            return hf_hub_download(
                self.repo_id,
                path,
                revision=commit,
                cache_dir=cache_dir,
                local_dir=local_dir,
                token=self._token,
                library_name="hub_callbacks",
            )

        try:
            return Path(_attempts(_can_be_downloaded_later)(download))
        except LocalEntryNotFoundError as error:  # it is an EntryNotFoundError, too
            raise ConnectionError(str(error)) from error


def _can_be_downloaded_later(error: Exception) -> bool:
    """The client says `LocalEntryNotFoundError` for all that keeps it from asking, a refusal among it."""
    answer = answered(error)
    return is_transient(answer) if answer else isinstance(error, LocalEntryNotFoundError) or is_transient(error)


def _asking(call: Callable[[], T]) -> T:
    """Another attempt where the Hub has answered, and one can work. Without a network nobody waits for one."""
    return _attempts(lambda error: getattr(error, "response", None) is not None and is_transient(error))(call)


def _attempts(is_worth_it: Callable[[Exception], bool]) -> tenacity.Retrying:
    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_random_exponential(multiplier=1, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Exception) and is_worth_it(error)),
        reraise=True,
    )
