"""The bytes of a README.md → its text, or why it has none that could be merged and written back."""

from __future__ import annotations

import codecs

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_POINTER = "version https://git-lfs.github.com/spec/"


class Unreadable(ValueError):
    """The message says what a README.md is, to stand after its name."""


def text_of(content: bytes) -> str:
    """The text of a README.md; cards are written as UTF-8, whatever it was.

    Raises:
        Unreadable: when its encoding is not known, or it stands for a file that is not here.
    """
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable("is neither UTF-8 nor UTF-16 with a byte order mark") from None
    if text.startswith(_POINTER):
        raise Unreadable("is a Git LFS pointer, without the file that it points to")
    return text
