"""The enrolment code: entered by a person, read strictly, and never repeated in an error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core import b64url
from vestibule_core.link import code
from vestibule_core.link.code import CodeInvalid, EnrolmentCode

CODE = EnrolmentCode("cloud.parcels.example", bytes(range(32)), bytes(range(100, 116)))

hosts = st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,2}(:[1-9][0-9]{0,4})?", fullmatch=True)


@given(hosts, st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_a_code_is_read_as_it_was_made(host, root, secret):
    made = EnrolmentCode(host, root, secret)
    assert EnrolmentCode.parse(str(made)) == made


def test_the_longest_host_fits():
    longest = EnrolmentCode("a" * 80, CODE.root, CODE.secret)
    assert len(str(longest)) <= code.MAX_LENGTH
    assert EnrolmentCode.parse(str(longest)) == longest


def test_white_space_from_copying_means_nothing():
    text = str(CODE)
    assert EnrolmentCode.parse(f"  {text[:30]}\n {text[30:]}\t") == CODE


@given(st.data())
def test_any_changed_character_is_refused(data):
    text = str(CODE)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(
        st.characters(codec="ascii").filter(lambda character: character != text[place] and not character.isspace())
    )
    with pytest.raises(CodeInvalid):
        EnrolmentCode.parse(text[:place] + other + text[place + 1 :])


@given(st.integers(0, len(str(CODE)) - 1))
def test_a_code_that_is_cut_is_refused(length):
    with pytest.raises(CodeInvalid):
        EnrolmentCode.parse(str(CODE)[:length])


@given(st.text() | st.text().map("vst1.".__add__))
def test_no_text_raises_anything_else(text):
    with pytest.raises(CodeInvalid):
        EnrolmentCode.parse(text)


def spelt(body):
    return code.PREFIX + b64url.encode(body + code._checksum(body))


@pytest.mark.parametrize(
    "text, what_to_do",
    [
        ("", "begins with vst1."),
        ("VST1.AAAA", "begins with vst1."),
        (str(CODE) + "!", "alone"),
        (str(CODE) + "A" * 100, "alone"),
        ("vst1.A", "whole"),
        ("vst1.", "wrong or missing"),
        (str(CODE)[:-4], "whole"),
        (spelt(bytes(10)), "no host"),
        (spelt(bytes(48)), "no host"),
        (spelt(bytes(48) + b"\xff.example"), "no host"),
        (spelt(bytes(48) + b"cloud.example/path"), "no host"),
        (spelt(bytes(48) + b"user@cloud.example"), "no host"),
        (spelt(bytes(48) + b"cloud.example\n"), "no host"),
        (spelt(bytes(48) + b"-cloud.example"), "no host"),
        (spelt(bytes(48) + b"CLOUD.example"), "no host"),
        (spelt(bytes(48) + b"cloud.example:0"), "no host"),
        (spelt(bytes(48) + b"a" * 81), "no host"),
    ],
)
def test_an_error_says_what_to_do(text, what_to_do):
    with pytest.raises(CodeInvalid, match=what_to_do):
        EnrolmentCode.parse(text)


def test_each_slip_has_its_own_word_for_a_form():
    texts = {"": "code_none", str(CODE) + "!": "code_not_alone", "vst1.A": "code_cut", "vst1.": "code_check"}
    for text, word in (texts | {spelt(bytes(48)): "code_no_host"}).items():
        with pytest.raises(CodeInvalid) as refused:
            EnrolmentCode.parse(text)
        assert refused.value.slip == word


@pytest.mark.parametrize("root, secret", [(b"", CODE.secret), (CODE.root, b"")])
def test_a_code_without_a_root_or_a_secret_is_not_made(root, secret):
    with pytest.raises(CodeInvalid, match="not complete"):
        EnrolmentCode("cloud.example", root, secret)


def test_the_secret_is_in_no_representation():
    assert "secret" not in repr(CODE)
