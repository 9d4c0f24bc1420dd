"""What the checkpoints of a journal are called, and that only its controller's own word counts."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.cosignature import cosign
from vestibule_core.epoch import Epoch, read_head, split_name
from vestibule_core.note import NoteError, SignerKey

BASE = "vestibule/gateway"
KEY = SignerKey(BASE, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
STRANGER = SignerKey(BASE, Ed25519PrivateKey.from_private_bytes(bytes(32)))
ROOT = base64.b64encode(bytes(32)).decode()


def note(name=BASE, size=7, key=KEY):
    return key.renamed(name).sign(f"{name}\n{size}\n{ROOT}\n")


def test_a_journal_begins_without_an_epoch_in_its_name():
    assert Epoch().name(BASE) == BASE
    assert split_name(BASE) == (BASE, Epoch(0, 1))
    assert Epoch(2, 41).name(BASE) == "vestibule/gateway/epoch/2/41"


@given(st.integers(1, 999_999_999), st.integers(1, 2**62))
def test_a_name_says_which_epoch_it_is(number, first):
    epoch = Epoch(number, first)
    assert split_name(epoch.name(BASE)) == (BASE, epoch)


@pytest.mark.parametrize("end", ["/epoch/0/1", "/epoch/01/1", "/epoch/1/0", "/epoch/1", "/epoch/1/1/", "/epoch/x/1"])
def test_a_name_that_is_nearly_an_epochs_is_another_journals(end):
    assert split_name(BASE + end) == (BASE + end, Epoch())


def test_a_checkpoint_of_any_epoch_is_read_by_the_controllers_key():
    first, later = read_head(note(), [KEY.verifier]), read_head(note(f"{BASE}/epoch/1/5"), [KEY.verifier])
    assert (first.epoch, first.size) == (Epoch(), 7)
    assert (later.epoch, later.words) == (Epoch(1, 5), f"{BASE}/epoch/1/5 7 {ROOT}")
    assert read_head(note(), [KEY.renamed(f"{BASE}/epoch/1/5").verifier]).epoch == Epoch(), "and by a later name of it"


def test_of_all_who_signed_a_checkpoint_only_its_controller_stays():
    bare = note()
    stranger = STRANGER.renamed("stranger")
    for crowd in (cosign(stranger, bare, 7), cosign(stranger, cosign(KEY, bare, 7), 8)):
        assert read_head(crowd, [KEY.verifier]).note == bare
    text, signature = bare.split("\n\n")
    first = stranger.sign(f"{text}\n").split("\n\n")[1]
    assert read_head(f"{text}\n\n{first}{signature}{signature}", [KEY.verifier]).note == bare


def test_a_checkpoint_that_somebody_else_has_signed_is_refused():
    with pytest.raises(NoteError, match="no known key"):
        read_head(note(key=STRANGER), [KEY.verifier])
    with pytest.raises(NoteError, match="no known key"):
        read_head(STRANGER.renamed("x").sign(f"{BASE}\n7\n{ROOT}\n"), [KEY.verifier])


def test_a_checkpoint_of_another_journal_is_refused():
    with pytest.raises(NoteError, match="another journal"):
        read_head(note("vestibule/other"), [KEY.verifier])


@given(st.text(max_size=80))
def test_any_text_is_refused_with_that_one_error(text):
    with pytest.raises(NoteError):
        read_head(text, [KEY.verifier])
