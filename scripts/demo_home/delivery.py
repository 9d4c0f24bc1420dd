"""Plays a delivery against the running demo and tells what happened, step by step.

A play knows what it is to show. Whether that is what happened is judged by the answer, by the lock in Home
Assistant and by the relay's own log; the play returns False if any of them says otherwise.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from vestibule_core.keys import SigningKey
from vestibule_core.model import DoorId, new_door_id
from vestibule_core.token import Claims

from . import demo as demo_module
from .building import CARRIER, ISSUER, MAX_DISTANCE, Door, lock_of
from .carrier import CARELESS, Check, Cloud, Impostor, NotConfirmed, Phone, Request
from .demo import Demo
from .home import Home

AT_THE_DOOR: Final = 11.0
TOO_FAR: Final = 400.0
"""Metres."""
RELOCK_GRACE: Final = 6.0
"""Seconds past the access time within which a door must be locked again."""


class Play(StrEnum):
    """What can be shown."""

    DELIVERY = "delivery"
    REPLAY = "replay"
    FORGED = "forged"
    WRONG_DOOR = "wrong-door"
    TOO_FAR = "too-far"


# What a building's answer means, for a person.
_MEANING: Final = {
    "ALREADY_SPENT": "this token has been used",
    "NONCE_UNKNOWN": "it does not answer a challenge of this door",
    "NONCE_EXPIRED": "its challenge is too old",
    "POLICY_CARRIER_DOOR": "this carrier may not open this door",
    "POLICY_EVIDENCE": "outside the building's own limits",
    "WRONG_DOOR": "no door of this building",
}


@dataclass
class Theatre:
    """The running demo, the carrier and the screen that a play needs."""

    demo: Demo
    home: Home
    cloud: Cloud
    phone: Phone
    door: Door
    lock: str
    as_expected: bool = True

    # ---- the screen ----

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def step(self, who: str, what: str, seconds: float | None = None) -> None:
        took = "" if seconds is None else f"{seconds * 1000:.1f} ms"
        self.say(f"  {style('dim', f'{who:<9}')} {what:<62}{took:>10}".rstrip())

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.as_expected = False
            self.say(style("red", f"  Not as it should be: {otherwise}"))

    # ---- the steps ----

    def ask(self, *, metres_away: float = AT_THE_DOOR) -> tuple[Request, bytes]:
        """The driver asks for the door on the phone."""
        request = demo_module.request(self.demo, self.door, metres_away=metres_away, now=time.time())
        self.step("driver", f"asks for the {self.door.name.lower()} at stop {request.stop} of route {request.route}")
        return request, self.phone.sign(request)

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
        answer = self.home.action("vestibule.request_challenge", {"door": door.id, "issuer": ISSUER})
        what = f"the {door.name.lower()} gives a challenge, good once, for {answer['ttl']} s"
        self.step("building", what, time.perf_counter() - began)
        return str(answer["challenge"])

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

    def present(self, text: str, *, word: str, code: str | None) -> None:
        """Hand a token to the building, and hold its answer against what it should be."""
        before = self.releases()
        began = time.perf_counter()
        answer = self.home.action("vestibule.present_token", {"token": text})
        took = time.perf_counter() - began
        if answer["word"] == "granted":
            self.step("building", style("green", "✓ granted") + " " * 53, took)
        else:
            self.step("building", f"{style('red', '✗')} {_refusal(answer):<60}", took)
        self.expect(answer["word"] == word, f"the answer is {answer['word']}, not {word}")
        if code is not None:
            self.expect(answer.get("code") == code, f"the reason is {answer.get('code')}, not {code}")
        moved = self.releases()[len(before) :]
        due = [self.door.key] if word == "granted" else []
        self.expect([key for _, key in moved] == due, f"relays released: {[key for _, key in moved]}")
        if not moved:
            self.step("relay", "did not move")
            self.expect(self.lock_state()[0] != "unlocked", "the lock is unlocked")
        elif due:
            self.watch(moved[0][0])

    def watch(self, released_at: datetime) -> None:
        """Tell what the relay and the lock do until the door is locked again."""
        self.step("relay", "released once")
        shown, _ = self.lock_state()
        self.step("lock", shown)
        self.expect(shown == "unlocked", f"the lock shows {shown} while the door is released")
        self.wait_until_locked()
        shown, since = self.lock_state()
        self.step("lock", f"{shown} again, {(since - released_at).total_seconds():.1f} s after the release")
        self.expect(shown == "locked", f"the lock shows {shown}")

    def wait_until_locked(self) -> None:
        """Wait for the end of an access, for a while."""
        deadline = time.monotonic() + self.door.access_time + RELOCK_GRACE
        while self.lock_state()[0] == "unlocked" and time.monotonic() < deadline:
            time.sleep(0.02)

    # ---- what the hardware did ----

    def releases(self) -> list[tuple[datetime, str]]:
        """Return each release of any relay so far, from the relays' own log."""
        return read_relays_log(self.home.relays_log)

    def lock_state(self) -> tuple[str, datetime]:
        """Return the state of the lock in Home Assistant, and since when it is so."""
        state = self.home.get(f"/api/states/{self.lock}")
        return state["state"], datetime.fromisoformat(state["last_changed"])

    # ---- the plays ----

    def delivery(self) -> str:
        """A delivery as it should be; return the token, which is now worthless."""
        claims = self.confirm()
        text = self.sign(claims(self.door.id, self.challenge(self.door)))
        self.present(text, word="granted", code=None)
        return text

    def replay(self) -> None:
        text = self.delivery()
        self.say()
        self.step("attacker", "presents the very same token again")
        self.present(text, word="already_used", code="ALREADY_SPENT")

    def forged(self) -> None:
        claims = self.confirm()
        challenge = self.challenge(self.door)
        self.step("attacker", "has overheard the request and the challenge")
        stranger = SigningKey.generate()
        text = self.sign(claims(self.door.id, challenge), stranger, "signs the token with a key of their own")
        self.present(text, word="invalid_token", code=None)
        self.say()
        impostor = Impostor(stranger.private, claimed=self.cloud.key.kid)
        text = self.sign(claims(self.door.id, challenge), impostor, "signs it again and names the carrier's key")
        self.present(text, word="invalid_token", code=None)

    def wrong_door(self) -> None:
        other = next(door for door in self.demo.doors if door != self.door)
        claims = self.confirm()
        elsewhere = new_door_id(os.urandom(16))
        text = self.sign(
            claims(elsewhere, self.challenge(self.door)),
            what="signs a token for a door of some other building",
        )
        self.present(text, word="refused", code="WRONG_DOOR")
        self.say()
        text = self.sign(
            claims(self.door.id, self.challenge(other)),
            what=f"signs a token for the {self.door.name.lower()} with that challenge",
        )
        self.present(text, word="refused", code="NONCE_UNKNOWN")
        self.say()
        good = claims(other.id, self.challenge(other))
        header, _, signature = self.sign(good, what=f"signs a good token for the {other.name.lower()}").split(".")
        payload = self.cloud.sign(replace(good, door=DoorId(self.door.id))).split(".")[1]
        self.step("attacker", f"writes the {self.door.name.lower()} into it")
        self.present(f"{header}.{payload}.{signature}", word="invalid_token", code=None)

    def too_far(self) -> None:
        try:
            self.confirm(metres_away=TOO_FAR)
        except NotConfirmed:
            self.step("cloud", f"{style('red', '✗')} {'refuses, and signs nothing':<60}")
        else:
            self.expect(False, "the cloud did not mind")
        self.say()
        self.say("  The same with a careless cloud, which signs whatever is true:")
        self.say()
        claims = self.confirm(metres_away=TOO_FAR, cloud=replace(self.cloud, rules=CARELESS))
        text = self.sign(claims(self.door.id, self.challenge(self.door)))
        self.present(text, word="refused", code="POLICY_EVIDENCE")


_TITLES: Final = {
    Play.DELIVERY: "A driver of {carrier} delivers at the {door}.",
    Play.REPLAY: "A driver delivers at the {door}, and somebody uses the token a second time.",
    Play.FORGED: "A driver asks for the {door}, and somebody who listens in makes a token of it.",
    Play.WRONG_DOOR: "Tokens that are good, but not for the {door}.",
    Play.TOO_FAR: "The driver asks for the {door} from 400 metres away.",
}
_ENDINGS: Final = {
    Play.DELIVERY: "The {door} opened once and locked itself.",
    Play.REPLAY: "The {door} opened once; the second time it was the building that refused.",
    Play.FORGED: "The building trusts the carrier's key only; the {door} stayed locked.",
    Play.WRONG_DOOR: "A token opens one door, on that door's own challenge; the {door} stayed locked.",
    Play.TOO_FAR: "The carrier refused, and where it did not, the building did: its own limit is {limit} m.",
}


def play(folder: Path, door_key: str, what: Play) -> bool:
    """Play something at a door; return whether it came out as it should."""
    demo, home = demo_module.talk_to(folder)
    door = demo.door(door_key)
    theatre = Theatre(
        demo,
        home,
        demo_module.cloud_of(folder, demo),
        demo_module.phone_of(folder),
        door,
        lock_of(home, door),
    )
    theatre.wait_until_locked()  # after a delivery of a moment ago
    words = {"carrier": CARRIER, "door": door.name.lower(), "limit": MAX_DISTANCE}
    theatre.say(style("bold", _TITLES[what].format(**words)))
    theatre.say()
    {
        Play.DELIVERY: theatre.delivery,
        Play.REPLAY: theatre.replay,
        Play.FORGED: theatre.forged,
        Play.WRONG_DOOR: theatre.wrong_door,
        Play.TOO_FAR: theatre.too_far,
    }[what]()
    theatre.say()
    if theatre.as_expected:
        theatre.say(style("bold", _ENDINGS[what].format(**words)))
    else:
        theatre.say(style("red", "This is not what was to be shown."))
    return theatre.as_expected


def read_relays_log(path: Path) -> list[tuple[datetime, str]]:
    """Return each release that the simulated relays logged: when, and which relay."""
    if not path.exists():
        return []
    fields = [line.split() for line in path.read_text("ascii").splitlines()]
    return [(datetime.fromisoformat(at).astimezone(UTC), key) for at, _, key in fields]


def _refusal(answer: dict[str, Any]) -> str:
    """Return a refusal in words: what every presenter is told, and what only a genuine token's carrier is."""
    word = str(answer["word"]).replace("_", " ")
    if (code := answer.get("code")) is None:
        return word
    limit = f" ({answer['limit']})" if answer.get("limit") else ""
    return f"{word}: {_MEANING.get(code, code)}{limit}"


_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32"}


def style(name: str, text: str) -> str:
    """Return a text in bold or in colour, where the screen shows that."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{_STYLES[name]}m{text}\033[0m"
