"""Checkpoints that were kept, in the forms that they come back in."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.simulated import IDENTITY
from vestibule_core.kept import read_kept
from vestibule_core.note import Checkpoint, NoteError, SignerKey

KEYS = [IDENTITY.verifier]
CHECKPOINT = Checkpoint(IDENTITY.verifier.name, 8, bytes(range(32)))
NOTE = IDENTITY.sign(CHECKPOINT.text)
WITNESS = SignerKey("witness", Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(NOTE, id="as it was written"),
        pytest.param(NOTE.strip(), id="without its last newline"),
        pytest.param(NOTE.replace("\n", "\r\n"), id="with the line ends of Windows"),
        pytest.param(NOTE.replace("\n", "\n\n"), id="with an empty line behind each"),
        pytest.param("\n".join(f"  {line}" for line in NOTE.split("\n")), id="indented"),
        pytest.param(NOTE.replace("test ", "test\n"), id="its long line folded"),
        pytest.param(NOTE + WITNESS.sign(CHECKPOINT.text).rpartition("\n\n")[2], id="signed by a witness as well"),
    ],
)
def test_a_checkpoint_is_read_however_it_was_kept(text):
    assert read_kept(text, KEYS) == CHECKPOINT


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "copy it whole"),
        (CHECKPOINT.text, "copy it whole"),
        (NOTE + "kind regards", "copy it whole"),
        (NOTE + "with kind regards", "is not a signature"),
        (NOTE.replace("\n8\n", "\n9\n"), "is false"),
        (WITNESS.sign(CHECKPOINT.text), "no known key"),
        (IDENTITY.sign(Checkpoint("vestibule/another", 8, bytes(32)).text), "another journal's"),
        ("\ud800" + NOTE, "not Unicode"),
    ],
)
def test_what_is_no_checkpoint_of_this_journal_is_refused(text, why):
    with pytest.raises(NoteError, match=why):
        read_kept(text, KEYS)


def test_no_cut_text_is_a_checkpoint():
    for end in range(len(NOTE) - 1):
        with pytest.raises(NoteError):
            read_kept(NOTE[:end], KEYS)
