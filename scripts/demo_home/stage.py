"""Where a play takes place: one door of the running demo, everybody at it, and the screen that tells what they do.

What happened is told by three witnesses: the answer (on the driver's phone, or to whoever calls in), Home Assistant
(its states, and each event on its bus) and the relays' own log. A play says what it expects, and the stage remembers
whether all of it was so.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from vestibule_core.keys import SigningKey
from vestibule_core.token import Claims

from . import demo as demo_module
from . import radio, room
from .building import GATE, PARCEL_ROOM, Door, Part, entities_of
from .carrier import Check, Cloud, Intake, NotConfirmed, Request
from .carrier import Phone as DeviceKey
from .demo import Demo
from .fleet import ROBIN, Fleet
from .home import Home, HomeFailed
from .phone import OUTCOMES, PASSED, STEPS, Phone
from .websocket import WebSocket

AT_THE_DOOR: Final = 11.0
"""Metres."""
RELOCK_GRACE: Final = 6.0
"""Seconds past the access time within which a door must be locked again."""
TELLING: Final = 30.0
"""Seconds within which what happened must be told."""
SILENCE: Final = 0.3
"""Seconds after which nothing more is told."""

GRANTED: Final = ("access_granted", "door_released", "access_taken", "door_closed", "door_relocked")
"""What is told of an access: of a door whose driver goes in, and whose relay reports that it is back."""

_UNDER_WAY: Final = ("unlocking", "unlocked", "locking")

# What a building's answer means, for a person.
_MEANING: Final = {
    "ALREADY_SPENT": "this token has been used",
    "NONCE_UNKNOWN": "it does not answer a challenge of this door",
    "NONCE_EXPIRED": "its challenge is too old",
    "POLICY_CARRIER_DOOR": "this carrier may not open this door",
    "POLICY_EVIDENCE": "outside the building's own limits",
    "POLICY_HOURS": "outside the hours of deliveries",
    "KEY_REVOKED": "signed with a key that was revoked",
    "POLICY_RATE": "as often as allowed within the hour",
    "CLOCK_UNTRUSTED": "the building does not trust its clock",
    "DELIVERIES_OFF": "this door takes no deliveries",
    "DOOR_UNAVAILABLE": "this door lets nobody in now",
    "WRONG_DOOR": "not a token for this door",
}


@dataclass
class Stage:
    """The running demo, the carrier, one door and the screen."""

    demo: Demo
    home: Home
    """Signed in as the manager."""
    fleet: Fleet
    """The carrier with a cloud to which the building is linked."""
    phone: Phone
    """Of its driver."""
    intake: Intake
    """Where the carrier without a link calls in."""
    cloud: Cloud
    """Of that one, in this process: what it signs passes through our hands."""
    key: DeviceKey
    """In the phone of its driver."""
    strike: Path
    """The folder of the gate's Bluetooth strike, if it has one."""
    gateway: Path
    """The folder of the parcel room's gateway and its board, if it has one."""
    door: Door
    entities: dict[Part, str]
    socket: WebSocket
    """Hears the events on the bus and the states of the door."""
    began: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    reasons: set[str] = field(default_factory=set)
    """What the door's problem sensor has said to be wrong since the play began."""
    told: list[str] = field(default_factory=list)
    """The outcomes that have been heard."""
    due: list[str] = field(default_factory=list)
    """The outcomes that have to be told."""
    confirmed: dict[str, Any] | None = None
    """The four confirmations, as Home Assistant told them last."""
    as_expected: bool = True

    @property
    def other_doors(self) -> set[str]:
        """Their ids."""
        return {door.id for door in self.demo.doors} - {self.door.id}

    @property
    def device(self) -> str:
        """The id of the door's device in Home Assistant."""
        (entities,) = self.home.commands({"type": "config/entity_registry/list"})
        (device,) = (each["device_id"] for each in entities if each["entity_id"] == self.entities[Part.LOCK])
        return str(device)

    @property
    def hardware(self) -> str:
        """What releases the door, in a word."""
        return "relay" if self.door.strike is None else "strike"

    @property
    def judge(self) -> str:
        """Who checks what is presented at the door, in a word."""
        return "building" if self.door.gateway is None else "gateway"

    @property
    def gateway_is_there(self) -> bool:
        """Whether the building has a gateway, and it is not out of reach."""
        (door,) = (door for door in self.demo.doors if door.key == PARCEL_ROOM)
        if door.gateway is None:
            return False
        lock = self.home.get(f"/api/states/{entities_of(self.home, door)[Part.LOCK]}")
        return bool(lock["state"] != "unavailable")

    # ---- the screen ----

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def title(self, text: str) -> None:
        self.say(style("bold", text))
        self.say()

    def step(self, who: str, what: str, seconds: float | None = None) -> None:
        took = "" if seconds is None else f"{seconds * 1000:.1f} ms"
        width = 62 + len(what) - len(_STYLED.sub("", what))
        self.say(f"  {style('dim', f'{who:<9}')} {what:<{width}}{took:>10}".rstrip())

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.as_expected = False
            self.say(style("red", f"  Not as it should be: {otherwise}"))

    def end(self, text: str) -> bool:
        """Hold what was told against what should have been, say how it ended, and return whether all was so."""
        self.hear(until=lambda: len(self.told) >= len(self.due), patience=TELLING)
        self.hear(until=lambda: False, patience=SILENCE)
        self.step("events", ", ".join(outcome.replace("_", " ") for outcome in self.told) or "none")
        if self.confirmed is not None:
            self.step("", f"with: {_in_words(self.confirmed)}")
        if "access_denied" in self.told:
            for line in self.home.activity(self.began, entity_ids=[self.entities[Part.ACCESS]]):
                if line.get("attributes", {}).get("event_type") == "access_denied" and "context_name" in line:
                    self.step("activity", f"{line['context_name']} {line['context_message']}")
        self.expect(sorted(self.told) == sorted(self.due), f"to be told, each once: {', '.join(self.due) or 'nothing'}")
        self.say()
        self.say(style("bold", text) if self.as_expected else style("red", "This is not what was to be shown."))
        return self.as_expected

    # ---- what Home Assistant tells ----

    def hear(
        self, *, until: Callable[[], bool], patience: float, show: Callable[[str, datetime], None] | None = None
    ) -> None:
        """Listen until it is so, or for so many seconds; show each outcome and each state of the lock as it comes."""
        deadline = time.monotonic() + patience
        while not until() and (left := deadline - time.monotonic()) > 0:
            if (event := self.socket.told(left)) is None:
                return
            if "event_type" in event:
                what, at = event["data"]["outcome"], event["data"]["time"]
                # What happens at another door is of another play; but here, a token for another door can be refused.
                if event["data"]["door"] in self.other_doors and what != "access_denied":
                    continue
                if what == "refusals_counted":  # up to a minute later, of plays before
                    continue
                self.told.append(what)
                self.confirmed = event["data"].get("confirmed", self.confirmed)
            else:
                state = event["variables"]["trigger"]["to_state"]
                what, at = state["state"], state["last_changed"]
                if state["entity_id"] == self.entities[Part.PROBLEM]:
                    self.reasons |= set(state["attributes"]["reasons"])
                if state["entity_id"] != self.entities[Part.LOCK]:
                    continue
            if show is not None:
                show(what, datetime.fromisoformat(at))

    def state(self, part: Part) -> dict[str, Any]:
        """Return what Home Assistant shows of the door now."""
        state: dict[str, Any] = self.home.get(f"/api/states/{self.entities[part]}")
        return state

    def wait_until_quiet(self) -> None:
        """Wait for the end of what is under way at the door, for a while, and take no notice of it."""
        deadline = time.monotonic() + self.door.access_time + RELOCK_GRACE
        while self.state(Part.LOCK)["state"] in _UNDER_WAY or self.state(Part.CONTACT)["state"] == "on":
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self.hear(until=lambda: False, patience=SILENCE)
        self.told.clear()
        self.reasons.clear()

    # ---- what the hardware did ----

    def releases(self) -> list[tuple[datetime, str]]:
        """Return each release of any relay or strike so far, from their own logs."""
        of_the_strike = [(at, GATE) for at in radio.releases(self.strike)]
        of_the_board = [(at, PARCEL_ROOM) for at in room.releases(self.gateway)]
        return sorted(read_relays_log(self.home.relays_log) + of_the_strike + of_the_board)

    # ---- a delivery by the carrier that is linked ----

    def wish(
        self,
        *,
        stop: str | None = None,
        metres_away: float = AT_THE_DOOR,
        begins: timedelta = timedelta(hours=-1),
        lasts: timedelta = timedelta(hours=3),
    ) -> dict[str, Any]:
        """Have the driver ask for the door on the phone, show all that the phone shows, and return the outcome.

        Without a ``stop``, the dispatcher gives the driver one at this door, whose time begins so long from now. The
        outcome is the line with which the cloud's answer ends, with ``failed``: the reason of each check that did, and
        ``said``: what the phone shows then.
        """
        name = self.door.name.lower()
        self.phone.unlock()
        if stop is None:
            brought = self.fleet.bring(ROBIN, [self.door.id], begins=begins, lasts=lasts)
            stop = brought["id"]
            window = " to ".join(brought[end][11:16] for end in ("window_from", "window_to"))
            self.step("dispatch", f"gives {ROBIN} a stop at the {name}, {window}")
        self.step("driver", f"asks for the {name}, {metres_away:.0f} m away, and confirms with the phone's passkey")
        failed, why, began = {}, list[str](), time.perf_counter()
        for line in self.phone.request(stop, self.door.id, demo_module.place_near(metres_away)):
            took = time.perf_counter() - began
            match line["event"]:
                case "check":
                    check = line["check"]
                    said = PASSED[check] if line["passed"] else f"{line['text']} {line['advice']}"
                    if not line["passed"]:
                        failed[check] = line["reason"]
                        why.append(said)
                    mark = style("green", "✓") if line["passed"] else style("red", "✗")
                    self.step("cloud" if check == "id" else "", f"{mark} {STEPS[check]:<13} {said}")
                case "building":
                    self.step("", "confirmed all four: asks the building over its link", took)
                    began = time.perf_counter()
                case "outcome":
                    is_for_now = line["state"] == "refused_by_building" and line["may_ask_again"]
                    title, then = OUTCOMES["refused_for_now" if is_for_now else line["state"]]
                    said = " ".join(filter(None, (f"{title}.", *why, line["text"], line["advice"], then)))
                    return line | {"failed": failed, "took": took, "said": said}
        raise HomeFailed("The carrier's cloud did not say how it ended.")

    def deliver(
        self, *, state: str = "granted", code: str | None = None, told: tuple[str, ...] | None = None, **wish: Any
    ) -> dict[str, Any]:
        """Have the driver ask for the door; the outcome, its code and what is told of it have to be these."""
        before = self.releases()
        outcome = self.wish(**wish)
        is_open = outcome["state"] == "granted"
        if is_open:
            self.step(self.judge, f"{style('green', '✓')} granted", outcome["took"])
        elif outcome["state"] == "refused_by_building":
            self.step(self.judge, f"{style('red', '✗')} refused: {_MEANING.get(outcome['code'], '')}", outcome["took"])
        else:
            self.step(self.judge, "not asked")
        self.step("phone", outcome["said"])
        self.expect(outcome["state"] == state, f"the outcome is {outcome['state']}, not {state}")
        if code is not None:
            self.expect(outcome["code"] == code, f"the reason is {outcome['code']}, not {code}")
        if told is None:
            told = self.usual if state == "granted" else ()
        self._moved(before, told, is_open=is_open)
        return outcome

    def refused(self, code: str, **wish: Any) -> None:
        """A delivery that is confirmed by the carrier and refused by the building."""
        self.deliver(state="refused_by_building", code=code, told=("access_denied",), **wish)

    # ---- the steps of a delivery by the carrier without a link ----

    def ask(self, *, metres_away: float = AT_THE_DOOR) -> tuple[Request, bytes]:
        """The driver asks for the door on the phone."""
        request = demo_module.request(self.demo, self.door, metres_away=metres_away, now=time.time())
        self.step("driver", f"asks for the {self.door.name.lower()} at stop {request.stop} of route {request.route}")
        return request, self.key.sign(request)

    def show_checks(self, checks: list[Check]) -> None:
        for number, check in enumerate(checks):
            verdict = style("red", "✗")
            if check.holds:
                verdict = style("green", "✓") if check.limited else " "
            self.step("cloud" if number == 0 else "", f"{verdict} {check.name:<10} {check.found}")

    def confirm(self, *, metres_away: float = AT_THE_DOOR, cloud: Cloud | None = None) -> Callable[[str, str], Claims]:
        """The cloud confirms the four; return what makes a token's claims of a door and a challenge."""
        cloud = cloud or self.cloud
        request, signature = self.ask(metres_away=metres_away)
        began = time.perf_counter()
        try:
            checks, confirmed = cloud.confirm(request, signature, time.time())
        except NotConfirmed as refusal:
            self.show_checks(refusal.checks)
            raise
        took = time.perf_counter() - began
        self.show_checks(checks)
        whole = all(check.limited for check in checks)
        self.step("", "confirmed all four" if whole else "tells the position as it is, confirmed the other three", took)
        return lambda door, challenge: cloud.claims(request, confirmed, door, challenge, time.time())

    def challenge(self, door: Door) -> str:
        """Get a challenge of a door."""
        began = time.perf_counter()
        nonce, lifetime = self.intake.challenge(door.id)
        what = f"the {door.name.lower()} gives a challenge, good once, for {lifetime} s"
        self.step("building" if door.gateway is None else "gateway", what, time.perf_counter() - began)
        return nonce

    def sign(
        self,
        claims: Claims,
        key: SigningKey | None = None,
        what: str = "signs a token for this door and challenge",
    ) -> str:
        """Sign a token: the cloud, or whoever has ``key``."""
        signer = self.cloud if key is None else replace(self.cloud, key=key)
        began = time.perf_counter()
        text = signer.sign(claims)
        self.step("cloud" if key is None else "attacker", what, time.perf_counter() - began)
        return text

    def present(self, text: str, *, word: str, code: str | None, told: tuple[str, ...]) -> None:
        """Hand a token to the building at this door; its answer, and what comes of it, must be this."""
        self.answered(lambda: self.intake.present(self.door.id, text), word=word, code=code, told=told)

    def answered(
        self, ask: Callable[[], dict[str, Any]], *, word: str, code: str | None, told: tuple[str, ...]
    ) -> None:
        """Ask the building about a token; its answer, and what comes of it, must be this."""
        before = self.releases()
        began = time.perf_counter()
        answer = ask()
        took = time.perf_counter() - began
        if answer["word"] == "granted":
            self.step(self.judge, f"{style('green', '✓')} granted", took)
        else:
            self.step(self.judge, f"{style('red', '✗')} {_refusal(answer)}", took)
        self.expect(answer["word"] == word, f"the answer is {answer['word']}, not {word}")
        if code is not None:
            self.expect(answer["code"] == code, f"the reason is {answer['code']}, not {code}")
        if not told:
            self.step("", "only counted, and not told: anybody could make any number of these")
        self._moved(before, told, is_open=word == "granted")

    def open(self) -> str:
        """A delivery that is let in; return the token, which is now worthless."""
        claims = self.confirm()
        text = self.sign(claims(self.door.id, self.challenge(self.door)))
        self.present(text, word="granted", code="GRANTED", told=self.usual)
        return text

    # ---- what comes of it ----

    @property
    def usual(self) -> tuple[str, ...]:
        """What is told of an access here."""
        # Of a relay that reports nothing, nobody can tell that it is back.
        reports = not self.state(Part.LOCK)["attributes"].get("assumed_state")
        return GRANTED if reports else GRANTED[:-1]

    def _moved(self, before: list[tuple[datetime, str]], told: tuple[str, ...], *, is_open: bool) -> None:
        """Show what the hardware did since ``before``; it must have been just this, and be told so."""
        self.due += told
        moved = sorted((collections.Counter(self.releases()) - collections.Counter(before)).elements())
        due = [self.door.key] if is_open else []
        self.expect([key for _, key in moved] == due, f"relays released: {[key for _, key in moved]}")
        if not moved:
            self.step(self.hardware, "did not move")
            self.expect(self.state(Part.LOCK)["state"] != "unlocked", "the lock is unlocked")
        elif due:
            self.follow(moved[0][0])

    def follow(self, released_at: datetime) -> None:
        """Tell what the relay, the door and the lock do until all is shut again."""
        self.step(self.hardware, "released once")
        seen: set[str] = set()

        def show(what: str, at: datetime) -> None:
            seen.add(what)
            after = f"{(at - released_at).total_seconds():.1f} s after the release"
            match what:
                case "unlocked":
                    self.step("lock", "unlocked")
                case "locked":
                    self.step("lock", f"locked again, {after}")
                case "access_taken":
                    self.step("door", f"opened {after}: the access is taken")
                case "door_closed":
                    self.step("door", f"closed {after}")

        expected = {"unlocked", "access_taken", "door_closed", "locked"}
        self.hear(until=lambda: seen >= expected, patience=self.door.access_time + RELOCK_GRACE, show=show)
        self.expect(seen >= expected, f"not seen: {', '.join(sorted(expected - seen))}")
        self.expect(self.state(Part.LOCK)["state"] == "locked", "the lock is not locked again")
        self.expect(self.state(Part.CONTACT)["state"] == "off", "the door is not closed again")


@contextlib.contextmanager
def stage(folder: Path, door_key: str) -> Iterator[Stage]:
    """Prepare a play at a door of the running demo, and wait for the end of the one before."""
    demo, home = demo_module.talk_to(folder)
    door = demo.door(door_key)
    entities = entities_of(home, door)
    watched = [entities[part] for part in (Part.LOCK, Part.CONTACT, Part.PROBLEM)]
    with home.websocket(
        {"type": "subscribe_events", "event_type": "vestibule_access"},
        {"type": "subscribe_trigger", "trigger": {"trigger": "state", "entity_id": watched, "to": None}},
    ) as socket:
        set_up = Stage(
            demo,
            home,
            demo_module.fleet_of(folder),
            demo_module.robins_phone(folder),
            demo_module.intake_of(folder, demo),
            demo_module.cloud_of(folder, demo),
            demo_module.phone_of(folder),
            demo_module.strike_of(folder),
            demo_module.gateway_of(folder),
            door,
            entities,
            socket,
        )
        set_up.wait_until_quiet()
        yield set_up


def _in_words(confirmed: dict[str, Any]) -> str:
    """Return the four confirmations as Home Assistant tells them."""
    route = "a due stop of the route" if confirmed["route"] else "NO STOP OF A ROUTE"
    position = "{distance} m ± {accuracy} m, {position_age} s old".format_map(confirmed)
    return f"{confirmed['driver'].replace('_', ' ')}; {route}; {position}; asked {confirmed['request_age']} s ago"


def read_relays_log(path: Path) -> list[tuple[datetime, str]]:
    """Return each release that the simulated relays logged: when, and which relay."""
    if not path.exists():
        return []
    fields = [line.split() for line in path.read_text("ascii").splitlines()]
    return [(datetime.fromisoformat(at).astimezone(UTC), key) for at, _, key in fields]


def _refusal(answer: dict[str, Any]) -> str:
    """Return a refusal in words: what every presenter is told, and what only a genuine token's carrier is."""
    word = str(answer["word"]).replace("_", " ")
    if (code := answer["code"]) is None:
        return word
    limit = f" ({answer['limit']})" if answer.get("limit") else ""
    return f"{word}: {_MEANING.get(code, code)}{limit}"


_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32"}
_STYLED: Final = re.compile(r"\033\[\d+m")


def style(name: str, text: str) -> str:
    """Return a text in bold or in colour, where the screen shows that."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_STYLES[name]}m{text}\033[0m"
