"""The whole way from facts to a `ModelCard`, for who asks for a card now."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard

from .facts import CardOptions
from .merge import merge_card
from .metadata import drop_refused_keys
from .render import render_card


def build_model_card(
    setup: dict[str, Any],
    progress: dict[str, Any],
    options: CardOptions | None = None,
    existing: str | None = None,
    *,
    template: str | None = None,
) -> ModelCard:
    """Renders a card, merges it with the README that is there and returns it as a `ModelCard`.

    Args:
        setup: Of `gather_setup`.
        progress: Of `gather_progress`.
        options: What the user says about the model.
        existing: The README that is there.
        template: As for `render_card`.
    """
    text = merge_card(render_card(setup, progress, options, template=template).text, existing)
    try:
        return ModelCard(text)
    except ValueError:
        # A person's model-index that is not complete: huggingface_hub then leaves it out.
        return ModelCard(text, ignore_metadata_errors=True)
    except TypeError:
        # A person's `tags: false`, which huggingface_hub cannot hold.
        text, _ = drop_refused_keys(text, ['"tags"'])
        return ModelCard(text, ignore_metadata_errors=True)
