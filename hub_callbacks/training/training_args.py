"""`training_args.bin`, which the Trainer writes with `hub_token` in clear, without it."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator
from typing import Any

NAME = "training_args.bin"


def has_token(args: Any) -> bool:
    """Whether `TrainingArguments` hold a token in any `*_token` field."""
    return any(value for name, value in vars(args).items() if name.endswith("_token"))


@contextlib.contextmanager
def hiding_tokens(args: Any) -> Iterator[None]:
    """`TrainingArguments` without their tokens, while a Trainer writes them: a kill leaves what is on the disk."""
    tokens = {name: value for name, value in vars(args).items() if name.endswith("_token")}
    try:
        for name in tokens:
            object.__setattr__(args, name, None)
        yield
    finally:
        for name, value in tokens.items():
            object.__setattr__(args, name, value)


def without_tokens(args: Any) -> bytes:
    """`training_args.bin` as the Trainer writes it, with every `*_token` set to `None`."""
    import torch

    clean = copy.copy(args)
    for name in vars(args):
        if name.endswith("_token"):
            object.__setattr__(clean, name, None)
    buffer = io.BytesIO()
    torch.save(clean, buffer)
    return buffer.getvalue()
