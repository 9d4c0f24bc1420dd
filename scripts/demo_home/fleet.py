"""Canal Couriers: a carrier with a cloud of its own, in a process of its own, and its dispatcher at the commands.

The cloud is the one that a carrier runs (docs/carrier.md), on this machine: `vestibule-carrier run`, with SQLite,
without TLS, and with positions that may be typed, which its page marks. Drivers' phones reach it at http://localhost,
where browsers allow passkeys; buildings by their links. What this file refuses to do: reach into the cloud in any other
way than a carrier's people do (its configuration, its commands, its API).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

from . import hardware
from .home import HOST, REPOSITORY, HomeFailed, free_port, postponed, uninterrupted, write_private

NAME: Final = "Canal Couriers"
ISSUER: Final = "https://canal.example"
USUAL_PORT: Final = 8480
SHIFT: Final = timedelta(hours=12)
LINKED_WITHIN: Final = 30.0
"""Seconds."""
VETTED_FOR: Final = timedelta(days=365)

YOU: Final = "Kim Example"
"""The driver that whoever sits at the browser is."""
ROBIN: Final = "Robin Example"
"""The driver of the plays, whose phone is phone.py."""

_CONFIGURATION: Final = """\
# Made by the demo. For trying it out only: positions may be typed, and nothing of this is encrypted.
name = "{name}"
issuer = "{issuer}"
origin = "http://localhost:{port}"
database = "sqlite:///carrier.db"
keys = "keys"
typed_positions = true

[listen]
host = "{host}"
port = {port}
"""


class FleetFailed(HomeFailed):
    """The carrier's cloud did not do what was asked of it."""


@dataclass
class Fleet:
    """The carrier, in a folder of its own. In a `with`, its cloud runs; whoever plays uses the one that runs."""

    folder: Path
    wanted_port: int = 0
    """Where the cloud listens from the first start on, if nobody else does then; 0: anywhere."""
    _cloud: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        """Found the carrier if need be, and start its cloud. Raises FleetFailed."""
        if not self.is_founded:
            self._found()
        elif free_port(self.port) != self.port:
            raise FleetFailed(f"Port {self.port} of the carrier's cloud is taken. End whatever listens there.")
        else:
            self._renew_keys()
        try:
            self.start()
            if not self.is_founded:
                self._hire()
        except BaseException:
            with uninterrupted():
                self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self.stop()

    # ---- what there is ----

    @property
    def is_founded(self) -> bool:
        """Whether it is set up to its end."""
        return (self.folder / "drivers.json").exists()

    @property
    def port(self) -> int:
        """Where the cloud listens. Kept, because passkeys and buildings know it."""
        return int((self.folder / "port").read_text("ascii"))

    @property
    def host(self) -> str:
        """The host that drivers and buildings know."""
        return f"localhost:{self.port}"

    @property
    def origin(self) -> str:
        """The address of its pages."""
        return f"http://{self.host}"

    @property
    def config(self) -> Path:
        """The cloud's configuration."""
        return self.folder / "carrier.toml"

    @property
    def log(self) -> Path:
        """Everything that the cloud ever logged, from start to start."""
        return self.folder / "cloud.log"

    @property
    def api_key(self) -> str:
        """The dispatcher's key."""
        return (self.folder / "api-key").read_text("ascii")

    @property
    def process(self) -> int | None:
        """The id of the cloud's process while it runs."""
        return None if self._cloud is None or self._cloud.poll() is not None else self._cloud.pid

    def driver(self, name: str) -> str:
        """Return the id of a driver."""
        return str(json.loads((self.folder / "drivers.json").read_text("utf-8"))[name])

    # ---- the process ----

    def _found(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        write_private(self.folder / "port", str(free_port(self.wanted_port)))
        write_private(self.config, _CONFIGURATION.format(name=NAME, issuer=ISSUER, host=HOST, port=self.port))
        self.command("migrate")
        self.command("keys", "root", "--root", os.fspath(self._root))
        self.new_keys()
        scopes = [f"--scope={scope}" for scope in ("read", "manifests", "drivers", "alarms", "audit")]
        key = self._read_off(self.command("api-key", "add", "Dispatcher", *scopes), r"secret +(vck_\S+)")
        write_private(self.folder / "api-key", key)

    def _hire(self) -> None:
        until = (datetime.now(UTC) + VETTED_FOR).strftime("%Y-%m-%dT%H:%M:%SZ")
        drivers = {
            name: self.ask("POST", "/v1/drivers", {"name": name, "vetted_until": until})["id"] for name in (YOU, ROBIN)
        }
        write_private(self.folder / "drivers.json", json.dumps(drivers, indent=2))

    def start(self) -> None:
        """Start the cloud; return when it answers. Raises FleetFailed."""
        with postponed(), self.log.open("ab") as log:
            self._cloud = subprocess.Popen(
                self._command("run"),
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        if not hardware.wait(self._answers, self._cloud):
            raise FleetFailed(f"The carrier's cloud did not start; {self.log} says why.")

    def stop(self) -> None:
        """End the cloud as systemd does."""
        hardware.end(self._cloud)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("GET", "/health")["status"] == "ok")
        except OSError, http.client.HTTPException:
            return False

    # ---- the dispatcher's commands ----

    @property
    def _root(self) -> Path:
        return self.folder / "root.pem"

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "carrier", *words, "--config", os.fspath(self.config)]

    def command(self, *words: str) -> str:
        """Return what a command of the cloud prints; raise FleetFailed."""
        ran = subprocess.run(self._command(*words), cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise FleetFailed(f"vestibule-carrier {words[0]}: {ran.stderr.strip()}")
        return ran.stdout

    @staticmethod
    def _read_off(printed: str, pattern: str) -> str:
        if (found := re.search(pattern, printed)) is None:
            raise FleetFailed(f"The carrier's cloud printed nothing like {pattern}.")
        return found[1]

    def new_keys(self) -> None:
        """Make the next signing key and publish it."""
        self.command("keys", "rotate")
        self._publish()

    def _publish(self) -> None:
        self.command("keys", "publish", "--root", os.fspath(self._root))

    def _renew_keys(self) -> None:
        """Make the next signing key if it is time for that, or past: a demo may have slept for months."""
        try:
            is_soon = "SOON" in self.command("check")
        except FleetFailed:
            is_soon = True
        if is_soon:
            with contextlib.suppress(FleetFailed):  # the next one is made already
                self.command("keys", "rotate")
            self._publish()

    @property
    def signing_key(self) -> Path:
        """The file of the key that signs now: what a thief would want."""
        listed = self.command("keys", "list")
        (kid,) = re.findall(r"^published +(\S+) +signs tokens", listed, re.MULTILINE)
        return self.folder / "keys" / f"{kid}.pem"

    def enrolment_code(self, building: str, *, one_more_of: str | None = None) -> str:
        """Return a code by which a controller enrols itself; ``one_more_of``: of a building that is known."""
        joins = [] if one_more_of is None else ["--building", one_more_of]
        return self._read_off(self.command("building", "invite", "--name", building, *joins), r"(vst1\.\S+)")

    # ---- the dispatcher's API ----

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return what the API answers to the dispatcher. Raises FleetFailed."""
        headers = {"Host": self.host}
        if path != "/health":
            headers |= {"Authorization": f"Bearer {self.api_key}"}
        if body is not None:
            headers |= {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise FleetFailed(f"The carrier's cloud answered {answer.status} to {method} {path}: {text}")
        return json.loads(text) if text else None

    def building(self) -> dict[str, Any]:
        """Return the building as the cloud knows it. Raises FleetFailed if there is none."""
        known: list[dict[str, Any]] = self.ask("GET", "/v1/buildings")["buildings"]
        if not known:
            raise FleetFailed(f"No building is enrolled at {NAME}.")
        return known[0]

    def wait_until_linked(self, controllers: int) -> None:
        """Wait until so many controllers of the building are connected. Raises FleetFailed."""
        deadline = time.monotonic() + LINKED_WITHIN
        while sum(each["connected_since"] is not None for each in self.building()["controllers"]) < controllers:
            if time.monotonic() > deadline:
                raise FleetFailed(f"The building is not connected to the cloud of {NAME}; {self.log} may say why.")
            time.sleep(hardware.TURN)

    def invite(self, driver: str) -> str:
        """Return a one-time link by which a driver sets a phone up. An earlier one is void."""
        return str(self.ask("POST", f"/v1/drivers/{self.driver(driver)}/invitation")["link"])

    def withdraw(self, driver: str) -> int:
        """Revoke every phone of a driver; return how many that were."""
        return int(self.ask("POST", f"/v1/drivers/{self.driver(driver)}/revoke")["devices"])

    def bring(
        self, driver: str, doors: Sequence[str], *, begins: timedelta = timedelta(hours=-1), lasts: timedelta = SHIFT
    ) -> dict[str, Any]:
        """Give a driver one stop today, in place of all others: these doors in order; return the stop.

        Its time begins so long from now.
        """
        now = datetime.now(UTC).replace(microsecond=0)
        for route in self._routes(driver):
            if any(stop["state"] == "due" for stop in route["stops"]):
                self.ask("DELETE", f"/v1/routes/{route['id']}")
        window = {"window_from": (now + begins).isoformat(), "window_to": (now + begins + lasts).isoformat()}
        shift = {
            "shift_from": (now - timedelta(hours=1)).isoformat(),
            "shift_to": (now + max(begins, timedelta()) + lasts).isoformat(),
        }
        stop = {"building": self.building()["id"], "doors": list(doors), **window}
        route = {
            "driver": self.driver(driver),
            "day": now.astimezone(self._zone).date().isoformat(),
            **shift,
            "stops": [stop],
        }
        (brought,) = self.ask("POST", "/v1/manifests", {"routes": [route]})["routes"]
        (found,) = (each for each in self._routes(driver) if each["id"] == brought)
        return dict(found["stops"][0])

    def stop_of(self, driver: str) -> dict[str, Any] | None:
        """Return a stop of a driver that has a door left to open for an hour at the least; None if there is none."""
        in_an_hour = datetime.now(UTC) + timedelta(hours=1)
        for route in self._routes(driver):
            for stop in route["stops"]:
                if stop["state"] == "due" and datetime.fromisoformat(stop["window_to"]) > in_an_hour:
                    states = [door["state"] for door in stop["doors"]]
                    if "not_yet" in states and "refused" not in states:
                        return dict(stop)
        return None

    @property
    def _zone(self) -> ZoneInfo:
        """Whose calendar a route's day is of."""
        return ZoneInfo(self.building()["zone"])

    def _routes(self, driver: str) -> list[dict[str, Any]]:
        now = datetime.now(UTC)
        days = {at.astimezone(self._zone).date() for at in (now - SHIFT, now)}
        found = [route for day in sorted(days) for route in self.ask("GET", f"/v1/routes?day={day}")["routes"]]
        return [route for route in found if route["driver"] == self.driver(driver)]
