"""What carriers' callers may ask for, before anything is verified: protocol A.2 step 0."""

import pytest

from vestibule_core.intake import FAILURES, OF_ONE, PER_SECOND, SOURCES, Intake
from vestibule_core.model import Code, Decision, Word, issuer

NOW = 5000.0
CARRIER = issuer("https://parcels.example")
BAD, GOOD = Decision(Code.BAD_SIGNATURE), Decision(Code.GRANTED)


def fail(intake, source, times, now=NOW):
    """Let a source present rubbish; return how often it was admitted."""
    admitted = 0
    for _ in range(times):
        if intake.admit(CARRIER, source, now) is None:
            admitted += 1
            intake.charge(source, BAD, now)
    return admitted


def test_a_source_that_presents_rubbish_has_to_wait():
    intake = Intake()
    assert fail(intake, "a", 50) == FAILURES
    assert intake.admit(CARRIER, "a", NOW) is Code.RATE_LIMITED
    assert intake.admit(CARRIER, "a", NOW + 0.9) is Code.RATE_LIMITED
    assert intake.admit(CARRIER, "a", NOW + 1) is None


def test_nobody_else_pays_for_it():
    intake = Intake()
    fail(intake, "a", 50)
    assert intake.admit(CARRIER, "b", NOW) is None


@pytest.mark.parametrize("code", [code for code in Code if code.word is not Word.INVALID_TOKEN])
def test_whoever_has_a_genuine_token_never_pays(code):
    """Whatever became of it: refused, used already, unavailable."""
    intake, now = Intake(), NOW
    for _ in range(200):
        assert intake.admit(CARRIER, "a", now) is None
        intake.charge("a", Decision(code), now)
        now += 1 / OF_ONE


@pytest.mark.parametrize("code", [Code.WRONG_ISSUER, Code.KEY_REVOKED])
def test_a_genuine_token_of_somebody_elses_or_of_a_revoked_key_is_not_charged(code):
    """Step 6: the signature was good."""
    assert not code.is_charged


CHARGED = {
    "MALFORMED", "BAD_HEADER", "WRONG_TYPE", "UNKNOWN_KEY", "ALG_MISMATCH", "BAD_SIGNATURE", "BAD_CLAIMS",
    "LIFETIME_TOO_LONG",
}  # fmt: skip


def test_exactly_the_failures_of_steps_1_to_5_are_charged():
    assert {code.value for code in Code if code.is_charged} == CHARGED


def test_all_sources_together_have_one_cap():
    intake = Intake()
    carriers = [issuer(f"https://carrier-{number}.example") for number in range(150)]
    codes = [intake.admit(carrier, "source", NOW) for carrier in carriers]
    assert codes.count(None) == PER_SECOND
    assert codes[100:] == [Code.RATE_LIMITED] * 50
    assert intake.admit(CARRIER, "another", NOW + 0.01) is None
    assert intake.admit(CARRIER, "another", NOW + 0.01) is Code.RATE_LIMITED


def test_one_carrier_cannot_use_up_what_is_there_for_all():
    """Genuine texts are never charged, spent ones neither; who presents hundreds a second waits all the same."""
    intake = Intake()
    codes = [intake.admit(CARRIER, f"source {number}", NOW) for number in range(200)]
    assert codes.count(None) == OF_ONE
    assert intake.admit(issuer("https://another.example"), "source", NOW) is None


def test_a_source_that_has_to_wait_uses_up_nothing_of_the_others():
    intake = Intake()
    fail(intake, "a", 20)
    for _ in range(1000):
        assert intake.admit(CARRIER, "a", NOW) is Code.RATE_LIMITED
    assert [intake.admit(CARRIER, "b", NOW) for _ in range(31)] == [None] * 30 + [Code.RATE_LIMITED]


def test_a_million_sources_take_bounded_memory():
    intake = Intake()
    for number in range(3 * SOURCES):
        fail(intake, f"source {number}", 1, NOW + number)
    assert len(intake._failures) == SOURCES


async def test_who_presents_pays_for_what_came_of_it_and_who_has_to_wait_is_not_judged():
    intake, judged = Intake(), []

    async def present():
        judged.append(True)
        return BAD

    codes = [(await intake.judge(CARRIER, "a", NOW, present)).code for _ in range(50)]
    assert codes == [Code.BAD_SIGNATURE] * int(FAILURES) + [Code.RATE_LIMITED] * (50 - int(FAILURES))
    assert len(judged) == FAILURES
    assert (await intake.judge(CARRIER, "b", NOW, present)).code is Code.BAD_SIGNATURE
