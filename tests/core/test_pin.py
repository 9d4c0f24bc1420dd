"""A PIN: four to eight digits, kept so that the file does not say which."""

import pytest

from vestibule_core import pin as pin_module
from vestibule_core.pin import Pin

SALT = bytes(range(16))


@pytest.fixture
def quick(monkeypatch):
    """A hash that costs nothing; what is hashed, and that it is salted, stays."""
    monkeypatch.setattr(pin_module, "_digest", lambda text, salt: salt + text.encode())


@pytest.mark.parametrize("text", ["1234", "00000000", "98765"])
def test_what_is_a_pin(quick, text):
    assert Pin.of(text, SALT).matches(text)


NO_PINS = [
    ("", "nothing"),
    ("123", "too short"),
    ("123456789", "too long"),
    ("12a4", "a letter"),
    ("12 4", "a space"),
    (" 1234", "a space before"),
    ("1234\n", "a newline after"),
    ("-123", "a sign"),
    ("\u0661\u0662\u0663\u0664", "digits of another script"),
    ("\uff11\uff12\uff13\uff14", "full-width digits"),
]


@pytest.mark.parametrize("text, why", NO_PINS)
def test_what_is_no_pin_is_not_kept_and_never_matches(quick, text, why):
    with pytest.raises(ValueError, match="four to eight digits"):
        Pin.of(text, SALT)
    assert not Pin(SALT, SALT + text.encode()).matches(text)


@pytest.mark.parametrize("typed", ["1235", "12340", "0123", "4321"])
def test_another_pin_does_not_match(quick, typed):
    assert not Pin.of("1234", SALT).matches(typed)


def test_two_doors_with_one_pin_keep_different_digests(quick):
    assert Pin.of("1234", SALT) != Pin.of("1234", bytes(16))


def test_a_pin_is_kept_as_scrypt_of_rfc_7914():
    """With cost 2^14, block size 8: computed apart, once."""
    pin = Pin.of("1234", SALT)
    assert pin.salt == SALT
    assert pin.digest.hex() == "58dfbceef3ed18ee28d5fc04b6d96828d230b6a199aa7b1f91209634986ba4c8"
    assert pin.matches("1234")
    assert not pin.matches("1235")
    assert "1234" not in repr(pin)
