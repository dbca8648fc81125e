"""The hashes of the Xet protocol: of chunks, and of the xorbs and files made of them.

https://huggingface.co/docs/xet/hashing
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from .blake3 import keyed_hashes

_CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_FILE_KEY = bytes(32)
_FEWEST, _MOST = 3, 9
"""How many nodes one is made of, where no hash among them ends it earlier or the list does."""
_BATCH = 1 << 12


class Node(NamedTuple):
    """A hash of 32 bytes, and how many bytes of content it is of."""

    hash: bytes
    size: int


def chunk_nodes(chunks: list[bytes]) -> list[Node]:
    """The hashes of chunks."""
    hashes = keyed_hashes(_CHUNK_KEY, chunks)
    return [Node(found, len(chunk)) for found, chunk in zip(hashes, chunks, strict=True)]


def xorb_hash(chunks: Iterable[Node]) -> str:
    """The hash of the xorb that consists of these chunks.

    Raises:
        ValueError: There are none.
    """
    return written(_root(iter(chunks)))


def file_hash(chunks: Iterable[Node]) -> str:
    """The hash of the file that consists of these chunks, of which only a part is in memory at a time."""
    nodes = iter(chunks)
    first = next(nodes, None)
    if first is None:
        return written(bytes(32))
    return written(keyed_hashes(_FILE_KEY, [_root(chain([first], nodes))])[0])


def written(raw: bytes) -> str:
    """A hash as text: four little-endian words."""
    return b"".join(raw[start : start + 8][::-1] for start in range(0, 32, 8)).hex()


def _root(nodes: Iterator[Node]) -> bytes:
    first, second = next(nodes, None), next(nodes, None)
    if first is None:
        raise ValueError("it has no chunk")
    if second is None:
        return first.hash
    return _root(_parents(chain([first, second], nodes)))


def _parents(nodes: Iterator[Node]) -> Iterator[Node]:
    groups: list[list[Node]] = [[]]
    for node in nodes:
        if len(groups) > _BATCH:
            yield from _joined(groups[:-1])
            groups = groups[-1:]
        group = groups[-1]
        group.append(node)
        if len(group) == _MOST or (len(group) >= _FEWEST and node.hash[24] % 4 == 0):
            groups.append([])
    yield from _joined([group for group in groups if group])


def _joined(groups: list[list[Node]]) -> list[Node]:
    texts = ["".join(f"{written(node.hash)} : {node.size}\n" for node in group).encode() for group in groups]
    sizes = (sum(node.size for node in group) for group in groups)
    return [Node(found, size) for found, size in zip(keyed_hashes(_NODE_KEY, texts), sizes, strict=True)]
