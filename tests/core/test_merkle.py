"""The Merkle tree of RFC 9162 section 2.1: against published vectors and the RFC's own recursions, and under attack."""

import hashlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    Tree,
    check_consistency,
    check_inclusion,
    leaf_hash,
    node_hash,
    prove_consistency,
    prove_inclusion,
)

# ---- the RFC's definitions, written down as they stand there: slow, and nothing in common with what is tested ----


def sha256(data):
    return hashlib.sha256(data).digest()


def split(n):
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d):
    """2.1.1"""
    if len(d) == 0:
        return sha256(b"")
    if len(d) == 1:
        return sha256(b"\x00" + d[0])
    k = split(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:]))


def rfc_path(m, d):
    """2.1.3.1: PATH"""
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return [*rfc_path(m, d[:k]), mth(d[k:])]
    return [*rfc_path(m - k, d[k:]), mth(d[:k])]


def rfc_subproof(m, d, b):
    """2.1.4.1: SUBPROOF"""
    if m == len(d):
        return [] if b else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*rfc_subproof(m, d[:k], b), mth(d[k:])]
    return [*rfc_subproof(m - k, d[k:], False), mth(d[:k])]


MOST = 70
LEAVES = [f"leaf {index}".encode() * (index % 5) + bytes([index]) for index in range(MOST + 1)]
ROOTS = [mth(LEAVES[:size]) for size in range(MOST + 2)]
SMALL = 20
"""Up to here every case is tried, and every change of it."""

# ---- published vectors: the eight leaves of the Certificate Transparency implementations ----

CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSIONS = [  # index (from 0), size, path
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CT_CONSISTENCIES = [  # old size, new size, path
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
    (
        6,
        7,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
]


def hashes(path):
    return tuple(bytes.fromhex(value) for value in path)


def tree(size, leaves=LEAVES):
    return Tree().extend(leaves[:size])


@pytest.mark.parametrize("size, root", enumerate(CT_ROOTS))
def test_the_published_roots(size, root):
    assert tree(size, CT_LEAVES).root().hex() == root


@pytest.mark.parametrize("index, size, path", CT_INCLUSIONS)
def test_the_published_inclusion_proofs_are_made_and_hold(index, size, path):
    root = bytes.fromhex(CT_ROOTS[size])
    proof = prove_inclusion(index, size, CT_LEAVES)
    assert (proof.path, proof.root) == (hashes(path), root)
    assert check_inclusion(CT_LEAVES[index], index, size, hashes(path), root)


@pytest.mark.parametrize("old_size, new_size, path", CT_CONSISTENCIES)
def test_the_published_consistency_proofs_are_made_and_hold(old_size, new_size, path):
    old_root, new_root = bytes.fromhex(CT_ROOTS[old_size]), bytes.fromhex(CT_ROOTS[new_size])
    proof = prove_consistency(old_size, new_size, CT_LEAVES)
    assert (proof.path, proof.old_root, proof.new_root) == (hashes(path), old_root, new_root)
    assert check_consistency(old_size, old_root, new_size, new_root, hashes(path))


# ---- the tree ----


@pytest.mark.parametrize("size", range(MOST + 1))
def test_the_root_is_the_one_of_the_rfc(size):
    assert tree(size).root() == ROOTS[size]


def test_the_empty_tree_has_the_hash_of_nothing_as_its_root():
    assert Tree().root() == EMPTY_ROOT == sha256(b"")


@given(st.lists(st.integers(0, MOST), min_size=1, max_size=9).map(sorted))
def test_a_tree_that_grows_in_pieces_is_the_tree_that_grew_at_once(sizes):
    grown = Tree()
    for size in sizes:
        grown = grown.extend(LEAVES[grown.size : size])
        assert grown == tree(size)


def test_one_leaf_at_a_time_comes_to_the_same():
    grown = Tree()
    for size, leaf in enumerate(LEAVES):
        assert grown == tree(size)
        grown = grown.append(leaf)


@pytest.mark.parametrize("size", [255, 256, 257, 511, 512, 513, 1000, 1023, 1300])
@pytest.mark.parametrize("first", [0, 1, 100, 255, 256])
def test_a_tree_that_is_too_large_for_one_batch_is_the_one_of_the_rfc(first, size):
    leaves = [b"%d" % index for index in range(max(first, size))]
    grown = tree(first, leaves).extend(leaves[first:size])
    assert grown.root() == mth(leaves)
    assert grown == Tree.parse(len(leaves), grown.peaks)


@pytest.mark.parametrize("size", range(MOST + 1))
def test_the_peaks_are_the_perfect_subtrees_of_the_size_in_binary_the_largest_first(size):
    expected, start = [], 0
    for bit in reversed(range(size.bit_length())):
        if size & 1 << bit:
            expected.append(mth(LEAVES[start : start + (1 << bit)]))
            start += 1 << bit
    assert tree(size) == Tree(size, tuple(expected))


def test_a_node_cannot_be_shown_as_a_leaf():
    two = tree(2)
    assert Tree().append(leaf_hash(LEAVES[0]) + leaf_hash(LEAVES[1])).root() != two.root()
    assert node_hash(leaf_hash(LEAVES[0]), leaf_hash(LEAVES[1])) == two.root()


@given(st.lists(st.binary(max_size=3), min_size=2, max_size=20, unique=True), st.data())
def test_leaves_that_change_places_change_the_root(leaves, data):
    one, other = data.draw(st.lists(st.sampled_from(range(len(leaves))), min_size=2, max_size=2, unique=True))
    swapped = list(leaves)
    swapped[one], swapped[other] = leaves[other], leaves[one]
    assert Tree().extend(swapped).root() != Tree().extend(leaves).root()


@pytest.mark.parametrize("size", range(MOST + 1))
def test_a_tree_that_was_written_down_is_read_again(size):
    assert Tree.parse(size, list(tree(size).peaks)) == tree(size)


@pytest.mark.parametrize(
    "size, peaks",
    [
        pytest.param(-1, tree(1).peaks, id="fewer than no leaves"),
        pytest.param(0, tree(1).peaks, id="a peak without leaves"),
        pytest.param(1, (), id="a leaf without a peak"),
        pytest.param(7, tree(6).peaks, id="a peak too few"),
        pytest.param(6, tree(7).peaks, id="a peak too many"),
        pytest.param(1, (b"\0" * (HASH_SIZE - 1),), id="a peak that is too short"),
        pytest.param(1, (b"\0" * (HASH_SIZE + 1),), id="a peak that is too long"),
        pytest.param(3, (b"", b"\0" * HASH_SIZE), id="an empty peak"),
        pytest.param("1", tree(1).peaks, id="a size that is a text"),
        pytest.param(1.0, tree(1).peaks, id="a size that is a fraction"),
        pytest.param(True, tree(1).peaks, id="a size that is a truth"),
        pytest.param(None, (), id="no size"),
        pytest.param(2**63, (b"\0" * HASH_SIZE,), id="more leaves than can be counted"),
    ],
)
def test_peaks_that_do_not_fit_their_size_are_refused(size, peaks):
    with pytest.raises(ValueError, match="not the peaks of a tree"):
        Tree.parse(size, peaks)


# ---- proofs: made as the RFC makes them ----


@given(st.data())
def test_an_inclusion_proof_is_the_one_of_the_rfc_whatever_was_pruned(data):
    size = data.draw(st.integers(1, MOST), "size")
    index = data.draw(st.integers(0, size - 1), "index")
    base = data.draw(st.integers(0, index), "base")
    proof = prove_inclusion(index, size, LEAVES[base:], tree(base))
    assert proof.path == tuple(rfc_path(index, LEAVES[:size]))
    assert proof.root == ROOTS[size]
    assert check_inclusion(LEAVES[index], index, size, proof.path, proof.root)


@given(st.data())
def test_a_consistency_proof_is_the_one_of_the_rfc_whatever_was_pruned(data):
    new_size = data.draw(st.integers(1, MOST), "new size")
    old_size = data.draw(st.integers(1, new_size), "old size")
    base = data.draw(st.integers(0, old_size), "base")
    proof = prove_consistency(old_size, new_size, LEAVES[base:], tree(base))
    assert proof.path == tuple(rfc_subproof(old_size, LEAVES[:new_size], True))
    assert (proof.old_root, proof.new_root) == (ROOTS[old_size], ROOTS[new_size])
    assert check_consistency(old_size, proof.old_root, new_size, proof.new_root, proof.path)


def test_every_leaf_of_every_small_tree_is_proven_over_every_base():
    for size in range(1, SMALL):
        for index in range(size):
            expected = tuple(rfc_path(index, LEAVES[:size]))
            for base in range(index + 1):
                assert prove_inclusion(index, size, LEAVES[base:], tree(base)).path == expected


def test_every_two_small_trees_are_proven_consistent_over_every_base():
    for new_size in range(1, SMALL):
        for old_size in range(1, new_size + 1):
            expected = tuple(rfc_subproof(old_size, LEAVES[:new_size], True))
            for base in range(old_size + 1):
                assert prove_consistency(old_size, new_size, LEAVES[base:], tree(base)).path == expected


@pytest.mark.parametrize("new_size", [0, 1, 13])
def test_every_tree_is_consistent_with_the_empty_one(new_size):
    proof = prove_consistency(0, new_size, LEAVES)
    assert (proof.path, proof.old_root, proof.new_root) == ((), EMPTY_ROOT, ROOTS[new_size])
    assert check_consistency(0, EMPTY_ROOT, new_size, ROOTS[new_size], ())
    assert not check_consistency(0, ROOTS[1], new_size, ROOTS[new_size], ()), "no other root is the empty tree's"
    assert not check_consistency(0, EMPTY_ROOT, new_size, ROOTS[new_size], (EMPTY_ROOT,)), "there is nothing to show"


def test_a_tree_is_consistent_with_itself_alone():
    assert check_consistency(7, ROOTS[7], 7, ROOTS[7], ())
    assert not check_consistency(7, ROOTS[7], 7, ROOTS[6], ())
    assert not check_consistency(7, ROOTS[7], 7, ROOTS[7], (ROOTS[7],))


@pytest.mark.parametrize(
    "index, size, base",
    [
        pytest.param(-1, 8, 0, id="before the first"),
        pytest.param(8, 8, 0, id="behind the last"),
        pytest.param(0, 0, 0, id="of no leaves"),
        pytest.param(3, 8, 4, id="pruned"),
        pytest.param(4, 4, 8, id="of a tree that is pruned altogether"),
    ],
)
def test_a_leaf_that_is_not_there_is_not_proven(index, size, base):
    with pytest.raises(ValueError, match="is not among the leaves"):
        prove_inclusion(index, size, LEAVES[base:], tree(base))


@pytest.mark.parametrize(
    "old_size, new_size, base",
    [
        pytest.param(-1, 8, 0, id="from fewer than no leaves"),
        pytest.param(9, 8, 0, id="back in time"),
        pytest.param(3, 8, 4, id="from a size whose leaves are pruned"),
    ],
)
def test_what_cannot_be_consistent_is_not_proven(old_size, new_size, base):
    with pytest.raises(ValueError, match="no proof from"):
        prove_consistency(old_size, new_size, LEAVES[base:], tree(base))


@pytest.mark.parametrize("missing", [1, 2, 5, 9])
@pytest.mark.parametrize("index", [4, 12])
def test_leaves_that_end_early_prove_nothing(missing, index):
    with pytest.raises(ValueError, match="the leaves end early"):
        prove_inclusion(index, 13, LEAVES[4 : 13 - missing], tree(4))
    with pytest.raises(ValueError, match="the leaves end early"):
        prove_consistency(index, 13, LEAVES[4 : 13 - missing], tree(4))


@pytest.mark.parametrize("base", [0, 5])
def test_the_leaves_are_read_once_in_order_and_no_further_than_the_size(base):
    for prove in (prove_inclusion, prove_consistency):
        rest = iter(LEAVES[base:])
        prove(9, 23, rest, tree(base))
        assert next(rest) == LEAVES[23]


@pytest.mark.parametrize("prove", [prove_inclusion, prove_consistency])
def test_a_proof_takes_no_memory_that_grows_with_the_journal(prove):
    size = 1 << 14
    leaves = (b"%219d" % index for index in range(size))
    prove(size // 3, size - 1, leaves)
    leaves = (b"%219d" % index for index in range(size))
    tracemalloc.start()
    try:
        prove(size // 3, size - 1, leaves)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 256 * 1024, "the leaves alone are over 3 MB, their hashes 0.5 MB"


# ---- checks: what must not hold ----


def changed_paths(path, others):
    """Every path that differs from ``path`` by one blow."""
    for position, value in enumerate(path):
        before, after = path[:position], path[position + 1 :]
        for byte in (0, 17, HASH_SIZE - 1):
            flipped = bytearray(value)
            flipped[byte] ^= 1 << position % 8
            yield (*before, bytes(flipped), *after)
        yield (*before, value[:-1], *after)
        yield (*before, value + b"\0", *after)
        yield before + after
        yield (*before, value, value, *after)
        for other in range(position):
            swapped = list(path)
            swapped[other], swapped[position] = path[position], path[other]
            yield tuple(swapped)
    for value in (*others, b""):
        for position in range(len(path) + 1):
            yield (*path[:position], value, *path[position:])
    if path:
        yield ()


def test_no_changed_path_shows_a_leaf():
    for size in range(1, SMALL):
        for index in range(size):
            path = prove_inclusion(index, size, LEAVES).path
            for changed in changed_paths(path, (ROOTS[size], leaf_hash(LEAVES[index]), EMPTY_ROOT)):
                assert not check_inclusion(LEAVES[index], index, size, changed, ROOTS[size])


def test_no_changed_path_shows_consistency():
    for new_size in range(1, SMALL):
        for old_size in range(new_size + 1):
            old_root, new_root = ROOTS[old_size], ROOTS[new_size]
            path = prove_consistency(old_size, new_size, LEAVES).path
            for changed in changed_paths(path, (old_root, new_root, EMPTY_ROOT)):
                assert not check_consistency(old_size, old_root, new_size, new_root, changed)


def test_a_path_shows_no_other_leaf_no_other_place_and_no_other_tree():
    for size in range(1, SMALL):
        for index in range(size):
            leaf, path = LEAVES[index], prove_inclusion(index, size, LEAVES).path
            for other in range(-2, SMALL * 2):
                if other != index:
                    assert not check_inclusion(leaf, other, size, path, ROOTS[size]), "another place"
                    assert not check_inclusion(LEAVES[other % MOST], index, size, path, ROOTS[size]), "another leaf"
                if other != size and other >= 0:
                    assert not check_inclusion(leaf, index, other, path, ROOTS[other]), "another tree of this log"
                    assert not check_inclusion(leaf, index, size, path, ROOTS[other]), "another root"


def test_a_path_shows_no_other_old_or_new_tree():
    sizes = range(SMALL + 3)
    for new_size in range(1, SMALL):
        for old_size in range(1, new_size):
            path = prove_consistency(old_size, new_size, LEAVES).path
            for old in sizes:
                assert check_consistency(old, ROOTS[old], new_size, ROOTS[new_size], path) is (old == old_size)
                if old != old_size:
                    assert not check_consistency(old, ROOTS[old_size], new_size, ROOTS[new_size], path)
                    assert not check_consistency(old_size, ROOTS[old], new_size, ROOTS[new_size], path)
            for new in sizes:
                assert check_consistency(old_size, ROOTS[old_size], new, ROOTS[new], path) is (new == new_size)
                if new != new_size:
                    assert not check_consistency(old_size, ROOTS[old_size], new_size, ROOTS[new], path)


def test_a_size_that_is_not_the_roots_own_may_pass_so_both_have_to_come_from_one_checkpoint():
    """RFC 9162 signs the size with the root for this reason: a path does not say how far a tree goes on elsewhere."""
    path, root = prove_inclusion(0, 4, LEAVES).path, ROOTS[4]
    assert check_inclusion(LEAVES[0], 0, 3, path, root)
    assert not check_inclusion(LEAVES[0], 0, 3, path, ROOTS[3])


@given(st.data())
def test_a_log_that_changed_one_leaf_is_not_consistent_with_what_it_was(data):
    new_size = data.draw(st.integers(2, MOST), "new size")
    old_size = data.draw(st.integers(1, new_size), "old size")
    edited = data.draw(st.integers(0, old_size - 1), "edited leaf")
    forged = [*LEAVES[:edited], b"nobody was there", *LEAVES[edited + 1 :]]
    proof = prove_consistency(old_size, new_size, forged)
    for path in (proof.path, prove_consistency(old_size, new_size, LEAVES).path):
        assert not check_consistency(old_size, ROOTS[old_size], new_size, proof.new_root, path)


@given(st.data())
def test_a_log_that_left_out_or_put_in_a_leaf_is_not_consistent_with_what_it_was(data):
    old_size = data.draw(st.integers(1, MOST - 2), "old size")
    at = data.draw(st.integers(0, old_size - 1), "place")
    for forged in ([*LEAVES[:at], *LEAVES[at + 1 :]], [*LEAVES[:at], b"a guest", *LEAVES[at:]]):
        proof = prove_consistency(old_size, old_size + 1, forged)
        assert not check_consistency(old_size, ROOTS[old_size], old_size + 1, proof.new_root, proof.path)


def test_a_log_that_lost_its_end_is_not_consistent_with_what_it_was():
    for new_size in range(SMALL):
        for old_size in range(new_size + 1, SMALL):
            assert not check_consistency(old_size, ROOTS[old_size], new_size, ROOTS[new_size], ())


def test_a_byte_that_moves_from_one_hash_to_the_next_is_noticed():
    """The node would be hashed over the same text."""
    left, right = leaf_hash(LEAVES[0]), leaf_hash(LEAVES[1])
    assert check_consistency(1, left, 2, ROOTS[2], (right,))
    assert not check_consistency(1, left[:-1], 2, ROOTS[2], (left[-1:] + right,))
    assert not check_consistency(1, left + right[:1], 2, ROOTS[2], (right[1:],))


@pytest.mark.parametrize("root", [b"", ROOTS[3][:-1], ROOTS[3] + b"\0"])
def test_a_root_of_another_length_is_no_root(root):
    path = prove_inclusion(1, 3, LEAVES).path
    assert not check_inclusion(LEAVES[1], 1, 3, path, root)
    assert not check_consistency(3, root, 3, root, ())


def test_a_path_that_goes_on_past_the_top_of_its_tree_shows_nothing():
    """RFC 9162 2.1.3.2, 4.a: here to the root of a larger tree, in which the leaf stands elsewhere."""
    assert check_inclusion(LEAVES[1], 1, 2, (leaf_hash(LEAVES[0]),), ROOTS[2])
    assert not check_inclusion(LEAVES[1], 0, 1, (leaf_hash(LEAVES[0]),), ROOTS[2])


@pytest.mark.parametrize("size", [-1, -2, -8])
def test_there_are_no_trees_of_fewer_than_no_leaves(size):
    for path in ((), (ROOTS[1],), (ROOTS[1], ROOTS[2])):
        assert not check_inclusion(LEAVES[0], size, 8, path, ROOTS[8])
        assert not check_inclusion(LEAVES[0], size - 1, size, path, ROOTS[8])
        assert not check_consistency(size, ROOTS[1], 8, ROOTS[8], path)
        assert not check_consistency(size, ROOTS[1], size, ROOTS[1], path)


def test_huge_numbers_are_refused_at_once():
    path = prove_inclusion(1, 3, LEAVES).path
    assert not check_inclusion(LEAVES[1], 1, 1 << 4000, path, ROOTS[3])
    assert not check_inclusion(LEAVES[1], 1 << 4000, 1 << 4001, path, ROOTS[3])
    assert not check_consistency(1, ROOTS[1], 1 << 4000, ROOTS[3], prove_consistency(1, 3, LEAVES).path)
