"""A driver's phone: it asks the carrier's cloud as the driver's page does, and shows what that would show.

The passkey is made of software (passkey.py) and kept in a file, so that the next play goes on with it. What this file
refuses to do: use anything but the driver's API.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from vestibule_core import b64url

from .fleet import Fleet, FleetFailed
from .home import HOST, write_private
from .passkey import Authenticator

# The words of the page (carrier/web/words.js).
STEPS: Final = {"id": "You", "route": "Your route", "position": "Where you are", "time": "The time"}
PASSED: Final = {
    "id": "It is you.",
    "route": "This door is next on your route.",
    "position": "You are at the door.",
    "time": "It is within your hours.",
}
OUTCOMES: Final = {
    "granted": ("The door is released", "Go in now: it locks again in a few seconds."),
    "refused": ("Not opened", ""),
    "unreachable": ("The building cannot be reached", ""),
    "refused_by_building": ("The building refused", "This door cannot be asked for again at this stop."),
    "refused_for_now": (
        "The building refused",
        "Nothing was opened. You can try once more: in a minute, or when your dispatcher says so.",
    ),
    "unknown": ("We do not know whether it opened", ""),
    "unavailable": (
        "The cloud cannot answer now",
        "Nothing was opened. Try again in a minute. If it stays so, call your dispatcher.",
    ),
}
UNKNOWN_PASSKEY: Final = (
    "This passkey is not known",
    "It may have been withdrawn. Ask your dispatcher for a new link.",
)


class SignedOut(Exception):
    """The cloud does not know this phone, or not any more."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a phone believes to be; degrees and metres."""

    latitude: float
    longitude: float
    accuracy: int


@dataclass
class Phone:
    """The phone of one driver, in a folder of its own."""

    folder: Path
    fleet: Fleet
    driver: str
    cookie: str = ""

    def unlock(self) -> None:
        """Sign in with the passkey; the first time, set it up by a one-time link. Raises SignedOut."""
        if self._kept.exists():
            self.sign_in()
        else:
            self.join(self.fleet.invite(self.driver))

    def join(self, link: str) -> None:
        """Set the phone up with a new passkey, by a link. Raises SignedOut if that is spent."""
        secret, passkey = link.partition("#join=")[2], self._passkey()
        options = self._ask("POST", "/driver/join", {"invitation": secret})["options"]
        self._ask("POST", "/driver/join/passkey", {"invitation": secret, "credential": passkey.create(options)})
        pem = passkey.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_private(self._kept, json.dumps({"key": pem, "credential": passkey.id}))

    def sign_in(self) -> None:
        """Sign in with the passkey. Raises SignedOut."""
        options = self._ask("POST", "/driver/sign-in", {})["options"]
        self._ask("POST", "/driver/sign-in/passkey", {"credential": self._passkey().get(options)})

    def forget(self) -> None:
        """Forget the passkey."""
        self._kept.unlink(missing_ok=True)

    def request(self, stop: str, door: str, place: Place) -> Iterator[dict[str, Any]]:
        """Ask for a door and confirm with the passkey; yield each line of the answer as it comes. Raises SignedOut."""
        position = {
            "lat": place.latitude,
            "lon": place.longitude,
            "accuracy": place.accuracy,
            "at": int(time.time()) - 2,
            "typed": False,
        }
        begun = self._ask("POST", "/driver/requests", {"stop": stop, "door": door, "position": position})
        credential = self._passkey().get(begun["options"])
        connection, answer = self._send("POST", f"/driver/requests/{begun['request']}", {"credential": credential})
        try:
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    # ---- how ----

    @property
    def _kept(self) -> Path:
        return self.folder / "passkey.json"

    def _passkey(self) -> Authenticator:
        """Return the passkey, or a new one. It does not count how often it was used, as passkeys in phones do not."""
        new = Authenticator(self.fleet.origin, "localhost", counter=None)
        if not self._kept.exists():
            return new
        kept = json.loads(self._kept.read_text("utf-8"))
        key = load_pem_private_key(kept["key"].encode(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        new.key, new.credential_id = key, b64url.decode(kept["credential"].encode())
        return new

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> Any:
        connection, answer = self._send(method, path, body)
        try:
            text = answer.read()
        finally:
            connection.close()
        return json.loads(text) if text else None

    def _send(
        self, method: str, path: str, body: dict[str, Any]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"Host": self.fleet.host, "Origin": self.fleet.origin, "Content-Type": "application/json"}
        if self.cookie:
            headers["Cookie"] = self.cookie
        connection = http.client.HTTPConnection(HOST, self.fleet.port, timeout=60)
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        if (cookie := answer.headers["Set-Cookie"]) is not None:
            self.cookie = cookie.partition(";")[0]
        if answer.status >= 400:
            text = answer.read().decode()
            connection.close()
            if answer.status in (401, 403, 404):
                raise SignedOut(text)
            raise FleetFailed(f"The carrier's cloud answered {answer.status} to the phone: {text}")
        return connection, answer
