"""No secret leaves: not in files, not by names, not in logs, ledger, outbox or reprs."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hub_callbacks.localhub import Answer, Fault
from hub_callbacks.outbox import ledger
from hub_callbacks.outbox.control import Orders
from hub_callbacks.outbox.queue import Outbox
from hub_callbacks.pushing.redaction import SCAN_BELOW, hide, secret_in
from hub_callbacks.training.plan import plan_save
from hub_callbacks.training.training_args import has_token, without_tokens
from models import arguments
from runs import digests, on_hub, train
from savers import CARD, Run

HF = "hf_" + "aB3" * 12
SECRETS = {
    "a Hugging Face token": f"token: {HF}",
    "an AWS access key": "AWS=AKIA" + "ABCD1234" * 2,
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "an OpenAI or Anthropic key": "sk-ant-" + "a1B2" * 10,
    "a Google API key": "AIza" + "a1B2c" * 7,
    "a Slack token": "xoxb-" + "1234567890-abc",
    "a Weights & Biases key": "WANDB_API_KEY=" + "0123abcd" * 5,
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
}


@pytest.mark.parametrize(("kind", "text"), SECRETS.items())
def test_secrets_are_found_by_their_shape(tmp_path, kind, text):
    file = tmp_path / "run.log"
    file.write_text(f"some text\n{text}\nmore")
    assert secret_in("run.log", file) == kind


@pytest.mark.parametrize(
    "name",
    [".env", "sub/.env", ".env.local", "server.pem", "id_rsa", "id_ed25519.pub", "private.key", ".netrc",
     ".git-credentials", "token"],
)  # fmt: skip
def test_files_for_secrets_are_known_by_their_name(tmp_path, name):
    file = tmp_path / "file"
    file.write_text("harmless")
    assert secret_in(name, file) is not None


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "key.txt"])
def test_files_of_a_model_are_let_through(tmp_path, name):
    file = tmp_path / "file"
    file.write_text('{"token": "hf_", "vocab": {"sk-": 1, "AKIA": 2, "BEGIN": 3}, "model": "xoxb"}')
    assert secret_in(name, file) is None


def test_the_token_in_use_is_found_whatever_its_shape(tmp_path):
    file = tmp_path / "training_args.bin"
    file.write_bytes(b"\0binary\0my-own-token\0")
    assert secret_in("training_args.bin", file, ["my-own-token"]) == "the token in use"
    assert secret_in("training_args.bin", file, ["another"]) is None


def test_large_files_are_not_read(tmp_path):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as sparse:
        sparse.truncate(SCAN_BELOW + 1)
    file.chmod(0)

    class Unreadable(type(file)):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            raise AssertionError("it was read")

    assert secret_in("model.safetensors", Unreadable(file), ["token-in-use"]) is None


def test_tokens_are_hidden_in_texts():
    assert hide(f"401 for {HF} and my-own-token", ["my-own-token", None]) == "401 for [token] and [token]"


def test_training_arguments_lose_their_tokens_and_nothing_else(tmp_path):
    args = arguments(tmp_path, hub_token=HF)
    assert has_token(args)
    cleaned = without_tokens(args)
    assert HF.encode() not in cleaned
    loaded = torch.load(io.BytesIO(cleaned), weights_only=False)
    assert loaded.hub_token is None
    assert loaded.learning_rate == args.learning_rate
    assert args.hub_token == HF, "the run's own arguments are as they were"
    assert not has_token(loaded)
    assert not has_token(SimpleNamespace(push_to_hub_token=None, learning_rate=1))


def test_no_token_is_anywhere_after_pushes_that_work_and_fail(hub, api, repo, tmp_path, caplog):
    """Every byte that is written, logged, printed, or on the Hub is looked through."""
    caplog.set_level(logging.DEBUG, "hub_callbacks")
    with Run(tmp_path / repo, api, Orders(longest_wait=0.2), hub_token=hub.token) as run:
        run.engine.start()
        folder = tmp_path / repo / "checkpoint-1"
        run.save(1)
        assert run.engine.wait()
        folder = tmp_path / repo / "checkpoint-2"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "run.log").write_text(f"logged in with {hub.token}")
        (folder / ".env").write_text(f"HF_TOKEN={hub.token}")
        (folder / "deploy.pem").write_text("-----BEGIN PRIVATE KEY-----")
        with hub.inject(Fault("commit", Answer(401, message=f"Bad token {hub.token}"), times=1)):
            plan = plan_save("all_checkpoints", folder, 2, "step 2")
            assert plan is not None
            run.engine.push(plan, card=CARD)
            run.wait_for_state(ledger.REFUSED)
        run.save(3)
        assert run.engine.wait()
        summary = run.engine.summary()
        texts = [repr(run.settings), str(run.settings), repr(run.engine), str(summary), repr(summary), caplog.text]
        texts += [repr(future.exception()) for future in run.engine.pushes]
    token = hub.token.encode()
    assert not [text for text in texts if hub.token in text]
    outbox = [path for path in (tmp_path / repo / "_hub_sync").rglob("*") if path.is_file()]
    assert {"ledger.jsonl", "pusher.log"} <= {path.name for path in outbox}
    assert not [path for path in outbox if token in path.read_bytes()]

    files = [entry.path for entry in api.list_repo_tree(run.repo, recursive=True) if hasattr(entry, "size")]
    assert {"checkpoint-2/config.json", "config.json"} <= set(files)
    assert not [path for path in files if Path(path).name in ("run.log", ".env", "deploy.pem")]
    for path in files:
        there = Path(api.hf_hub_download(run.repo, path, cache_dir=tmp_path / "cache"))
        assert token not in there.read_bytes()
    named = " ".join(summary.notes)
    assert all(name in named for name in ("run.log", ".env", "deploy.pem")), "what was left out is named"


def test_the_token_is_nowhere_in_the_outbox_while_pushes_wait(hub, repo, tmp_path, monkeypatch):
    with_token = []
    submit = Outbox.submit

    def look_through(folder):
        with_token.extend(p for p in folder.rglob("*") if p.is_file() and hub.token.encode() in p.read_bytes())

    def submit_looked_through(self, staged, push):
        look_through(staged)
        return submit(self, staged, push)

    monkeypatch.setattr(Outbox, "submit", submit_looked_through)
    with hub.inject(Fault("commit", Answer(520))):
        callback = {"hub_strategy": "all_checkpoints", "finish_timeout": 0.1}
        train(tmp_path, repo, callback=callback, hub_token=hub.token, max_steps=2)
    outbox = Outbox(tmp_path / repo / "_hub_sync")
    waiting = [path for push in outbox.pending() for part in push.parts for path in part.files]
    assert "checkpoint-2/training_args.bin" in waiting
    look_through(outbox.root)
    assert with_token == []


def test_only_the_runs_own_training_arguments_are_written_anew(hub, api, repo, tmp_path):
    other = tmp_path / repo / "teacher" / "training_args.bin"
    other.parent.mkdir(parents=True)
    torch.save({"of": "another training"}, other)
    trainer, _, _ = train(tmp_path, repo, hub_token=hub.token)
    trainer.push_to_hub()
    assert on_hub(tmp_path, repo)["teacher/training_args.bin"] == digests(other.parent)["training_args.bin"]


@pytest.mark.parametrize("secret", [HF, None], ids=["well_known", "in_use"])
def test_a_readme_with_a_secret_stays_here_and_the_card_arrives(hub, api, repo, tmp_path, secret):
    (tmp_path / repo).mkdir()
    (tmp_path / repo / "README.md").write_text(f"My words, and {secret or hub.token}.")
    _, callback, _ = train(tmp_path, repo)
    card = Path(api.hf_hub_download(f"local/{repo}", "README.md", cache_dir=tmp_path / "cache")).read_text()
    assert "Training results" in card and "My words" not in card
    assert "README.md" in "".join(callback.summary().notes)


def test_a_card_that_is_made_from_a_secret_stays_here(hub, api, repo, tmp_path):
    (tmp_path / "template.md").write_text(f"# Mine, with {HF}")
    train(tmp_path, repo, callback={"card_template": tmp_path / "template.md"})
    assert not api.file_exists(f"local/{repo}", "README.md")
    assert api.file_exists(f"local/{repo}", "model.safetensors")


def test_the_token_does_not_stand_in_the_arguments_of_the_pusher(hub, api, repo, tmp_path):
    with Run(tmp_path / repo, api, hub_token=hub.token) as run:
        run.engine.start()
        process = run.engine._pusher._process
        assert process is not None
        assert hub.token not in " ".join(map(str, process.args))
