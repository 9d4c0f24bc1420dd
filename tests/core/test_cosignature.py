"""A cosignature is a witness's word about a whole checkpoint and a time (c2sp.org/tlog-cosignature)."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.cosignature import cosign, cosigned_at
from vestibule_core.note import NoteError, SignerKey, open_note

LOG = SignerKey("vestibule/gateway", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = SignerKey("vestibule/house", Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64))))
NOTE = LOG.sign("vestibule/gateway\n1\n" + base64.b64encode(bytes(32)).decode() + "\n")
AT = 1_800_000_000


def test_it_is_made_as_the_specification_says():
    line = cosign(WITNESS, NOTE, AT).removeprefix(NOTE)
    dash, name, encoded = line.rstrip("\n").split(" ")
    raw = base64.b64decode(encoded)
    key_id = hashlib.sha256(b"vestibule/house\n\x04" + WITNESS.verifier.public).digest()[:4]
    text = NOTE.partition("\n\n")[0] + "\n"
    assert (dash, name, len(raw), raw[:4]) == ("—", "vestibule/house", 76, key_id)
    assert int.from_bytes(raw[4:12]) == AT
    message = f"cosignature/v1\ntime {AT}\n{text}".encode()
    Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64))).public_key().verify(raw[12:], message)


def test_a_note_with_it_is_still_signed_by_its_log_and_by_nobody_else():
    cosigned = cosign(WITNESS, NOTE, AT)
    assert open_note(cosigned, [LOG.verifier]) == open_note(NOTE, [LOG.verifier])
    with pytest.raises(NoteError):
        open_note(cosigned, [WITNESS.verifier])
    assert cosigned_at(cosigned, WITNESS.verifier) == AT


def test_the_latest_of_several_counts():
    twice = cosign(WITNESS, cosign(WITNESS, NOTE, AT + 60), AT)
    assert cosigned_at(twice, WITNESS.verifier) == AT + 60


def test_who_has_not_cosigned_is_not_said_to_have():
    assert cosigned_at(NOTE, WITNESS.verifier) is None
    assert cosigned_at(cosign(WITNESS, NOTE, AT), LOG.verifier) is None
    stranger = SignerKey("vestibule/house", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert cosigned_at(cosign(stranger, NOTE, AT), WITNESS.verifier) is None


def test_a_line_of_another_checkpoint_is_worth_nothing():
    line = cosign(WITNESS, NOTE, AT).removeprefix(NOTE)
    other = LOG.sign("vestibule/gateway\n2\n" + base64.b64encode(bytes(32)).decode() + "\n")
    assert cosigned_at(other + line, WITNESS.verifier) is None


@given(st.integers(12, 75), st.integers(1, 255))
def test_a_changed_byte_is_worth_nothing(place, change):
    line = cosign(WITNESS, NOTE, AT).removeprefix(NOTE)
    raw = bytearray(base64.b64decode(line.split(" ")[2]))
    raw[place] ^= change
    spoilt = f"— vestibule/house {base64.b64encode(raw).decode()}\n"
    assert cosigned_at(NOTE + spoilt, WITNESS.verifier) is None


def test_a_line_that_is_too_short_is_worth_nothing():
    line = cosign(WITNESS, NOTE, AT).removeprefix(NOTE)
    raw = base64.b64decode(line.split(" ")[2])[:9]
    assert cosigned_at(NOTE + f"— vestibule/house {base64.b64encode(raw).decode()}\n", WITNESS.verifier) is None


def test_what_is_no_note_cannot_be_cosigned():
    with pytest.raises(NoteError):
        cosign(WITNESS, "vestibule/gateway\n1\n", AT)
