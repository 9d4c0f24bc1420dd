"""What a Shelly says and is told: the frames of its JSON-RPC, the proof of its password, its state and its settings.

Without any I/O. Facts: Shelly's documentation of the second generation and later ("Gen2+"): RPC Protocol,
Authentication, Notifications, Switch, Input. What this file refuses to do: take anything that is not of the form that
is documented, or hand on a text of the unit's that could be more than a word on somebody's terminal.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from vestibule_core.model import Sense
from vestibule_core.strike import Reading

LARGEST_FRAME: Final = 64 * 1024
"""Bytes. The whole state of a unit is some 4 KiB."""
FIRST_GENERATION: Final = (
    "it is a Shelly of the first generation, which has no timed pulse that is confirmed: use Gen2 or later"
)
NONSENSE: Final = "its answer is no answer to what it was asked: is something else on this address?"
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WORD: Final = re.compile(r"[A-Za-z0-9._/+-]{1,64}")
_NONCE: Final = re.compile(r"[!-~]{1,256}")
_LARGEST_NUMBER: Final = 2**63
_HIGHEST_COUNT: Final = 2**31


class Garbage(Exception):
    """This is not what a Shelly says."""


# ---- frames ----


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: a result, or the code and the text of an error."""

    id: int
    result: Mapping[str, Any] | None
    code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What was not asked for."""

    method: str
    params: Mapping[str, Any]


def read_frame(text: str) -> Answer | Notice:
    """Return what a frame says; raise Garbage."""
    match frame := _json(text):
        case {"method": str(method)}:
            params = frame.get("params")
            return Notice(method, params if isinstance(params, dict) else {})
        case {"id": int(number), "result": result} if type(number) is int:
            return Answer(number, result if isinstance(result, dict) else {})
        case {"id": int(number), "error": {"code": int(code), **error}} if type(number) is int and type(code) is int:
            message = error.get("message")
            return Answer(number, None, code, message if isinstance(message, str) else "")
    raise Garbage("no frame")


def is_first_generation(text: str) -> bool:
    """Return whether this answer to ``GET /shelly`` is one of a Shelly that knows no RPC."""
    try:
        told = _json(text)
    except Garbage:
        return False
    return "type" in told and "mac" in told and "gen" not in told


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise Garbage("no JSON") from err
    if not isinstance(value, dict):
        raise Garbage("no frame")
    return value


# ---- the unit ----


@dataclass(frozen=True, slots=True)
class Unit:
    """Which one it is. It says so itself; nothing proves it."""

    id: str
    generation: int
    model: str
    version: str
    """Of its firmware."""
    is_locked: bool
    """It wants a password."""


def read_unit(info: Mapping[str, Any]) -> Unit:
    """Return what Shelly.GetDeviceInfo says; raise Garbage."""
    match info:
        case {
            "id": str(name),
            "gen": int(generation),
            "model": str(model),
            "ver": str(version),
            "auth_en": bool(locked),
        }:
            if _ID.fullmatch(name) and _WORD.fullmatch(model) and _WORD.fullmatch(version) and 0 < generation < 100:
                return Unit(name, generation, model, version, locked)
    raise Garbage("no Shelly.GetDeviceInfo")


def objection(unit: Unit, device: str | None, *, has_password: bool) -> str | None:
    """Return why nothing is to be sent to this unit, for a person; None: it is the right one.

    ``device``: the id that it has to have; None: any.
    """
    if device is not None and unit.id.lower() != device.lower():
        return f"another unit answers on its address: {unit.id}"
    if unit.generation < 2:
        return FIRST_GENERATION
    if has_password and not unit.is_locked:
        return "it has no password, so that whoever reaches it opens its doors: set one in its settings"
    if unit.is_locked and not has_password:
        return "it wants a password: say password_file"
    return None


# ---- the proof of the password ----


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a proof is made for. It serves for many requests, each with the next count."""

    realm: str
    nonce: str | int
    """A number before firmware 2.0; goes back as it came."""
    count: int

    @property
    def next(self) -> Challenge:
        """The one for the next request."""
        return replace(self, count=self.count + 1)


def read_challenge(message: str, unit: Unit) -> Challenge:
    """Return the challenge in the error 401 of ``unit``; raise Garbage."""
    told = _json(message)
    nonce, count = told.get("nonce"), told.get("nc", 1)
    if isinstance(count, str) and count.isascii() and count.isdigit() and len(count) <= 10:
        count = int(count)  # some units write it so
    if told.get("algorithm") != "SHA-256" or type(count) is not int or not 0 < count < _HIGHEST_COUNT:
        raise Garbage("no challenge")
    # The realm is the unit's id. A proof for another one would be a gift to whoever collects them.
    if told.get("realm") != unit.id:
        raise Garbage("no challenge of this unit")
    match nonce:
        case str() if _NONCE.fullmatch(nonce):
            return Challenge(unit.id, nonce, count)
        case int() if type(nonce) is int and 0 <= nonce < _LARGEST_NUMBER:
            return Challenge(unit.id, nonce, count)
    raise Garbage("no challenge")


def proof(challenge: Challenge, password: str) -> dict[str, str | int]:
    """Return the member ``auth`` of a request: RFC 7616 with SHA-256, over the constant that stands for a URI."""
    own = secrets.token_hex(16)
    secret = _hash(f"admin:{challenge.realm}:{password}")
    what = _hash("dummy_method:dummy_uri")
    return {
        "realm": challenge.realm,
        "username": "admin",
        "nonce": challenge.nonce,
        "nc": challenge.count,
        "cnonce": own,
        "response": _hash(f"{secret}:{challenge.nonce}:{challenge.count}:{own}:auth:{what}"),
        "algorithm": "SHA-256",
    }


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


# ---- its state ----


def read_outputs(status: Mapping[str, Any], count: int) -> dict[int, Reading]:
    """Return the outputs below ``count`` of which a state, or a part of one, says something; raise Garbage."""
    found = {}
    for index in range(count):
        match status.get(f"switch:{index}"):
            case {"output": bool(on)}:
                found[index] = Reading.RELEASED if on else Reading.SECURED
            case {"output": _}:
                raise Garbage("an output that is neither on nor off")
    return found


def read_inputs(status: Mapping[str, Any], count: int) -> dict[int, Sense]:
    """Return the inputs below ``count`` of which a state, or a part of one, says something.

    FAULT is one that is there and is no contact: a button, an analog one, one that is disabled.
    """
    found = {}
    for index in range(count):
        match status.get(f"input:{index}"):
            case {"state": bool(closed)}:
                found[index] = Sense.ACTIVE if closed else Sense.INACTIVE
            case {"state": _}:
                found[index] = Sense.FAULT
    return found


def missing(status: Mapping[str, Any], outputs: int, inputs: int) -> str | None:
    """Return what the whole state of a unit lacks of what is expected, for a person; None: nothing."""
    if (there := len(read_outputs(status, outputs))) < outputs:
        return f"it has {_lines(there, 'output')}, not {outputs}: correct outputs, or its profile (a shutter has none)"
    if (there := sum(f"input:{index}" in status for index in range(inputs))) < inputs:
        return f"it has {_lines(there, 'input')}, not {inputs}: correct inputs"
    return None


def _lines(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# ---- its settings ----

# Authentication: "all communication is protected except" these.
_SERVICES: Final = {"cloud": "a cloud", "mqtt": "an MQTT broker", "ws": "an outbound WebSocket"}


def dangers(status: Mapping[str, Any], config: Mapping[str, Any], outputs: int, inputs: int) -> list[str]:
    """Return what in the state and the configuration of a unit endangers its doors, for a person.

    ``outputs`` and ``inputs``: how many of them are used.
    """
    found = [
        f"it is connected to {word}, whose owner needs no password to open its doors"
        for service, word in _SERVICES.items()
        if _member(status, service).get("connected") is True
    ]
    for number in range(1, outputs + 1):
        output = _member(config, f"switch:{number - 1}")
        found += [f"output {number} {danger}" for danger in _dangers_of_an_output(output)]
    for number in range(1, inputs + 1):
        one = _member(config, f"input:{number - 1}")
        if one.get("type", "switch") != "switch" or one.get("enable") is False:
            found.append(f"input {number} is disabled in the unit, or no switch there: it cannot be read")
        if one.get("invert") is True:
            found.append(f"input {number} is inverted in the unit itself: it counts as closed while it is open")
    return found


def _member(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = of.get(name)
    return member if isinstance(member, dict) else {}


def _dangers_of_an_output(output: Mapping[str, Any]) -> list[str]:
    found = []
    match output.get("initial_state"):
        case "on":
            found.append("is on when the power comes back: its door is open then (initial_state; set off)")
        case "restore_last":
            found.append("is as before when the power comes back: a door stays open (initial_state; set off)")
        case "match_input":
            found.append("is as its input says when the power comes back (initial_state; set off)")
    if output.get("in_mode", "detached") != "detached":
        found.append("is moved by its input, without the gateway: for an exit button only (in_mode; set detached)")
    if output.get("auto_on") is True:
        found.append("switches itself on, so that its door opens by itself (auto_on; switch it off)")
    if output.get("auto_off") is True:
        found.append("switches itself off, so that its door cannot be held open (auto_off)")
    return found
