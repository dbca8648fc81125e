"""The hub answers to its own names only."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from hub_callbacks.localhub import Answer, Fault, LocalHub
from hub_callbacks.localhub.hostnames import is_own


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:7860", "localhost.evil.example", "192.0.2.7", ":80"]
)
def test_a_website_that_makes_its_name_lead_here_learns_and_changes_nothing(
    hub: LocalHub, api: HfApi, model: str, name: str
) -> None:
    with hub.inject(Fault("repo_info", Answer(503), times=1)) as fault:
        hub.clear_requests()
        for path in ("/", f"/{model}/resolve/main/.gitattributes", f"/api/models/{model}", "/xet/own/none"):
            answer = get_session().get(f"{hub.endpoint}{path}", headers={"Host": name})
            assert answer.status_code == 421 and model not in answer.text
            assert "does not answer to the name" in answer.headers["X-Error-Message"]
        assert fault.hits == 0 and hub.requests == []
    assert api.model_info(model).id == model


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.2:80", "[::1]:80"])
def test_loopback_names_are_its_own(hub: LocalHub, model: str, name: str) -> None:
    answer = get_session().get(f"{hub.endpoint}/api/models/{model}", headers={"Host": name})
    assert answer.status_code == 200


def test_configured_names_are_its_own(tmp_path: Path) -> None:
    with LocalHub(tmp_path, names=["Hub.example"]) as hub:
        for name, status in (("hub.EXAMPLE:80", 200), ("other.example", 421)):
            assert get_session().get(hub.endpoint, headers={"Host": name}).status_code == status


@pytest.mark.parametrize(
    ("host", "header", "own"),
    [
        ("hub.example", "hub.example:7860", True),
        ("hub.example", "other.example:7860", False),
        ("192.0.2.7", "192.0.2.7:7860", True),
        ("192.0.2.7", "192.0.2.8:7860", False),
        ("2001:db8::7", "[2001:db8::7]:7860", True),
        ("0.0.0.0", "192.0.2.7:7860", True),  # an address is no name that somebody could make lead elsewhere
        ("::", "[2001:db8::7]:7860", True),
        ("0.0.0.0", "evil.example:7860", False),
        ("127.0.0.1", "", True),
    ],
)
def test_what_host_says_is_its_own(host: str, header: str, own: bool) -> None:
    assert is_own(header, host, ()) is own
