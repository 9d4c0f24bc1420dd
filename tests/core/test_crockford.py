"""Codes that people read out and type."""

from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.crockford import ALPHABET, grouped, read, spell


@given(st.binary(min_size=13, max_size=13))
def test_a_code_is_read_as_it_was_made_however_it_is_typed(random):
    code = spell(random, 20)
    assert len(code) == 20
    assert set(code) <= set(ALPHABET)
    typed = grouped(code, 5).lower().replace("0", "o").replace("1", "l")
    assert read(f" {typed}\n") == code


def test_all_of_the_randomness_is_in_the_code():
    assert len({spell((1 << bit).to_bytes(13), 20) for bit in range(100)}) == 100


def test_groups_are_for_people():
    assert grouped("ABCDEFG", 3) == "ABC-DEF-G"


def test_what_no_code_has():
    assert read("ABCU") is None
    assert read("AB_C") is None
    assert read("ÄBC") is None
