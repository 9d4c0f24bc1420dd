"""A live Home Assistant of its own: made, started, spoken to over its REST API, and ended by its process id.

It listens on 127.0.0.1 only and finds no other device: zeroconf, ssdp and `default_config` are not loaded,
Bluetooth only with a virtual radio and without the adapters of this machine, and the step of the first
sign-in that adds weather and radio services is left out. It keeps
everything it writes in one folder, which may be removed. What this file refuses to do: configure anything
behind the back of Home Assistant; what a person sets up in the user interface goes through the same flows
here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from .websocket import Closed, CommandRefused, WebSocket

HERE: Final = Path(__file__).parent
REPOSITORY: Final = HERE.parent.parent
VESTIBULE: Final = REPOSITORY / "custom_components" / "vestibule"
RELAYS: Final = HERE / "custom_components" / "simulated_relays"
VIRTUAL_RADIO: Final = REPOSITORY / "tests" / "radio" / "virtual_radio"

HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8123
RESTART: Final = 100
"""The exit code by which Home Assistant asks to be started again."""
START_DEADLINE: Final = 120.0
STOP_DEADLINE: Final = 40.0
PORTS: Final = range(20_000, 32_000)
"""Ports that no system gives to connections by itself."""
_RANDOM: Final = random.SystemRandom()

CONFIGURATION: Final = """\
# Written anew at every start of the demo.
homeassistant:
  name: Vestibule demo
  latitude: {latitude}
  longitude: {longitude}
  elevation: 0
  unit_system: metric
  time_zone: UTC
  currency: EUR
  country: NL
api:
config:
frontend:
history:
logbook:
recorder:
  db_url: sqlite:///{database}
system_health:
websocket_api:
automation: !include automations.yaml
logger:
  default: warning
  logs:
    custom_components.vestibule: info
    # Cameras are no part of this, and what they need is not installed.
    haffmpeg: fatal
    homeassistant.components.camera.img_util: fatal
    # It warns of every custom integration.
    homeassistant.loader: error
"""


WITH_RADIO: Final = """\
bluetooth:
virtual_radio:
  - transport: {radio}
    name: Courtyard
    address: F0:CA:C0:01:00:01
"""

_MARKETPLACE_OFF: Final = {
    "created_at": "2026-11-01T00:00:00+00:00",
    "data": {},
    "disabled_by": "user",
    "discovery_keys": {},
    "domain": "marketplace",
    "entry_id": "01M84DW0RBRACMPBP5G47H0B78",
    "minor_version": 1,
    "modified_at": "2026-11-01T00:00:00+00:00",
    "options": {},
    "pref_disable_new_entities": False,
    "pref_disable_polling": False,
    "source": "system",
    "subentries": [],
    "title": "",
    "unique_id": None,
    "version": 1,
}


class HomeFailed(Exception):
    """Home Assistant did not do what was asked of it; the text is for a person."""


@dataclass
class Home:
    """One Home Assistant in one folder. ``python`` is the interpreter of the environment that it is in."""

    folder: Path
    python: Path = Path(sys.executable)
    latitude: float = 0.0
    longitude: float = 0.0
    port: int = 0
    access: str | None = None
    """The access token of who speaks to it; None before somebody has signed in."""
    radio: str | None = None
    """Where its Bluetooth adapter is on a virtual radio, in Bumble's words; None: it has no Bluetooth."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self.port}"

    @property
    def console(self) -> Path:
        """Everything that it ever printed or logged, from start to start."""
        return self.folder / "console.log"

    @property
    def relays_log(self) -> Path:
        """What the simulated relays did."""
        return self.folder / "relays.log"

    @cached_property
    def _site_packages(self) -> str:
        command = [os.fspath(self.python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    # ---- life ----

    def __enter__(self) -> Self:
        """Use it in a `with`, so that it ends whatever happens."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it. A second Ctrl-C must not leave it behind, half stopped."""
        with uninterrupted():
            self.stop()

    def prepare(self, *, integration: Path = VESTIBULE, relays: bool = True) -> None:
        """Write the configuration and copy the integrations, as an update by HACS would: whole and anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = self.folder / ".storage"
        storage.mkdir(mode=0o700, exist_ok=True)
        configuration = CONFIGURATION.format(
            latitude=self.latitude,
            longitude=self.longitude,
            database=self.folder.resolve() / "home-assistant_v2.db",
        )
        if self.radio is not None:
            configuration += WITH_RADIO.format(radio=self.radio)
        (self.folder / "configuration.yaml").write_text(configuration, "utf-8")
        (self.folder / "automations.yaml").touch()
        components = self.folder / "custom_components"
        copy_integration(integration, components)
        if relays:
            copy_integration(RELAYS, components)
        if self.radio is not None:
            copy_integration(VIRTUAL_RADIO, components)
        if not (storage / "onboarding").exists():
            # This step of the first sign-in adds services that live on the internet.
            store(storage, "onboarding", 4, {"done": ["core_config"]})
            if (Path(self._site_packages) / "homeassistant" / "components" / "marketplace").is_dir():
                # From 2026.11 on it fetches its catalogue at each start. Turned off, as a person can.
                store(storage, "core.config_entries", 1, {"entries": [_MARKETPLACE_OFF]}, minor_version=5)

    def start(self) -> None:
        """Start it and return when it answers. Raises HomeFailed with the end of what it said."""
        self._launch()
        self._wait_for("to answer", lambda: answers(self.port))

    def _launch(self) -> None:
        # In its oldest form, which every version takes over: settings that it has not confirmed itself are
        # undone after five minutes, and `http:` in configuration.yaml is on its way out.
        store(
            self.folder / ".storage",
            "http",
            1,
            {"server_host": [HOST], "server_port": self.port, "ip_ban_enabled": False},
        )
        options = ["-c", os.fspath(self.folder), "--skip-pip"]
        bare = [os.fspath(self.python), "-I", "-S", os.fspath(HERE / "bare_hass.py"), self._site_packages]
        with postponed(), self.console.open("ab") as console:
            # A session of its own: Ctrl-C is for us to handle, not for it to hear twice.
            self.process = subprocess.Popen(
                bare + options,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )

    def wait_until_started(self) -> None:
        """Return when start-up is over: every integration has had its turn. Needs an access token."""
        self._wait_for("to finish starting", self.is_started)
        if self.get("/api/config")["recovery_mode"]:
            raise HomeFailed(f"Home Assistant could not use its configuration.\n{self.last_words()}")

    def is_started(self) -> bool:
        """Return whether start-up is over. Needs an access token."""
        return bool(self.get("/api/config")["state"] == "RUNNING")

    def stop(self) -> None:
        """End it as a shutdown of the machine would, and wait for it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise HomeFailed(f"Home Assistant did not stop within {STOP_DEADLINE:.0f} s and was killed.") from None
        self.process = None

    def restore(self, backup_id: str) -> None:
        """Restore a backup that it keeps itself, as its page of backups does: it ends, and is as it was then.

        What it kept since is gone, its logs too. Start it again afterwards.
        """
        order = {"type": "backup/restore", "backup_id": backup_id, "agent_id": "backup.local"}
        with contextlib.suppress(Closed), self.websocket() as socket:
            socket.command(order)
        self._wait_for_restart()
        self._launch()  # it finds that it is to restore, does so, and ends
        self._wait_for_restart()

    def _wait_for_restart(self) -> None:
        assert self.process is not None
        code = self.process.wait(START_DEADLINE)
        self.process = None
        if code != RESTART:
            raise HomeFailed(f"Home Assistant ended (exit code {code}) instead of restarting.\n{self.last_words()}")

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def _wait_for(self, what: str, true: Callable[[], bool]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_DEADLINE
        while time.monotonic() < deadline:
            if (code := self.process.poll()) is not None:
                self.process = None
                raise HomeFailed(f"Home Assistant ended at its start (exit code {code}).\n{self.last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException, HomeFailed):
                if true():
                    return
            time.sleep(0.05)
        raise HomeFailed(f"Home Assistant took more than {START_DEADLINE:.0f} s {what}.\n{self.last_words()}")

    def last_words(self, lines: int = 15) -> str:
        """Return the end of its log."""
        try:
            text = self.console.read_text("utf-8", "replace")
        except FileNotFoundError:
            return "It has not written a log."
        tail = "\n".join(f"  {line}" for line in text.splitlines()[-lines:])
        return f"The end of {self.console}:\n{tail}"

    # ---- its API ----

    def get(self, path: str) -> Any:
        """Return the answer to a GET. Raises HomeFailed on any but a good status."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer to a POST of JSON. Raises HomeFailed on any but a good status."""
        return self._ask("POST", path, json.dumps(body).encode())

    def delete(self, path: str) -> Any:
        """Return the answer to a DELETE. Raises HomeFailed on any but a good status."""
        return self._ask("DELETE", path, None)

    def perform(self, action: str, data: Mapping[str, Any]) -> str | None:
        """Perform an action (`domain.name`); return why it was refused, in Home Assistant's words, or None."""
        domain, service = action.split(".")
        command = {"type": "call_service", "domain": domain, "service": service, "service_data": dict(data)}
        with WebSocket(self.url, self.access) as socket:
            try:
                socket.command(command)
            except CommandRefused as err:
                return str(err).removeprefix("Validation error: ")
        return None

    def ask_action(self, action: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Perform an action (`domain.name`) and return its response. Raises HomeFailed."""
        domain, service = action.split(".")
        command = {"type": "call_service", "domain": domain, "service": service, "service_data": dict(data)}
        (result,) = self.commands(command | {"return_response": True})
        response: dict[str, Any] = result["response"]
        return response

    def commands(self, *commands: Mapping[str, Any]) -> list[Any]:
        """Return the results of commands that only its WebSocket API has."""
        with self.websocket() as socket:
            return [socket.command(command) for command in commands]

    def activity(
        self, since: str, *, entity_ids: list[str] | None = None, device_ids: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the lines of Activity from ``since`` (ISO 8601) to now; by then they are in the database, too."""
        chosen = {"entity_ids": entity_ids, "device_ids": device_ids}
        request = {"type": "logbook/event_stream", "start_time": since} | {k: v for k, v in chosen.items() if v}
        lines: list[dict[str, Any]] = []
        with self.websocket(request) as socket:
            while (part := socket.told(30)) is not None:
                lines += part["events"]
                if not part.get("partial"):
                    return lines
        raise HomeFailed("Home Assistant does not show its Activity.")

    @contextlib.contextmanager
    def websocket(self, *subscriptions: Mapping[str, Any]) -> Iterator[WebSocket]:
        """Use its WebSocket API for as long as the `with` lasts, and hear what is told to ``subscriptions``."""
        try:
            with WebSocket(self.url, self.access) as socket:
                for subscription in subscriptions:
                    socket.command(subscription)
                yield socket
        except CommandRefused as err:
            raise HomeFailed(f"Home Assistant refused: {err}") from err

    def _ask(self, method: str, path: str, body: bytes | None, content_type: str = "application/json") -> Any:
        headers = {"Content-Type": content_type}
        if self.access is not None:
            headers["Authorization"] = f"Bearer {self.access}"
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310 - our own address
        try:
            with _OPENER.open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as err:
            with err:
                said = err.read().decode("utf-8", "replace")
            raise HomeFailed(f"Home Assistant answered {err.code} to {method} {path}: {said[:500]}") from err

    # ---- who speaks ----

    def onboard(self, name: str, username: str, password: str) -> str:
        """Make the first user, the owner, and sign in. Return a refresh token, which outlives restarts."""
        client = {"client_id": f"{self.url}/"}
        user = {"name": name, "username": username, "password": password, "language": "en"}
        code = self.post("/api/onboarding/users", user | client)["auth_code"]
        refresh = self._token({"grant_type": "authorization_code", "code": code} | client)
        assert refresh is not None
        self.post("/api/onboarding/analytics", {})
        self.post("/api/onboarding/integration", client | {"redirect_uri": f"{self.url}/"})
        return refresh

    def log_in(self, username: str, password: str) -> str:
        """Sign in. Return a refresh token, which outlives restarts."""
        client = {"client_id": f"{self.url}/"}
        begin = {"handler": ["homeassistant", None], "redirect_uri": f"{self.url}/", **client}
        form = self.post("/auth/login_flow", begin)
        done = self.post(f"/auth/login_flow/{form['flow_id']}", {"username": username, "password": password, **client})
        refresh = self._token({"grant_type": "authorization_code", "code": done["result"], **client})
        assert refresh is not None
        return refresh

    def sign_in(self, refresh_token: str, client_id: str) -> None:
        """Get a new access token. It is good for half an hour."""
        self._token({"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": client_id})

    def _token(self, form: Mapping[str, str]) -> str | None:
        self.access = None
        body = urllib.parse.urlencode(form).encode()
        answer = self._ask("POST", "/auth/token", body, "application/x-www-form-urlencoded")
        self.access = answer["access_token"]
        refresh: str | None = answer.get("refresh_token")
        return refresh

    # ---- its flows ----

    def flow(
        self,
        handler: str | tuple[str, str],
        steps: list[tuple[str, dict[str, Any]]],
        *,
        begun: str | None = None,
    ) -> list[dict[str, Any]]:
        """Fill in a flow's forms in turn, and return what was shown: each form, and the result.

        ``handler`` is an integration, or an entry's id and a kind of subentry; ``begun`` is the id of a flow
        that another one has begun. A form that a menu offers is chosen there. Raises HomeFailed when another
        form comes up than the one expected, which is also how errors in a form show.
        """
        kind = "flow" if isinstance(handler, str) else "subentries/flow"
        if begun is None:
            shown = [self.post(f"/api/config/config_entries/{kind}", {"handler": handler})]
        else:
            shown = [self.get(f"/api/config/config_entries/{kind}/{begun}")]
        for step, answers in steps:
            if shown[-1]["type"] == "menu" and step in shown[-1]["menu_options"]:
                path = f"/api/config/config_entries/{kind}/{shown[-1]['flow_id']}"
                shown.append(self.post(path, {"next_step_id": step}))
            if shown[-1].get("step_id") != step or shown[-1].get("errors"):
                raise HomeFailed(f"Expected the form {step!r} of {handler}, got: {shown[-1]}")
            shown.append(self.post(f"/api/config/config_entries/{kind}/{shown[-1]['flow_id']}", answers))
        if shown[-1]["type"] != "create_entry":
            raise HomeFailed(f"Expected {handler} to be done, got: {shown[-1]}")
        return shown

    def discovered(self, integration: str, source: str, patience: float) -> str:
        """Return the id of a flow for something that Home Assistant has found; wait so many seconds for it."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            (flows,) = self.commands({"type": "config_entries/flow/progress"})
            for flow in flows:
                if (flow["handler"], flow["context"]["source"]) == (integration, source):
                    found: str = flow["flow_id"]
                    return found
            time.sleep(0.1)
        raise HomeFailed(f"Home Assistant did not find anything for {integration} in {patience:.0f} s.")

    def reconfigure(
        self, entry: str, kind: str, subentry: str, changes: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Go through the forms of something that was set up, and submit each as it is shown but for ``changes``.

        ``changes`` is by form and field, None empties a field; of a menu, the first way is taken. Returns what the
        forms showed.
        """
        path = "/api/config/config_entries/subentries/flow"
        form = self.post(path, {"handler": [entry, kind], "subentry_id": subentry})
        shown: dict[str, dict[str, Any]] = {}
        if form["type"] == "menu":
            form = self.post(f"{path}/{form['flow_id']}", {"next_step_id": form["menu_options"][0]})
        while form["type"] == "form":
            step = form["step_id"]
            if form.get("errors"):
                raise HomeFailed(f"The form {step!r} of {kind} was not taken: {form['errors']}")
            shown[step] = {field["name"]: _shown(field) for field in form["data_schema"]}
            answers = shown[step] | dict(changes.get(step, {}))
            filled_in = {name: value for name, value in answers.items() if value is not None}
            form = self.post(f"{path}/{form['flow_id']}", filled_in)
        if form.get("reason") != "reconfigure_successful" or changes.keys() - shown.keys():
            raise HomeFailed(f"Expected {kind} to be changed, got: {form}")
        return shown


def _shown(field: Mapping[str, Any]) -> Any:
    """Return what a field of a form shows before anybody types; None if it is empty."""
    return field.get("description", {}).get("suggested_value", field.get("default"))


# Straight to our own address, whatever proxy the environment names.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(port: int) -> bool:
    """Return whether a Home Assistant answers there."""
    try:
        with _OPENER.open(f"http://{HOST}:{port}/manifest.json", timeout=5) as response:
            return bool(json.load(response)["name"] == "Home Assistant")
    except OSError, ValueError, KeyError, http.client.HTTPException:
        return False


def free_port(wanted: int = 0) -> int:
    """Return ``wanted`` if nobody listens there, else a port that is free now.

    It is none of those that the system gives to connections by itself: one of them might take it before it is used.
    """
    for port in filter(None, (wanted, *_RANDOM.sample(PORTS, 100))):
        with sockets.socket() as probe, contextlib.suppress(OSError):
            # What Home Assistant does, too: a port whose last connections are still being closed is free.
            probe.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise HomeFailed("No port is free on this machine.")


def copy_integration(source: Path, components: Path) -> None:
    """Put a copy of an integration's folder into ``custom_components``, in place of the one there."""
    components.mkdir(exist_ok=True)
    # A regular package: no other `custom_components` on the import path can add to it or hide it.
    (components / "__init__.py").touch()
    target = components / source.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def store(storage: Path, key: str, version: int, data: Mapping[str, Any], *, minor_version: int = 1) -> None:
    """Write one file of Home Assistant's storage while Home Assistant is not running."""
    content = {"version": version, "minor_version": minor_version, "key": key, "data": data}
    write_private(storage / key, json.dumps(content))


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)
    beside.replace(path)


@contextlib.contextmanager
def handling(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals in this way for as long as the `with` lasts."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def interruptible() -> contextlib.AbstractContextManager[None]:
    """Take a closed terminal and a plain `kill` as Ctrl-C, so that Home Assistant is ended in every case."""
    return handling(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP)


def uninterrupted() -> contextlib.AbstractContextManager[None]:
    """Let nobody cut short what would leave something behind."""
    return handling(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Let an interruption wait for the end of the `with`: a process that was started is known before it is ended."""
    waiting: list[int] = []
    with handling(lambda number, _: waiting.append(number), signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield
    if waiting:
        signal.raise_signal(waiting[0])
