"""An exported journal says what the journal said, in one spelling: no byte of it can be changed unnoticed."""

import pytest

from tests.simulated import IDENTITY, small_journal
from vestibule_core import audit
from vestibule_core.bundle import MAX_LINE, Bundle, decode_end, encode_end, encode_header, encode_run
from vestibule_core.evidence import Broken, Header, PersonPart, Run, SignedSize, read_header, read_runs
from vestibule_core.leaf import compact
from vestibule_core.merkle import Tree
from vestibule_core.schema import look

KEY = IDENTITY.verifier


@pytest.fixture
async def journal(tmp_path):
    """The header and the runs of a small journal."""
    with look(await small_journal(tmp_path / "journal.db", entries=3)) as db:
        header = read_header(db)
        return header, list(read_runs(db, header))


def written(header, runs, **how):
    last = runs[-1].last if runs else header.base.size
    return b"".join([encode_header(header), *(encode_run(run, **how) for run in runs), encode_end(last)])


def read(text):
    bundle = Bundle.open(text.splitlines(keepends=True))
    return bundle.header, list(bundle.runs())


def verdict(text):
    bundle = Bundle.open(text.splitlines(keepends=True))
    return audit.verify(bundle.header, bundle.runs(), keys=[KEY])


def test_what_was_exported_is_read_again(journal):
    header, runs = journal
    again, read_again = read(written(header, runs))
    assert (again.keys, again.base, again.base_note) == (header.keys, header.base, header.base_note)
    assert read_again == runs
    assert verdict(written(header, runs)).holds


def test_a_long_journal_comes_in_runs_that_end_at_checkpoints(monkeypatch, journal):
    monkeypatch.setattr("vestibule_core.bundle.RUN", 2)
    header, [run] = journal
    _, runs = read(written(header, [run]))
    assert [(part.first, part.last) for part in runs] == [(1, 2), (3, 3)]
    assert verdict(written(header, [run])).holds


def test_without_persons_it_can_be_verified_as_well(journal):
    header, runs = journal
    text = written(header, runs, persons=False)
    assert b"User" not in text
    assert verdict(text).persons == 0
    assert verdict(text).holds


def test_an_empty_journal_can_be_exported(tmp_path):
    assert verdict(written(Header((KEY,), Tree(), None, 0), [])).holds


def test_row_67_every_flipped_byte_of_an_exported_journal_is_found(journal):
    text = written(*journal)
    assert verdict(text).holds
    for at in range(len(text)):
        flipped = text[:at] + bytes([text[at] ^ 1 << at % 8]) + text[at + 1 :]
        try:
            assert not verdict(flipped).holds, f"byte {at}"
        except ValueError:
            assert at < len(encode_header(journal[0])), (
                "only what is wrong with the header keeps the rest from being read"
            )


@pytest.mark.parametrize(
    "alter, first, last",
    [
        (lambda lines: lines[:-1], 4, 4),
        (lambda lines: [*lines, b"{}\n"], 4, 4),
        (lambda lines: [*lines[:-1], encode_end(4)], 4, 4),
        (lambda lines: [*lines[:-1], b'{"entries":true}\n'], 4, 4),
        (lambda lines: [*lines[:-3], lines[-1]], 3, 3),
        (lambda lines: [*lines[:3], lines[5], lines[4], *lines[5:]], 2, 2),
        (lambda lines: [*lines[:3], b"{" * 10_000 + b"\n", *lines[3:]], 2, 2),
        (lambda lines: [*lines[:3], b'{"leaf":"' + b"x" * MAX_LINE + b'"}\n', *lines[3:]], 2, 2),
        (lambda lines: [*lines[:3], lines[3].replace(b'":"', b'": "', 1), *lines[4:]], 2, 2),
        (lambda lines: [*lines[:3], b'{"leaf":1}\n', *lines[3:]], 2, 2),
        (lambda lines: [*lines[:3], b'{"leaf":"{}","person":"\\ud800","salt":"00"}\n', *lines[3:]], 2, 2),
        (lambda lines: [*lines[:3], b"[" * 100_000 + b"\n"], 2, 2),
    ],
    ids=[
        "last line gone", "more behind it", "another count", "no count", "an entry gone", "swapped", "nested",
        "a long line", "another spelling", "a number for a leaf", "half a character", "nested too deeply",
    ],
)  # fmt: skip
def test_what_was_altered_is_found_and_the_interval_is_named(journal, alter, first, last):
    text = b"".join(alter(written(*journal).splitlines(keepends=True)))
    failure = verdict(text).failure
    assert (failure.first, failure.last) == (first, last)


@pytest.mark.parametrize(
    "members",
    [
        {"format": "vestibule-journal/2"},
        {"more": 1},
        {"base": 1},
        {"keys": [1]},
        {"base": {"peaks": [1], "size": 1}},
        {"base": {"peaks": ["AB" * 32], "size": 1}},
        {"base": {"peaks": [], "size": 1}},
        {"base_note": "a note"},
        {"base": {"peaks": ["00" * 32], "size": 2**63}},
        {"keys": ["vestibule/test+00000000+AAAA"]},
    ],
    ids=str,
)
def test_what_has_another_header_is_not_read(journal, members):
    line = {"base": {"peaks": [], "size": 0}, "base_note": None, "format": "vestibule-journal/1", "keys": []}
    with pytest.raises(ValueError, match=r"."):
        Bundle.open([compact(line | members).encode() + b"\n"])
    with pytest.raises(ValueError, match=r"."):
        Bundle.open([])


def test_only_a_last_line_says_how_many_there_were():
    assert decode_end(encode_end(7)) == 7
    for line in (b"", b"{}\n", b'{"entries":true}\n', b'{"entries":7,"more":1}\n', b'{"entries":7}'):
        assert decode_end(line) is None


@pytest.mark.parametrize(
    "leaf, person, note",
    [
        (b"\xff", "", ""),
        (b"x" * MAX_LINE, "", ""),
        (b"{}", '"' * (MAX_LINE // 2), ""),
        (b"{}", "", "x" * MAX_LINE),
    ],
    ids=["no text", "a long leaf", "a long person", "a long note"],
)
def test_what_no_line_can_hold_is_not_exported(leaf, person, note):
    """It would be written, and never be read again."""
    run = Run(5, (b"{}", leaf), (PersonPart(6, b"", person),), (SignedSize(6, note),))
    with pytest.raises(Broken, match="cannot be exported") as broken:
        encode_run(run)
    assert broken.value.after == 5


def test_a_header_that_no_line_can_hold_is_not_written():
    with pytest.raises(ValueError, match="longer than"):
        encode_header(Header((KEY,) * 1000, Tree(), None, 0))


@pytest.mark.parametrize("line", [b"\xff\n", b'{"leaf":NaN}\n', b"{}".decode().encode("utf-16")])
def test_what_is_no_strict_json_is_no_line(line):
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own words
        Bundle.open([line])
