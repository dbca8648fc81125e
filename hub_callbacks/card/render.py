"""Facts → the text of the card and its pictures. Same facts, same bytes."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from . import content, example
from .curves import FILE_NAME, draw
from .document import Document, Section, State, parse, record_of, with_state
from .evaluations import read_evaluations
from .facts import CardOptions
from .metadata import Metadata, clean_metadata

TEMPLATE = Path(__file__).parent / "template.md.jinja"


@dataclass(frozen=True)
class RenderedCard:
    """A card that is ready to be merged with what a person wrote.

    Args:
        text: README.md: metadata, then the generated sections between their markers.
        pictures: File name → PNG, to be pushed beside it.
        problems: Sentences for the user about metadata that had to be left out or put right.
    """

    text: str
    pictures: dict[str, bytes]
    problems: list[str]


def render_card(
    setup: dict[str, Any],
    progress: dict[str, Any],
    options: CardOptions | None = None,
    *,
    template: str | None = None,
    said: Collection[str] = (),
) -> RenderedCard:
    """The card for one commit.

    Args:
        setup: Of `gather_setup`.
        progress: Of `gather_progress`.
        options: What the user says about the model.
        template: Text of a Jinja template to use instead of the package's own, with its variables, and with
            `card_data`, the metadata as YAML. Where it has no `{% call section("name") %}`, all of it is one
            section.
        said: Variables of the package's own template that need not be shown, of `said_by_library`.

    Raises:
        jinja2.TemplateError: for a template of the user's that does not work.
    """
    options = options or CardOptions()
    metadata = clean_metadata(setup, progress, options)
    pictures = draw(setup, progress)
    values = _variables(setup, progress, options, metadata, next(iter(pictures), None))
    if template is None:
        values |= dict.fromkeys(said, "")
    source = TEMPLATE.read_text(encoding="utf-8") if template is None else template
    body = _compiled(source).render(values)
    return RenderedCard(_assemble(body, values["card_data"]), pictures, metadata.problems)


def try_template(source: str) -> None:
    """Renders a template once, with made-up facts that have everything in them.

    Raises:
        Exception: whatever keeps it from working: a `jinja2.TemplateError`, or an error of an expression in it.
    """
    metadata = clean_metadata(example.SETUP, example.PROGRESS, example.OPTIONS)
    values = _variables(example.SETUP, example.PROGRESS, example.OPTIONS, metadata, FILE_NAME)
    _compiled(source).render(values)


def _variables(
    setup: dict[str, Any], progress: dict[str, Any], options: CardOptions, metadata: Metadata, picture: str | None
) -> dict[str, Any]:
    """All that a template can use."""
    evaluations = read_evaluations(setup, progress)
    values = content.view(setup, progress, options, metadata.data, evaluations, picture=picture)
    return {**values, "section": _section, "card_data": metadata.data.to_yaml()}


@cache
def _compiled(source: str) -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined)
    return environment.from_string(source)


def _section(name: str, caller: Any) -> str:
    text = re.sub(r"\n{3,}", "\n\n", caller()).strip()
    return f"{Section(name, text)}\n\n" if text else ""


def _assemble(body: str, yaml_text: str) -> str:
    """The rendered template with metadata and state; one without sections becomes a section."""
    document = parse(body.strip("\n") + "\n")
    front = document.front if document.front is not None else parse(f"---\n{yaml_text}\n---\n").front
    parts = document.parts
    if not document.sections:
        parts = [Section("card", "".join(map(str, parts)).strip()), "\n"]
    document = Document(front, ["\n", *parts], document.tail)
    state = State({entry.key: record_of(entry.value) for entry in front or []}, list(document.sections))
    return str(with_state(document, state))
