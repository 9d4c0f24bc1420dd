"""What a carrier's root may say about its keys, and what a building believes of it."""

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core import jws, keyset
from vestibule_core.errors import KeySetInvalid
from vestibule_core.keys import MAX_KEYS, KeyStatus, SigningKey
from vestibule_core.keyset import Issued, KeySet, PublishedKey, Root, Use
from vestibule_core.model import issuer
from vestibule_core.note import VerifierKey

A, B = issuer("https://a.example"), issuer("https://b.example")
NOW = 1_800_000_000
DAY = 86400


def key(seed):
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def public(of):
    return of.private.public_key().public_bytes_raw()


ROOT, NEXT, SIGNING, LISTING, OTHER_ROOT = map(key, range(1, 6))
PINNED = Root(A, public(ROOT))
TOKENS = PublishedKey(public(SIGNING), Use.TOKENS, NOW - DAY, NOW + 30 * DAY)
LISTS = PublishedKey(public(LISTING), Use.ISSUED, NOW - DAY, NOW + 365 * DAY)
SET = KeySet(A, 7, NOW, NOW + 35 * DAY, (TOKENS, LISTS), hashlib.sha256(public(NEXT)).digest())
CONTROLLER = VerifierKey("vestibule.example/1", public(key(9)))
LIST_TIME = 1_799_972_400 - 1_799_972_400 % DAY + 600  # ten minutes after a midnight before NOW
LIST = Issued(
    A, CONTROLLER, datetime.fromtimestamp(LIST_TIME - DAY, UTC).date(), LIST_TIME, 0, 1, ("A" * 22, "B" * 21 + "A")
)


def reason(read, *args):
    with pytest.raises(KeySetInvalid) as raised:
        read(*args)
    return raised.value.reason


def signed(value=SET, by=ROOT, typ=keyset.TYPE, **members):
    """A set as a carrier could sign it that does not look before."""
    payload = keyset._SET.write(value) | members
    return jws.sign(by, typ, json.dumps(payload).encode())


def refusal(text, newest=None, now=NOW, others=()):
    return reason(keyset.read, text, PINNED, newest, now, others)


# ---- a set ----


def test_a_building_reads_the_set_that_its_carrier_s_root_signed():
    assert keyset.read(keyset.write(ROOT, SET), PINNED, None, NOW) == SET


def test_the_same_set_again_is_no_news_and_no_attack():
    assert keyset.read(keyset.write(ROOT, SET), PINNED, SET, NOW) == SET


def test_a_key_opens_only_in_its_time_and_for_its_use():
    def kids(now):
        return [trusted.kid for trusted in SET.trusted if trusted.opens(now)]

    assert kids(NOW) == [SIGNING.kid]
    assert kids(TOKENS.valid_from) == [SIGNING.kid]
    assert kids(TOKENS.valid_from - 1) == []
    assert kids(TOKENS.valid_until - 1) == [SIGNING.kid]
    assert kids(TOKENS.valid_until) == []


def test_the_keys_of_a_set_that_is_too_old_open_nothing():
    old = replace(SET, expires_at=NOW + 10)
    assert {(trusted.issuer, trusted.opens(NOW + 9), trusted.opens(NOW + 10)) for trusted in old.trusted} == {
        (A, True, False)
    }


def test_36_a_key_that_a_newer_set_leaves_out_is_known_as_revoked():
    later = replace(SET, version=8, keys=(replace(TOKENS, public=public(key(77))),))
    kept = keyset.replaced(SET.trusted, later)
    assert [(each.kid, each.status) for each in kept] == [
        (later.trusted[0].kid, KeyStatus.ACTIVE),
        (SIGNING.kid, KeyStatus.REVOKED),
    ]
    assert keyset.replaced(kept, later) == kept
    assert keyset.replaced(kept, replace(SET, version=9))[0].status is KeyStatus.ACTIVE, "the root says so"


def test_no_more_revoked_keys_are_kept_than_a_policy_can_hold():
    many = [replace(SET.trusted[0], kid=str(number)) for number in range(40)]
    kept = keyset.replaced(many, SET)
    assert [each.kid for each in kept[1:]] == [str(number) for number in range(keyset.MAX_DROPPED)]
    assert keyset.MAX_KEYS + keyset.MAX_DROPPED <= MAX_KEYS


def test_36_a_set_with_a_lower_version_is_refused():
    newer = replace(SET, version=8)
    assert refusal(keyset.write(ROOT, SET), newer) == "older_version"
    assert keyset.read(keyset.write(ROOT, newer), PINNED, SET, NOW) == newer


def test_36_a_set_with_the_same_version_and_other_keys_is_refused():
    assert refusal(keyset.write(ROOT, replace(SET, keys=(TOKENS,))), SET) == "same_version"


def test_36_a_set_signed_by_an_online_key_is_refused():
    assert refusal(keyset.write(SIGNING, SET)) == "wrong_root"


def test_36_a_set_signed_by_an_online_key_under_the_root_s_name_is_refused():
    class Pretender:
        kid = ROOT.kid
        sign = staticmethod(SIGNING.sign)

    assert refusal(jws.sign(Pretender, keyset.TYPE, json.dumps(keyset._SET.write(SET)).encode())) == "bad_signature"


def test_36_a_set_served_again_past_its_time_is_refused():
    text = keyset.write(ROOT, SET)
    assert keyset.read(text, PINNED, SET, SET.expires_at - 1) == SET
    assert refusal(text, SET, SET.expires_at) == "expired"


def test_36_a_set_under_another_issuer_is_refused():
    assert refusal(keyset.write(ROOT, replace(SET, issuer=B))) == "wrong_issuer"


def test_78_carrier_b_cannot_publish_a_key_of_a():
    b = Root(B, public(OTHER_ROOT))
    text = keyset.write(OTHER_ROOT, replace(SET, issuer=B))
    assert reason(keyset.read, text, b, None, NOW, {SIGNING.kid}) == "anothers_key"
    assert keyset.read(text, b, None, NOW, {"of somebody else"}).issuer == B


def test_78_carrier_b_cannot_publish_a_set_under_the_issuer_of_a():
    text = keyset.write(OTHER_ROOT, SET)
    assert reason(keyset.read, text, Root(B, public(OTHER_ROOT)), None, NOW) == "wrong_issuer"
    assert refusal(text) == "wrong_root"


def test_a_set_from_the_future_is_refused():
    early = replace(SET, issued_at=NOW + keyset.EARLY, expires_at=NOW + DAY)
    assert keyset.read(keyset.write(ROOT, early), PINNED, None, NOW) == early
    assert refusal(keyset.write(ROOT, replace(early, issued_at=NOW + keyset.EARLY + 1))) == "not_yet"


SMALL_ORDER = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
JWK = keyset._KEY.write(TOKENS)


@pytest.mark.parametrize(
    "members, why",
    [
        ({"exp": NOW + 35 * DAY + 1}, "lifetime_too_long"),
        ({"exp": NOW}, "lifetime_too_long"),
        ({"ver": 0}, "malformed"),
        ({"ver": True}, "malformed"),
        ({"ver": 1.0}, "malformed"),
        ({"more": 1}, "malformed"),
        ({"next": "AA"}, "malformed"),
        ({"iss": "http://a.example"}, "malformed"),
        ({"keys": [JWK] * 17}, "malformed"),
        ({"keys": [JWK, JWK]}, "duplicate_key"),
        ({"keys": [JWK | {"kid": LISTING.kid}]}, "wrong_kid"),
        ({"keys": [JWK | {"d": "x"}]}, "malformed"),
        ({"keys": [JWK | {"kty": "EC"}]}, "malformed"),
        ({"keys": [JWK | {"crv": "X25519"}]}, "malformed"),
        ({"keys": [JWK | {"use": "enc"}]}, "malformed"),
        ({"keys": [JWK | {"nbf": JWK["exp"]}]}, "bad_times"),
        (
            {"keys": [JWK | {"x": SMALL_ORDER, "kid": jws.key_id(b"\x01" + bytes(31))}]},
            "weak_key",
        ),
        (
            {"keys": [JWK | {"x": "_" * 42 + "8", "kid": jws.key_id(b"\xff" * 32)}]},
            "bad_coordinate",
        ),
    ],
)
def test_a_set_of_another_form_is_refused_although_the_root_signed_it(members, why):
    assert refusal(signed(**members)) == why


def test_another_kind_of_text_that_the_root_signed_is_no_set():
    assert refusal(signed(typ="door-unlock+jwt")) == "wrong_type"


def test_no_set_is_written_that_no_building_would_read():
    assert reason(keyset.write, ROOT, replace(SET, expires_at=NOW)) == "lifetime_too_long"


def test_the_largest_set_fits_into_a_text():
    many = tuple(replace(TOKENS, public=public(key(seed))) for seed in range(20, 20 + keyset.MAX_KEYS))
    assert len(keyset.write(ROOT, replace(SET, keys=many))) < keyset.MAX_TEXT


# ---- roots ----


def test_the_root_of_the_enrolment_code_is_pinned_and_no_other():
    assert keyset.pin(A, public(ROOT), PINNED.fingerprint) == PINNED
    assert reason(keyset.pin, A, public(OTHER_ROOT), PINNED.fingerprint) == "wrong_root"


def test_the_next_root_comes_only_if_the_old_one_named_it():
    root = keyset.succeed(SET, public(NEXT))
    newer = replace(SET, version=8, next_root=None)
    assert keyset.read(keyset.write(NEXT, newer), root, SET, NOW) == newer
    assert reason(keyset.succeed, SET, public(OTHER_ROOT)) == "wrong_root"
    assert reason(keyset.succeed, newer, public(NEXT)) == "wrong_root"


@pytest.mark.parametrize(
    "raw, why", [(b"\x01" + bytes(31), "weak_key"), (b"\xff" * 32, "bad_coordinate"), (b"", "bad_coordinate")]
)
def test_no_root_under_which_anybody_can_sign(raw, why):
    assert reason(Root, A, raw) == why


# ---- lists ----


def list_refusal(text, published=SET, controller=CONTROLLER, now=NOW):
    return reason(keyset.read_issued, text, published, controller, now)


def signed_list(by=LISTING, typ=keyset.ISSUED_TYPE, **members):
    return jws.sign(by, typ, json.dumps(keyset._ISSUED.write(LIST) | members).encode())


def test_a_building_reads_the_list_of_its_tokens():
    assert keyset.read_issued(keyset.write_issued(LISTING, LIST), SET, CONTROLLER, NOW) == LIST


def test_a_signing_key_cannot_sign_the_list_and_a_list_key_no_tokens():
    assert list_refusal(keyset.write_issued(SIGNING, LIST)) == "no_list_key"
    assert LISTING.kid not in {trusted.kid for trusted in SET.trusted}


def test_a_list_of_another_building_or_carrier_is_refused():
    assert list_refusal(keyset.write_issued(LISTING, LIST), controller=replace(CONTROLLER, name="b")) == (
        "wrong_controller"
    )
    assert list_refusal(keyset.write_issued(LISTING, replace(LIST, issuer=B))) == "wrong_issuer"


def test_70_a_list_made_before_the_day_s_last_token_could_be_in_it_is_refused():
    assert list_refusal(signed_list(iat=LIST_TIME - 1)) == "too_early"


def test_a_list_from_the_future_or_after_its_key_s_time_is_refused():
    text = keyset.write_issued(LISTING, LIST)
    assert list_refusal(text, now=LIST_TIME - keyset.EARLY - 1) == "not_yet"
    assert list_refusal(text, replace(SET, keys=(replace(LISTS, valid_until=LIST_TIME),))) == "expired"
    assert list_refusal(text, now=SET.expires_at) == "expired"


@pytest.mark.parametrize(
    "members, why",
    [
        ({"jtis": ["B" * 21 + "A", "A" * 22]}, "unsorted"),
        ({"jtis": ["A" * 22] * 2}, "unsorted"),
        ({"jtis": ["A" * 21]}, "malformed"),
        ({"part": 1}, "malformed"),
        ({"parts": 0}, "malformed"),
        ({"day": "20270115"}, "malformed"),
        ({"day": "2027-02-30"}, "malformed"),
        ({"day": "9999-12-31"}, "malformed"),
        ({"ctl": "x"}, "malformed"),
        ({"ctl": "x" * 201}, "malformed"),
        ({"more": 1}, "malformed"),
    ],
)
def test_a_list_of_another_form_is_refused_although_the_list_key_signed_it(members, why):
    assert list_refusal(signed_list(**members)) == why


def test_what_is_no_signed_text_or_of_another_kind_is_no_list():
    assert list_refusal("x") == "malformed"
    assert list_refusal(signed_list(typ=keyset.TYPE)) == "wrong_type"


def test_the_largest_part_fits_into_a_text_and_no_larger_one_is_written():
    jtis = tuple(f"{number:021d}A" for number in range(keyset.MAX_JTIS))
    name = "n" * 140
    full = replace(
        LIST, jtis=jtis, issuer=A + "/" * 46, controller=VerifierKey(name, CONTROLLER.public), part=49, parts=50
    )
    assert len(keyset.write_issued(LISTING, full)) < keyset.MAX_TEXT
    assert reason(keyset.write_issued, LISTING, replace(full, jtis=(*jtis, "Z" * 21 + "A"))) == "malformed"


# ---- whatever comes ----

keys = st.builds(
    lambda seed, use, begins, life: PublishedKey(public(key(seed)), use, begins, begins + life),
    st.integers(10, 255),
    st.sampled_from(Use),
    st.integers(1_700_000_000, 2**40),
    st.integers(1, 2**40),
)
sets = st.builds(
    lambda version, iat, life, several, following: KeySet(A, version, iat, iat + life, tuple(several), following),
    st.integers(1, 2**53 - 1),
    st.integers(1_700_000_000, 2**40),
    st.integers(1, keyset.MAX_LIFETIME),
    st.lists(keys, max_size=4, unique_by=lambda each: each.public),
    st.none() | st.binary(min_size=32, max_size=32),
)


@given(sets)
def test_every_set_is_read_as_it_was_written(value):
    assert keyset.read(keyset.write(ROOT, value), PINNED, None, value.issued_at) == value


@given(st.data())
def test_any_changed_character_of_a_set_or_list_is_refused(data):
    for text, refused in ((keyset.write(ROOT, SET), refusal), (keyset.write_issued(LISTING, LIST), list_refusal)):
        place = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.characters(codec="ascii").filter(lambda character, at=text[place]: character != at))
        refused(text[:place] + other + text[place + 1 :])


@given(st.text() | st.binary())
def test_nothing_that_comes_raises_anything_but_key_set_invalid(text):
    refusal(text)
    list_refusal(text)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.sampled_from(sorted(keyset._SET.write(SET))), anything)
def test_whatever_the_root_signs_in_a_member_raises_nothing_else(member, value):
    with suppress(KeySetInvalid):
        keyset.read(signed(**{member: value}), PINNED, None, NOW)


@given(st.sampled_from(sorted(keyset._ISSUED.write(LIST))), anything)
def test_whatever_the_list_key_signs_in_a_member_raises_nothing_else(member, value):
    with suppress(KeySetInvalid):
        keyset.read_issued(signed_list(**{member: value}), SET, CONTROLLER, NOW)
