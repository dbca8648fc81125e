"""Freezes what a plan names into the folder of a push that is being made."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..outbox.push import CARD_FACTS, LOCAL_CARD, PushPart
from ..outbox.snapshot import COPY_BELOW, Frozen, freeze
from .plan import Plan
from .readme import read_text

COPIES = 200
"""Small files that are copied whose names differ in their numbers alone: of thousands it would be a second of
training. The others of such a series are links, so that one that is written to later costs its part."""


def stage(
    plan: Plan,
    staged: Path,
    *,
    card: Mapping[str, Any] | None = None,
    readme: Path | None = None,
    replacements: Mapping[str, bytes] | None = None,
) -> tuple[PushPart, ...]:
    """Puts the files of a plan, and what its card is made from, into `staged`; a file of several parts once.

    Args:
        staged: The folder of the push.
        card: The facts that the model card is made from.
        readme: A README.md with a person's text.
        replacements: File, relative to its part's folder → content that is pushed in its place.

    Returns:
        The plan's parts with their files frozen.

    Raises:
        OSError: when a file is gone or the disk cannot take it.
    """
    frozen: dict[str, Frozen] = {}
    length: Counter[str] = Counter()
    if plan.parts:
        (staged / "files").mkdir()
    parts = []
    for part in plan.parts:
        files = {}
        for file in part.files:
            source = os.path.join(part.source, file)
            if source not in frozen:
                suffix = os.path.splitext(file)[1][:16]  # a name may be as long as names can be
                stored = f"files/{len(frozen):04d}{suffix}"
                content = (replacements or {}).get(file)
                if content is None:
                    series = re.sub(r"\d+", "0", source)
                    length[series] += 1
                    copy_below = COPY_BELOW if length[series] <= COPIES else 0
                    frozen[source] = freeze(source, staged, stored, part.copied, copy_below)
                else:
                    frozen[source] = _write(content, staged, stored)
            files[part.path_in_repo(file)] = frozen[source]
        parts.append(PushPart(part.slot, files, part.prefix, part.whole_folder, part.others))
    if plan.card:
        facts = dict(card or {})
        if readme is not None and (text := read_text(readme)) is not None:
            facts[LOCAL_CARD] = text
        (staged / CARD_FACTS).write_text(json.dumps(facts), encoding="utf-8")
    return tuple(parts)


def _write(content: bytes, staged: Path, stored: str) -> Frozen:
    (staged / stored).write_bytes(content)
    return Frozen(stored, len(content))
