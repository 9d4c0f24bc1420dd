"""The journal's Merkle tree and its proofs (RFC 9162 section 2.1), over bytes that somebody else stores.

A tree is kept as its peaks, some dozen hashes, never as all its nodes: whoever wants a proof passes the leaves by once
more, in order. It signs nothing and trusts nobody: a root says nothing until it comes from a checkpoint (note.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import batched, islice
from typing import Final, Self

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = sha256().digest()
MAX_SIZE: Final = 2**63 - 1
"""Leaves of a tree; what SQLite counts to."""

_BATCH: Final = 256


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf's bytes. The prefix keeps a node from being shown as a leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node over two others."""
    return sha256(b"\1" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree as what it takes to go on with it: its size and the roots of its perfect subtrees, the largest first.

    Those subtrees are the ones of the size's binary digits, so a tree of 10^6 leaves has at most 20.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, size: int, peaks: Iterable[bytes]) -> Self:
        """Return the tree that a file or another program describes; raise ValueError if there is none of that shape."""
        peaks = tuple(peaks)
        is_size = type(size) is int and 0 <= size <= MAX_SIZE
        if not is_size or len(peaks) != size.bit_count() or not _are_hashes(peaks):
            raise ValueError(f"not the peaks of a tree of {size} leaves")
        return cls(size, peaks)

    def append(self, leaf: bytes) -> Self:
        """Return the tree with one more leaf, given by its bytes."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Self:
        """Return the tree with these leaves behind its own."""
        size, peaks = self.size, list(self.peaks)
        # A verification comes by here with a million leaves: in batches, and without a call but the hash.
        for batch in batched(leaves, _BATCH, strict=False):
            nodes, subtrees = [sha256(b"\0" + leaf).digest() for leaf in batch], size
            left_over = []
            while nodes:  # one level of the tree, as in a binary addition: the old peak, if any, is carried in
                if subtrees & 1:
                    nodes.insert(0, peaks.pop())
                if len(nodes) & 1:
                    left_over.append(nodes.pop())
                pairs = zip(nodes[::2], nodes[1::2], strict=True)
                nodes, subtrees = [sha256(b"\1" + left + right).digest() for left, right in pairs], subtrees >> 1
            peaks += reversed(left_over)
            size += len(batch)
        return type(self)(size, tuple(peaks))

    def root(self) -> bytes:
        """Return the hash that stands for all leaves and their order."""
        if not self.peaks:
            return EMPTY_ROOT
        *larger, node = self.peaks
        for peak in reversed(larger):
            node = node_hash(peak, node)
        return node


@dataclass(frozen=True, slots=True)
class Inclusion:
    """Shows that one leaf is in the tree with this root."""

    path: tuple[bytes, ...]
    root: bytes


@dataclass(frozen=True, slots=True)
class Consistency:
    """Shows that the tree with the new root begins with all of the tree with the old one."""

    path: tuple[bytes, ...]
    old_root: bytes
    new_root: bytes


def prove_inclusion(index: int, size: int, leaves: Iterable[bytes], base: Tree = Tree()) -> Inclusion:
    """Prove that leaf ``index`` is among the first ``size``, in one pass over ``leaves``: those from ``base.size`` on.

    Raises ValueError if that leaf is gone or not among them, or if the leaves end early.
    """
    if not base.size <= index < size:
        raise ValueError(f"leaf {index} is not among the leaves from {base.size} to {size}")
    path, root = _Pass(leaves, base).path(index, size)
    return Inclusion(path, root)


def prove_consistency(old_size: int, new_size: int, leaves: Iterable[bytes], base: Tree = Tree()) -> Consistency:
    """Prove that the first ``new_size`` leaves begin with the first ``old_size``; otherwise as prove_inclusion."""
    if not base.size <= old_size <= new_size:
        raise ValueError(f"no proof from {old_size} to {new_size} leaves without the first {base.size}")
    rest = _Pass(leaves, base)
    if old_size == 0:
        return Consistency((), EMPTY_ROOT, rest.root(new_size))
    return Consistency(*rest.consistency(old_size, new_size, known=True))


class _Pass:
    """Goes by the leaves once: RFC 9162's recursions, the left side first. Each method takes the next ``size`` leaves.

    A proof about what comes after ``base`` never needs less of it than whole peaks, so its leaves are not missed.
    """

    def __init__(self, leaves: Iterable[bytes], base: Tree) -> None:
        """Begin at the first leaf of ``base``."""
        self._leaves: Iterator[bytes] = iter(leaves)
        self._gone = base.size
        self._peaks = iter(base.peaks)

    def root(self, size: int) -> bytes:
        """Return MTH of these leaves."""
        known, peaks = 0, []
        while self._gone and (subtree := _largest_power_of_two(self._gone)) <= size - known:
            peaks.append(next(self._peaks))
            self._gone -= subtree
            known += subtree
        tree = Tree(known, tuple(peaks)).extend(islice(self._leaves, size - known))
        if tree.size != size:
            raise ValueError("the leaves end early")
        return tree.root()

    def path(self, index: int, size: int) -> tuple[tuple[bytes, ...], bytes]:
        """Return PATH(index, these leaves), and MTH."""
        if size == 1:
            return (), self.root(1)
        left_size = _largest_power_of_two(size - 1)
        if index < left_size:
            path, left = self.path(index, left_size)
            right = self.root(size - left_size)
            return (*path, right), node_hash(left, right)
        left = self.root(left_size)
        path, right = self.path(index - left_size, size - left_size)
        return (*path, left), node_hash(left, right)

    def consistency(self, old_size: int, size: int, *, known: bool) -> tuple[tuple[bytes, ...], bytes, bytes]:
        """Return SUBPROOF(old_size, these leaves, known), MTH of the first ``old_size``, and MTH."""
        if old_size == size:
            root = self.root(size)
            return () if known else (root,), root, root
        left_size = _largest_power_of_two(size - 1)
        if old_size <= left_size:
            path, old, left = self.consistency(old_size, left_size, known=known)
            right = self.root(size - left_size)
            return (*path, right), old, node_hash(left, right)
        left = self.root(left_size)
        path, old, right = self.consistency(old_size - left_size, size - left_size, known=False)
        return (*path, left), node_hash(left, old), node_hash(left, right)


def _largest_power_of_two(most: int) -> int:
    return 1 << most.bit_length() - 1


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Return whether ``path`` shows these bytes as leaf ``index`` of the tree of ``size`` leaves (RFC 9162 2.1.3.2).

    Size and root have to come from one checkpoint: under a size that is not the root's, the answer means nothing.
    """
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf_hash(leaf)
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def check_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Return whether ``path`` shows that the new tree begins with all of the old one (RFC 9162 2.1.4.2).

    Each size and its root have to come from one checkpoint. The RFC leaves out what needs no path: a tree begins with
    itself and with the empty tree.
    """
    if not 0 <= old_size <= new_size or not _are_hashes((*path, old_root, new_root)):
        return False
    if old_size == new_size:
        return not path and old_root == new_root
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    if not path:
        return False
    if old_size.bit_count() == 1:
        path = (old_root, *path)
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == new_root


def _are_hashes(values: Iterable[bytes]) -> bool:
    # A byte that moves from one hash to the next would be hashed as the same text.
    return all(len(value) == HASH_SIZE for value in values)
