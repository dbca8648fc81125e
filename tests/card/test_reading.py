"""A README.md in any encoding is read as what it is, or not at all."""

from __future__ import annotations

import pytest

from hub_callbacks.card.reading import Unreadable, text_of

TEXT = "# Müller’s 模型\r\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_what_says_its_encoding_is_read(encoding: str) -> None:
    assert text_of(TEXT.encode(encoding)) == TEXT


def test_the_other_byte_order_is_read() -> None:
    assert text_of(b"\xfe\xff" + TEXT.encode("utf-16-be")) == TEXT


@pytest.mark.parametrize(
    "content", ["Müller".encode("latin-1"), "模型".encode("gbk"), TEXT.encode("utf-16")[:-1], POINTER]
)
def test_what_cannot_be_known_is_not_guessed(content: bytes) -> None:
    with pytest.raises(Unreadable):
        text_of(content)
