"""From a driver's wish to a door: judged, claimed, challenged, signed, written down, sent, and its outcome told.

Each step is committed before the next one begins, so that a door of a stop gets one token at the most, whatever is
killed in between:

    asked      all four confirmations hold, and the door is this request's alone      nothing is signed
    signed     nothing of it was withdrawn, and the token is written down as issued   it may leave from here on
    granted, refused_by_building, unknown                                             what the building said, or nothing

A door is given back if nothing was signed, if its token certainly never left this cloud, or, once, if the building
itself says that it refused the token before it would have spent it (``is_unspent``). What this file refuses to do: sign
for a challenge that a controller of the building has not signed for this very door, give a door back on a guess, send a
token twice, or say "granted" without the building's word.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from sqlalchemy import and_, or_, select

from vestibule_core import b64url, token
from vestibule_core.model import Code, DoorId, Issuer, Word
from vestibule_core.token import Claims, Confirmations, DriverProof

from . import alarms, audit, keys
from .checks import Asked, Check, Known, Limits, Reason, Result, Verdict, judge, judge_again
from .evidence import Sealed, seal
from .keys import Keyring, KeyUnusable
from .store import Store, StoreUnavailable
from .store.queries import claim_door, known, move_request, not_withdrawn, pseudonyms, release_door, tokens_for
from .store.tables import AlarmKind, Evidence, Issued, KeyUse, OutcomeTold, Request, RequestState

_LOGGER = logging.getLogger(__name__)

TOKEN_FOR: Final = 60
"""Seconds for which a token is good."""
CHALLENGE_WAIT: Final = 8.0
"""Seconds for which a building may take for a challenge."""
UNLOCK_WAIT: Final = 15.0
"""Seconds for which it may take for a door; a token is spent within 5 s or not at all."""
ASKED_FOR: Final = timedelta(seconds=30)
"""After which a request that has not been signed never will be: its replica is gone, or so slow that it is refused."""
SIGNED_FOR: Final = timedelta(seconds=35)
"""After which a token without an outcome is unknown: as a rule its replica has told by then. An answer may still come.
"""
_UNSIGNED: Final = (RequestState.ASKED,)
_RECORD_TRIES: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts to write an outcome down while the database is away."""


class Unreachable(Exception):
    """The building gave no challenge, or no answer. ``code``: what it said, if it said no."""

    def __init__(self, code: str = "UNREACHABLE") -> None:
        """Say why."""
        super().__init__(code)
        self.code = code


class NotSent(Unreachable):
    """Certain: what was to be sent has not left this cloud, and never will."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a building says about a token."""

    word: Word
    code: str | None = None
    passed_on: bool = False
    """By another replica, in whose name anybody may speak who reaches the database."""


@dataclass(frozen=True, slots=True)
class SignedChallenge:
    """A door's challenge, whose signature by one of the building's enrolled controllers the link has verified."""

    door: str
    issuer: str
    nonce: str
    controller: str
    """Its verifier key."""
    way: object = None
    """By which it came, as the link knows it: the token goes the same way, or not at all."""


class Link(Protocol):
    """The way to buildings."""

    async def challenge(self, building: str, door: DoorId) -> SignedChallenge:
        """Return a fresh challenge of a door; raise Unreachable."""
        ...

    async def unlock(self, challenge: SignedChallenge, text: str) -> Answer:
        """Hand a token over, once, to whoever signed its challenge; return what that says. Raise NotSent, or
        Unreachable if it says nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a wish."""

    request: str
    state: RequestState
    verdict: Verdict
    code: str | None
    """The building's code, or why it was not asked; of a refused one, the first reason."""


@dataclass(frozen=True, slots=True)
class Desk:
    """All that a decision needs."""

    store: Store
    keyring: Keyring
    link: Link
    issuer: Issuer
    limits: Limits = field(default_factory=Limits)
    evidence_for: timedelta = timedelta(days=30)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    random: Callable[[int], bytes] = os.urandom


async def decide(desk: Desk, asked: Asked, judged: Callable[[Verdict], None] = lambda _: None) -> Outcome:
    """Return what becomes of a wish. It goes on if the caller goes away. ``judged`` is told the four confirmations as
    soon as they are written down, and once more if one of them was withdrawn before a token was signed.

    Raises StoreUnavailable: nothing was sent (but the door may be claimed until ``settle``, or for good, if it was
    just being written down that a token is signed); IntegrityError: this request has been decided already.
    """
    return await asyncio.shield(asyncio.ensure_future(_decide(desk, asked, judged)))


async def _decide(desk: Desk, asked: Asked, judged: Callable[[Verdict], None]) -> Outcome:
    verdict, facts, evidence = await _judged(desk, asked)
    judged(verdict)
    if not verdict.passed:
        return Outcome(asked.request, RequestState.REFUSED, verdict, verdict.reason)
    assert facts.door is not None, "the confirmations hold"
    building, door = facts.door.building, DoorId(asked.door)
    try:
        async with asyncio.timeout(CHALLENGE_WAIT):
            challenge = await desk.link.challenge(building, door)
        if challenge.door != door or challenge.issuer != desk.issuer:
            raise Unreachable("WRONG_CHALLENGE")
        text, jti = await _signed(desk, asked, facts, verdict, challenge.nonce, evidence)
    except TimeoutError:
        return await _unsent(desk, asked, verdict, Unreachable().code, _UNSIGNED)
    except Unreachable as err:
        return await _unsent(desk, asked, verdict, err.code, _UNSIGNED)
    except KeyUnusable as err:
        _LOGGER.error("no_signing_key", extra={"facts": {"why": str(err)}})  # noqa: TRY400 - it says all there is
        return await _unsent(desk, asked, verdict, "NO_SIGNING_KEY", _UNSIGNED)
    except _Overtaken:
        return await _overtaken(desk, asked, facts, verdict, judged)
    try:
        async with asyncio.timeout(UNLOCK_WAIT):
            answer = await desk.link.unlock(challenge, text)
    except NotSent as err:
        # Also if that took so long that another replica calls it unknown.
        return await _unsent(desk, asked, verdict, err.code, (RequestState.SIGNED, RequestState.UNKNOWN))
    except TimeoutError, Unreachable:
        answer = Answer(Word.UNKNOWN_OUTCOME)
    return await _told(desk, asked, verdict, building, jti, answer)


async def _judged(desk: Desk, asked: Asked) -> tuple[Verdict, Known, str]:
    """Judge, claim the door and write all of it down; return the digest of the evidence as well."""
    now = desk.clock()
    async with desk.store.transaction() as session:
        facts = await known(session, asked, desk.limits)
        verdict = judge(asked, facts, now)
        row = Request(
            id=asked.request,
            driver_id=asked.driver,
            device_id=asked.device,
            stop_id=asked.stop,
            door_id=asked.door,
            asked_at=asked.asked_at,
            decided_at=now,
            signed_jti=None,
        )
        sealed = _write(row, verdict, seal(asked, facts, verdict, now, desk.random(16)))
        session.add(row)
        await session.flush()
        if verdict.passed and not await claim_door(session, asked.stop, asked.door, asked.request):
            verdict = _taken(verdict)  # by another request, since it was looked at
            sealed = _write(row, verdict, seal(asked, facts, verdict, now, desk.random(16)))
        session.add(
            Evidence(
                request_id=asked.request,
                salt=sealed.salt,
                record=sealed.record,
                delete_after=now + desk.evidence_for,
            )
        )
        audit.record(
            session, now, asked.driver, "door asked for", asked.request, passed=verdict.passed, reason=verdict.reason
        )
    return verdict, facts, sealed.digest


def _write(row: Request, verdict: Verdict, sealed: Sealed) -> Sealed:
    row.state, row.code = (RequestState.ASKED, None) if verdict.passed else (RequestState.REFUSED, verdict.reason)
    row.told = [{"check": r.check, "passed": r.passed, "reason": r.reason} for r in verdict.results]
    row.evidence_digest = sealed.digest
    return sealed


def _taken(verdict: Verdict) -> Verdict:
    who, _, where, when = verdict.results
    return replace(verdict, results=(who, Result(Check.ROUTE, Reason.ALREADY_ASKED), where, when))


class _Overtaken(Exception):
    """The request is not waiting any more, or what confirmed it was withdrawn."""


async def _signed(
    desk: Desk, asked: Asked, facts: Known, verdict: Verdict, nonce: str, evidence: str
) -> tuple[str, str]:
    """Return a token and its jti, both of which are written down by then."""
    assert facts.stop is not None
    assert facts.door is not None
    now, building = desk.clock(), facts.door.building
    iat = int(now.timestamp())
    measured = verdict.of(Check.POSITION).measured
    async with desk.store.transaction() as session:
        key = await desk.keyring.signer(await keys.current(session, KeyUse.TOKENS, now))
        month = now.astimezone(UTC).strftime("%Y-%m")
        whose = {"sub": (asked.driver, month), "stp": (asked.stop, ""), "rte": (facts.stop.route, "")}
        known_as = await pseudonyms(session, building, whose, desk.random)
        jti = b64url.encode(desk.random(16))
        claims = Claims(
            issuer=desk.issuer,
            door=DoorId(asked.door),
            jti=jti,
            issued_at=iat,
            expires_at=iat + TOKEN_FOR,
            subject=known_as["sub"],
            stop=known_as["stp"],
            nonce=nonce,
            confirmations=Confirmations(
                driver=DriverProof.PASSKEY,
                route=known_as["rte"],
                distance=measured["d"],
                accuracy=measured["acc"],
                position_age=measured["age"],
                requested_at=min(
                    iat, int(asked.asked_at.timestamp())
                ),  # a phone may be ahead of us, but not in a token
            ),
            evidence=evidence,
        )
        text = token.issue(key, claims)
        good = not_withdrawn(asked, now)
        if not await move_request(session, asked.request, _UNSIGNED, RequestState.SIGNED, good, signed_jti=jti):
            raise _Overtaken
        session.add(Issued(jti=jti, door_id=asked.door, building_id=building, iat=iat, request_id=asked.request))
    return text, jti  # only now: it is committed


async def _overtaken(
    desk: Desk, asked: Asked, facts: Known, verdict: Verdict, judged: Callable[[Verdict], None]
) -> Outcome:
    """Say which confirmation was withdrawn while the building was asked, and give the door back."""
    now = desk.clock()
    async with desk.store.transaction() as session:
        # The newest fix of this device is its own by now.
        facts = replace(await known(session, asked, desk.limits), previous=facts.previous)
        left = judge_again(verdict, asked, facts, now)
        row = await session.get_one(Request, asked.request, with_for_update=True)
        if left.passed or row.state != RequestState.ASKED:
            left = verdict
        else:
            evidence = await session.get_one(Evidence, asked.request)
            sealed = _write(row, left, seal(asked, facts, left, now, desk.random(16)))
            evidence.salt, evidence.record = sealed.salt, sealed.record
            await release_door(session, asked.request)
            audit.record(session, now, asked.driver, "request withdrawn", asked.request, reason=left.reason)
    if left.passed:  # this program slept, and another one has given the door back, or will
        return await _unsent(desk, asked, verdict, "LATE", _UNSIGNED)
    judged(left)
    return Outcome(asked.request, RequestState.REFUSED, left, left.reason)


async def _unsent(desk: Desk, asked: Asked, verdict: Verdict, code: str, frm: tuple[RequestState, ...]) -> Outcome:
    """Give a door back for which nothing was signed, or whose token is dropped here."""
    async with desk.store.transaction() as session:
        if await move_request(session, asked.request, frm, RequestState.UNREACHABLE, code=code):
            await release_door(session, asked.request)
    return Outcome(asked.request, RequestState.UNREACHABLE, verdict, code)


_UNSPENT: Final = frozenset(
    {
        Code.RATE_LIMITED,
        Code.WRONG_DOOR,
        Code.NOT_SPENDER,
        Code.NONCE_UNKNOWN,
        Code.NONCE_EXPIRED,
        Code.POLICY_CARRIER_DOOR,
        Code.POLICY_EVIDENCE,
        Code.POLICY_HOURS,
        Code.POLICY_RATE,
        Code.CLOCK_UNTRUSTED,
        Code.DELIVERIES_OFF,
    }
)
"""What a building says in steps 0 to 10 of protocol A.2, or when it judges again before its strike is told, which burns
the token. Not in here: what it may also say after a strike was told (LATE, STOPPING, STORE_FAILED, STRIKE_*), and what
names no code.
"""


def is_unspent(answer: Answer) -> bool:
    """Return whether a building has said here that a token opened nothing.

    It was handed over once, and nobody hands it over again. A copy would have to reach the same door within the minute
    that its challenge is good for, as somebody whom the building lets present this carrier's tokens.
    """
    return not answer.passed_on and (
        answer.word is Word.INVALID_TOKEN
        or (answer.word in (Word.REFUSED, Word.UNAVAILABLE) and answer.code in _UNSPENT)
    )


_STATES: Final = {Word.GRANTED: RequestState.GRANTED, Word.UNKNOWN_OUTCOME: RequestState.UNKNOWN}


async def _told(desk: Desk, asked: Asked, verdict: Verdict, building: str, jti: str, answer: Answer) -> Outcome:
    outcome = Outcome(asked.request, _state_of(answer), verdict, answer.code)
    for wait in (*_RECORD_TRIES, None):
        try:
            if not await record_outcome(desk.store, jti, answer, desk.clock()):
                return await _told_before(desk, outcome, building, asked.door, jti, answer)
        except StoreUnavailable:
            if wait is None:  # the driver is told all the same; ``settle`` will make it unknown, which is no lie
                _LOGGER.error("outcome_not_recorded", extra={"facts": {"request": asked.request}})  # noqa: TRY400
            else:
                await asyncio.sleep(wait)
        else:
            break
    return outcome


async def _told_before(desk: Desk, outcome: Outcome, building: str, door: str, jti: str, answer: Answer) -> Outcome:
    """Return the outcome that was written down before this answer came; a building that says two things is an alarm."""
    async with desk.store.transaction() as session:
        row = await session.get_one(Request, outcome.request)
        before = await session.get(OutcomeTold, jti)
        if before is not None and answer.word is not Word.UNKNOWN_OUTCOME and not _is_same(before, answer):
            detail = {"door": door, "code": before.code or before.word, "answer": answer.code or answer.word.value}
            await alarms.sound(session, AlarmKind.CONTRADICTED, building, jti, desk.clock(), once=True, **detail)
        return replace(outcome, state=RequestState(row.state), code=row.code)


def _is_same(before: OutcomeTold, answer: Answer) -> bool:
    return before.word == answer.word and (answer.code is None or before.code in (None, answer.code))


def _state_of(answer: Answer) -> RequestState:
    return _STATES.get(answer.word, RequestState.REFUSED_BY_BUILDING)


async def record_outcome(
    store: Store, jti: str, answer: Answer, now: datetime, *, is_spent: bool = False, building: str | None = None
) -> bool:
    """Write down what a building said about a token; return whether that is news. An answer that comes late replaces
    "unknown", and nothing replaces an answer. ``is_spent``: it has said as well that it accepted it. ``building``: who
    says so, where that is not certain; of another one's token it is no news. An unknown ``jti`` raises LookupError: it
    was never issued.
    """
    is_unknown = answer.word is Word.UNKNOWN_OUTCOME
    open_ = (RequestState.SIGNED,) if is_unknown else (RequestState.SIGNED, RequestState.UNKNOWN)
    of = Issued.jti == jti if building is None else and_(Issued.jti == jti, Issued.building_id == building)
    request = select(Issued.request_id).where(of).scalar_subquery()
    async with store.transaction() as session:
        code = {} if is_unknown else {"code": answer.code}
        if not await move_request(session, request, open_, _state_of(answer), **code):
            if await session.get(Issued, jti) is None:
                raise LookupError("a token that was never issued")
            return False
        if not is_unknown:
            session.add(OutcomeTold(jti=jti, word=answer.word, code=answer.code, at=now))
        # Once: a building that says so again and again is not asked for ever.
        if not is_spent and is_unspent(answer):
            issued = await session.get_one(Issued, jti)
            if await tokens_for(session, issued.request_id) == 1:
                await release_door(session, issued.request_id)
        return True


async def settle(store: Store, now: datetime) -> tuple[int, int]:
    """End what nobody works on any more, after a replica was killed; return how many doors were given back because
    nothing was signed, and how many tokens are unknown now. Any replica may do it at any time.
    """
    free = unknown = 0
    is_late = or_(
        and_(Request.state == RequestState.ASKED, Request.decided_at < now - ASKED_FOR),
        and_(Request.state == RequestState.SIGNED, Request.decided_at < now - SIGNED_FOR),
    )
    async with store.reading() as session:
        late = (await session.execute(select(Request.id, Request.state).where(is_late))).tuples().all()
    for request, state in late:  # one by one: whoever works on one of them keeps none of the others
        async with store.transaction() as session:
            if state == RequestState.SIGNED:
                unknown += await move_request(session, request, (RequestState.SIGNED,), RequestState.UNKNOWN)
            # Whoever had it and still lives cannot sign after this: signing begins by leaving the same state.
            elif await move_request(session, request, _UNSIGNED, RequestState.UNREACHABLE, code="LATE"):
                await release_door(session, request)
                free += 1
    return free, unknown
