"""Which keys a building trusts, and which it never will."""

import base64
import json
from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import signing_key
from vestibule_core import b64url, curve
from vestibule_core.errors import KeySetInvalid
from vestibule_core.keys import Alg, KeyStatus, SigningKey, import_jwk_set, thumbprint
from vestibule_core.model import issuer

ISSUER = issuer("https://parcels.example")
P = 2**255 - 19

# RFC 8037 appendix A
RFC8037 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
# RFC 7515 appendix A.3
RFC7515 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}


def unb64(text):
    return base64.urlsafe_b64decode(text + "==")


def ed(**members):
    return signing_key(Alg.EDDSA).jwk() | members


def p256(**members):
    return signing_key(Alg.ES256).jwk() | members


def imported(*jwks):
    return import_jwk_set(json.dumps({"keys": list(jwks)}), ISSUER)


def reason(text):
    with pytest.raises(KeySetInvalid) as raised:
        import_jwk_set(text if isinstance(text, str) else json.dumps(text), ISSUER)
    return raised.value.reason, raised.value.position


# ---- vectors ----


def test_thumbprint_of_rfc_8037_a3():
    assert thumbprint(RFC8037) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_thumbprint_of_rfc_7638_ignores_what_is_not_the_key():
    """RFC 7638 3.2: only the required members count, in lexicographic order (its own example is an RSA key)."""
    assert thumbprint(RFC8037 | {"kid": "x", "use": "sig", "alg": "EdDSA"}) == thumbprint(RFC8037)
    assert thumbprint(dict(reversed(RFC7515.items())) | {"d": "x"}) == thumbprint(RFC7515)


def test_thumbprints_agree_with_an_independent_implementation():
    from joserfc.jwk import ECKey, OKPKey

    assert thumbprint(RFC7515) == ECKey.import_key(RFC7515).thumbprint()
    assert thumbprint(RFC8037) == OKPKey.import_key(RFC8037).thumbprint()


def test_signature_of_rfc_8037_a4_verifies():
    (key,) = imported(RFC8037)
    message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = unb64("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
    assert key.verifies(signature, message)
    assert not key.verifies(signature, message + b".")


def test_signature_of_rfc_7515_a3_verifies():
    (key,) = imported(RFC7515)
    message = (
        b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQog"
        b"Imh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    )
    signature = unb64("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q")
    assert key.verifies(signature, message)
    assert not key.verifies(signature, message + b".")


# ---- what gets in ----


@pytest.mark.parametrize("alg", Alg)
def test_a_key_is_imported_under_its_thumbprint_and_its_algorithm(alg):
    signer = signing_key(alg)
    (key,) = imported(signer.jwk())
    assert (key.kid, key.alg, key.issuer, key.status) == (signer.kid, alg, ISSUER, KeyStatus.ACTIVE)
    assert len(key.kid) == 43
    assert key.verifies(signer.sign(b"message"), b"message")
    assert not key.verifies(signer.sign(b"message"), b"another")


@pytest.mark.parametrize("alg", Alg)
def test_a_generated_key_signs_what_its_import_verifies(alg):
    signer = SigningKey.generate(alg)
    assert signer.alg is alg
    assert imported(signer.jwk())[0].verifies(signer.sign(b"m"), b"m")
    assert len(signer.sign(b"m")) == 64


def test_a_single_jwk_is_a_set_of_one():
    assert import_jwk_set(json.dumps(ed()), ISSUER) == import_jwk_set(json.dumps({"keys": [ed()]}), ISSUER)


def test_thirty_two_keys_and_no_more():
    some = [signing_key(Alg.EDDSA, str(number)).jwk() for number in range(33)]
    assert len(imported(*some[:32])) == 32
    assert reason({"keys": some}) == ("too_many_keys", 0)


@pytest.mark.parametrize(
    "jwk, why",
    [
        (ed(alg="EdDSA"), "the algorithm by its older name"),
        (ed(alg="Ed25519"), "the algorithm by its name of RFC 9864"),
        (p256(alg="ES256"), "the algorithm of a P-256 key"),
        (ed(use="sig"), "meant for signatures"),
        (ed(key_ops=["verify"]), "meant for verifying"),
        (ed(kid=signing_key().kid), "named by its thumbprint"),
        (ed(x5t="whatever", note=1), "members that we do not know say nothing"),
    ],
)
def test_members_that_agree_are_welcome(jwk, why):
    assert len(imported(jwk)) == 1


# ---- what stays out ----


@pytest.mark.parametrize(
    "text, expected, why",
    [
        ("", ("not_json", 0), "nothing"),
        ("{", ("not_json", 0), "half of something"),
        ("[" * 10_000, ("not_json", 0), "nested beyond reason"),
        ("9" * 5000, ("not_json", 0), "a number beyond reason"),
        (" " * (16 * 1024 + 1), ("too_large", 0), "more than 16 KiB"),
        ("[]", ("no_keys", 0), "a list"),
        ("null", ("no_keys", 0), "null"),
        ('"keys"', ("no_keys", 0), "a string"),
        ("{}", ("no_keys", 0), "an empty object"),
        ('{"keys": []}', ("no_keys", 0), "an empty set"),
        ('{"keys": {}}', ("no_keys", 0), "keys that are no list"),
        ('{"keys": [1]}', ("not_an_object", 1), "a number for a key"),
        ({"keys": [ed(), ed()]}, ("duplicate_key", 2), "one key twice"),
        ({"keys": [p256(), ed(d="x")]}, ("private_key", 2), "a private key: it has been shown to a browser"),
        ({"kty": "oct", "k": "AAAA"}, ("private_key", 1), "a shared secret"),
        ({"kty": "RSA", "n": "AQAB", "e": "AQAB"}, ("wrong_kty", 1), "an RSA key"),
        ({"kty": 5}, ("wrong_kty", 1), "no type at all"),
        (ed(crv="X25519"), ("wrong_crv", 1), "a key for key agreement"),
        (ed(crv="Ed448"), ("wrong_crv", 1), "another curve"),
        (p256(crv="secp256k1"), ("wrong_crv", 1), "another curve of the same size"),
        (p256(crv="Ed25519"), ("wrong_crv", 1), "a curve of another type"),
        (ed(use="enc"), ("wrong_use", 1), "meant for encryption"),
        (ed(use=None), ("wrong_use", 1), "meant for null"),
        (ed(key_ops=["sign"]), ("wrong_use", 1), "meant for signing"),
        (ed(key_ops=[]), ("wrong_use", 1), "meant for nothing"),
        (ed(key_ops=5), ("wrong_use", 1), "meant for a number"),
        (ed(key_ops=None), ("wrong_use", 1), "meant for nobody knows what"),
        (ed(key_ops="verify"), ("wrong_use", 1), "a string where RFC 7517 has a list"),
        (ed(alg="ES256"), ("wrong_alg", 1), "the algorithm of another type"),
        (p256(alg="EdDSA"), ("wrong_alg", 1), "the algorithm of another type"),
        (p256(alg="Ed25519"), ("wrong_alg", 1), "the algorithm of another type"),
        (ed(alg="HS256"), ("wrong_alg", 1), "a shared-secret algorithm"),
        (ed(alg="none"), ("wrong_alg", 1), "no algorithm"),
        (ed(alg=None), ("wrong_alg", 1), "null for an algorithm"),
        (ed(alg=[]), ("wrong_alg", 1), "a list for an algorithm"),
        (ed(alg={}), ("wrong_alg", 1), "an object for an algorithm"),
        (ed(kid="key-1"), ("wrong_kid", 1), "a name that is not the thumbprint"),
        (ed(kid=None), ("wrong_kid", 1), "null for a name"),
        (ed(x=RFC8037["x"], kid=signing_key().kid), ("wrong_kid", 1), "the name of another key"),
        (ed(x=5), ("bad_coordinate", 1), "a number for a coordinate"),
        (ed(x=""), ("bad_coordinate", 1), "no coordinate"),
        (ed(x=RFC8037["x"] + "="), ("bad_coordinate", 1), "padding"),
        (ed(x=RFC8037["x"][:-1] + "p"), ("bad_coordinate", 1), "spare bits: a second thumbprint of one key"),
        (ed(x=RFC8037["x"][:-1]), ("bad_coordinate", 1), "31 bytes"),
        (ed(x=RFC8037["x"] + "A"), ("bad_coordinate", 1), "33 bytes"),
        (ed(x="+" * 42 + "A"), ("bad_coordinate", 1), "the other base64 alphabet"),
        (p256(y=p256()["x"]), ("bad_coordinate", 1), "a point off the curve"),
        (p256(x=b64url.encode(bytes(32)), y=b64url.encode(bytes(32))), ("bad_coordinate", 1), "the point of all zeros"),
        (p256(x=b64url.encode(b"\xff" * 32)), ("bad_coordinate", 1), "a coordinate beyond the field"),
        ({"kty": "EC", "crv": "P-256", "x": RFC7515["x"]}, ("bad_coordinate", 1), "half a point"),
        (ed(x=b64url.encode((2).to_bytes(32, "little"))), ("bad_coordinate", 1), "a y with no x: not on the curve"),
        (ed(x=b64url.encode((P + 3).to_bytes(32, "little"))), ("bad_coordinate", 1), "a second spelling of y = 3"),
    ],
)
def test_what_is_not_imported(text, expected, why):
    assert reason(text) == expected


def test_one_bad_key_keeps_the_whole_set_out():
    assert reason({"keys": [ed(), {"kty": "RSA"}]}) == ("wrong_kty", 2)


# ---- small order: under such a key anybody can sign (row 23) ----


def small_order_points():
    """The y of the points whose order divides 8, computed and not copied: those that [8] sends to the neutral point."""
    d = -121665 * pow(121666, -1, P) % P

    def add(a, b):
        x1, y1, x2, y2 = *a, *b
        t = d * x1 * x2 * y1 * y2 % P
        return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P

    def root(n):
        r = pow(n, (P + 3) // 8, P)
        return r if r * r % P == n else r * pow(2, (P - 1) // 4, P) % P

    # A point of order 8: [L] of any point that is outside the prime-order group.
    order = 2**252 + 27742317777372353535851937790883648493
    y = 2
    while True:
        y += 1
        x2 = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
        x = root(x2)
        if x * x % P != x2:
            continue
        point, base = (0, 1), (x, y)
        for bit in f"{order:b}":
            point = add(point, point)
            if bit == "1":
                point = add(point, base)
        group, other = [(0, 1)], point
        while other != (0, 1):
            group.append(other)
            other = add(other, point)
        if len(group) == 8:
            return {y for _, y in group}


def test_the_refused_points_are_exactly_those_of_small_order_in_every_encoding():
    ys = small_order_points()
    encodings = {y + shift for y in ys for shift in (0, P) if y + shift < 2**255}
    assert encodings == curve._SMALL_ORDER
    assert len({y | sign << 255 for y, sign in product(encodings, (0, 1))}) == 14


def test_under_a_small_order_key_anybody_could_sign():
    """Why they are refused: this is the forgery that works once such a key is in."""
    neutral = (1).to_bytes(32, "little")
    ed25519.Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), b"any message at all")


# ---- any input ----

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
MEMBERS = st.sampled_from(["kty", "crv", "x", "y", "alg", "use", "key_ops", "kid", "d"])
JWKISH = st.dictionaries(MEMBERS, JSON | st.sampled_from(["OKP", "EC", "Ed25519", "P-256", "sig", RFC8037["x"]]))


@given(st.one_of(JWKISH, JSON, st.builds(lambda change: ed() | change, JWKISH)))
def test_any_json_is_imported_or_refused_by_name(document):
    try:
        import_jwk_set(json.dumps(document), ISSUER)
        import_jwk_set(json.dumps({"keys": [document]}), ISSUER)
    except KeySetInvalid as error:
        assert error.reason  # noqa: PT017 - it may also be imported


@given(st.text())
def test_any_text_is_imported_or_refused_by_name(text):
    with pytest.raises(KeySetInvalid):
        import_jwk_set(text, ISSUER)


@given(st.binary(min_size=32, max_size=32))
def test_any_32_bytes_are_a_point_of_the_curve_or_refused(raw):
    """The library takes any 32 bytes for an Ed25519 key; half of them are none, and we agree with it on which."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url.encode(raw)}
    try:
        (key,) = imported(jwk)
    except KeySetInvalid as error:
        assert error.reason in {"bad_coordinate", "weak_key"}  # noqa: PT017 - it may also be a point
    else:
        assert isinstance(key.public, ed25519.Ed25519PublicKey)
        assert key.public.public_bytes_raw() == raw


@given(st.binary(min_size=64, max_size=64))
def test_any_64_bytes_are_no_signature_and_no_error(signature):
    for alg in Alg:
        assert not imported(signing_key(alg).jwk())[0].verifies(signature, b"message")


def test_a_p256_signature_with_a_zero_in_it_is_no_signature():
    (key,) = imported(p256())
    assert isinstance(key.public, ec.EllipticCurvePublicKey)
    good = signing_key(Alg.ES256).sign(b"m")
    assert not key.verifies(bytes(32) + good[32:], b"m")
    assert not key.verifies(good[:32] + bytes(32), b"m")


@pytest.mark.parametrize("alg", list(Alg))
def test_an_imported_key_tells_what_names_it_and_nothing_else(alg):
    key = SigningKey.generate(alg)
    (trusted,) = import_jwk_set(json.dumps(key.jwk() | {"use": "sig", "x5c": ["MII"]}), issuer("https://c.example"))
    assert trusted.jwk() == key.jwk()
