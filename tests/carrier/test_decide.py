"""From a wish to a door that opens, on both kinds of database, with a real building at the other end."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import time, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from carrier import buildings, drivers, manifests
from carrier.acceptances import Acceptance, look_up
from carrier.checks import Check, Reason, StopState
from carrier.decide import Answer, NotSent, SignedChallenge, Unreachable, decide, is_unspent, record_outcome, settle
from carrier.evidence import Sealed
from carrier.store import Store
from carrier.store.tables import KeySet, RequestState
from vestibule_core import b64url
from vestibule_core.hours import Day, Hours
from vestibule_core.model import Code, Word

from .town import HOME, NAME, NEAR, REFERENCE, Town


@pytest.fixture
async def town(store, tmp_path):
    town = await Town.founded(store, tmp_path)
    async with town.site:
        yield town


def payload(text):
    return json.loads(b64url.decode(text.split(".")[1].encode()))


async def test_a_token_signed_here_opens_a_real_door_exactly_once(town):
    outcome = await town.ask()
    assert (outcome.state, outcome.verdict.passed) == (RequestState.GRANTED, True)
    assert town.site.pulses == 1
    assert (await town.site.present(town.link.tokens[0])).code is Code.ALREADY_SPENT
    assert town.site.pulses == 1
    assert await town.rows("SELECT state, code FROM request") == [("granted", "GRANTED")]
    (jti,) = await town.rows("SELECT jti FROM issued")
    assert await town.rows("SELECT jti, word, code FROM outcome") == [(jti, "granted", "GRANTED")]
    assert jti == payload(town.link.tokens[0])["jti"]


async def test_a_stop_opens_its_door_once(town):
    assert (await town.ask()).state is RequestState.GRANTED
    again = await town.ask()
    assert (again.state, again.verdict.reason) == (RequestState.REFUSED, Reason.ALREADY_ASKED)
    assert town.site.pulses == 1


async def test_of_200_at_once_for_one_door_over_three_replicas_one_is_signed(town, monkeypatch):
    monkeypatch.setattr("carrier.store._WAIT", 100)  # seconds: the last of them waits for all others
    async with AsyncExitStack() as stores, asyncio.timeout(100):
        desks = []
        for _ in range(3):
            desks.append(replace(town.desk, store=Store(town.store.url)))
            stores.push_async_callback(desks[-1].store.close)
        outcomes = await asyncio.gather(*(decide(desks[number % 3], town.asked()) for number in range(200)))
    assert sorted(outcome.state for outcome in outcomes) == ["granted"] + ["refused"] * 199
    assert {o.verdict.reason for o in outcomes if o.state is RequestState.REFUSED} == {Reason.ALREADY_ASKED}
    assert await town.rows("SELECT count(*) FROM issued") == [1]
    assert (len(town.link.tokens), town.site.pulses) == (1, 1)


async def test_a_request_is_decided_once(town):
    asked = town.asked()
    await town.ask(request=asked.request)
    with pytest.raises(IntegrityError):
        await town.ask(request=asked.request)
    assert town.site.pulses == 1


async def test_a_refused_wish_signs_nothing_and_is_written_down(town):
    outcome = await town.ask(fix=None)
    assert outcome.state is RequestState.REFUSED
    assert outcome.code == outcome.verdict.reason == Reason.POSITION_MISSING
    assert town.link.tokens == []
    assert await town.rows("SELECT count(*) FROM issued") == [0]
    assert await town.rows("SELECT opened_by FROM stop_door") == [None]
    assert (await town.ask()).state is RequestState.GRANTED


async def test_the_doors_of_a_path_open_in_their_order(store, tmp_path):
    town = await Town.founded(store, tmp_path, doors=2)
    gate, lobby = (door.id for door in town.site.doors)
    async with town.site:
        assert (await town.ask(door=lobby)).code == Reason.EARLIER_DOOR_FIRST
        assert (await town.ask(door=gate)).state is RequestState.GRANTED
        assert (await town.ask(door=lobby)).state is RequestState.GRANTED
        assert [len(town.site.strikes[door].pulses) for door in (gate, lobby)] == [1, 1]


async def test_a_building_that_cannot_be_reached_costs_nothing(town):
    async def cut():
        raise Unreachable

    town.link.before_challenge = cut
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNREACHABLE")
    assert await town.rows("SELECT opened_by FROM stop_door") == [None]
    town.link.before_challenge = town.link.before_unlock  # mended
    assert (await town.ask()).state is RequestState.GRANTED


async def test_a_link_cut_after_the_token_left_is_unknown_and_never_tried_again(town):
    async def cut():
        raise Unreachable

    town.link.after_unlock = cut
    outcome = await town.ask()
    assert outcome.state is RequestState.UNKNOWN
    assert town.site.pulses == 1
    assert (await town.ask()).code == Reason.ALREADY_ASKED
    assert (len(town.link.tokens), town.site.pulses) == (1, 1)
    assert await town.rows("SELECT word FROM outcome") == []


async def test_an_answer_that_comes_late_replaces_unknown_and_nothing_replaces_an_answer(town):
    async def cut():
        raise Unreachable

    town.link.before_unlock = cut
    await town.ask()
    (jti,) = await town.rows("SELECT jti FROM issued")
    assert await record_outcome(town.store, jti, Answer(Word.REFUSED, "POLICY_HOURS"), town.now)
    assert not await record_outcome(town.store, jti, Answer(Word.GRANTED, "GRANTED"), town.now)
    assert not await record_outcome(town.store, jti, Answer(Word.UNKNOWN_OUTCOME), town.now)
    assert await town.rows("SELECT state, code FROM request") == [("refused_by_building", "POLICY_HOURS")]


async def test_a_building_that_refuses_the_token_of_another_one_gives_no_door_back(town):
    async def elsewhere():
        (jti,) = await town.rows("SELECT jti FROM issued")
        answer = Answer(Word.REFUSED, "POLICY_HOURS")
        assert not await record_outcome(town.store, jti, answer, town.now, building="building:x")
        assert await town.rows("SELECT state FROM request") == ["signed"]

    town.link.before_unlock = elsewhere
    assert (await town.ask()).state is RequestState.GRANTED
    assert (await town.ask()).code == Reason.ALREADY_ASKED


async def test_an_outcome_of_a_token_that_was_never_issued_is_written_down_nowhere(town):
    """That a building accepted such a one is an alarm: test_hostile_building.py."""
    await town.ask()
    before = await town.rows("SELECT * FROM outcome"), await town.rows("SELECT * FROM request")
    with pytest.raises(LookupError):
        await record_outcome(town.store, "A" * 22, Answer(Word.REFUSED, "POLICY_HOURS"), town.now)
    assert (await town.rows("SELECT * FROM outcome"), await town.rows("SELECT * FROM request")) == before


def accepted_before(town, answer):
    """Let the building tell that it accepted the token, and that the door opened, before it answers."""

    async def unlock(challenge, text):
        told = Acceptance(town.building, "controller:x", payload(text)["jti"], town.site.door.id, Code.GRANTED)
        await look_up(town.store, [told], town.now)
        if answer is None:
            raise Unreachable
        return answer

    town.link.unlock = unlock


@pytest.mark.parametrize("answer", [Answer(Word.REFUSED, "POLICY_HOURS"), Answer(Word.GRANTED, "LATE")])
async def test_a_building_that_accepted_a_token_and_then_answers_otherwise_is_an_alarm(town, answer):
    """What was written down first stays, and is what the driver is told."""
    accepted_before(town, answer)
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.GRANTED, "GRANTED")
    assert await town.rows("SELECT state, code FROM request") == [("granted", "GRANTED")]
    assert await town.rows("SELECT kind, subject FROM alarm") == [
        ("contradicted", *await town.rows("SELECT jti FROM issued"))
    ]
    assert (await town.ask()).code == Reason.ALREADY_ASKED


@pytest.mark.parametrize(
    "answer", [None, Answer(Word.UNKNOWN_OUTCOME), Answer(Word.GRANTED), Answer(Word.GRANTED, "GRANTED")]
)
async def test_an_outcome_that_is_known_before_the_answer_comes_or_does_not_is_told(town, answer):
    accepted_before(town, answer)
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.GRANTED, "GRANTED")
    assert await town.rows("SELECT kind FROM alarm") == []


async def test_a_token_that_certainly_never_left_costs_nothing(town):
    async def lose():
        raise NotSent

    before, town.link.before_unlock = town.link.before_unlock, lose
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "UNREACHABLE")
    assert await town.rows("SELECT opened_by FROM stop_door") == [None]
    town.link.before_unlock = before
    assert (await town.ask()).state is RequestState.GRANTED
    assert town.site.pulses == 1


async def test_a_door_that_a_building_certainly_did_not_open_may_be_asked_for_once_more(town):
    """As outside of its hours: the driver waits, and asks again by a new request and a new token. But not for ever."""

    async def too_early():
        town.site.carrier.hours = (Hours(frozenset(Day), time(3), time(4)),)
        town.site.controller.apply(town.site.building, town.site.strikes)

    async def open_again():
        town.site.carrier.hours = ()
        town.site.controller.apply(town.site.building, town.site.strikes)

    town.link.before_unlock = too_early
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.REFUSED_BY_BUILDING, "POLICY_HOURS")
    town.link.before_unlock = open_again
    assert (await town.ask()).state is RequestState.GRANTED
    assert (await town.ask()).code == Reason.ALREADY_ASKED
    assert (town.site.pulses, len(set(town.link.tokens))) == (1, 2)


async def test_a_door_that_was_refused_twice_is_not_asked_for_again(town):
    async def answer(challenge, text):
        return Answer(Word.REFUSED, "POLICY_HOURS")

    town.link.unlock = answer
    for _ in range(2):
        assert (await town.ask()).state is RequestState.REFUSED_BY_BUILDING
    assert (await town.ask()).code == Reason.ALREADY_ASKED
    assert await town.rows("SELECT count(*) FROM issued") == [2]


CERTAIN = {
    "RATE_LIMITED",
    "WRONG_DOOR",
    "NOT_SPENDER",
    "NONCE_UNKNOWN",
    "NONCE_EXPIRED",
    "POLICY_CARRIER_DOOR",
    "POLICY_EVIDENCE",
    "POLICY_HOURS",
    "POLICY_RATE",
    "CLOCK_UNTRUSTED",
    "DELIVERIES_OFF",
}


@pytest.mark.parametrize("code", Code)
def test_only_a_word_and_a_code_that_leave_no_doubt_give_a_door_back(code):
    certain = code.word is Word.INVALID_TOKEN or code.told in CERTAIN
    assert is_unspent(Answer(code.word, code.told)) == certain
    assert not is_unspent(Answer(code.word, code.told, passed_on=True))
    assert not is_unspent(Answer(Word.GRANTED, code.told))
    assert not is_unspent(Answer(Word.ALREADY_USED, code.told))
    assert not is_unspent(Answer(Word.UNKNOWN_OUTCOME, code.told))
    assert not is_unspent(Answer(Word.REFUSED))


async def test_a_building_that_refuses_says_why_and_the_door_stays_claimed(town):
    """What is signed cannot be taken back: the token could still be presented."""
    town.site.strike.cut_power()
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.REFUSED_BY_BUILDING, "STRIKE_UNREACHABLE")
    assert (await town.ask()).code == Reason.ALREADY_ASKED


@pytest.mark.parametrize("wrong", [{"door": "door:" + "a" * 26}, {"issuer": "https://other.example"}])
async def test_a_challenge_of_another_door_or_for_another_carrier_signs_nothing(town, wrong):
    good = {"door": town.site.door.id, "issuer": town.carrier.issuer, "nonce": "A" * 22, "controller": ""}

    async def false_challenge(building, door):
        return SignedChallenge(**good | wrong)

    town.link.challenge = false_challenge
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "WRONG_CHALLENGE")
    assert await town.rows("SELECT count(*) FROM issued") == [0]


WITHDRAWN = [
    # what a dispatcher does, and what the driver is told then
    (lambda session, town: drivers.revoke(session, town.device, "x", town.now), Check.ID, Reason.DEVICE_REVOKED),
    (lambda session, town: drivers.revoke(session, town.driver, "x", town.now), Check.ID, Reason.DEVICE_REVOKED),
    (lambda session, town: drivers.remove(session, town.driver, "x", town.now), Check.ID, Reason.DEVICE_REVOKED),
    (
        lambda session, town: drivers.set_active(session, town.driver, False, "x", town.now),
        Check.ID,
        Reason.DRIVER_INACTIVE,
    ),
    (lambda session, town: drivers.vet(session, town.driver, None, "x", town.now), Check.ID, Reason.VETTING_MISSING),
    (
        lambda session, town: drivers.vet(session, town.driver, town.now, "x", town.now),
        Check.ID,
        Reason.VETTING_EXPIRED,
    ),
    (
        lambda session, town: manifests.end_stop(session, town.stop, StopState.CANCELLED, "x", town.now),
        Check.ROUTE,
        Reason.STOP_CANCELLED,
    ),
    (
        lambda session, town: manifests.end_stop(session, town.stop, StopState.DONE, "x", town.now),
        Check.ROUTE,
        Reason.STOP_DONE,
    ),
    (
        lambda session, town: buildings.remove(session, town.building, "x", town.now),
        Check.ROUTE,
        Reason.BUILDING_REMOVED,
    ),
]


@pytest.mark.parametrize("withdraw, check, reason", WITHDRAWN)
async def test_what_a_dispatcher_withdraws_while_the_building_is_asked_holds(town, withdraw, check, reason):
    """The dispatcher had success before anything was signed: nothing is, and the driver is told why."""
    told = []

    async def withdrawn():
        async with town.store.transaction() as session:
            await withdraw(session, town)

    town.link.before_challenge = withdrawn
    outcome = await decide(town.desk, town.asked(), told.append)
    assert (outcome.state, outcome.code) == (RequestState.REFUSED, reason)
    assert [verdict.reason for verdict in told] == [None, reason]
    assert [result.check for result in outcome.verdict.results if not result.passed] == [check]
    assert (town.link.tokens, town.site.pulses) == ([], 0)
    assert await town.rows("SELECT count(*) FROM issued") == [0]
    assert await town.rows("SELECT opened_by FROM stop_door") == [None]
    ((state, code, digest),) = await town.rows("SELECT state, code, evidence_digest FROM request")
    assert (state, code) == ("refused", reason)
    ((salt, record),) = await town.rows("SELECT salt, record FROM evidence")
    assert digest == Sealed(salt, record).digest
    evidence = json.loads(record)
    assert [each["reason"] for each in evidence["results"] if each["reason"]] == [reason]
    assert evidence["previous"] is None


async def test_without_a_published_key_nothing_is_signed(town):
    async with town.store.transaction() as session:
        await session.execute(update(KeySet).values(exp=int(town.now.timestamp())))
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "NO_SIGNING_KEY")
    assert await town.rows("SELECT opened_by FROM stop_door") == [None]


async def test_a_driver_who_goes_away_in_the_middle_does_not_stop_it(town):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait():
        reached.set()
        await go_on.wait()

    town.link.before_unlock = wait
    asking = asyncio.create_task(town.ask())
    await reached.wait()
    asking.cancel()
    go_on.set()
    async with asyncio.timeout(10):
        while await town.rows("SELECT state FROM request") != ["granted"]:  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.02)
    assert town.site.pulses == 1


async def test_what_nobody_works_on_any_more_is_settled(town):
    """As after a replica was killed: once before it signed, once after."""

    async def hang():
        await asyncio.Event().wait()

    town.link.before_challenge = hang
    asking = asyncio.create_task(town.ask())
    async with asyncio.timeout(10):
        while await town.rows("SELECT state FROM request") != ["asked"]:  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.02)
    assert await settle(town.store, town.now + timedelta(seconds=30)) == (0, 0)
    assert await settle(town.store, town.now + timedelta(seconds=31)) == (1, 0)
    assert await town.rows("SELECT state, code FROM request") == [("unreachable", "LATE")]
    asking.cancel()


async def test_a_replica_that_slept_cannot_sign_any_more(town):
    async def sleep():
        assert await settle(town.store, town.now + timedelta(seconds=31)) == (1, 0)

    town.link.before_challenge = sleep
    outcome = await town.ask()
    assert (outcome.state, outcome.code) == (RequestState.UNREACHABLE, "LATE")
    assert await town.rows("SELECT count(*) FROM issued") == [0]
    assert town.link.tokens == []


async def test_a_request_that_is_signed_while_it_is_being_ended_goes_on(town):
    """The other replica has read that it is late, and comes to write when it is signed."""
    wanted, sent = asyncio.Event(), asyncio.Event()
    town.link.before_challenge, town.link.before_unlock = wanted.wait, sent.wait

    async def until_it_is(state):
        async with asyncio.timeout(10):
            while await town.rows("SELECT state FROM request") != [state]:  # noqa: ASYNC110 - a database tells nobody
                await asyncio.sleep(0.02)

    class Slow:
        reading = town.store.reading

        @asynccontextmanager
        async def transaction(self):
            wanted.set()
            await until_it_is("signed")
            async with town.store.transaction() as session:
                yield session

    asking = asyncio.create_task(town.ask())
    await until_it_is("asked")
    assert await settle(Slow(), town.now + timedelta(seconds=31)) == (0, 0)
    assert await town.rows("SELECT state FROM request") == ["signed"]
    sent.set()
    assert (await asking).state is RequestState.GRANTED


async def test_a_token_that_never_left_costs_nothing_though_another_replica_calls_it_unknown(town):
    async def lose():
        assert await settle(town.store, town.now + timedelta(seconds=36)) == (0, 1)
        raise NotSent

    before, town.link.before_unlock = town.link.before_unlock, lose
    assert (await town.ask()).state is RequestState.UNREACHABLE
    assert await town.rows("SELECT state FROM request") == ["unreachable"]
    town.link.before_unlock = before
    assert (await town.ask()).state is RequestState.GRANTED
    assert town.site.pulses == 1


async def test_a_token_says_the_four_confirmations_and_nothing_that_names_a_person_or_a_place(town):
    await town.ask()
    (text,) = town.link.tokens
    said = payload(text)
    assert said["chk"]["gps"] == {"d": 11, "acc": 8, "age": 3}
    assert said["chk"]["drv"] == "passkey"
    assert said["chk"]["req"] == said["iat"] - 2
    plain = json.dumps(said)
    for secret in (NAME, REFERENCE, town.driver, town.stop, town.device, *map(str, (*HOME, *NEAR))):
        assert secret not in plain
    assert await town.rows("SELECT evidence_digest FROM request") == [said["evd"]]


async def test_a_driver_has_another_name_in_the_next_month_and_a_stop_keeps_its_own(store, tmp_path):
    town = await Town.founded(store, tmp_path, stops=2)
    async with town.site:
        await town.ask()
        await town.ask(stop=town.stops[1])
    same, other = map(payload, town.link.tokens)
    assert same["sub"] == other["sub"]
    assert same["chk"]["rte"] == other["chk"]["rte"]
    assert same["stp"] != other["stp"]
    rows = await town.rows("SELECT kind, month FROM pseudonym ORDER BY kind")
    assert rows == [("rte", ""), ("stp", ""), ("stp", ""), ("sub", "2026-09")]


async def test_a_phone_that_jumps_is_noticed(store, tmp_path):
    town = await Town.founded(store, tmp_path, stops=2)
    async with town.site:
        far = town.asked().fix
        assert (await town.ask(fix=type(far)(48.137, 11.575, 8.0, far.at))).code == Reason.TOO_FAR
        outcome = await town.ask()
        assert outcome.verdict.of(Check.POSITION).reason is Reason.MOVED_TOO_FAST


def useless(town, **changes):
    return replace(town.asked().fix, **changes)


NOTHING_SAID = {
    "inaccurate": lambda town: {"fix": useless(town, accuracy=1_000_000.0)},
    "old": lambda town: {"fix": useless(town, at=town.now - timedelta(days=400))},
    "ahead of time": lambda town: {"fix": useless(town, at=town.now + timedelta(days=400))},
    "none": lambda town: {"fix": None},
    "somebody else's": lambda town: {"assertion": replace(town.asked().assertion, verified=False)},
}


@pytest.mark.parametrize("between", NOTHING_SAID.values(), ids=NOTHING_SAID)
async def test_a_phone_that_jumps_is_noticed_whatever_it_says_in_between(town, between):
    """However often: each is refused for itself, and forgets nothing."""
    assert (await town.ask(fix=useless(town, lat=48.137, lon=11.575))).code == Reason.TOO_FAR
    for _ in range(6):
        town.now += timedelta(seconds=5)
        assert (await town.ask(**between(town))).state is RequestState.REFUSED
    town.now += timedelta(seconds=5)
    assert (await town.ask()).code == Reason.MOVED_TOO_FAST
