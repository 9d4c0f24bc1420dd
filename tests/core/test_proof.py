"""The proof of one entry stands alone, and proves nothing if a byte of it is another."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.simulated import IDENTITY, small_journal
from vestibule_core import evidence, merkle
from vestibule_core.evidence import Broken, read_header, read_runs
from vestibule_core.merkle import Tree
from vestibule_core.note import Checkpoint, NoteError, SignerKey, encode
from vestibule_core.proof import EntryProof, prove
from vestibule_core.schema import look

KEY = IDENTITY.verifier
STRANGER = SignerKey("vestibule/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.fixture
async def journal(tmp_path):
    with look(await small_journal(tmp_path / "journal.db")) as db:
        header = read_header(db)
        return header, list(read_runs(db, header))


def of_entry(journal, sequence, *, person=True):
    header, runs = journal
    return prove(header, runs, sequence, person=person)


@pytest.mark.parametrize("sequence", range(1, 9))
def test_each_entry_can_be_proved_with_who_it_was(journal, sequence):
    proof = of_entry(journal, sequence)
    entry, checkpoint = EntryProof.parse(str(proof)).check([KEY])
    assert (entry.leaf.sequence, checkpoint.size) == (sequence, 8)
    assert f"User {sequence}" in entry.person.text


def test_an_entry_can_be_proved_without_who_it_was(journal):
    text = str(of_entry(journal, 3, person=False))
    entry, _ = EntryProof.parse(text).check([KEY])
    assert entry.person is None


def test_it_is_a_proof_as_others_write_it(journal):
    """c2sp.org/tlog-proof@v1: its extra data is ours, the rest is checked as the RFC says."""
    head, _, note = str(of_entry(journal, 3)).partition("\n\n")
    first, extra, index, *path = head.split("\n")
    assert (first, extra.split()[0], index, len(path)) == ("c2sp.org/tlog-proof@v1", "extra", "index 2", 3)
    assert note.startswith("vestibule/test\n8\n")


def test_an_entry_in_a_later_run_is_proved_without_what_came_before(monkeypatch, tmp_path, journal):
    """Only the run that it is in is held in memory."""
    header, [run] = journal
    cut = [
        replace(run, leaves=run.leaves[:4], persons=run.persons[:4], checkpoints=run.checkpoints[:4]),
        evidence.Run(5, run.leaves[4:], run.persons[4:], run.checkpoints[4:]),
    ]
    for sequence in range(1, 9):
        assert of_entry((header, cut), sequence).check([KEY])[0].leaf.sequence == sequence


def test_what_is_not_there_cannot_be_proved(journal):
    header, [run] = journal
    for sequence, where in ((9, journal), (2, (replace(header, base=Tree().extend(run.leaves[:3])), [run]))):
        with pytest.raises(NoteError, match="there is no entry"):
            of_entry(where, sequence)


def test_what_is_not_signed_cannot_be_proved(journal):
    header, [run] = journal
    with pytest.raises(NoteError, match="not signed"):
        of_entry((header, [replace(run, checkpoints=run.checkpoints[:5])]), 6)


def test_what_is_not_signed_because_the_journal_is_broken_is_said_to_be_broken(journal):
    header, [run] = journal

    def runs():
        yield replace(run, leaves=run.leaves[:6], persons=(), checkpoints=run.checkpoints[:5])
        raise Broken(6, "the file is damaged")

    with pytest.raises(Broken):
        of_entry((header, runs()), 6)
    assert of_entry((header, runs()), 5).sequence == 5


def test_what_is_not_what_was_signed_is_not_proved(journal):
    header, [run] = journal
    with pytest.raises(NoteError, match="not in the journal"):
        of_entry((header, [replace(run, leaves=(*run.leaves[:2], b"{}", *run.leaves[3:]))]), 3)


def test_row_67_every_flipped_byte_of_a_proof_is_found(journal):
    text = str(of_entry(journal, 3)).encode()
    for at in range(len(text)):
        flipped = text[:at] + bytes([text[at] ^ 1 << at % 8]) + text[at + 1 :]
        with pytest.raises(ValueError, match=r"."):  # a NoteError, or not UTF-8
            EntryProof.parse(flipped.decode()).check([KEY])


def test_a_proof_that_another_key_signed_is_none(journal):
    proof = of_entry(journal, 3)
    with pytest.raises(NoteError, match=r"false|no known key"):
        proof.check([STRANGER.verifier])


def signed(leaf, origin="vestibule/test", person=None, sequence=1):
    """A proof of whatever its signer says."""
    tree = Tree().append(leaf)
    return EntryProof(sequence, leaf, person, (), IDENTITY.sign(Checkpoint(origin, 1, tree.root()).text))


@pytest.mark.parametrize(
    "of, why",
    [
        (lambda leaf, _: signed(leaf, origin="another"), "another journal's"),
        (lambda *_: signed(b"no leaf"), "cannot be read"),
        (lambda leaf, _: signed(leaf.replace(b'"seq":1', b'"seq":2')), "another number"),
        (lambda leaf, part: signed(leaf, person=replace(part, text="{}")), "not the one"),
        (lambda leaf, part: signed(leaf, person=replace(part, salt=b"")), "not the one"),
        (lambda leaf, _: replace(signed(leaf), sequence=2), "not in the journal"),
    ],
)
def test_what_a_proof_says_fits_together(journal, of, why):
    _, [run] = journal
    with pytest.raises(NoteError, match=why):
        of(run.leaves[0], run.persons[0]).check([KEY])


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "copy it whole"),
        ("c2sp.org/tlog-proof@v1\nindex 2\n\n", "copy it whole"),
        ("c2sp.org/tlog-proof@v1\nextra AAAA\nindex 02\n\n", "index"),
        ("c2sp.org/tlog-proof@v1\nextra A\nindex 2\n\n", "base64"),
        (f"c2sp.org/tlog-proof@v1\nextra {encode(b'{}')}\nindex 2\n\n", "entry in the proof"),
        (f"c2sp.org/tlog-proof@v1\nextra {encode(b'[')}\nindex 2\n\n", "entry in the proof"),
    ],
)
def test_what_is_no_proof_is_not_read(text, why):
    with pytest.raises(NoteError, match=why):
        EntryProof.parse(text)


def test_a_path_of_other_hashes_leads_nowhere(journal):
    proof = of_entry(journal, 3)
    for path in (proof.path[:-1], (*proof.path, merkle.EMPTY_ROOT), (b"", *proof.path[1:])):
        with pytest.raises(NoteError, match="not in the journal"):
            replace(proof, path=path).check([KEY])
