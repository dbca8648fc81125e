"""What must never leave: tokens and keys. Every small file is looked through before the first byte goes out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

SCAN_BELOW = 5 * 1024 * 1024
"""Bytes up to which a file is looked through."""

_NEVER = (".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*", "id_ecdsa*", ".netrc",
          ".git-credentials", "*.kdbx", "credentials.json", "token")  # fmt: skip

# Prefixes and lengths as their issuers document them.
_SHAPES = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}\b|\bapi_org_[A-Za-z0-9]{30,}\b",
    "an AWS access key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": rb"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,}\b",
    "an OpenAI or Anthropic key": rb"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}\b",
    "a Google API key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Slack token": rb"\bxox[abprs]-[0-9A-Za-z-]{10,}\b",
    "a Weights & Biases key": rb"(?i:wandb[_-]?api[_-]?key)\W{1,5}[0-9a-f]{40}\b|\bwandb_v1_[A-Za-z0-9_]{40,}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _SHAPES.items()}


def secret_in(path: str, file: Path, tokens: Iterable[str | None] = ()) -> str | None:
    """What kind of secret a file is or holds; `None` when nothing was found.

    Args:
        path: Its path in the repository; some names never go out.
        file: Where it lies.
        tokens: Tokens in use, looked for to the letter.
    """
    name = PurePosixPath(path).name
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in _NEVER):
        return "a file that is for secrets by its name"
    if file.stat().st_size > SCAN_BELOW:
        return None
    return secret_within(file.read_bytes(), tokens)


def secret_within(content: bytes, tokens: Iterable[str | None] = ()) -> str | None:
    """What kind of secret `content` holds, if any.

    Args:
        tokens: Tokens in use, looked for to the letter.
    """
    if any(token.encode() in content for token in tokens if token and len(token) > 7):
        return "the token in use"
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(content)), None)


def hide(text: str, tokens: Iterable[str | None]) -> str:
    """`text` without the tokens in use, and without anything in the shape of a Hugging Face token."""
    for token in tokens:
        if token:
            text = text.replace(token, "[token]")
    return re.sub(r"\bhf_[A-Za-z0-9]{30,}\b", "[token]", text)
