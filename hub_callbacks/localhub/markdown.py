"""Markdown of people and models → HTML that is safe to show.

Cards hold HTML of their own (badges, `<details>`, comments as markers), so the Markdown renderer lets it pass
and the sanitiser decides what stays. No script, style, form or frame does.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from html import escape
from itertools import pairwise
from urllib.parse import SplitResult, unquote, urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

from .cards import strip_metadata

_TAGS = set(
    re.findall(
        r"\S+",
        "a abbr b blockquote br caption center code dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 "
        "h6 hr i img ins kbd li mark ol p pre q s samp small span strike strong sub summary sup table tbody td "
        "tfoot th thead tr tt u ul var",
    )
)
_ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title", "width", "height", "align"},
    "details": {"open"},
    "ol": {"start"},
    **{name: {"align"} for name in ("div", "p", "table")},
    **{name: {"align", "colspan", "rowspan"} for name in ("td", "th")},
    **{name: {"align", "id"} for name in ("h1", "h2", "h3", "h4", "h5", "h6")},
}
_SCHEMES = {"http", "https", "mailto"}

_MAX_LENGTH = 100_000
_MAX_MARKS = 2000
_MAX_CELLS = 200_000
"""Of all lines, if each had as many columns as the widest."""

Address = Callable[[str, str], str]
"""("resolve" or "blob", path in the repository) to the address of that file."""


def render_card(text: str, address: Address) -> str:
    """The README of the top folder without its metadata, as safe HTML.

    Where its marks are more than a person writes, it is shown as the text that it is.

    Args:
        text: The file's text.
        address: Where the files of this revision are served; links and pictures of the card lead there.
    """
    text = strip_metadata(text)
    if _is_too_much(text):
        return f"<pre>{escape(text)}</pre>"
    tokens = _markdown.parse(text)
    _give_headings_ids(tokens)
    _align_without_styles(tokens)
    html = _markdown.renderer.render(tokens, _markdown.options, {})

    def keep(element: str, attribute: str, value: str) -> str | None:
        if (element, attribute) == ("a", "href"):
            return _link(value, address)
        if (element, attribute) == ("img", "src"):
            return _picture(value, address)
        return value

    return nh3.clean(
        html, tags=_TAGS, attributes=_ATTRIBUTES, attribute_filter=keep, url_schemes=_SCHEMES, strip_comments=True
    )


def _is_too_much(text: str) -> bool:
    """Links, HTML and tables that nobody closes take a time that grows with the square of their number."""
    lines = text.splitlines()
    cells = len(lines) * max((line.count("|") for line in lines), default=0)
    marks = max(text.count("<"), text.count("["))
    return len(text) > _MAX_LENGTH or marks > _MAX_MARKS or cells > _MAX_CELLS


def _link(url: str, address: Address) -> str | None:
    parts = _split(url)
    if parts is None:
        return None
    if parts.scheme or parts.netloc:
        return url if parts.scheme in _SCHEMES else None
    path = _path_in_repo(parts)
    if path is None:
        return url if parts.path.startswith("/") or not parts.path else None
    return address("blob", path) + (f"#{parts.fragment}" if parts.fragment else "")


def _picture(url: str, address: Address) -> str | None:
    """Pictures of other sites are not loaded: looking at a card tells nobody. Their description is shown."""
    parts = _split(url)
    path = _path_in_repo(parts) if parts and not parts.scheme and not parts.netloc else None
    return None if path is None else address("resolve", path)


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None for one that browsers could read in another way."""
    try:
        return None if "\\" in url else urlsplit(url)
    except ValueError:
        return None


def _path_in_repo(parts: SplitResult) -> str | None:
    """The file that a relative address means; None for all other addresses."""
    if not parts.path or parts.path.startswith("/"):
        return None
    path = posixpath.normpath(unquote(parts.path))
    return None if path == ".." or path.startswith(("../", "/")) else path


def _give_headings_ids(tokens: list[Token]) -> None:
    """As on the Hub, so that a card's own table of contents works."""
    used: dict[str, int] = {}
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            pieces = [child.content for child in content.children or () if child.type in ("text", "code_inline")]
            slug = re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", "".join(pieces).lower()).strip())
            number = used[slug] = used.get(slug, -1) + 1
            opening.attrSet("id", f"{slug}-{number}" if number else slug)


def _align_without_styles(tokens: list[Token]) -> None:
    """The page's policy forbids inline styles, which is how the renderer aligns the columns of tables."""
    for token in tokens:
        style = str(token.attrs.pop("style", "")) if token.type in ("td_open", "th_open") else ""
        if style.startswith("text-align:"):
            token.attrSet("align", style.removeprefix("text-align:"))


_markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
