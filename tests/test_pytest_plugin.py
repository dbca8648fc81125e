"""The fixture `local_hub`, in runs of pytest of their own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from without_torch import needs_torch

pytest_plugins = ["pytester"]

REPOSITORY = Path(__file__).parents[1]
ROUND_TRIP = """
    from huggingface_hub import HfApi, create_repo, hf_hub_download, hf_hub_url, upload_file, whoami

    def round_trip(account):
        assert whoami()["name"] == account.user
        repo = create_repo("model").repo_id
        assert repo == f"{account.user}/model"
        upload_file(path_or_fileobj=b"text", path_in_repo="a.txt", repo_id=repo)
        assert HfApi().list_repo_files(repo) == [".gitattributes", "a.txt"]
        assert hf_hub_url(repo, "a.txt").startswith(account.endpoint)
        with open(hf_hub_download(repo, "a.txt")) as file:
            assert file.read() == "text"
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs test code with the plugin alone, in an environment that points to no Hub that could be reached."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HF_HOME", str(pytester.path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def run_code(**modules: str) -> pytest.RunResult:
        pytester.makepyfile(**modules)
        return pytester.runpytest_subprocess("-p", "hub_callbacks.pytest_plugin", "-q")

    return run_code


def test_each_test_gets_a_user_of_its_own(run) -> None:
    run(
        helper=ROUND_TRIP,
        test_it="""
        import os
        import pytest
        from helper import round_trip

        seen = set()

        @pytest.mark.parametrize("turn", range(3))
        def test_round_trip(local_hub, turn):
            assert os.environ["HF_ENDPOINT"] == local_hub.endpoint
            assert os.environ["HF_TOKEN"] == local_hub.token
            round_trip(local_hub)
            seen.add((local_hub.user, local_hub.token))
            assert len(seen) == turn + 1
        """,
    ).assert_outcomes(passed=3)


@pytest.mark.parametrize("address", ["http://hub.invalid", "https://huggingface.co"])
def test_it_works_with_a_client_that_was_imported_before_and_leaves_it_as_it_was(
    run, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("ADDRESS", address)
    run(
        conftest="import huggingface_hub.hf_api, huggingface_hub.file_download",
        helper=ROUND_TRIP,
        test_it="""
        import os
        import pytest
        from helper import round_trip
        from huggingface_hub import HfApi, constants, hf_hub_url, whoami

        def outside():
            assert os.environ["HF_ENDPOINT"] == constants.ENDPOINT == HfApi().endpoint == os.environ["ADDRESS"]
            assert whoami.__self__.endpoint == os.environ["ADDRESS"]
            assert hf_hub_url("a/b", "c").startswith(os.environ["ADDRESS"] + "/a/b/")
            assert "HF_TOKEN" not in os.environ
            assert "home" in constants.HF_HUB_CACHE

        def test_before():
            outside()

        def test_within(local_hub):
            round_trip(local_hub)
            assert "home" not in constants.HF_HUB_CACHE

        def test_after():
            outside()

        @pytest.mark.xfail(strict=True)
        def test_that_fails(local_hub):
            raise AssertionError

        def test_after_the_failure():
            outside()
        """,
    ).assert_outcomes(passed=4, xfailed=1)


@needs_torch
def test_no_global_of_the_clients_keeps_the_other_address(run) -> None:
    """Fails where a new release of these packages keeps the address in a place that is not known yet."""
    run(
        test_it="""
        import os
        import sys

        import datasets.config
        import huggingface_hub.hf_api
        import huggingface_hub.hf_file_system
        import huggingface_hub.utils
        import transformers.trainer
        import transformers.utils.hub
        from huggingface_hub import HfApi, HfFileSystem

        PACKAGES = ("huggingface_hub", "transformers", "datasets", "peft", "accelerate")

        def holders(address):
            found = set()
            for name, module in list(sys.modules.items()):
                if name.split(".")[0] in PACKAGES:
                    for key, value in list(vars(module).items()):
                        text = value.endpoint if isinstance(value, (HfApi, HfFileSystem)) else value
                        if isinstance(text, str) and text.startswith(address):
                            found.add((name, key))
            return found - {("huggingface_hub.hf_file_system", "hffs")}

        def test_within(local_hub):
            assert not holders("http://hub.invalid")
            assert ("datasets.config", "HF_ENDPOINT") in holders(local_hub.endpoint)
            globals()["endpoint"] = local_hub.endpoint

        def test_after():
            assert not holders(endpoint)
            assert ("datasets.config", "HF_ENDPOINT") in holders("http://hub.invalid")
        """,
    ).assert_outcomes(passed=2)


@needs_torch
def test_modules_that_are_imported_within_a_test_do_not_keep_its_hub(run) -> None:
    run(
        test_it="""
        def test_within(local_hub):
            import datasets.config
            assert datasets.config.HF_ENDPOINT == local_hub.endpoint

        def test_after():
            import datasets.config
            from huggingface_hub import constants
            assert datasets.config.HF_ENDPOINT == constants.ENDPOINT == "http://hub.invalid"
        """,
    ).assert_outcomes(passed=2)


@needs_torch
def test_child_processes_and_pretrained_models_use_it(run) -> None:
    run(
        test_it=f"""
        import subprocess
        from transformers import BertConfig, BertModel

        def test_push_to_hub(local_hub):
            config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
            BertModel(config).push_to_hub("tiny")
            assert BertModel.from_pretrained(f"{{local_hub.user}}/tiny").config.vocab_size == 9
            code = "from huggingface_hub import whoami; print(whoami()['name'])"
            answer = subprocess.run([{sys.executable!r}, "-c", code], capture_output=True, text=True, check=True)
            assert answer.stdout.split()[-1] == local_hub.user
        """,
    ).assert_outcomes(passed=1)


def test_faults_end_with_the_test(run) -> None:
    run(
        test_it="""
        import pytest
        from huggingface_hub import whoami
        from huggingface_hub.errors import HfHubHTTPError
        from hub_callbacks.localhub import Answer, Fault

        def test_refused(local_hub):
            local_hub.hub.inject(Fault("whoami", Answer(403)))
            with pytest.raises(HfHubHTTPError):
                whoami()
            assert [seen.status for seen in local_hub.hub.requests] == [403]

        def test_answered(local_hub):
            assert local_hub.hub.requests == []
            assert whoami()["name"] == local_hub.user
        """,
    ).assert_outcomes(passed=2)


def test_a_run_that_does_not_use_it_loads_nothing_for_it(run) -> None:
    run(
        test_it="""
        import sys

        def test_modules():
            heavy = {"huggingface_hub", "torch", "transformers", "starlette", "pygit2", "hub_callbacks.localhub"}
            assert "hub_callbacks.pytest_plugin" in sys.modules
            assert not heavy & set(sys.modules)
        """,
    ).assert_outcomes(passed=1)


def test_what_is_missing_is_named(run) -> None:
    result = run(
        conftest="import sys; sys.modules['pygit2'] = None",
        test_it="def test_it(local_hub): pass",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pygit2 is missing*pip install 'hub_callbacks[[]local[]]'*"])


def test_the_example_of_the_documentation_works(run) -> None:
    text = (REPOSITORY / "docs" / "embedded-hub.md").read_text()
    example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "local_hub" in block)
    run(
        my_project="""
        from huggingface_hub import ModelHubMixin

        class Classifier(ModelHubMixin):
            def __init__(self, threshold):
                self.threshold = threshold

            def _save_pretrained(self, folder):
                pass

            @classmethod
            def _from_pretrained(cls, threshold, **kwargs):
                return cls(threshold)
        """,
        test_it=example,
    ).assert_outcomes(passed=1)
