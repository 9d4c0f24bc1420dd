"""The label: read generously, checked, and never shown by accident."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.doorstrike.pairing import ALPHABET, Label, LabelError, Slip, slot_psk

STRIKE_ID = bytes.fromhex("a1b2c3d4e5f60718")
CODE = "7K3M9QXT2VWHPD4R8ZB0"


@pytest.mark.parametrize(
    "typed",
    ["7K3M-9QXT-2VWH-PD4R-8ZB0", CODE, CODE.lower(), "7k3m 9qxt 2vwh pd4r 8zbo", " 7K3M9QXT2VWHPD4R8ZBO\n"],
)
def test_a_code_as_people_type_it(typed):
    label = Label.typed(STRIKE_ID, typed)
    assert label.code == CODE
    assert label.grouped == "7K3M-9QXT-2VWH-PD4R-8ZB0"


def test_i_and_l_are_one_and_o_is_zero():
    label = Label.new(STRIKE_ID, bytes.fromhex("000000000000000000000021"))
    assert label.code.startswith("11000")
    assert Label.typed(STRIKE_ID, "iL" + label.code[2:].replace("0", "o")) == label


@given(st.binary(min_size=12, max_size=12))
def test_a_new_label_is_read_again_typed_and_scanned(random):
    label = Label.new(STRIKE_ID, random)
    assert len(label.code) == 20
    assert Label.typed(STRIKE_ID, label.grouped.lower()) == label
    assert Label.scanned(label.qr) == label


def test_a_new_code_holds_95_bits():
    assert Label.new(STRIKE_ID, b"\xff" * 12).code[:19] == "Z" * 19
    assert len({Label.new(STRIKE_ID, (1 << bit).to_bytes(12)).code for bit in range(95)}) == 95
    assert Label.new(STRIKE_ID, (1 << 95).to_bytes(12)) == Label.new(STRIKE_ID, bytes(12))


@pytest.mark.parametrize(
    "typed, slip",
    [
        ("", Slip.LENGTH),
        (CODE[:-1], Slip.LENGTH),
        (CODE + "0", Slip.LENGTH),
        ("U" + CODE[1:], Slip.CHARACTER),
        ("é" + CODE[1:], Slip.CHARACTER),
        ("8" + CODE[1:], Slip.CHECK),
        (CODE[:-1] + "1", Slip.CHECK),
        ("K7" + CODE[2:], Slip.CHECK),
    ],
)
def test_what_is_no_code(typed, slip):
    with pytest.raises(LabelError) as raised:
        Label.typed(STRIKE_ID, typed)
    assert raised.value.slip is slip
    assert not typed or typed not in str(raised.value)


def test_a_wrong_character_is_noticed_nearly_always():
    wrong = noticed = 0
    for place in range(20):
        for character in set(ALPHABET) - {CODE[place]}:
            wrong += 1
            try:
                Label.typed(STRIKE_ID, CODE[:place] + character + CODE[place + 1 :])
            except LabelError:
                noticed += 1
    assert noticed / wrong > 0.95


def test_the_text_of_the_qr_code():
    label = Label.typed(STRIKE_ID, CODE)
    assert label.qr == "vestibule-strike:a1b2c3d4e5f60718?code=7K3M9QXT2VWHPD4R8ZB0"
    assert Label.scanned(label.qr.upper()) == label
    assert Label.scanned(f" {label.qr}\n") == label


@pytest.mark.parametrize(
    "text", ["", "https://example.com", CODE, f"vestibule-strike:a1b2?code={CODE}", "vestibule-strike:a1b2c3d4e5f60718"]
)
def test_another_qr_code(text):
    with pytest.raises(LabelError) as raised:
        Label.scanned(text)
    assert raised.value.slip is Slip.NO_LABEL


def test_a_label_is_not_shown():
    label = Label.typed(STRIKE_ID, CODE)
    assert CODE not in repr(label)
    assert CODE not in f"{label}"


def test_each_part_of_a_slots_key_matters():
    some = (STRIKE_ID, 2, b"\x0c" * 32, b"\x0d" * 32)
    others = [(bytes(8), *some[1:]), (some[0], 3, *some[2:]), (*some[:2], bytes(32), some[3]), (*some[:3], bytes(32))]
    assert len({slot_psk(*parts) for parts in [some, *others]}) == 5
