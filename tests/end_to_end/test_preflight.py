"""What is wrong with the repository is said before the first save."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi

from hub_callbacks.outbox.ledger import DONE, REFUSED
from hub_callbacks.settings import resolve
from hub_callbacks.training.engine import Engine


def start(tmp_path, **keywords) -> Engine:
    sync = Engine(resolve(overrides={"output_dir": tmp_path / "run", **keywords}))
    sync.start()
    return sync


def outcome(sync: Engine, timeout: float = 60):
    """What became of the creation of the repository, which is the only push here."""
    import time

    until = time.monotonic() + timeout
    while time.monotonic() < until:
        entry = sync.outbox.ledger.latest().get("000001")
        if entry is not None and entry.state in (DONE, REFUSED):
            sync.close()
            return entry
        time.sleep(0.05)
    raise AssertionError("nothing came of it")


def test_a_repository_that_one_may_not_write_to(hub, repo, tmp_path):
    stranger = "s" + str(abs(hash(repo)))[:10]
    HfApi(token=hub.add_user(stranger)).create_repo(f"{stranger}/theirs")
    entry = outcome(start(tmp_path, hub_model_id=f"{stranger}/theirs"))
    assert entry.state == REFUSED and "write rights" in entry.why


def test_a_read_token(hub, repo, tmp_path):
    HfApi(token=hub.token).create_repo(f"local/{repo}")
    entry = outcome(start(tmp_path, hub_model_id=f"local/{repo}", hub_token=hub.add_token("local", "read")))
    assert entry.state == REFUSED and "write rights" in entry.why


def test_no_token(hub, repo, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    entry = outcome(start(tmp_path, hub_model_id=repo))
    assert entry.state == REFUSED and "hf auth login" in entry.why


@pytest.mark.parametrize(("there", "wanted", "said"), [(False, True, "is public"), (True, False, "is private")])
def test_a_repository_that_was_there_with_another_visibility(api, hub, repo, tmp_path, there, wanted, said):
    api.create_repo(f"local/{repo}", private=there)
    entry = outcome(start(tmp_path, hub_model_id=f"local/{repo}", hub_private_repo=wanted))
    assert entry.state == DONE and said in " ".join(entry.notes)


def test_nothing_to_say_and_nothing_in_the_repository(api, hub, repo, tmp_path):
    entry = outcome(start(tmp_path, hub_model_id=repo, hub_private_repo=True))
    assert entry.state == DONE and not entry.notes and entry.repo_id == f"local/{repo}"
    assert api.list_repo_files(f"local/{repo}") == [".gitattributes"]
