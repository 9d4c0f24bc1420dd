"""Texts that a root, a list key or a controller signs: one kind, one key, one form."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core import b64url, jws
from vestibule_core.errors import Refused
from vestibule_core.keys import Alg, SigningKey, TrustedKey
from vestibule_core.model import Code, Issuer
from vestibule_core.token import verify

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
TYPE = "door-keys+jwt"


def public(key):
    return key.private.public_key().public_bytes_raw()


def signed(header, payload=b"{}", key=KEY):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    text = f"{b64url.encode(head)}.{b64url.encode(payload)}"
    return f"{text}.{b64url.encode(key.sign(text.encode()))}"


def header(**members):
    return {"alg": "EdDSA", "kid": KEY.kid, "typ": TYPE} | members


def code(text, most=8000):
    with pytest.raises(Refused) as raised:
        jws.verify(text, TYPE, public(KEY), most)
    return raised.value.code


@given(st.binary(min_size=1, max_size=200))
def test_what_was_signed_is_read_again(payload):
    assert jws.verify(jws.sign(KEY, TYPE, payload), TYPE, public(KEY), 8000) == payload
    assert jws.claimed(jws.sign(KEY, TYPE, payload), 8000) == (KEY.kid, payload)


def test_it_names_its_key_as_a_token_does():
    assert jws.key_id(public(KEY)) == KEY.kid


@pytest.mark.parametrize(
    "head, why",
    [
        (header(typ="door-unlock+jwt"), Code.WRONG_TYPE),
        (header(alg="none"), Code.ALG_MISMATCH),
        (header(alg="ES256"), Code.ALG_MISMATCH),
        (header(kid=OTHER.kid), Code.UNKNOWN_KEY),
        (header(jwk=KEY.jwk()), Code.BAD_HEADER),
        (header(kid=["x"]), Code.BAD_HEADER),
        ({"alg": "EdDSA", "typ": TYPE}, Code.BAD_HEADER),
        ([], Code.BAD_HEADER),
        (b'{"alg":"EdDSA","alg":"EdDSA"}', Code.MALFORMED),
        (b"\xff", Code.MALFORMED),
    ],
)
def test_a_header_that_says_anything_else_is_refused(head, why):
    assert code(signed(head)) is why


def test_another_key_that_gives_itself_this_name_is_refused():
    assert code(signed(header(), key=OTHER)) is Code.BAD_SIGNATURE


@pytest.mark.parametrize("text", [None, b"a.b.c", "", "..", "a.b.c", signed(header()) + "=", signed(header()) + "\n"])
def test_another_form_is_malformed(text):
    assert code(text) is Code.MALFORMED


def test_a_text_that_is_too_long_is_malformed():
    text = signed(header())
    assert jws.verify(text, TYPE, public(KEY), len(text)) == b"{}"
    assert code(text, len(text) - 1) is Code.MALFORMED


@given(st.data())
def test_any_changed_character_is_refused(data):
    text = jws.sign(KEY, TYPE, b'{"a":1}')
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != text[place]))
    code(text[:place] + other + text[place + 1 :])


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{1,60}\.[A-Za-z0-9_-]{86}", fullmatch=True))
def test_no_text_raises_anything_but_a_refusal(text):
    code(text)


@pytest.mark.parametrize("typ", ["door-keys+jwt", "door-issued+jwt", "door-link+jwt", "door-challenge+jwt"])
def test_38_another_kind_of_signed_text_is_no_unlock_token(typ):
    trusted = TrustedKey(KEY.kid, Issuer("https://parcels.example"), Alg.EDDSA, KEY.private.public_key())
    with pytest.raises(Refused) as raised:
        verify(jws.sign(KEY, typ, b"{}"), {KEY.kid: trusted}, None)
    assert raised.value.code is Code.WRONG_TYPE
