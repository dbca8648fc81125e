"""What overrides what, and what is refused before training starts."""

from __future__ import annotations

import pytest
from transformers import Trainer

from hub_callbacks import HubSyncCallback, SettingsError
from hub_callbacks.settings import Settings, resolve
from models import Sentences, arguments, classifier


def test_everything_comes_from_the_arguments(tmp_path):
    settings = resolve(
        arguments(
            tmp_path / "run",
            hub_model_id="me/model",
            hub_strategy="all_checkpoints",
            hub_token="hf_secret_token",
            hub_private_repo=True,
            hub_always_push=True,
            hub_revision="dev",
        )
    )
    assert settings == Settings(
        output_dir=tmp_path / "run",
        hub_model_id="me/model",
        hub_strategy="all_checkpoints",
        hub_token="hf_secret_token",
        hub_private_repo=True,
        hub_always_push=True,
        hub_revision="dev",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hub_model_id", "other/name"),
        ("hub_strategy", "end"),
        ("hub_token", "another-token"),
        ("hub_private_repo", False),
        ("hub_always_push", False),
        ("hub_revision", "branch"),
        ("on_error", "raise"),
        ("finish_timeout", 5.0),
        ("max_upload_memory", 2**29),
    ],
)
def test_a_keyword_wins_over_the_arguments(tmp_path, name, value):
    args = arguments(tmp_path / "run", hub_private_repo=True, hub_always_push=True)
    assert getattr(resolve(args, {name: value}), name) == value


def test_the_repository_is_named_after_the_output_folder(tmp_path):
    assert resolve(arguments(tmp_path / "my-model")).hub_model_id == "my-model"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"hub_strategy": "sometimes"}, "hub_strategy is 'sometimes'"),
        ({"hub_model_id": "a/b/c"}, "hub_model_id cannot be 'a/b/c'"),
        ({"hub_model_id": "spaces are bad"}, "hub_model_id cannot be"),
        ({"hub_revision": "a..b"}, "hub_revision cannot be 'a..b'"),
        ({"hub_revision": "ends.lock"}, "hub_revision"),
        ({"hub_revision": 5}, "hub_revision cannot be 5"),
        ({"on_error": "explode"}, "on_error is 'explode'"),
        ({"finish_timeout": -1}, "finish_timeout is -1"),
        (
            {"max_upload_memory": 2**20},
            "max_upload_memory is 1048576; it is a number of bytes, 400,000,000",
        ),
        ({"max_upload_memory": "1 GB"}, "max_upload_memory is '1 GB'"),
        ({"hub_token": "  "}, "hub_token is empty"),
        ({"hub_modelid": "x"}, "'hub_modelid' is not a setting"),
    ],
)
def test_a_bad_value_says_what_to_change(tmp_path, overrides, said):
    with pytest.raises(SettingsError, match=said.replace("(", r"\(")):
        resolve(arguments(tmp_path / "run"), overrides)


def test_an_output_folder_that_cannot_name_a_repository(tmp_path):
    with pytest.raises(SettingsError, match="Set hub_model_id"):
        resolve(arguments(tmp_path / "my run"))


def test_a_bad_value_is_said_when_the_trainer_is_made(tmp_path):
    with pytest.raises(SettingsError, match="hub_strategy"):
        Trainer(
            classifier(),
            arguments(tmp_path / "run"),
            train_dataset=Sentences(),
            callbacks=[HubSyncCallback(hub_strategy="never")],
        )


def test_the_token_is_in_no_repr(tmp_path):
    assert "hf_secret" not in repr(resolve(arguments(tmp_path / "run", hub_token="hf_secret_token")))
