"""BLAKE3 with a key, of many pieces at once: https://github.com/BLAKE3-team/BLAKE3-specs

The steps of the algorithm are done for all pieces side by side, as columns of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_IV = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32
)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_LEAF, _BLOCK = 1024, 64
_ROUNDS = 7
_LEAF_START, _LEAF_END, _PARENT, _ROOT, _KEYED = 1, 2, 4, 8, 16


def keyed_hashes(key: bytes, pieces: Sequence[bytes]) -> list[bytes]:
    """The hash of each piece, 32 bytes each.

    Args:
        key: 32 bytes.
        pieces: All of them are in memory about three times meanwhile.
    """
    if not pieces:
        return []
    start = np.frombuffer(key, "<u4").astype(np.uint32)
    sizes = np.array([len(piece) for piece in pieces])
    counts = np.maximum(1, -(-sizes // _LEAF))
    nodes = _leaves(start, pieces, sizes, counts)
    while counts.max() > 1:
        nodes, counts = _parents(start, nodes, counts)
    return [row.tobytes() for row in np.ascontiguousarray(nodes.T).astype("<u4")]


def _leaves(key: Words, pieces: Sequence[bytes], sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> Words:
    """One column of eight words for each 1024 bytes of each piece."""
    padded = b"".join(
        piece.ljust(count * _LEAF, b"\0") for piece, count in zip(pieces, counts.tolist(), strict=True)
    )
    words = np.frombuffer(padded, "<u4").astype(np.uint32, copy=False).reshape(-1, 16, 16)
    number = _positions(counts)
    size = np.minimum(np.repeat(sizes, counts) - number * _LEAF, _LEAF)
    last = np.maximum(0, -(-size // _BLOCK) - 1)
    end = _LEAF_END + _ROOT * np.repeat(counts == 1, counts)
    nodes = np.repeat(key[:, None], len(words), axis=1)
    for block in range(int(last.max()) + 1):
        now = np.flatnonzero(last >= block)
        flags = _KEYED + _LEAF_START * (block == 0) + np.where(last[now] == block, end[now], 0)
        length = np.minimum(size[now] - block * _BLOCK, _BLOCK)
        nodes[:, now] = _compress(nodes[:, now], words[now, block].T, number[now], length, flags)
    return nodes


def _parents(key: Words, nodes: Words, counts: NDArray[np.int64]) -> tuple[Words, NDArray[np.int64]]:
    """Joins the nodes of each piece in pairs; one that is left over goes up as it is."""
    number = _positions(counts)
    total = np.repeat(counts, counts)
    left = np.flatnonzero((number % 2 == 0) & (number + 1 < total))
    flags = _KEYED + _PARENT + _ROOT * (total[left] == 2)
    block = np.concatenate([nodes[:, left], nodes[:, left + 1]])
    key = np.repeat(key[:, None], len(left), axis=1)
    joined = nodes.copy()
    joined[:, left] = _compress(key, block, np.zeros(len(left), np.int64), np.full(len(left), _BLOCK), flags)
    return joined[:, number % 2 == 0], (counts + 1) // 2


def _positions(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2 ... for each piece, one behind the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _compress(
    chaining: Words,
    block: Words,
    counter: NDArray[np.int64],
    length: NDArray[np.int64],
    flags: NDArray[np.int64],
) -> Words:
    a, b = chaining[:4].copy(), chaining[4:].copy()
    c = np.repeat(_IV[:4, None], block.shape[1], axis=1)
    d = np.stack([counter, np.zeros_like(counter), length, flags]).astype(np.uint32)
    order = list(range(16))
    for _ in range(_ROUNDS):
        b, d = _mix(a, b, c, d, block[order[0:8:2]], block[order[1:8:2]])
        b, c, d = b[[1, 2, 3, 0]], c[[2, 3, 0, 1]], d[[3, 0, 1, 2]]
        b, d = _mix(a, b, c, d, block[order[8::2]], block[order[9::2]])
        b, c, d = b[[3, 0, 1, 2]], c[[2, 3, 0, 1]], d[[1, 2, 3, 0]]
        order = [order[index] for index in _PERMUTATION]
    return np.concatenate([a ^ c, b ^ d])


def _mix(a: Words, b: Words, c: Words, d: Words, first: Words, second: Words) -> tuple[Words, Words]:
    """Changes `a` and `c` in place, and gives the new `b` and `d`."""
    for message, far, near in ((first, 16, 12), (second, 8, 7)):
        a += b
        a += message
        d = _rotated(d ^ a, far)
        c += d
        b = _rotated(b ^ c, near)
    return b, d


def _rotated(words: Words, bits: int) -> Words:
    turned = words << np.uint32(32 - bits)
    words >>= np.uint32(bits)
    turned |= words
    return turned
