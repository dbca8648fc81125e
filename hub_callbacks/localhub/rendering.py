"""Templates → pages, with the headers that keep a page from doing anything but being looked at."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import HTMLResponse, Response

_TEMPLATES = Path(__file__).parent / "templates"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60))


def render(template: str, status: int = 200, **values: Any) -> Response:
    """A page.

    Args:
        template: Name without its suffix, such as "home".
        status: HTTP status code.
        values: The template's variables.
    """
    text = _environment.get_template(f"{template}.html.jinja").render(values)
    return HTMLResponse(text.encode(errors="replace"), status, _HEADERS)


def style() -> Response:
    """The style sheet of all pages."""
    headers = {**_HEADERS, "Content-Type": "text/css; charset=utf-8"}
    return Response((_TEMPLATES / "style.css").read_bytes(), headers=headers)


def readable_size(size: int) -> str:
    """Bytes in decimal units, as the Hub shows them: "4.52 MB"."""
    if size < 1000:
        return "1 byte" if size == 1 else f"{size} bytes"
    value = size / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def readable_age(date: str) -> str:
    """How long ago an ISO date was, to the largest unit: "3 minutes ago"."""
    then = datetime.fromisoformat(date.replace("Z", "+00:00"))
    seconds = int((datetime.now(timezone.utc) - then).total_seconds())
    for unit, length in _UNITS:
        if count := seconds // length:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["size"] = readable_size
_environment.filters["age"] = readable_age
