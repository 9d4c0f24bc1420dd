"""Plays a delivery against the running demo and tells what happened, step by step.

A play knows what it is to show, and returns False if anything came out otherwise. What it changes in the building to
show it, the manager puts back, also if the play fails.
"""

from __future__ import annotations

import contextlib
import os
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from vestibule_core import b64url
from vestibule_core.keys import SigningKey
from vestibule_core.model import DoorId, Issuer, new_door_id
from vestibule_core.token import Claims, Confirmations, DriverProof

from .building import Part, change, key_set_version, known_as
from .carrier import Impostor
from .demo import command, private_key
from .fleet import ISSUER, NAME, ROBIN, YOU
from .home import HomeFailed, uninterrupted
from .phone import UNKNOWN_PASSKEY, SignedOut
from .stage import TELLING, Stage, stage

TOO_FAR: Final = 400.0
"""Metres."""
WALK: Final = 6.0
"""Seconds from there to the door, for a driver who is in a hurry; nobody's position jumps."""
NEARER: Final = 5
"""Metres within which a manager wants the driver's phone to be who trusts nobody."""
EARLY: Final = timedelta(hours=2)
HEARD_WITHIN: Final = 30.0
"""Seconds within which a building has heard of new keys."""
TURN: Final = 0.2
"""Seconds."""
_DAYS: Final = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Play(StrEnum):
    """What can be shown."""

    DELIVERY = "delivery"
    REPLAY = "replay"
    FORGED = "forged"
    WRONG_DOOR = "wrong-door"
    WRONG_PLACE = "wrong-place"
    WRONG_ROUTE = "wrong-route"
    EARLY = "early"
    REVOKED = "revoked"
    OUTSIDE_HOURS = "outside-hours"
    RATE = "rate"


_TITLES: Final = {
    Play.DELIVERY: "A driver of {carrier} delivers at the {door}.",
    Play.REPLAY: "A driver delivers at the {door}, and somebody uses the token a second time.",
    Play.FORGED: "A driver asks for the {door}, and somebody who listens in makes a token of it.",
    Play.WRONG_DOOR: "Tokens that are good, but not for the {door}.",
    Play.WRONG_PLACE: "The driver asks for the {door} from 400 metres away.",
    Play.WRONG_ROUTE: "The driver asks for the {door} at a stop of another driver's route.",
    Play.EARLY: "The driver asks for the {door} two hours before the time of the stop.",
    Play.REVOKED: "The driver's phone was reported lost; later, the carrier's signing key is stolen.",
    Play.OUTSIDE_HOURS: "A driver delivers at the {door} when it takes no deliveries.",
    Play.RATE: "Two deliveries at the {door}, one more than it takes within the hour.",
}
_ENDINGS: Final = {
    Play.DELIVERY: "The {door} opened once and locked itself.",
    Play.REPLAY: "The {door} opened once; the second time it was the building that refused.",
    Play.FORGED: "The building trusts the carrier's key only; the {door} stayed locked.",
    Play.WRONG_DOOR: "A token opens one door, on that door's own challenge; the {door} stayed locked.",
    Play.WRONG_PLACE: "The carrier refused, and where it did not, the building did, by a limit of its own.",
    Play.WRONG_ROUTE: "The carrier refused; the {door} stayed locked, and nothing of it reached the building.",
    Play.EARLY: "The carrier refused; the {door} stayed locked, and nothing of it reached the building.",
    Play.REVOKED: "A phone that was withdrawn asks for nothing; a key that was revoked opens nothing.",
    Play.OUTSIDE_HOURS: "The carrier had no objection, but the hours are the building's; the {door} stayed locked.",
    Play.RATE: "The {door} opened once; after that, the building's own limit held.",
}


def play(folder: Path, door_key: str, what: Play) -> bool:
    """Play something at a door; return whether it came out as it should."""
    with stage(folder, door_key) as at:
        words = {"carrier": NAME, "door": at.door.name.lower()}
        if shut := _shut(at):
            why = f"{shut.why[0].upper()}{shut.why[1:]}"
            remedy = shut.remedy.format(command=command(folder))
            if what is not Play.DELIVERY or shut.code is None:
                raise HomeFailed(f"{why}, so this cannot be shown. {remedy}")
            at.title(_TITLES[what].format(**words))
            at.refused(shut.code)
            return at.end(f"{why}: the {at.door.name.lower()} stayed locked.\n{remedy}")
        at.title(_TITLES[what].format(**words))
        _PLAYS[what](at)
        return at.end(_ENDINGS[what].format(**words))


class _Shut(NamedTuple):
    """Why a delivery is not let in as usual at the moment."""

    code: str | None
    """What the carrier is told; None if it is let in although nothing is released."""
    why: str
    remedy: str


def _shut(at: Stage) -> _Shut | None:
    """Return what keeps a delivery from being let in as usual, in the order in which the building looks; or None."""
    in_browser = f"That is changed in the browser, on the page of the door ({at.door.name})."
    match at.state(Part.MODE)["state"]:
        case "locked_down":
            return _Shut("DOOR_UNAVAILABLE", "the building is locked down", "Lift that with: {command} lockdown off")
        case "blocked":
            return _Shut("DOOR_UNAVAILABLE", "the door is blocked", in_browser)
        case "unlocked":
            return _Shut(None, "the door is held open", in_browser)
    if at.state(Part.DELIVERIES)["state"] == "off":
        return _Shut("DELIVERIES_OFF", "the door takes no deliveries", in_browser)
    if "tampered" in at.state(Part.PROBLEM)["attributes"]["reasons"]:
        return _Shut("DOOR_UNAVAILABLE", "the door was tampered with", "That is settled in the browser, under Repairs.")
    return None


# ---- the plays ----


def _delivery(at: Stage) -> None:
    at.deliver()


def _replay(at: Stage) -> None:
    text = at.open()
    at.say()
    at.step("attacker", "presents the very same token again")
    at.present(text, word="already_used", code="ALREADY_SPENT", told=())


def _forged(at: Stage) -> None:
    claims = at.confirm()
    challenge = at.challenge(at.door)
    at.step("attacker", "has overheard the request and the challenge")
    stranger = SigningKey.generate()
    text = at.sign(claims(at.door.id, challenge), stranger, "signs the token with a key of their own")
    at.present(text, word="invalid_token", code=None, told=())
    at.say()
    impostor = Impostor(stranger.private, claimed=at.cloud.key.kid)
    text = at.sign(claims(at.door.id, challenge), impostor, "signs it again and names the carrier's key")
    at.present(text, word="invalid_token", code=None, told=())


def _wrong_door(at: Stage) -> None:
    other = next(door for door in at.demo.doors if door != at.door)
    claims = at.confirm()
    elsewhere = new_door_id(os.urandom(16))
    text = at.sign(
        claims(elsewhere, at.challenge(at.door)),
        what="signs a token for a door of some other building",
    )
    at.present(text, word="refused", code="WRONG_DOOR", told=("access_denied",))
    at.say()
    text = at.sign(
        claims(at.door.id, at.challenge(other)),
        what=f"signs a token for the {at.door.name.lower()} with that challenge",
    )
    at.present(text, word="refused", code="NONCE_UNKNOWN", told=("access_denied",))
    at.say()
    good = claims(other.id, at.challenge(other))
    text = at.sign(good, what=f"signs a good token for the {other.name.lower()}")
    at.step("driver", f"presents it at the {at.door.name.lower()}")
    at.present(text, word="refused", code="WRONG_DOOR", told=("access_denied",))
    at.say()
    header, _, signature = text.split(".")
    payload = at.cloud.sign(replace(good, door=DoorId(at.door.id))).split(".")[1]
    at.step("attacker", f"writes the {at.door.name.lower()} into it")
    at.present(f"{header}.{payload}.{signature}", word="invalid_token", code=None, told=())


def _not_confirmed(at: Stage, check: str, reason: str, **wish: Any) -> None:
    """A delivery that the carrier refuses, for this one reason. Nothing of it reaches the building."""
    outcome = at.deliver(state="refused", code=reason, **wish)
    at.expect(outcome["failed"] == {check: reason}, f"what failed is {outcome['failed']}")
    (newest,) = at.fleet.ask("GET", "/v1/decisions?limit=1")["decisions"]
    at.expect(newest["code"] == reason, "the dispatcher does not see it")
    at.step("dispatch", f"sees it at {at.fleet.origin}/dispatch: {newest['driver']['name']}, not confirmed")


def _wrong_place(at: Stage) -> None:
    _not_confirmed(at, "position", "too_far", metres_away=TOO_FAR)
    at.say()
    at.step("manager", f"lets {NAME} in only if the driver is within {NEARER} m")
    with _changed(at, "carrier", ISSUER, "linked", {"distance": NEARER}, "puts the limit back"):
        at.step("driver", "goes to the door")
        time.sleep(WALK)
        at.refused("POLICY_EVIDENCE")


def _wrong_route(at: Stage) -> None:
    theirs = at.fleet.stop_of(YOU) or at.fleet.bring(YOU, [door.id for door in at.demo.doors])
    at.step("dispatch", f"has given this stop to {YOU}; it is {ROBIN} who asks")
    _not_confirmed(at, "route", "not_on_route", stop=theirs["id"])


def _early(at: Stage) -> None:
    _not_confirmed(at, "time", "too_early", begins=EARLY)


def _revoked(at: Stage) -> None:
    at.phone.unlock()
    at.fleet.withdraw(ROBIN)
    at.step("dispatch", f"withdraws the phone of {ROBIN}")
    at.step("driver", "or whoever has found the phone, asks, and confirms with its passkey")
    try:
        at.phone.sign_in()
    except SignedOut:
        at.step("phone", " ".join((f"{UNKNOWN_PASSKEY[0]}.", *UNKNOWN_PASSKEY[1:])))
    else:
        at.expect(False, "the phone is still let in")
    at.phone.forget()
    at.step("dispatch", "sends the driver a link for a new phone")
    at.phone.unlock()
    if at.door.gateway is None:
        at.say()
        _stolen_key(at)


def _stolen_key(at: Stage) -> None:
    """Somebody has the carrier's signing key, and even gets at a challenge of the door."""
    file = at.fleet.signing_key
    stolen = SigningKey(private_key(file))
    at.step("attacker", f"has a copy of the key that {NAME} signs with")
    before = key_set_version(at.home, ISSUER)
    at.fleet.command("keys", "revoke", file.stem)
    at.fleet.new_keys()
    at.step("dispatch", "revokes the key and publishes a new one")
    if at.gateway_is_there:  # which is told of it, too
        at.due.append("policy_changed")
    deadline = time.monotonic() + HEARD_WITHIN
    while (now_has := key_set_version(at.home, ISSUER)) == before:
        if time.monotonic() > deadline:
            raise HomeFailed("The building has not heard of the new keys.")
        time.sleep(TURN)
    at.step("home", f"has heard of it over the link: the keys are version {now_has} now")
    challenge = at.home.ask_action("vestibule.request_challenge", {"door": at.door.id, "issuer": ISSUER})["challenge"]
    now = int(time.time())
    claims = Claims(
        issuer=Issuer(ISSUER),
        door=DoorId(at.door.id),
        jti=b64url.encode(os.urandom(16)),
        issued_at=now,
        expires_at=now + 60,
        subject=b64url.encode(os.urandom(15)),
        stop=b64url.encode(os.urandom(15)),
        nonce=challenge,
        confirmations=Confirmations(DriverProof.PASSKEY, b64url.encode(os.urandom(15)), 3, 4, 1, now),
    )
    text = at.sign(claims, stolen, "has got at a challenge of the door, and signs a token with it")
    at.answered(
        lambda: at.home.ask_action("vestibule.present_token", {"token": text}),
        word="invalid_token",  # whoever presents it hears no more than that
        code=None,
        told=("access_denied",),
    )


def _outside_hours(at: Stage) -> None:
    now = datetime.now(ZoneInfo(at.home.get("/api/config")["time_zone"]))
    begins, ends = (f"{now + timedelta(hours=hours):%H}:00" for hours in (2, 4))
    row = {"days": _DAYS, "from": f"{begins}:00", "to": f"{ends}:00"}
    hours = f"from {begins} to {ends}; it is {now:%H:%M} now"
    if at.door.gateway is None:
        name = at.door.name.lower()
        at.step("manager", f"opens the {name} for deliveries {hours}")
        back = f"puts the hours of the {name} back"
        changed = _changed(at, "door", known_as(at.door), "admit", {"hours": [row]}, back)
    else:  # the hours of its doors stand in a gateway's own configuration; those of a carrier are told to it
        at.step("manager", f"lets {NAME} deliver {hours}")
        back = f"puts the hours of {NAME} back"
        changed = _changed(at, "carrier", ISSUER, "linked", {"hours": [row]}, back)
    with changed:
        at.refused("POLICY_HOURS")


def _rate(at: Stage) -> None:
    name, lately = at.door.name.lower(), _accesses_within_the_hour(at)
    allowed = lately + 1
    at.step("manager", f"allows {NAME} {allowed} accesses an hour at each door; at the {name} so far: {lately}")
    with _changed(at, "carrier", ISSUER, "linked", {"rate": allowed}, "puts the limit back"):
        at.deliver()
        at.say()
        at.refused("POLICY_RATE")


_PLAYS: Final = {
    Play.DELIVERY: _delivery,
    Play.REPLAY: _replay,
    Play.FORGED: _forged,
    Play.WRONG_DOOR: _wrong_door,
    Play.WRONG_PLACE: _wrong_place,
    Play.WRONG_ROUTE: _wrong_route,
    Play.EARLY: _early,
    Play.REVOKED: _revoked,
    Play.OUTSIDE_HOURS: _outside_hours,
    Play.RATE: _rate,
}


# ---- what the manager does ----


@contextlib.contextmanager
def _changed(at: Stage, kind: str, unique_id: str, step: str, what: Mapping[str, Any], back: str) -> Iterator[None]:
    """Have the building changed through its form for as long as the `with` lasts."""
    before = change(at.home, kind, unique_id, step, what)
    _agreed(at, kind)
    try:
        yield
    finally:
        with uninterrupted():
            change(at.home, kind, unique_id, step, before)
        at.step("manager", back)
        _agreed(at, kind)


def _agreed(at: Stage, kind: str) -> None:
    """Hear that the gateway has taken over what was changed in a carrier."""
    if kind == "carrier" and at.gateway_is_there:
        at.due.append("policy_changed")
        at.hear(until=lambda: at.told.count("policy_changed") == at.due.count("policy_changed"), patience=TELLING)


def _accesses_within_the_hour(at: Stage) -> int:
    """Count what the carrier was granted at the door, in Home Assistant's history."""
    access = at.entities[Part.ACCESS]
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    lines = at.home.activity(since, device_ids=[at.device])  # by then what has just happened is written down
    # What happened in an outage long ago is a line of Activity, and no state of an entity.
    late: int = sum(
        line.get("name") == NAME and str(line.get("message")).startswith("was granted access") for line in lines
    )
    path = f"/api/history/period/{urllib.parse.quote(since)}?filter_entity_id={access}&skip_initial_state"
    shown: int = sum(
        state["attributes"].get("event_type") == "access_granted" and state["attributes"].get("carrier") == NAME
        for states in at.home.get(path)
        for state in states
    )
    return late + shown
