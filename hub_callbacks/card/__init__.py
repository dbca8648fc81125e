"""The model card: facts (training half) → text and pictures → merged with a README that a person edits.

`gather_setup` and `gather_progress` run in the training process, all else in the pusher's. Nothing here
imports torch or transformers, and each name is imported when it is first touched: gathering loads neither
the template engine nor the Hub's client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .benchmarks import eval_results
    from .build import model_card
    from .edits import combine_edits
    from .evaluations import read_evaluations
    from .facts import CardOptions, gather_evaluation_data, gather_setup
    from .gaps import missing
    from .libraries import said_by_library, with_repository
    from .merge import merge_card
    from .metadata import clean_metadata, drop_refused_keys
    from .progress import gather_progress
    from .render import render_card, try_template

_WHERE = {
    "CardOptions": ".facts",
    "model_card": ".build",
    "clean_metadata": ".metadata",
    "combine_edits": ".edits",
    "drop_refused_keys": ".metadata",
    "eval_results": ".benchmarks",
    "gather_progress": ".progress",
    "gather_evaluation_data": ".facts",
    "gather_setup": ".facts",
    "merge_card": ".merge",
    "missing": ".gaps",
    "read_evaluations": ".evaluations",
    "render_card": ".render",
    "said_by_library": ".libraries",
    "try_template": ".render",
    "with_repository": ".libraries",
}

__all__ = [
    "CardOptions",
    "clean_metadata",
    "combine_edits",
    "drop_refused_keys",
    "eval_results",
    "gather_evaluation_data",
    "gather_progress",
    "gather_setup",
    "merge_card",
    "missing",
    "model_card",
    "read_evaluations",
    "render_card",
    "said_by_library",
    "try_template",
    "with_repository",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name], __name__), name)
