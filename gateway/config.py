"""gateway.toml: which hardware hangs where, and what the gateway's doors are (docs/gateway.example.toml).

Read once and strictly. Who may enter is not said here: that is the policy, which Home Assistant brings. What this file
refuses to do: let two doors share a relay, or one input be two things.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Final

from vestibule_core.api.messages import GatewayId
from vestibule_core.api.policy import Policy
from vestibule_core.hours import Day, Hours, WeeklyHours
from vestibule_core.model import Door, DoorId, ManualRule, OnPowerLoss, RelockOn, Sensor, door_id

from .log import LogFormat
from .relay.config import (
    BoardConfig,
    ChannelConfig,
    InputConfig,
    MemoryConfig,
    ModbusConfig,
    RelayConfig,
    read_boards,
    read_input,
    read_relay,
)
from .state import door_id_of
from .toml_table import Table

LONGEST_NAME: Final = 64
DEFAULT_PORT: Final = 7443
PERSONS_KEPT: Final = (30, 90)
"""Days for which the journal knows who it was."""

_DOOR_KEY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_CLOCK: Final = re.compile(r"[0-2][0-9]:[0-5][0-9]")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_ACCESS_TIME: Final = (0.5, 30.0)
_HELD_OPEN_TIME: Final = (1.0, 3600.0)
_DOOR_KEYS: Final = (
    "id",
    "name",
    "relay",
    "access_time",
    "relock",
    "held_open_time",
    "pre_alarm_time",
    "on_power_loss",
    "release_on_fire",
    "manual",
    "hours",
    "latitude",
    "longitude",
    *Sensor,
)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the API is served."""

    host: str = ""
    """An address of this machine; empty: all of them."""
    port: int = DEFAULT_PORT
    announce: bool = True
    """Say in the local network that the gateway is there (discovery.py)."""
    hosts: tuple[str, ...] = ()
    """Names besides its own that clients may call it by."""


@dataclass(frozen=True, slots=True)
class DoorConfig:
    """A door, [door.KEY]."""

    key: str
    relay: RelayConfig
    inputs: Mapping[Sensor, InputConfig]
    """What watches it."""
    name: str
    access_time: float
    given_id: DoorId | None = None
    hours: WeeklyHours = ()
    relock: RelockOn = RelockOn.TIMEOUT
    held_open_time: float | None = None
    pre_alarm_time: float = 0.0
    on_power_loss: OnPowerLoss = OnPowerLoss.FAIL_SECURE
    release_on_fire: bool = False
    """It is held open when the [fire] input says so, until a person ends that."""
    manual: ManualRule = ManualRule.EVERYONE
    position: tuple[float, float] | None = None
    """Degrees of latitude and longitude, for the clouds of linked carriers; None: no driver can be beside it."""

    def door(self, gateway: GatewayId, own: frozenset[Sensor] = frozenset()) -> Door:
        """Return the door of this gateway; ``own``: the sensors that its strike has by itself."""
        return Door(
            id=self.given_id or door_id_of(gateway, self.key),
            name=self.name,
            access_time=self.access_time,
            hours=self.hours,
            sensors=frozenset(self.inputs) | own,
            relock=self.relock,
            held_open_time=self.held_open_time,
            pre_alarm_time=self.pre_alarm_time,
            on_power_loss=self.on_power_loss,
            manual=self.manual,
        )


@dataclass(frozen=True, slots=True)
class Config:
    """A gateway."""

    name: str
    state: Path
    """The folder that survives a power cut."""
    boards: Mapping[str, BoardConfig]
    doors: tuple[DoorConfig, ...]
    listen: Listen = Listen()
    persons_kept: int = PERSONS_KEPT[0]
    """Days."""
    log: LogFormat = LogFormat.TEXT
    button: InputConfig | None = None
    """Pressed, it approves what waits for somebody who is there."""
    fire: InputConfig | None = None
    time_zone: str | None = None
    """Where the doors are, of the IANA database; None: as the policy has it."""


def read_config(path: Path) -> Config:
    """Return what a file says; raise ConfigError, or OSError. Relative paths in it begin at its own folder."""
    return _config(Table.read(path))


def parse_config(text: str, path: Path) -> Config:
    """Return what ``text``, which is from ``path``, says; raise ConfigError."""
    return _config(Table.parse(text, path))


def _config(top: Table) -> Config:
    top.only("name", "state", "listen", "board", "door", "persons_kept", "log", "button", "fire", "time_zone")
    boards = read_boards(top)
    doors = tuple(_door(key, table, boards) for key, table in top.tables("door").items())
    if not doors:
        raise top.error("door", "a gateway has at least one door: [door.NAME]")
    config = Config(
        name=top.text("name", _is_name, _A_NAME),
        state=top.path("state"),
        boards=boards,
        doors=doors,
        listen=_listen(top.table("listen", {})),
        persons_kept=top.number("persons_kept", "30 or 90 (days)", PERSONS_KEPT[0]),
        log=top.word("log", LogFormat, LogFormat.TEXT),
        button=read_input(top.table("button"), boards) if top.has("button") else None,
        fire=read_input(top.table("fire"), boards) if top.has("fire") else None,
        time_zone=top.text("time_zone", _is_zone, 'a time zone: "Europe/Berlin"') if top.has("time_zone") else None,
    )
    if config.persons_kept not in PERSONS_KEPT:
        raise top.error("persons_kept", "this has to be 30 or 90 (days)")
    _distinct(top, config)
    return config


def _listen(table: Table) -> Listen:
    table.only("host", "port", "announce", "hosts")
    return Listen(
        host=table.text("host", _is_address, 'an IP address of this machine, or "" for all of them', ""),
        port=table.number("port", "a port, 1 to 65535", DEFAULT_PORT, least=1, most=65535),
        announce=table.switch("announce", True),
        hosts=table.texts("hosts", lambda host: bool(_HOST.fullmatch(host)), "a list of host names in lower case"),
    )


def _door(key: str, table: Table, boards: Mapping[str, BoardConfig]) -> DoorConfig:
    if not _DOOR_KEY.fullmatch(key):
        raise table.error("name", "the name in brackets has to be 1 to 32 lower-case letters, digits, - and _")
    table.only(*_DOOR_KEYS)
    held_open_time = table.seconds("held_open_time", *_HELD_OPEN_TIME) if table.has("held_open_time") else None
    pre_alarm_time = table.seconds("pre_alarm_time", 0, _HELD_OPEN_TIME[1], 0.0)
    if pre_alarm_time and (held_open_time is None or pre_alarm_time >= held_open_time):
        raise table.error("pre_alarm_time", "this has to be less than held_open_time")
    door = DoorConfig(
        key=key,
        relay=read_relay(table.table("relay"), boards),
        inputs={sensor: read_input(table.table(sensor), boards) for sensor in Sensor if table.has(sensor)},
        name=table.text("name", _is_name, _A_NAME),
        access_time=table.seconds("access_time", *_ACCESS_TIME),
        given_id=door_id(table.text("id", _is_door_id, 'the id of a door: "door:..."')) if table.has("id") else None,
        hours=tuple(_hours(row) for row in table.rows("hours")),
        relock=table.word("relock", RelockOn, RelockOn.TIMEOUT),
        held_open_time=held_open_time,
        pre_alarm_time=pre_alarm_time,
        on_power_loss=table.word("on_power_loss", OnPowerLoss, OnPowerLoss.FAIL_SECURE),
        release_on_fire=table.switch("release_on_fire"),
        manual=table.word("manual", ManualRule, ManualRule.EVERYONE),
        position=_position(table),
    )
    if door.release_on_fire and door.on_power_loss is not OnPowerLoss.FAIL_SAFE:
        raise table.error(
            "release_on_fire", 'only for a door whose lock opens without power: on_power_loss = "fail_safe"'
        )
    if door.release_on_fire and door.manual is ManualRule.NOBODY:
        raise table.error("release_on_fire", 'not for a door with manual = "nobody", which is never held open')
    if Sensor.CONTACT not in door.inputs and not door.relay.is_radio:
        for key, wants in (("held_open_time", held_open_time), ("relock", door.relock is not RelockOn.TIMEOUT)):
            if wants:
                raise table.error(key, "only for a door with a contact that says when it opens")
    return door


def _position(table: Table) -> tuple[float, float] | None:
    if not (table.has("latitude") or table.has("longitude")):
        return None
    return table.degrees("latitude", 90), table.degrees("longitude", 180)


def _distinct(top: Table, config: Config) -> None:
    """Refuse two uses of one thing, and what has no use."""
    _distinct_boards(top, config)
    relays: dict[RelayConfig, str] = {}
    ids: dict[DoorId, str] = {}
    inputs: dict[tuple[str, int], str] = {}
    uses = [(top, name, what) for name in ("button", "fire") if (what := getattr(config, name)) is not None]
    doors = top.table("door")
    for door in config.doors:
        table = doors.table(door.key)
        if isinstance(door.relay, ChannelConfig) and (other := relays.setdefault(door.relay, door.key)) != door.key:
            raise table.error("relay", f"this relay is taken by [door.{other}]")
        if door.given_id is not None and (other := ids.setdefault(door.given_id, door.key)) != door.key:
            raise table.error("id", f"this is the id of [door.{other}]")
        if door.release_on_fire and config.fire is None:
            raise table.error("release_on_fire", "there is no [fire] input")
        uses += [(table, sensor.value, what) for sensor, what in door.inputs.items()]
    for table, name, what in uses:
        used_as = ".".join((*table.place, name))
        if (other := inputs.setdefault((what.board, what.input), used_as)) != used_as:
            raise table.error(name, f"this input is taken by [{other}]")


def _distinct_boards(top: Table, config: Config) -> None:
    """Refuse one board under two names: two doors could have one of its relays."""
    boards: dict[tuple[object, int, int], str] = {}
    for name, board in config.boards.items():
        if not isinstance(board, MemoryConfig):
            unit, same = (
                (board.unit, "host, port and unit") if isinstance(board, ModbusConfig) else (0, "host and port")
            )
            place = (ipaddress.ip_address(board.host), board.port, unit)
            if (other := boards.setdefault(place, name)) != name:
                tables = top.table("board")
                line = tables.table(other).line("host")
                raise tables.table(name).error(
                    "host", f"this board is [board.{other}] already (line {line}): {same} are the same"
                )


def _hours(row: Table) -> Hours:
    row.only("days", "from", "to")
    days = row.texts("days", {*Day}.__contains__, "days: a list of " + ", ".join(f'"{day}"' for day in Day))
    if not days:
        raise row.error("days", "this is missing")
    return Hours(frozenset(Day(day) for day in days), _clock(row, "from"), _clock(row, "to"))


def _clock(row: Table, key: str) -> time:
    text = row.text(key, lambda text: bool(_CLOCK.fullmatch(text)) and text < "24:00", 'a time of the day: "08:00"')
    return time.fromisoformat(text)


_A_NAME: Final = f"a name, 1 to {LONGEST_NAME} characters"


def _is_name(text: str) -> bool:
    return 0 < len(text.strip()) <= len(text) <= LONGEST_NAME and text.isprintable()


def _is_zone(text: str) -> bool:
    try:
        return Policy(text, ()).tz is not None
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        return not text or bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _is_door_id(text: str) -> bool:
    try:
        return bool(door_id(text))
    except ValueError:
        return False
