"""Text from outside becomes a type once, and is refused if it could be spelt another way."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core import errors
from vestibule_core.model import (
    Code,
    Decision,
    EventName,
    Word,
    door_id,
    issuer,
    new_door_id,
    read_clock,
)

DOOR = "door:" + "a" * 26


@given(st.binary(min_size=16, max_size=16))
def test_any_16_bytes_make_a_door_id_that_is_read_back(raw):
    assert door_id(new_door_id(raw)) == new_door_id(raw)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_two_doors_never_share_an_id(one, other):
    assert (new_door_id(one) == new_door_id(other)) is (one == other)


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "empty"),
        ("a" * 26, "no prefix"),
        ("door:" + "a" * 25, "too short"),
        ("door:" + "a" * 27, "too long"),
        ("door:" + "A" * 26, "upper case is a second spelling"),
        ("door:" + "a" * 25 + "b", "spare bits are set: a second spelling of the same 16 bytes"),
        ("door:" + "a" * 25 + "1", "1 is not in the alphabet"),
        (DOOR + "\n", "a newline after it"),
        (" " + DOOR, "a space before it"),
        ("door:" + "\uff41" * 26, "full-width letters"),
    ],
)
def test_what_is_not_a_door_id(text, why):
    with pytest.raises(ValueError, match="not a door id"):
        door_id(text)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_door_id_is_made_of_16_bytes(size):
    with pytest.raises(ValueError, match="not a door id"):
        new_door_id(bytes(size))


@pytest.mark.parametrize("text", ["https://a", "https://v.carrier.example:8443/doors/~x_y-z", "https://" + "x" * 56])
def test_what_is_an_issuer(text):
    assert issuer(text) == text


@pytest.mark.parametrize(
    "text, why",
    [
        ("https://", "nobody"),
        ("https://" + "x" * 57, "longer than 64"),
        ("http://a.example", "not https"),
        ("HTTPS://a.example", "upper-case scheme"),
        ("https://a.example\n", "a newline"),
        ("https://a.example?x", "a character outside the alphabet"),
        ("https://a.example\u202e", "text direction override"),
        ("https://\ud800", "a lone surrogate"),
        ("https://a\0", "NUL"),
        ("https://<b>", "markup"),
    ],
)
def test_what_is_not_an_issuer(text, why):
    with pytest.raises(ValueError, match="not an issuer"):
        issuer(text)


def test_the_clock_is_read_from_the_machine():
    before = time.time()
    now = read_clock()
    assert before <= now.wall <= time.time()
    assert 0 < now.boot <= read_clock().boot


# ---- codes and words: protocol A.2, "Outward words" ----

WORDS = {
    Word.GRANTED: {"GRANTED"},
    Word.INVALID_TOKEN: {
        "MALFORMED", "BAD_HEADER", "WRONG_TYPE", "UNKNOWN_KEY", "ALG_MISMATCH", "BAD_SIGNATURE", "BAD_CLAIMS",
        "LIFETIME_TOO_LONG", "WRONG_ISSUER", "KEY_REVOKED",
    },
    Word.REFUSED: {
        "WRONG_DOOR", "NOT_SPENDER", "NONCE_UNKNOWN", "NONCE_EXPIRED", "POLICY_CARRIER_DOOR", "POLICY_EVIDENCE",
        "POLICY_HOURS", "POLICY_RATE", "CLOCK_UNTRUSTED", "LOCKDOWN", "DOOR_BLOCKED", "DELIVERIES_OFF", "TAMPERED",
        "JOURNAL_DISPUTED",
        "CARRIER_LOCKED_OUT",
        # by hand
        "MANUAL_NOT_ALLOWED", "PIN_MISSING", "PIN_WRONG", "PIN_LOCKED", "MODE_NOT_POSSIBLE",
    },
    Word.ALREADY_USED: {"ALREADY_SPENT"},
    Word.UNAVAILABLE: {"RATE_LIMITED", "STORE_FAILED", "LATE", "STOPPING", "STRIKE_UNREACHABLE", "STRIKE_REFUSED"},
    Word.UNKNOWN_OUTCOME: {"OUTCOME_UNKNOWN"},
}  # fmt: skip


@pytest.mark.parametrize("code", Code)
def test_every_code_has_the_word_of_the_protocol(code):
    assert code.value in WORDS[code.word]
    assert Code(code.value) is code
    assert str(code) == code.value


@pytest.mark.parametrize("code", Code)
def test_only_a_confirmed_release_is_granted(code):
    assert Decision(code).granted is (code.value == "GRANTED")


def test_event_names_are_what_the_journal_and_automations_have_come_to_know():
    assert [name.value for name in EventName] == [
        "access_granted",
        "access_denied",
        "door_released",
        "release_failed",
        "outcome_unknown",
        "door_already_unlocked",
        "access_taken",
        "access_not_taken",
        "door_relocked",
        "door_opened",
        "door_closed",
        "door_held_open_warning",
        "door_held_open",
        "door_forced_open",
        "relay_operated_elsewhere",
        "door_tampered",
        "tamper_cleared",
        "strike_pairing_opened",
        "strike_slot_added",
        "strike_slot_deleted",
        "strike_rights_changed",
        "strike_factory_reset",
        "strike_authentication_failed",
        "door_normal",
        "door_unlocked",
        "door_blocked",
        "lockdown_on",
        "lockdown_off",
        "deliveries_on",
        "deliveries_off",
        "clock_confirmed",
        "journal_restored",
        "restore_confirmed",
        "key_confirmed",
        "journal_disputed",
        "epoch_begun",
        "witness_refused",
        "journal_exported",
        "person_exported",
        "person_deleted",
        "refusals_counted",
        "policy_changed",
        "policy_pending",
        "client_paired",
        "client_changed",
        "client_removed",
        "carrier_linked",
        "carrier_unlinked",
        "carrier_locked_out",
        "carrier_approved",
    ]


# ---- errors are reactions ----

REACTIONS = [
    # error, may_have_succeeded, temporary
    (errors.StrikeUnreachable(), False, True),  # ask again
    (errors.StrikeRefused(), False, False),  # it will say no again
    (errors.SpentElsewhere(), False, False),  # another controller has let that driver in
    (errors.Violation(), False, False),  # close the link
    (errors.GatewayUnreachable(), False, True),  # ask again
    (errors.GatewayImpostor(bytes(32)), False, False),  # do not talk to it
    (errors.GatewayForbidden(), False, False),  # pair again
    (errors.GatewayRefused(403, "forbidden"), False, False),
    (errors.PolicyConflict(7), False, False),  # read it, and go on from there
    (errors.PairingFailed(errors.NotPaired.WRONG_CODE), False, False),
    (errors.OutcomeUnknown(), True, False),  # never send it again
    (errors.StoreFailed(), False, False),  # restart
    (errors.JournalInUse(), False, True),  # the other may go away
    (errors.JournalTooNew(), False, False),
    (errors.JournalDamaged(), False, False),
    (errors.JournalUnsigned(), False, False),  # open it with a newer version
    (errors.JournalMoved(), False, True),  # begin again
    (errors.BackupRunning(), False, True),
    (errors.IdentityMissing(), False, False),  # restore it, or ask an administrator
    (errors.IdentityUnusable(), False, False),
    (errors.Refused(Code.LATE), False, False),
    (errors.KeySetInvalid("no_keys"), False, False),
    (errors.MalformedMessage("not JSON"), False, False),
]


@pytest.mark.parametrize("error, may_have_succeeded, temporary", REACTIONS, ids=lambda v: type(v).__name__)
def test_each_error_says_how_to_react(error, may_have_succeeded, temporary):
    assert isinstance(error, errors.VestibuleError)
    assert (error.may_have_succeeded, error.temporary) == (may_have_succeeded, temporary)


def test_no_error_has_been_forgotten_here():
    assert {type(error) for error, *_ in REACTIONS} == {
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.VestibuleError) and error is not errors.VestibuleError
    }


def test_what_a_gateway_says_no_with_is_in_the_error():
    assert (str(errors.GatewayRefused(403, "forbidden")), errors.PolicyConflict(7).version) == ("403 forbidden", 7)
    assert errors.PairingFailed(errors.NotPaired.BUSY).reason is errors.NotPaired.BUSY
    assert errors.GatewayImpostor(b"\xab").fingerprint == b"\xab"


def test_an_invalid_key_set_says_where_and_why():
    assert str(errors.KeySetInvalid("weak_key", 3)) == "key 3: weak_key"
    assert str(errors.KeySetInvalid("no_keys")) == "no_keys"
