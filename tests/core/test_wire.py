"""Messages between two programs: exactly what they are said to be, or refused without repeating them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.errors import MalformedMessage
from vestibule_core.model import Code, Decision, Limit, Word
from vestibule_core.wire import MAX_REQUEST, challenge_answer, decision_answer, unlock_request


def test_a_request_presents_a_token():
    assert unlock_request(b'{"token":"aaa.bbb.ccc"}') == "aaa.bbb.ccc"
    assert unlock_request(b' {\n "token" : "" } ') == "", "whether it is a good one is not for here"


@pytest.mark.parametrize("text", ["\ud800", "\0", "\u202e", "<b>"])
def test_a_token_of_odd_characters_is_a_text_and_nothing_more(text):
    assert unlock_request(json.dumps({"token": text}).encode()) == text


MALFORMED = [
    (b"", "nothing"),
    (b"aaa.bbb.ccc", "no JSON"),
    (b"{", "half of it"),
    (b"{}", "no member"),
    (b"[]", "a list"),
    (b'"token"', "a string"),
    (b"null", "null"),
    (b'["token"]', "a list of the right word"),
    (b'{"token":"a","door":"b"}', "a member too many"),
    (b'{"Token":"a"}', "another member"),
    (b'{"token":null}', "null for a token"),
    (b'{"token":1}', "a number for a token"),
    (b'{"token":["a"]}', "a list for a token"),
    (b'{"token":{"a":"b"}}', "an object for a token"),
    (b'{"token":"a","token":"b"}', "the member twice"),
    (b'{"token":"a","\\u0074oken":"b"}', "twice, once in disguise"),
    (b'{"token":{"a":1,"a":2}}', "twice, further inside"),
    (b'{"token":NaN}', "NaN is no JSON"),
    (b'{"token":"a","x":Infinity}', "nor is Infinity"),
    (b'{"token":"a"} {"token":"b"}', "two messages"),
    (b'{"token":"\xff"}', "no UTF-8"),
    (b'\xef\xbb\xbf{"token":"a"}', "a byte order mark"),
    ('{"token":"a"}'.encode("utf-16"), "UTF-16"),
    ('{"token":"a"}'.encode("utf-32-le"), "UTF-32"),
    (b'{"token":' + b"[" * 8000 + b"]" * 8000 + b"}", "nested deeper than any stack"),
    (b'{"token":' + b"9" * 8000 + b"}", "a number longer than any"),
    (b'{"token":"a\nb"}', "a newline inside of a string"),
]


@pytest.mark.parametrize("body, why", MALFORMED, ids=[why for _, why in MALFORMED])
def test_what_is_no_request(body, why):
    with pytest.raises(MalformedMessage):
        unlock_request(body)


def test_what_is_wrong_is_said_without_repeating_it():
    for body in (b'{"secret":"hunter2"}', b'{"token":"hunter2"', b'{"token":["hunter2"]}'):
        with pytest.raises(MalformedMessage) as raised:
            unlock_request(body)
        assert "hunter2" not in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.sampled_from(["token", "x"]) | st.text(), inside),
    max_leaves=6,
)


@given(st.binary(max_size=MAX_REQUEST) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_token_or_malformed(body):
    try:
        token = unlock_request(body)
    except MalformedMessage:
        return
    assert type(token) is str
    assert json.loads(body) == {"token": token}


@given(st.text())
def test_any_text_can_be_presented(text):
    assert unlock_request(json.dumps({"token": text}).encode()) == text


# ---- answers ----


def test_a_challenge_is_answered_with_its_nonce_and_its_life():
    assert challenge_answer("A" * 22, 60) == {"non": "A" * 22, "ttl": 60}


@pytest.mark.parametrize("code", [code for code in Code if code.word is Word.INVALID_TOKEN])
def test_of_a_token_that_is_none_only_that_is_told(code):
    """Steps 1 to 6: a forger learns nothing about how near it came."""
    assert decision_answer(Decision(code)) == {"word": "invalid_token", "code": None}


@pytest.mark.parametrize("code", [Code.LOCKDOWN, Code.TAMPERED, Code.DOOR_BLOCKED, Code.JOURNAL_DISPUTED])
def test_why_a_building_is_shut_is_told_to_nobody_outside(code):
    assert decision_answer(Decision(code)) == {"word": "refused", "code": "DOOR_UNAVAILABLE"}


HIDDEN = {Code.LOCKDOWN, Code.TAMPERED, Code.DOOR_BLOCKED, Code.JOURNAL_DISPUTED}


@pytest.mark.parametrize("code", [code for code in Code if code.word is not Word.INVALID_TOKEN and code not in HIDDEN])
def test_from_step_7_on_the_code_is_told(code):
    assert decision_answer(Decision(code)) == {"word": code.word.value, "code": code.value}


@pytest.mark.parametrize("limit", Limit)
def test_which_limit_was_exceeded_is_told(limit):
    answer = decision_answer(Decision(Code.POLICY_EVIDENCE, limit=limit))
    assert answer == {"word": "refused", "code": "POLICY_EVIDENCE", "limit": limit.value}
    assert json.loads(json.dumps(answer)) == answer
