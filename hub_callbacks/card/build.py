"""A card's text as huggingface_hub's `ModelCard`, for who asks for a card now."""

from __future__ import annotations

from huggingface_hub import ModelCard

from .metadata import drop_refused_keys


def model_card(text: str) -> ModelCard:
    """The card of a README.md, whatever a person has written into it."""
    try:
        return ModelCard(text)
    except ValueError:
        # A person's model-index that is not complete: huggingface_hub then leaves it out.
        return ModelCard(text, ignore_metadata_errors=True)
    except TypeError:
        # A person's `tags: false`, which huggingface_hub cannot hold.
        text, _ = drop_refused_keys(text, ['"tags"'])
        return ModelCard(text, ignore_metadata_errors=True)
