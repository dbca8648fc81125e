"""Who may do what: a table with a row for every route, and a walk of every kind of visitor along all of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import LocalHub
from hub_callbacks.localhub.routes import ROUTES, find_route
from hub_callbacks.localhub.web import Route

from .raw_http import raw

MARK = "what only readers may see"

NOBODY = "nobody"
STRANGER = "stranger"
READ_TOKEN = "the owner's read token"
READS = "member who reads"
WRITES = "member who writes"
ADMIN = "admin"
OWNER = "owner"
VISITORS = (NOBODY, STRANGER, READ_TOKEN, READS, WRITES, ADMIN, OWNER)
VISIBILITIES = ("public", "gated", "private")

Who = frozenset[str]
NO_ONE: Who = frozenset()
ALL = frozenset(VISITORS)
SIGNED_IN = ALL - {NOBODY}
READERS = SIGNED_IN - {STRANGER}
WRITERS = frozenset({WRITES, ADMIN, OWNER})
WITH_WRITE_TOKEN = SIGNED_IN - {READ_TOKEN}

# Who may, where the repository is public, gated, private.
May = tuple[Who, Who, Who]
ALWAYS: May = (ALL, ALL, ALL)
USERS: May = (SIGNED_IN, SIGNED_IN, SIGNED_IN)
NEVER: May = (NO_ONE, NO_ONE, NO_ONE)
FACTS: May = (ALL, ALL, READERS)
FILES: May = (ALL, READERS, READERS)
TALK: May = (WITH_WRITE_TOKEN, WITH_WRITE_TOKEN, WITH_WRITE_TOKEN & READERS)
PROPOSE: May = (WITH_WRITE_TOKEN, WITH_WRITE_TOKEN & READERS, WITH_WRITE_TOKEN & READERS)
WRITE: May = (WRITERS, WRITERS, WRITERS)


@dataclass(frozen=True)
class Ask:
    """A request; `path` may hold `{repo}`, `{owner}` and `{api}`."""

    method: str
    path: str
    json: Any = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What is asked, and who may.

    Args:
        ask: The request, or what leads to it; a refusal on the way is one.
        may: Who may.
        shows: Whether the answer of a list counts only if it names the repository.
    """

    ask: Ask | Callable[[Visit], Any]
    may: May
    shows: bool = False


@dataclass(frozen=True)
class Visit:
    """One visitor at one repository."""

    hub: LocalHub
    token: str | None
    user: str
    repo: str
    owner_token: str
    sha256: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def own_repo(self) -> str:
        return f"{self.user}/own"

    def send(self, ask: Ask) -> Any:
        url = ask.path if ask.path.startswith("http") else self.hub.endpoint + self.fill(ask.path)
        options: dict[str, Any] = raw(ask.body) if ask.body is not None else {}
        if ask.json is not None:
            options = {"json": json.loads(json.dumps(ask.json).replace("{repo}", self.repo))}
        return get_session().request(ask.method, url, headers=self.headers | ask.headers, **options)

    def fill(self, path: str) -> str:
        return (
            path.replace("{api}", f"/api/models/{self.repo}")
            .replace("{repo}", self.repo)
            .replace("{owner}", self.repo.split("/")[0])
        )


def commit_lines(*items: tuple[str, dict[str, Any]]) -> bytes:
    lines = [{"key": key, "value": value} for key, value in (("header", {"summary": "x"}), *items)]
    return "\n".join(map(json.dumps, lines)).encode()


NOTHING_TO_DELETE = commit_lines(("deletedFile", {"path": "none"}))


def batch(visit: Visit, repo: str, operation: str, sha256: str, size: int, transfers: list[str]) -> Any:
    objects = [{"oid": sha256, "size": size}]
    wanted = {"operation": operation, "objects": objects, "transfers": transfers}
    return visit.send(Ask("POST", f"/{repo}.git/info/lfs/objects/batch", wanted))


def link(action: str, operation: str = "upload") -> Callable[[Visit], Any]:
    """The address of an LFS action, as the visitor gets it."""

    def follow(visit: Visit) -> Any:
        content = os.urandom(20)
        sha256, size = (visit.sha256, 0) if operation == "download" else (digest(content), len(content))
        answer = batch(visit, visit.repo, operation, sha256, size, ["basic"])
        if answer.status_code != 200:
            return answer
        actions = answer.json()["objects"][0]["actions"]
        if operation == "download":
            return Ask("GET", actions["download"]["href"])
        upload = Ask("PUT", actions["upload"]["href"], body=content)
        if action == "complete":
            return Ask("POST", upload.path.replace("?", "/complete?"))
        if action == "verify":
            visit.send(upload)
            return Ask("POST", actions["verify"]["href"], {"oid": sha256, "size": size})
        return upload

    return follow


def part(visit: Visit) -> Any:
    ask = link("upload")(visit)
    return Ask("PUT", ask.path.replace("?", "/parts/1?"), body=b"x") if isinstance(ask, Ask) else ask


def xet(
    path: str, access: str, of_own: bool = False, service: str | None = None, body: bytes | None = None
) -> Callable[[Visit], Any]:
    """A call of the Xet service with the visitor's token for the repository, or for one of their own."""

    def follow(visit: Visit) -> Any:
        repo = visit.own_repo if of_own else visit.repo
        answer = visit.send(Ask("GET", f"/api/models/{repo}/xet-{access}-token/main?create_pr=1"))
        if answer.status_code != 200:
            return answer
        found = answer.json()
        base = f"{visit.hub.endpoint}/xet/{service}" if service else found["casUrl"]
        place = base + path.replace("{hash}", xet_hash(visit))
        headers = {"Authorization": f"Bearer {found['accessToken']}"}
        return Ask("GET" if body is None else "POST", place, body=body, headers=headers)

    return follow


def xet_hash(visit: Visit) -> str:
    """As trees say it, also of gated repositories."""
    asking = {"Authorization": f"Bearer {visit.owner_token}"}
    answer = get_session().get(f"{visit.hub.endpoint}/api/models/{visit.repo}/tree/main", headers=asking)
    return str(next(row["xetHash"] for row in answer.json() if row["path"] == "w.bin"))


def xorb(visit: Visit) -> Any:
    ask = xet("/v1/reconstructions/{hash}", "read")(visit)
    answer = visit.send(ask) if isinstance(ask, Ask) else ask
    if answer.status_code != 200:
        return answer
    fetch = next(iter(answer.json()["fetch_info"].values()))[0]
    wanted = fetch["url_range"]
    return Ask("GET", fetch["url"], headers={"Range": f"bytes={wanted['start']}-{wanted['end']}"})


def doomed(visit: Visit) -> Ask:
    """A repository like the visit's, to be deleted."""
    owner, name = visit.repo.split("/")
    asking = {"Authorization": f"Bearer {visit.owner_token}"}
    wanted = {"name": f"{name}-doomed", "organization": owner, "private": name == "private"}
    get_session().post(f"{visit.hub.endpoint}/api/repos/create", headers=asking, json=wanted)
    return Ask("DELETE", "/api/repos/delete", {"name": f"{name}-doomed", "organization": owner})


def duplicate(visit: Visit) -> Ask:
    wanted = {"target": {"type": "model", "name": visit.own_repo}, "files": [{"sha256": visit.sha256}]}
    return Ask("POST", "{api}/lfs-files/duplicate", wanted)


HASH = "0" * 64
FORGED = "?size=3&upload=x&user=&expiry=99999999999&signature=00"
CLONE = "info/refs?service=git-upload-pack"

# What is asked for is not possible where it would change something: then whoever may gets 400 or 404 for that.
TABLE = (
    Row(Ask("GET", "/api/whoami-v2"), USERS),
    Row(Ask("GET", "/api/users/local/overview"), ALWAYS),
    Row(Ask("GET", "/api/organizations/team-of-rights/overview"), ALWAYS),
    Row(Ask("GET", "/api/organizations/team-of-rights/members"), ALWAYS),
    Row(Ask("POST", "/api/validate-yaml", {"content": "---\nlicense: mit\n---\n", "repoType": "model"}), ALWAYS),
    Row(lambda visit: Ask("POST", "/api/repos/create", create(visit)), WRITE),
    Row(doomed, WRITE),
    Row(Ask("POST", "/api/repos/move", {"fromRepo": "{repo}", "toRepo": "none"}), WRITE),
    Row(Ask("GET", "/api/models?author={owner}"), FACTS, shows=True),
    Row(Ask("POST", "{api}/preupload/main", {"files": []}), WRITE),
    Row(Ask("POST", "{api}/preupload/main?create_pr=1", {"files": []}), PROPOSE),
    Row(Ask("POST", "{api}/commit/main", body=NOTHING_TO_DELETE), WRITE),
    Row(Ask("POST", "{api}/commit/main?create_pr=1", body=NOTHING_TO_DELETE), PROPOSE),
    Row(Ask("POST", "{api}/commit/refs%2Fpr%2F1", body=NOTHING_TO_DELETE), WRITE),
    Row(Ask("GET", "{api}/xet-read-token/main"), FILES),
    Row(Ask("GET", "{api}/xet-write-token/main"), WRITE),
    Row(Ask("GET", "{api}/xet-write-token/main?create_pr=1"), PROPOSE),
    Row(Ask("POST", "/{repo}.git/info/lfs/objects/batch", {"operation": "download", "objects": []}), FILES),
    Row(Ask("POST", "/{repo}.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}), PROPOSE),
    Row(link("upload"), PROPOSE),
    Row(Ask("PUT", f"/lfs/{HASH}{FORGED}", body=b"abc"), NEVER),
    Row(part, PROPOSE),
    Row(Ask("PUT", f"/lfs/{HASH}/parts/1{FORGED}", body=b"abc"), NEVER),
    Row(link("download", "download"), FILES),
    Row(Ask("GET", f"/lfs/{HASH}{FORGED}"), NEVER),
    Row(link("complete"), PROPOSE),
    Row(Ask("POST", f"/lfs/{HASH}/complete{FORGED}"), NEVER),
    Row(link("verify"), PROPOSE),
    Row(lambda visit: Ask("POST", f"/lfs/{visit.sha256}/verify", {"oid": visit.sha256}), NEVER),
    Row(duplicate, PROPOSE),
    Row(xet(f"/v1/xorbs/default/{HASH}", "write", body=b""), PROPOSE),
    Row(xet(f"/v1/xorbs/default/{HASH}", "read", body=b""), NEVER),
    Row(Ask("POST", f"/xet/any/v1/xorbs/default/{HASH}", body=b""), NEVER),
    Row(xet("/v1/shards", "write", body=b""), PROPOSE),
    Row(xet("/v1/shards", "read", body=b""), NEVER),
    Row(xet("/v1/reconstructions/{hash}", "read"), FILES),
    Row(xet("/v1/reconstructions/{hash}", "write"), PROPOSE),
    Row(xet("/v1/reconstructions/{hash}", "read", of_own=True), NEVER),
    Row(xet("/v1/reconstructions/{hash}", "read", service="own"), NEVER),
    Row(xorb, FILES),
    Row(lambda visit: Ask("GET", xorb_address(visit)), NEVER),
    Row(Ask("GET", "/{repo}/resolve/main/notes.txt"), FILES),
    Row(Ask("GET", "/{repo}/resolve/main/w.bin"), FILES),
    Row(Ask("GET", "/{repo}/raw/refs%2Fpr%2F1/notes.txt"), FILES),
    Row(Ask("GET", "{api}/tree/main"), FACTS),
    Row(Ask("POST", "{api}/paths-info/main", {"paths": ["notes.txt", "w.bin"]}), FACTS),
    Row(Ask("GET", "{api}/commits/main"), FACTS),
    Row(Ask("GET", "{api}/refs"), FACTS),
    Row(Ask("POST", "{api}/branch/a..b"), WRITE),
    Row(Ask("DELETE", "{api}/branch/none"), WRITE),
    Row(Ask("POST", "{api}/tag/main", {"tag": "a..b"}), WRITE),
    Row(Ask("DELETE", "{api}/tag/none"), WRITE),
    Row(Ask("POST", "{api}/super-squash/none"), WRITE),
    Row(Ask("GET", "{api}/lfs-files"), WRITE),
    Row(Ask("POST", "{api}/lfs-files/batch", {"deletions": "none"}), WRITE),
    Row(Ask("POST", "{api}/discussions", {"title": "x"}), TALK),
    Row(Ask("POST", "{api}/discussions", {"title": "x", "pullRequest": True}), PROPOSE),
    Row(Ask("GET", "{api}/discussions"), FACTS),
    Row(Ask("GET", "{api}/discussions/1"), FACTS),
    Row(Ask("GET", "{api}/discussions/1?diff=1"), FILES),
    Row(Ask("GET", "{api}/discussions/2?diff=1"), FACTS),
    Row(Ask("POST", "{api}/discussions/2/merge"), WRITE),
    Row(Ask("POST", "{api}/discussions/2/comment", {"comment": "x"}), TALK),
    Row(Ask("POST", "{api}/discussions/2/status", {"status": "none"}), WRITE),
    Row(Ask("PUT", "{api}/settings", {"gated": "none"}), WRITE),
    Row(Ask("GET", "{api}/auth-check"), FILES),
    Row(Ask("GET", "{api}/auth-check/write"), WRITE),
    Row(Ask("GET", "{api}/revision/main"), FACTS),
    Row(Ask("GET", "{api}"), FACTS),
    Row(Ask("GET", "/{repo}.git/" + CLONE), FILES),
    Row(Ask("GET", "/{repo}/" + CLONE), FILES),
    Row(Ask("POST", "/{repo}.git/git-upload-pack", body=b"0000"), FILES),
    Row(Ask("POST", "/{repo}/git-upload-pack", body=b"0000"), FILES),
    Row(Ask("GET", "/"), FACTS, shows=True),
    Row(Ask("GET", "/-/style.css"), ALWAYS),
    Row(Ask("GET", "/-/sign-in"), USERS),
    Row(Ask("GET", "/{repo}/tree/main"), FACTS),
    Row(Ask("GET", "/{repo}/blob/main/notes.txt"), FILES),
    Row(Ask("GET", "/{repo}/commits/main"), FACTS),
    Row(Ask("GET", "/{repo}/commit/main"), FILES),
    Row(Ask("GET", "/{repo}/discussions/1"), FACTS),
    Row(Ask("GET", "/{repo}"), FACTS),
    Row(Ask("GET", "/{owner}"), FACTS, shows=True),
)


def create(visit: Visit) -> dict[str, str]:
    return {"name": "not--possible", "organization": visit.repo.split("/")[0]}


def xorb_address(visit: Visit) -> str:
    """The address of the bytes without the right to them."""
    asking = Visit(**{**vars(visit), "token": visit.owner_token})
    return str(xorb(asking).path).partition("?")[0]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class World:
    """Users, an organisation, and repositories of both in each visibility."""

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        users = {name: name.replace(" ", "-") for name in (STRANGER, READS, WRITES, ADMIN, OWNER)}
        self.tokens: dict[str, str | None] = {name: hub.add_user(user) for name, user in users.items()}
        self.tokens |= {NOBODY: None, READ_TOKEN: hub.add_token(users[OWNER], "read")}
        self.users = users | {NOBODY: users[STRANGER], READ_TOKEN: users[OWNER]}
        hub.add_organization(
            "team-of-rights", {users[ADMIN]: "admin", users[WRITES]: "write", users[READS]: "read"}
        )
        self.sha256s: dict[str, str] = {}
        for name in users:
            self.api(name).create_repo("own")
        for visibility in VISIBILITIES:
            self.fill(OWNER, f"{users[OWNER]}/{visibility}", visibility)
            self.fill(ADMIN, f"team-of-rights/{visibility}", visibility)

    def api(self, visitor: str) -> HfApi:
        return HfApi(endpoint=self.hub.endpoint, token=self.tokens[visitor] or False)

    def fill(self, visitor: str, repo: str, visibility: str) -> None:
        api = self.api(visitor)
        api.create_repo(repo, private=visibility == "private")
        weights = f"{MARK} in {repo}".encode() * 20
        self.sha256s[repo] = digest(weights)
        files = {"notes.txt": MARK.encode(), "README.md": b"# Card", "w.bin": weights}
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        api.create_commit(repo, operations, commit_message="files")
        change = [CommitOperationAdd("notes.txt", f"{MARK}, changed".encode())]
        api.create_commit(repo, change, commit_message="change", create_pr=True)
        api.create_discussion(repo, "A question")
        if visibility == "gated":
            api.update_repo_settings(repo, gated="manual")

    def visit(self, visitor: str, visibility: str) -> Visit:
        of_owner = visitor in (OWNER, READ_TOKEN)
        repo = f"{self.users[OWNER] if of_owner else 'team-of-rights'}/{visibility}"
        owner_token = self.tokens[OWNER if of_owner else ADMIN]
        assert owner_token is not None
        return Visit(self.hub, self.tokens[visitor], self.users[visitor], repo, owner_token, self.sha256s[repo])


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with LocalHub() as hub:
        yield World(hub)


def route_of(visit: Visit, ask: Ask) -> Route:
    path = visit.fill(ask.path).removeprefix(visit.hub.endpoint).partition("?")[0]
    found = find_route(ask.method, path)
    assert found is not None, ask.path
    return found[0]


def is_refused(answer: Any) -> bool:
    assert answer.status_code < 500, answer.text
    missing = answer.headers.get("X-Error-Code") in ("RevisionNotFound", "EntryNotFound")
    return answer.status_code in (401, 403) or (answer.status_code == 404 and not missing)


def test_every_route_has_a_row(world: World) -> None:
    visit = world.visit(OWNER, "public")
    asks = [row.ask(visit) if callable(row.ask) else row.ask for row in TABLE]
    walked = {route_of(visit, ask) for ask in asks}
    assert [entry.pattern.pattern for entry in ROUTES if entry not in walked] == []


@pytest.mark.parametrize("visibility", VISIBILITIES)
@pytest.mark.parametrize("visitor", VISITORS)
def test_each_visitor_may_what_the_table_says_and_nothing_else(
    world: World, visitor: str, visibility: str
) -> None:
    visit = world.visit(visitor, visibility)
    number = VISIBILITIES.index(visibility)
    wrong = []
    for row in TABLE:
        ask = row.ask(visit) if callable(row.ask) else row.ask
        answers = [ask]
        if isinstance(ask, Ask):
            also_head = ask.method == "GET" and "HEAD" in route_of(visit, ask).methods and not row.shows
            methods = ["GET", "HEAD"] if also_head else [ask.method]
            answers = [visit.send(Ask(method, ask.path, ask.json, ask.body, ask.headers)) for method in methods]
        for answer in answers:
            may = not is_refused(answer) and (not row.shows or visit.repo in answer.text)
            if may != (visitor in row.may[number]):
                wrong.append((answer.request.method, str(answer.request.url), answer.status_code))
            if visitor not in FILES[number]:
                assert MARK.encode() not in answer.content, answer.request.url
    assert wrong == []
