"""The card of a push: rendered from its facts and merged with what people wrote, here and on the Hub."""

from __future__ import annotations

import json
import logging
from typing import Any

from ..card import (
    CardOptions,
    combine_edits,
    drop_refused_keys,
    eval_results,
    merge_card,
    read_evaluations,
    render_card,
    said_by_library,
    with_repository,
)
from ..card.reading import Unreadable, text_of
from ..hub.repository import Remote, Repository
from ..outbox.durable import replace_file
from ..outbox.push import CARD_FACTS, EVAL_RESULTS, LOCAL_CARD, MODEL, OWN_EVAL_RESULTS, Push
from ..outbox.queue import Outbox
from .redaction import secret_within

logger = logging.getLogger(__name__)

README = "README.md"
EVAL_RESULTS_FILE = f"{EVAL_RESULTS}/{OWN_EVAL_RESULTS}"


def card_files(
    push: Push, repository: Repository, outbox: Outbox, remote: Remote, refused: list[str], notes: list[str]
) -> dict[str, bytes]:
    """The files of the card: README.md and its pictures. Nothing, with a note, where it cannot be made.

    Args:
        refused: The Hub's complaints about the metadata so far; what they are about is left out.
        notes: Gains what people should know.
    """
    try:
        on_hub = text_of(repository.read_bytes(remote, README)) if README in remote.root else None
    except Unreadable as error:
        notes.append(
            f"{README} on the Hub {error}, so it stays as it is, without a model card. "
            "Put a text in UTF-8 in its place, and the next push adds the card."
        )
        return {}
    try:
        facts: dict[str, Any] = json.loads((push.folder / CARD_FACTS).read_text(encoding="utf-8"))
        tokens = [repository.token]
        local = facts.get(LOCAL_CARD)
        if local is not None and (secret := secret_within(local.encode(), tokens)):
            notes.append(f"the text of {README} here was left out of the card: it holds {secret}")
            local = None
        memory = outbox.card_memory(push.target, repository.hub)
        last_pushed = memory.read_text(encoding="utf-8", errors="replace") if memory.is_file() else None
        existing = combine_edits(
            with_repository(local, remote.repo_id), with_repository(on_hub, remote.repo_id), last_pushed
        )
        # The training may not have known the owner yet.
        setup = {**facts.get("setup", {}), "repo_id": remote.repo_id}
        card = render_card(
            setup,
            facts.get("progress", {}),
            CardOptions(**facts.get("options", {})),
            template=facts.get("template"),
            said=said_by_library(existing, setup),
        )
        notes += card.problems
        text = merge_card(card.text, existing)
        if (secret := secret_within(card.text.encode(), tokens)) is not None:
            notes.append(f"the model card was left out: what it is made from holds {secret}")
            return {}
        others = _eval_results(push, setup, facts)
        if refused:
            text, dropped = drop_refused_keys(text, refused)
            notes.append(f"the Hub refused metadata of the card, which was left out: {', '.join(dropped)}")
    except Exception as error:
        logger.warning("the card of push %s could not be made", push.id, exc_info=error)
        notes.append(f"the model card could not be made ({type(error).__name__}: {error}) and was left out")
        return {}
    return {README: text.encode(), **card.pictures, **others}


def _eval_results(push: Push, setup: dict[str, Any], facts: dict[str, Any]) -> dict[str, bytes]:
    """Results on benchmarks, where the weights that they were measured on are on the Hub with this push."""
    progress, benchmarks = facts.get("progress", {}), facts.get("benchmarks") or ()
    brings_weights = any(part.slot == MODEL for part in push.parts)
    if not benchmarks or not (brings_weights or progress.get("finished")):
        return {}
    found = eval_results(benchmarks, progress, read_evaluations(setup, progress))
    return {} if found is None else {EVAL_RESULTS_FILE: found}


def remember(push: Push, hub: str, outbox: Outbox, readme: bytes) -> None:
    """Keeps the text of a card that has arrived on a Hub, to tell later what a person has changed."""
    outbox.cards.mkdir(parents=True, exist_ok=True)
    replace_file(outbox.card_memory(push.target, hub), readme)
