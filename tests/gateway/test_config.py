"""gateway.toml: what it may say, and how it is told what is wrong."""

from __future__ import annotations

from datetime import time
from pathlib import Path

import pytest

from gateway.config import Config, Listen, parse_config, read_config
from gateway.log import LogFormat
from gateway.relay.config import BleConfig, ChannelConfig, InputConfig, MemoryConfig
from gateway.state import door_id_of
from gateway.toml_table import ConfigError
from vestibule_core.api.messages import GatewayId, new_gateway_id
from vestibule_core.hours import Day, Hours
from vestibule_core.model import ManualRule, OnPowerLoss, RelockOn, Sensor

FILE = Path("/etc/vestibule/gateway.toml")
EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "gateway.example.toml"
GATEWAY = GatewayId(new_gateway_id(bytes(16)))
LEAST = """
name = "Parcel room"
state = "/var/lib/vestibule-gateway"

[board.b]
kind = "memory"

[door.gate]
name = "Gate"
access_time = 5
relay = { board = "b", channel = 1 }
"""


def parse(text: str) -> Config:
    return parse_config(text, FILE)


def test_the_least_that_a_gateway_needs():
    config = parse(LEAST)
    assert config.boards == {"b": MemoryConfig()}
    assert config.listen == Listen(host="", port=7443, announce=True, hosts=())
    assert (config.persons_kept, config.log, config.button, config.fire) == (30, LogFormat.TEXT, None, None)
    (gate,) = config.doors
    assert (gate.key, gate.relay, gate.inputs) == ("gate", ChannelConfig("b", 1), {})
    door = gate.door(GATEWAY)
    assert (door.name, door.access_time, door.sensors) == ("Gate", 5.0, frozenset())
    assert (door.on_power_loss, door.manual, door.relock) == (
        OnPowerLoss.FAIL_SECURE,
        ManualRule.EVERYONE,
        RelockOn.TIMEOUT,
    )


def test_the_example_is_a_good_one_and_names_every_key():
    config = read_config(EXAMPLE)
    parcel, yard, bins = config.doors
    assert parcel.inputs[Sensor.TAMPER] == InputConfig("parcel", 3, inverted=True)
    assert parcel.door(GATEWAY).sensors == {Sensor.CONTACT, Sensor.REX, Sensor.TAMPER}
    assert parcel.hours[1] == Hours(frozenset({Day.SATURDAY}), time(8), time(14))
    assert yard.release_on_fire
    assert bins.relay == BleConfig(keep_connected=True)
    assert config.button == InputConfig("parcel", 7)
    assert config.fire == InputConfig("parcel", 8)


def test_a_door_has_the_same_id_for_life_and_another_one_at_each_gateway():
    """Renaming it for people changes nothing; the name in brackets is the door."""
    (door,), (renamed,) = parse(LEAST).doors, parse(LEAST.replace('"Gate"', '"Garage"')).doors
    assert door.door(GATEWAY).id == renamed.door(GATEWAY).id == door_id_of(GATEWAY, "gate")
    other = new_gateway_id(b"\x01" * 16)
    assert len({door_id_of(GATEWAY, "gate"), door_id_of(GATEWAY, "gate2"), door_id_of(other, "gate")}) == 3


def test_a_door_can_be_given_its_id():
    """One that was another controller's before."""
    given = door_id_of(GATEWAY, "from elsewhere")
    (door,) = parse(LEAST + f'id = "{given}"').doors
    assert door.door(GATEWAY).id == given


def test_a_relative_path_begins_at_the_files_own_folder():
    config = parse(LEAST.replace('"/var/lib/vestibule-gateway"', '"state"'))
    assert config.state == Path("/etc/vestibule/state")


CONTACT = 'contact = { board = "b", input = 1 }\n'
FIRE = '[fire]\nboard = "b"\ninput = 1\n'
SECOND = '[door.two]\nname = "Two"\naccess_time = 1\nrelay = { board = "b", channel = 2 }\n'
WRONG = [
    # what is in the file, the line, what is said about it
    (LEAST.replace('"Gate"', '"Gate'), 9, "Illegal character"),
    (LEAST.replace("state", "sate"), 3, 'sate: this key is not known; the nearest one is "state"'),
    (LEAST.replace('name = "Parcel room"', ""), 1, "name: this is missing"),
    (LEAST.replace('"Parcel room"', '"  "'), 2, "name: this has to be a name, 1 to 64 characters"),
    (LEAST.replace('"Parcel room"', r'"a\nb"'), 2, "name: this has to be a name, 1 to 64 characters"),
    (LEAST.partition("[door")[0], 1, "door: a gateway has at least one door: [door.NAME]"),
    ("persons_kept = 60\n" + LEAST, 1, "persons_kept: this has to be 30 or 90 (days)"),
    ('log = "xml"\n' + LEAST, 1, 'log: this has to be one of "text", "json"'),
    (LEAST + "[listen]\nport = 65536", 13, "listen.port: this has to be a port, 1 to 65535"),
    (LEAST + '[listen]\nhost = "gateway"', 13, "listen.host: this has to be an IP address"),
    (LEAST + "[listen]\nhosts = [1]", 13, "listen.hosts: this has to be a list of host names"),
    (LEAST + "[listen]\nannounce = 1", 13, "listen.announce: this has to be true or false"),
    (LEAST.replace("door.gate", "door.Gate"), 9, "door.Gate.name: the name in brackets has to be 1 to 32 lower-case"),
    (LEAST.replace("access_time = 5", ""), 8, "door.gate.access_time: this is missing"),
    (LEAST.replace("time = 5", "time = 31"), 10, "door.gate.access_time: this has to be 0.5 to 30 seconds"),
    (LEAST.replace("time = 5", "time = true"), 10, "door.gate.access_time: this has to be 0.5 to 30 seconds"),
    (LEAST.replace("time = 5", "time = nan"), 10, "door.gate.access_time: this has to be 0.5 to 30 seconds"),
    (
        LEAST.replace('board = "b"', 'board = "c"'),
        11,
        'door.gate.relay.board: this has to be the name of a board ("b")',
    ),
    (LEAST.replace("channel = 1", "channel = 9"), 11, "door.gate.relay.channel: this has to be 1 to 8"),
    (LEAST.replace('{ board = "b", channel = 1 }', "1"), 11, "door.gate.relay: this has to be a table"),
    (LEAST + 'id = "door:x"', 12, "door.gate.id: this has to be the id of a door"),
    (LEAST + "held_open_time = 60", 12, "door.gate.held_open_time: only for a door with a contact"),
    (LEAST + 'relock = "close"', 12, "door.gate.relock: only for a door with a contact"),
    (LEAST + CONTACT + "pre_alarm_time = 5", 13, "door.gate.pre_alarm_time: this has to be less than held_open_time"),
    (LEAST + CONTACT + "held_open_time = 5\npre_alarm_time = 5", 14, "this has to be less than held_open_time"),
    (LEAST + 'manual = "root"', 12, 'door.gate.manual: this has to be one of "everyone"'),
    (
        LEAST + 'hours = [{ days = ["mon"], from = "8:00", to = "9:00" }]',
        12,
        "door.gate.hours.1.from: this has to be a",
    ),
    (LEAST + 'hours = [{ days = ["mon"], from = "08:00", to = "24:00" }]', 12, "hours.1.to: this has to be a time of"),
    (LEAST + 'hours = [{ days = ["mo"], from = "08:00", to = "09:00" }]', 12, "door.gate.hours.1.days: this has to be"),
    (LEAST + 'hours = [{ days = [], from = "08:00", to = "09:00" }]', 12, "door.gate.hours.1.days: this is missing"),
    (LEAST + "hours = true", 12, "door.gate.hours: this has to be a list of tables"),
    (LEAST + "release_on_fire = true", 12, "door.gate.release_on_fire: only for a door whose lock opens without power"),
    (LEAST + 'on_power_loss = "fail_safe"\nrelease_on_fire = true', 13, "release_on_fire: there is no [fire] input"),
    (LEAST + 'manual = "nobody"\non_power_loss = "fail_safe"\nrelease_on_fire = true', 14, "never held open"),
    (LEAST + SECOND.replace("= 2", "= 1"), 15, "door.two.relay: this relay is taken by [door.gate]"),
    (LEAST + CONTACT + FIRE, 12, "door.gate.contact: this input is taken by [fire]"),
    (LEAST + CONTACT + SECOND + CONTACT, 17, "door.two.contact: this input is taken by [door.gate.contact]"),
    (
        LEAST + CONTACT.replace("contact", "rex") + CONTACT,
        12,
        "door.gate.rex: this input is taken by [door.gate.contact]",
    ),
]


@pytest.mark.parametrize(
    "text, line, said", WRONG, ids=[f"{row[2].partition(': ')[0]}-{n}" for n, row in enumerate(WRONG)]
)
def test_a_mistake_is_named_with_its_line_and_key(text, line, said):
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert str(error.value).startswith(f"{FILE}, line {line}: ")
    assert said in str(error.value)


def test_two_doors_do_not_share_an_id():
    given = f'id = "{door_id_of(GATEWAY, "x")}"\n'
    with pytest.raises(ConfigError, match=r"line 17: door\.two\.id: this is the id of \[door\.gate\]"):
        parse(LEAST + given + SECOND + given)


BOARD = """
[board.{name}]
kind = "modbus"
host = "{host}"
"""


@pytest.mark.parametrize("one, other", [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8:0::7")])
def test_one_board_under_two_names_would_have_one_relay_for_two_doors(one, other):
    boards = BOARD.format(name="one", host=one) + BOARD.format(name="two", host=other)
    with pytest.raises(ConfigError, match=r"board\.two\.host: this board is \[board\.one\] already \(line 15\)"):
        parse(LEAST + boards)
    assert parse(LEAST + boards + "unit = 2\n").boards.keys() == {"b", "one", "two"}


# ---- for linked carriers ----


def test_a_door_may_have_a_position_and_the_gateway_a_time_zone():
    config = read_config(EXAMPLE)
    assert [door.position for door in config.doors] == [(52.52, 13.405), None, None]
    assert config.time_zone == "Europe/Berlin"
    assert parse(LEAST).time_zone is None


@pytest.mark.parametrize(
    "more, line, key",
    [
        ("latitude = 52.5", 8, "longitude: this is missing"),
        ("longitude = 13", 8, "latitude: this is missing"),
        ("latitude = 90.1\nlongitude = 0", 12, "latitude: this has to be degrees, -90 to 90"),
        ("latitude = 0\nlongitude = -181", 13, "longitude: this has to be degrees, -180 to 180"),
        ("latitude = nan\nlongitude = 0", 12, "latitude: this has to be degrees, -90 to 90"),
        ('latitude = "52"\nlongitude = 0', 12, "latitude: this has to be degrees, -90 to 90"),
    ],
)
def test_half_a_position_or_none_on_earth_is_refused(more, line, key):
    with pytest.raises(ConfigError) as refused:
        parse(LEAST + more)
    assert f"line {line}: door.gate.{key}" in str(refused.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "Europe", "", "../etc/passwd"])
def test_a_time_zone_that_is_not_known_is_refused(zone):
    with pytest.raises(ConfigError, match="line 2: time_zone: this has to be a time zone"):
        parse(f'\ntime_zone = "{zone}"\n{LEAST}')
