"""Files of nodes that share no file system: they meet on a branch of the same repository.

    hub-callbacks-parts-<training>          the branch, one for each training; removed when that has ended
        hub-callbacks-parts/
            <step>/node-<k>/...             the files of checkpoint-<step> that exist on node k only
            lists/<step>-node-<k>.json      which they are, with size and sha256; comes in the same commit
            lists/<step>-next               the main process passes over all saves before this one

Nothing has to be alive at the same time. The main process commits a checkpoint when the lists of all nodes are
there, and takes the files over: large ones as copies on the Hub, which sends nothing, small ones by way of its
own disk.

When saves come faster than uploads, all nodes have to skip the same ones, or no checkpoint would ever be whole.
So a node sends its files in order, and only the main process passes saves over: it says so with `-next`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..checkpoints.manifest import FileFacts, facts_below
from ..outbox.push import NODE_BRANCH, NodeFiles, OtherNodes, Push, Target

if TYPE_CHECKING:
    from ..hub.repository import Remote, Repository, Uploaded

LISTS = f"{NODE_BRANCH}/lists"
LOOK_EVERY = 15.0
"""Seconds between two looks for what other nodes send, at most."""
PATIENCE = 8
"""Looks in vain after which a push that has to come in order (`hub_always_push`) lets others pass."""
_LIST = re.compile(r".*/(?P<step>\d+)-(node-(?P<node>\d+)\.json|next)")


class Awaited(Exception):
    """The files of other nodes are not there yet.

    Args:
        branch: Where they are expected.
        whole: Steps that all nodes have sent the files of.
        nodes: Numbers of the nodes that this push waits for.
    """

    def __init__(self, branch: str, whole: frozenset[int], nodes: Iterable[int]) -> None:
        names = [str(node) for node in sorted(nodes)]
        super().__init__(f"waits for the files of node{'s' if len(names) > 1 else ''} {', '.join(names)}")
        self.branch = branch
        self.whole = whole


class DamagedNodeFiles(Exception):
    """What lies on the branch is not what a node's list says."""


@dataclass(frozen=True)
class Arrived:
    """What is on the branch.

    Args:
        remote: The branch at one commit; `None` while there is none.
        nodes: Step → numbers of the nodes whose files are there.
        next: No save before this step is waited for any more.
    """

    remote: Remote | None = None
    nodes: dict[int, set[int]] = field(default_factory=dict)
    next: int = 0


@dataclass(frozen=True)
class _Ahead:
    """A push whose own files were sent, and how they are committed on top of `head`."""

    push: str
    head: str
    uploaded: Uploaded


@dataclass
class NodeWaits:
    """What a pusher remembers of checkpoints that wait for other nodes.

    Attributes:
        skipped: Branches of which a save was passed over, and the nodes have not been told.
    """

    skipped: set[str] = field(default_factory=set)
    _whole: dict[str, frozenset[int]] = field(default_factory=dict)
    _looks: Counter[str] = field(default_factory=Counter)
    _ahead: dict[str, _Ahead] = field(default_factory=dict)

    def order(self, push: Push) -> tuple[int, int, bool]:
        """First comes what need not wait, then the branch looked at least; on it, what was sent ahead."""
        others = push.others
        if others is None or push.step in self._whole.get(others.branch, ()):
            return 0, 0, False
        return 1, self._looks[others.branch], push.id not in self.held

    def may_be_passed(self, push: Push) -> bool:
        """Whether what it waits for has not come for so long that even pushes in order go on without it."""
        return push.others is not None and self._looks[push.others.branch] > PATIENCE

    def looked(self, found: Awaited) -> None:
        """Notes what was found on a branch."""
        is_news = found.whole != self._whole.get(found.branch)
        self._looks[found.branch] = 1 if is_news else self._looks[found.branch] + 1
        self._whole[found.branch] = found.whole

    @property
    def held(self) -> frozenset[str]:
        """Numbers of the pushes whose own files were sent."""
        return frozenset(ahead.push for ahead in self._ahead.values())

    def has_sent_ahead(self, branch: str) -> bool:
        """Whether the own files of a push were sent ahead of those of others: of one at a time they are."""
        return branch in self._ahead

    def keep(self, push: Push, remote: Remote, uploaded: Uploaded) -> None:
        """Remembers what was sent ahead, so that it is not read and hashed again."""
        assert push.others is not None
        self._ahead[push.others.branch] = _Ahead(push.id, remote.head, uploaded)

    def kept(self, push: Push, remote: Remote, paths: Iterable[str]) -> Uploaded | None:
        """What was sent ahead of a push; `None` when there is not all of it, or the branch has moved."""
        ahead = self._ahead.get(push.others.branch) if push.others else None
        if ahead is None or ahead.push != push.id or ahead.head != remote.head:
            return None
        wanted = set(paths)
        found = [operation for operation in ahead.uploaded if operation.path_in_repo in wanted]
        return found if len(found) == len(wanted) else None

    def leave(self, push_id: str) -> None:
        """A push is not waited for any more."""
        self._ahead = {branch: ahead for branch, ahead in self._ahead.items() if ahead.push != push_id}


def look(target: Target, step: int, others: OtherNodes, repository: Repository) -> Arrived:
    """What is on the branch where the other nodes put their files.

    Raises:
        Awaited: when those of this step are not all there.
    """
    remote = repository.branch(target, others.branch)
    arrived = Arrived() if remote is None else arrived_at(remote, repository)
    nodes = set(others.nodes)
    absent = nodes - arrived.nodes.get(step, set())
    if absent:
        whole = frozenset(step for step, there in arrived.nodes.items() if there >= nodes)
        raise Awaited(others.branch, whole, absent)
    return arrived


def arrived_at(remote: Remote, repository: Repository) -> Arrived:
    """What is on a branch where parts meet."""
    nodes: dict[int, set[int]] = {}
    following = 0
    for path in repository.files_below(remote, LISTS):
        found = _LIST.fullmatch(path)
        if found and found["node"]:
            nodes.setdefault(int(found["step"]), set()).add(int(found["node"]))
        elif found:
            following = max(following, int(found["step"]))
    return Arrived(remote, nodes, following)


def pass_over_earlier(target: Target, step: int, branch: str, repository: Repository) -> None:
    """Tells the nodes that no save before this one is waited for."""
    remote = repository.open_branch(target, branch)
    note = {f"{LISTS}/{step}-next": f"{step}\n".encode()}
    repository.add(remote, [], note, f"The next checkpoint is that of step {step}")


def list_of(push: Push, content: NodeFiles, sent: dict[str, FileFacts]) -> dict[str, bytes]:
    """The list that goes with a node's files: path in the repository → content."""
    below = facts_below(content.part.prefix, sent)
    files = {path: asdict(facts) for path, facts in sorted(below.items())}
    step, node = content.step, content.node
    text = json.dumps({"step": step, "node": node, "run": push.run_id, "files": files}, indent=1)
    return {f"{LISTS}/{step}-node-{node}.json": f"{text}\n".encode()}


def take_over(push: Push, arrived: Arrived, repository: Repository) -> tuple[Uploaded, dict[str, FileFacts]]:
    """What other nodes have sent for a save, to be committed with the main process's own files.

    A file that the main process has by the same name is its own.

    Returns:
        The operations of the commit, and for each path in the repository what the file is.

    Raises:
        DamagedNodeFiles: when a file is not as its node's list says.
    """
    part = next(part for part in push.parts if part.others)
    assert part.others is not None and arrived.remote is not None
    operations: Uploaded = []
    facts: dict[str, FileFacts] = {}
    for node in part.others.nodes:
        folder = f"{NODE_BRANCH}/{push.step}/node-{node}"
        text = repository.read_bytes(arrived.remote, f"{LISTS}/{push.step}-node-{node}.json")
        there = repository.files_below(arrived.remote, folder)
        for name, wanted in _files_in(text, node):
            path, source = f"{part.prefix}/{name}", f"{folder}/{name}"
            if path in part.files or path in facts:
                continue
            if there.get(source) is not None:
                is_right = there[source] == wanted
                operations.append(repository.copy_of(arrived.remote, source, path))
            else:
                content = repository.read_bytes(arrived.remote, source)
                is_right = hashlib.sha256(content).hexdigest() == wanted.sha256
                operations.append(repository.addition(path, content))
            if not is_right:
                raise DamagedNodeFiles(
                    f"{source} on branch {part.others.branch} is not the file that node {node} has listed"
                )
            facts[path] = wanted
    return operations, facts


def _files_in(text: bytes, node: int) -> Iterable[tuple[str, FileFacts]]:
    try:
        files: dict[str, Any] = json.loads(text)["files"]
        found = [(name, FileFacts(int(f["size"]), str(f["sha256"]))) for name, f in files.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedNodeFiles(f"the list of node {node} cannot be read: {error!r}") from None
    for name, _ in found:
        if name.startswith("/") or ".." in name.split("/"):
            raise DamagedNodeFiles(f"the list of node {node} names a file outside of the checkpoint: {name!r}")
    return found
