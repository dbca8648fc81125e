"""Pages as a person meets them: what they say, where they lead, and what a browser makes of them."""

from __future__ import annotations

import base64
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from huggingface_hub.utils import get_session

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
_VOID = {"img", "br", "hr", "meta", "link", "col"}


def password(token: str) -> str:
    """The header by which a browser and git send a token."""
    return "Basic " + base64.b64encode(f"me:{token}".encode()).decode()


class Page(HTMLParser):
    """An answer and what is in its HTML.

    Args:
        url: The whole address.
        authorization: The header of this name.
    """

    def __init__(self, url: str, authorization: str | None = None) -> None:
        super().__init__()
        headers = {"Authorization": authorization} if authorization else {}
        self.answer: Any = get_session().get(url, headers=headers)
        self.status: int = self.answer.status_code
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.links: dict[str, str] = {}
        """What links say → where they lead."""
        self._text: list[str] = []
        self._link: tuple[str, int] | None = None
        self.open: list[str] = []
        if "text/html" in self.answer.headers["content-type"]:
            self.feed(self.answer.text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def all(self, element: str, attribute: str) -> list[str]:
        return [
            attributes[attribute]
            for name, attributes in self.elements
            if name == element and attribute in attributes
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "a":
            self._link = attributes.get("href", ""), len(self._text)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"
        if tag == "a" and self._link is not None:
            href, start = self._link
            self.links[" ".join(" ".join(self._text[start:]).split())] = href
            self._link = None

    def handle_data(self, data: str) -> None:
        self._text.append(data)


def look(url: str, profile: Path) -> str:
    """The document that a real browser has after it loaded an address, scripts included."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *_FLAGS.split(),
        f"--user-data-dir={profile}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        url,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
