"""The pages: their links lead somewhere, and what they show exists."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import hub_callbacks
from hub_callbacks import HubSyncCallback
from hub_callbacks.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def text(request) -> str:
    return request.param.read_text(encoding="utf-8")


def python_blocks(text: str) -> list[ast.Module]:
    return [ast.parse(block) for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_what_examples_import_is_there(text):
    for tree in python_blocks(text):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hub_callbacks"):
                module = __import__(node.module, fromlist=["_"])
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_keywords_of_the_callback_in_examples_exist(text):
    known = inspect.signature(HubSyncCallback).parameters.keys()
    for tree in python_blocks(text):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "HubSyncCallback":
                assert {keyword.arg for keyword in node.keywords} <= known


def test_commands_in_pages_exist(text):
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert set(re.findall(r"^hub-callbacks (\w+)", text, re.M)) <= known


def test_every_keyword_of_the_callback_and_public_name_is_described():
    for name in inspect.signature(HubSyncCallback).parameters:
        assert re.search(rf"^ +{name}: ", HubSyncCallback.__doc__ or "", re.M), name
    for name in set(hub_callbacks.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(hub_callbacks, name)), name
