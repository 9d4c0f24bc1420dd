"""The policy of a gateway: which carriers may enter where, when and how, as Home Assistant hands it over (protocol C).

A new policy may allow more and less at once. What is less holds at once, what is more has to wait: ``meet`` is what may
hold meanwhile, ``widened`` says to people what waits. What this file refuses to do: let anything in that only one of
two policies lets in; where it cannot tell (hours of two time zones), it lets nobody in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, time, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from ..errors import KeySetInvalid, MalformedMessage
from ..hours import NEVER, Day, Hours, common, is_within
from ..keys import MAX_KEYS, MAX_SET_BYTES, KeyStatus, TrustedKey, import_jwk_set
from ..model import Issuer, door_id, issuer
from ..policy import Building, Carrier, EvidenceLimits
from ..strict import Message, choice, collected, if_known, integer, listed, optional, parsed, record, text
from ..token import DriverProof

MAX_POLICY: Final = 64 * 1024
"""Bytes of a request that brings a policy."""
MAX_DOORS: Final = 256
_MOST: Final = 1_000_000
"""Metres, seconds, accesses or rows."""

_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,32}){0,3}")
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{6})?)?")
_KID: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may enter. A policy that was read has carriers with different issuers and keys."""

    zone: str
    """The time zone of all hours, the doors' own as well: its name in the IANA database."""
    carriers: tuple[Carrier, ...]

    @property
    def tz(self) -> tzinfo:
        """The time zone; raises ValueError if this machine does not know it."""
        return _tz(self.zone)


EMPTY: Final = Policy("UTC", ())
"""What a gateway allows before it is told: nothing."""


# ---- the document ----


def _tz(name: str) -> tzinfo:
    if not _ZONE.fullmatch(name):
        raise ValueError("not the name of a time zone")
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, OSError) as err:  # not there, or a folder of zones
        raise ValueError("not a time zone that is known here") from err


def _zone(name: str) -> str:
    _tz(name)
    return name


def _clock(spelt: str) -> time:
    if not _CLOCK.fullmatch(spelt):
        raise ValueError("not a time of the day")
    return time.fromisoformat(spelt)


def _spelt_clock(clock: time) -> str:
    return clock.isoformat("minutes" if not (clock.second or clock.microsecond) else "auto")


def _kid(spelt: str) -> str:
    if not _KID.fullmatch(spelt):
        raise ValueError("not a key's thumbprint")
    return spelt


def _set_text(keys: tuple[TrustedKey, ...]) -> str:
    return json.dumps({"keys": [key.jwk() for key in keys]}, separators=(",", ":"))


def _revoked(carrier: Carrier) -> frozenset[str]:
    return frozenset(key.kid for key in carrier.keys if key.status is KeyStatus.REVOKED)


@dataclass(frozen=True, slots=True)
class _Times:
    """When a key's tokens open doors: seconds since 1970, the end excluded."""

    kid: str
    valid_from: int
    valid_until: int | None


def _times(carrier: Carrier) -> tuple[_Times, ...] | None:
    """Return the times of the keys that have one; None: none has."""
    times = tuple(
        _Times(key.kid, key.valid_from, key.valid_until)
        for key in carrier.keys
        if key.valid_from or key.valid_until is not None
    )
    return times or None


def _carrier(
    issuer: Issuer, keys: str, revoked: frozenset[str], times: tuple[_Times, ...] | None, **rest: Any
) -> Carrier:
    try:
        imported = import_jwk_set(keys, issuer)
    except KeySetInvalid as err:
        raise MalformedMessage(f"keys: {err}") from err
    if not revoked <= {key.kid for key in imported}:
        raise MalformedMessage("revoked: a key that the carrier does not have")
    time_of = {each.kid: each for each in times or ()}
    if len(time_of) != len(times or ()) or not time_of.keys() <= {key.kid for key in imported}:
        raise MalformedMessage("times: of a key that the carrier does not have, or twice")
    trusted = (
        replace(
            key,
            status=KeyStatus.REVOKED if key.kid in revoked else KeyStatus.ACTIVE,
            valid_from=time_of[key.kid].valid_from if key.kid in time_of else 0,
            valid_until=time_of[key.kid].valid_until if key.kid in time_of else None,
        )
        for key in imported
    )
    return Carrier(issuer=issuer, keys=tuple(trusted), **rest)


def _policy(zone: str, carriers: tuple[Carrier, ...]) -> Policy:
    try:
        Building.of((), carriers)
    except ValueError as err:
        raise MalformedMessage(f"carriers: {err}") from err
    return Policy(zone, carriers)


ISSUER: Final = parsed(issuer)
DOOR_ID: Final = parsed(door_id)

_HOURS: Final = record(
    Hours,
    {
        "days": collected(choice(Day), len(Day)),
        "from": ("begins", parsed(_clock, _spelt_clock)),
        "to": ("ends", parsed(_clock, _spelt_clock)),
    },
)
_LIMITS: Final = record(
    EvidenceLimits,
    {
        "methods": collected(choice(DriverProof), len(DriverProof)),
        "distance": integer(0, _MOST),
        "accuracy": integer(0, _MOST),
        "position_age": integer(0, _MOST),
        "request_age": integer(0, _MOST),
    },
)
_TIMES: Final = record(
    _Times,
    {
        "kid": parsed(_kid),
        "from": ("valid_from", integer(0, 2**53 - 1)),
        "until": ("valid_until", optional(integer(0, 2**53 - 1))),
    },
)
_CARRIER: Final = record(
    _carrier,
    {
        "issuer": ISSUER,
        "name": text(200),
        "keys": (lambda carrier: _set_text(carrier.keys), text(MAX_SET_BYTES)),
        "revoked": (_revoked, collected(parsed(_kid), MAX_KEYS)),
        "times": (_times, if_known(listed(_TIMES, MAX_KEYS))),
        "doors": collected(DOOR_ID, MAX_DOORS),
        "limits": _LIMITS,
        "hours": listed(_HOURS, _MOST),
        "rate": optional(integer(0, _MOST)),
    },
)
POLICY: Final = record(_policy, {"zone": parsed(_zone), "carriers": listed(_CARRIER, _MOST)})
_TEXT: Final = Message(POLICY, 16 * MAX_POLICY)  # what two policies have in common may have more rows than each


def encode(policy: Policy) -> str:
    """Return the policy as a text to keep."""
    return _TEXT.encode(policy).decode()


def parse(kept: str) -> Policy:
    """Return the policy in a text that was kept; raise MalformedMessage."""
    return _TEXT.decode(kept.encode(errors="surrogatepass"))


# ---- two policies held against each other ----


def meet(effective: Policy, requested: Policy) -> Policy:
    """Return what holds while ``requested`` waits: what both allow. It is ``requested`` if nothing waits.

    Names are the requested ones. Hours that are meant in another time zone than the effective one's are never.
    """
    if not widened(effective, requested):
        return requested
    known = {carrier.issuer: carrier for carrier in effective.carriers}
    is_shifted = effective.zone != requested.zone
    both = (_meet(known[each.issuer], each, is_shifted) for each in requested.carriers if each.issuer in known)
    return Policy(effective.zone, tuple(carrier for carrier in both if carrier.keys))


def _meet(effective: Carrier, requested: Carrier, is_shifted: bool) -> Carrier:
    mine, theirs = effective.limits, requested.limits
    rates = [rate for rate in (effective.rate, requested.rate) if rate is not None]
    return replace(
        requested,
        keys=tuple(_keys_of_both(effective, requested)),
        doors=effective.doors & requested.doors,
        limits=EvidenceLimits(
            methods=mine.methods & theirs.methods,
            distance=min(mine.distance, theirs.distance),
            accuracy=min(mine.accuracy, theirs.accuracy),
            position_age=min(mine.position_age, theirs.position_age),
            request_age=min(mine.request_age, theirs.request_age),
        ),
        hours=NEVER if is_shifted and requested.hours else common(effective.hours, requested.hours),
        rate=min(rates, default=None),
    )


def _keys_of_both(effective: Carrier, requested: Carrier) -> Iterator[TrustedKey]:
    """Yield the requested keys without those that would be new; one that is revoked is nothing to wait for."""
    known = {key.kid: key for key in effective.keys}
    for key in requested.keys:
        if key.status is KeyStatus.REVOKED:
            yield key
        elif (before := known.get(key.kid)) is not None:
            ends = [each.valid_until for each in (before, key) if each.valid_until is not None]
            begins = max(before.valid_from, key.valid_from)
            yield replace(key, status=before.status, valid_from=begins, valid_until=min(ends, default=None))


def widened(effective: Policy, requested: Policy) -> tuple[str, ...]:
    """Return, for people, what ``requested`` allows and ``effective`` does not; empty: nothing."""
    known = {carrier.issuer: carrier for carrier in effective.carriers}
    why: list[str] = []
    if effective.zone != requested.zone and any(carrier.issuer in known for carrier in requested.carriers):
        # The doors' own hours are meant in it as well, and nobody here knows those.
        why.append("hours in another time zone")
    for carrier in requested.carriers:
        before = known.get(carrier.issuer)
        more = ["a new carrier"] if before is None else list(_more(before, carrier))
        why += [f"{carrier.name}: {what}" for what in more]
    return tuple(why)


def _more(before: Carrier, after: Carrier) -> Iterator[str]:
    active = {key.kid: key for key in before.keys if key.status is KeyStatus.ACTIVE}
    usable = [key for key in after.keys if key.status is KeyStatus.ACTIVE]
    if any(key.kid not in active for key in usable):
        yield "another key"
    if any(key.kid in active and _is_longer(active[key.kid], key) for key in usable):
        yield "a key for longer"
    if not after.doors <= before.doors:
        yield "more doors"
    if not after.limits.methods <= before.limits.methods:
        yield "another way to prove who the driver is"
    if after.limits.distance > before.limits.distance:
        yield "drivers who are farther away"
    if after.limits.accuracy > before.limits.accuracy:
        yield "positions that are less accurate"
    if after.limits.position_age > before.limits.position_age:
        yield "positions that are older"
    if after.limits.request_age > before.limits.request_age:
        yield "requests that are older"
    if not is_within(after.hours, before.hours):
        yield "more hours"
    if before.rate is not None and (after.rate is None or after.rate > before.rate):
        yield "more accesses within an hour"


def _is_longer(before: TrustedKey, after: TrustedKey) -> bool:
    if after.valid_from < before.valid_from:
        return True
    return before.valid_until is not None and (after.valid_until is None or after.valid_until > before.valid_until)
