"""What a building would do with one token, step by step of protocol A.2: the verdict of the functions that it runs.

A file does not say which challenge is open, what was spent, or what a building's hours are. What is not known is said
to be so, and never counts against the token.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from vestibule_core import challenge, policy, token
from vestibule_core.door import DoorState
from vestibule_core.errors import Refused
from vestibule_core.history import History
from vestibule_core.keys import TrustedKey
from vestibule_core.model import Code, Door, DoorId, Issuer, Limit, Now, Word
from vestibule_core.policy import Building, Carrier, EvidenceLimits
from vestibule_core.token import SignedRefusal, UnlockToken

from . import diagnosis
from .diagnosis import Finding
from .report import Report, Result, Step


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the building that a token is meant for; None: nothing."""

    keys: Mapping[str, TrustedKey]
    now: int
    """Seconds since 1970, by the building's clock."""
    issuer: Issuer | None = None
    """Whom the presenter speaks for."""
    door: DoorId | None = None
    nonce: str | None = None
    """The door's challenge."""
    limits: EvidenceLimits = field(default_factory=EvidenceLimits)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the building's functions say. ``code`` None: it would be spent now."""

    code: Code | None
    genuine: bool = True
    """The signature was found good before it was refused."""
    unlock: UnlockToken | None = None
    limit: Limit | None = None


def judge(text: str, known: Known) -> Verdict:
    """Return what ``token.verify`` and then ``policy.judge`` say."""
    try:
        unlock = token.verify(text, known.keys, known.issuer)
    except SignedRefusal as refusal:
        return Verdict(refusal.code, unlock=refusal.token)
    except Refused as refusal:
        return Verdict(refusal.code, genuine=False)
    claims = unlock.claims
    door = known.door or claims.door
    mine = [key for key in known.keys.values() if key.issuer == claims.issuer]
    carrier = Carrier(claims.issuer, "", tuple(mine), frozenset({door}), known.limits)
    now, secret = Now(known.now, boot=0.0), os.urandom(32)
    judged = unlock
    if known.nonce is None or claims.nonce == known.nonce:
        # The secret of the building that gave the challenge never leaves it: one of our own stands in its place.
        live = challenge.make(secret, claims.door, claims.issuer, now.boot, os.urandom(4))
        judged = replace(unlock, claims=replace(claims, nonce=live))
    building = Building.of([Door(door, "", 1.0)], [carrier])
    state = DoorState() if claims.door == door else None
    refused = policy.judge(judged, building, state, History(), 0.0, secret, now)
    return Verdict(refused.code, True, unlock, refused.limit) if refused else Verdict(None, True, unlock)


def report(text: str, known: Known, verdict: Verdict, before: Iterable[Step] = (), *, live: bool = False) -> Report:
    """Return each step, with what has to be changed. ``live``: the verdict is of a building at work."""
    findings = [*diagnosis.look(text, known.keys, known.issuer, known.now)]
    if verdict.unlock is not None:
        findings += diagnosis.look_further(verdict.unlock, known.door, known.nonce, known.limits)
    at = None if verdict.code is None or verdict.code is Code.GRANTED else step_of(verdict, findings)
    steps = [*before]
    for number, what in _STEPS.items():
        clause = f"A.2 {number}"
        if at is not None and number == at:
            assert verdict.code is not None
            change = tuple(f.what for f in findings if f.step == at) or (_ELSEWHERE.get(verdict.code, ""),)
            steps.append(Step(clause, what, Result.REFUSED, verdict.code.value, change=tuple(filter(None, change))))
        elif at is not None and _ORDER[number] > _ORDER[at]:
            steps.append(Step(clause, what, Result.CANNOT_BE_SAID, why=f"refused at {at}"))
        elif why := None if live else _unknown(number, known):
            steps.append(Step(clause, what, Result.CANNOT_BE_SAID, why=why))
        else:
            steps.append(Step(clause, what, Result.PASSED, why=_seen(number, verdict)))
    also = tuple(f"{f.what} ({f.code} at {f.step})" for f in findings if at is not None and _ORDER[f.step] > _ORDER[at])
    return Report("What a building does with this token:", tuple(steps), _sentence(at, verdict, steps, live), also)


def step_of(verdict: Verdict, findings: Iterable[Finding]) -> str:
    """Return the step in which it was refused."""
    assert verdict.code is not None
    if verdict.code is Code.MALFORMED:
        if verdict.genuine:
            return "5"
        return next((f.step for f in findings if f.code is Code.MALFORMED and f.step in ("1", "2", "4")), "1")
    return STEP_OF[verdict.code]


_STEPS: Final = {
    "0": "who presents it",
    "1": "its form",
    "1b": "this text was not spent before",
    "2": "header",
    "3": "key and algorithm",
    "4": "signature",
    "5": "claims",
    "6": "issuer, and status of the key",
    "7": "door",
    "7b": "this jti was not spent before",
    "8": "challenge",
    "10": "the building's policy",
    "11": "spent, durably",
    "12": "the strike",
}
_ORDER: Final = {number: place for place, number in enumerate(_STEPS)}
STEP_OF: Final = {
    Code.RATE_LIMITED: "0",
    Code.STOPPING: "0",
    Code.BAD_HEADER: "2",
    Code.WRONG_TYPE: "2",
    Code.UNKNOWN_KEY: "3",
    Code.ALG_MISMATCH: "3",
    Code.BAD_SIGNATURE: "4",
    Code.BAD_CLAIMS: "5",
    Code.LIFETIME_TOO_LONG: "5",
    Code.WRONG_ISSUER: "6",
    Code.KEY_REVOKED: "6",
    Code.WRONG_DOOR: "7",
    Code.NOT_SPENDER: "7",
    Code.ALREADY_SPENT: "7b",
    Code.NONCE_UNKNOWN: "8",
    Code.NONCE_EXPIRED: "8",
    Code.CARRIER_LOCKED_OUT: "10",
    Code.POLICY_CARRIER_DOOR: "10",
    Code.POLICY_EVIDENCE: "10",
    Code.POLICY_HOURS: "10",
    Code.POLICY_RATE: "10",
    Code.CLOCK_UNTRUSTED: "10",
    Code.LOCKDOWN: "10",
    Code.DOOR_BLOCKED: "10",
    Code.DELIVERIES_OFF: "10",
    Code.TAMPERED: "10",
    Code.JOURNAL_DISPUTED: "10",
    Code.STORE_FAILED: "11",
    Code.LATE: "12",
    Code.STRIKE_UNREACHABLE: "12",
    Code.STRIKE_REFUSED: "12",
    Code.OUTCOME_UNKNOWN: "12",
}
_ELSEWHERE: Final = {
    Code.ALREADY_SPENT: "a token, a jti and a challenge are used once: ask for a new challenge and sign a new token",
    Code.NONCE_UNKNOWN: "the challenge is not of this door, issuer and run of the building: copy it as it came",
    Code.NONCE_EXPIRED: f"the challenge is older than {challenge.LIFETIME} s: ask for it when all else is confirmed",
    Code.CARRIER_LOCKED_OUT: "a token was accepted that was in none of the daily lists: see docs/carriers.md, 7",
    Code.RATE_LIMITED: "too many at once: wait, and try again with a new token",
}
"""What to change where the token alone does not show it."""

_ANY: Final = "only the building knows"


def _unknown(number: str, known: Known) -> str | None:
    match number:
        case "0":
            return "a link or an intake key says that"
        case "1b" | "7b":
            return "only the building's journal knows"
        case "6" if known.issuer is None:
            return "--issuer was not given"
        case "7" if known.door is None:
            return "--door was not given"
        case "8":
            return "how old it is, only the building knows" if known.nonce else "--nonce was not given"
        case "10":
            return f"its limits are passed; its hours, rate and modes {_ANY}"
        case "11" | "12":
            return "nothing is spent or opened here"
    return None


def _seen(number: str, verdict: Verdict) -> str:
    if number == "3" and verdict.unlock is not None:
        return f"{verdict.unlock.key.alg} {verdict.unlock.key.kid}"
    return ""


def _sentence(at: str | None, verdict: Verdict, steps: Iterable[Step], live: bool) -> str:
    if at is None:
        if live:
            return "The building let it in: GRANTED."
        unknown = [step.clause.partition(" ")[2] for step in steps if step.result is Result.CANNOT_BE_SAID]
        return f"A building would let it in, if what cannot be said here holds (steps {', '.join(unknown)})."
    assert verdict.code is not None
    told = verdict.code.told
    limit = f', limit "{verdict.limit}"' if verdict.limit else ""
    named = f' and code "{told}"{limit}' if told else " and no code"
    if verdict.code.word is Word.UNKNOWN_OUTCOME:
        return f'It is not known whether the door opened. The carrier is told "{verdict.code.word}"{named}.'
    return f'Refused at step {at}: {verdict.code}. The carrier is told "{verdict.code.word}"{named}.'
