"""What the entry says, in the words of the core: each thing that is stored, and each that cannot be read."""

from __future__ import annotations

import json
from datetime import UTC, time
from time import time as seconds
from types import MappingProxyType
from zoneinfo import ZoneInfo

import pytest
from homeassistant.config_entries import ConfigSubentry
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.vestibule.building import (
    BuildingSetup,
    DoorSetup,
    PersonsKept,
    RadioStrike,
    Relay,
    RelayDomain,
    ReleasesWhen,
    Returns,
    building_of,
    stored_strike,
)
from custom_components.vestibule.const import DOMAIN
from custom_components.vestibule.vestibule_core.doorstrike.wire import Caps
from custom_components.vestibule.vestibule_core.hours import Day, Hours
from custom_components.vestibule.vestibule_core.keys import KeyStatus, SigningKey
from custom_components.vestibule.vestibule_core.model import (
    Door,
    ManualRule,
    OnPowerLoss,
    RelockOn,
    Sensor,
    new_door_id,
)
from custom_components.vestibule.vestibule_core.pin import Pin
from custom_components.vestibule.vestibule_core.policy import Carrier, EvidenceLimits
from custom_components.vestibule.vestibule_core.token import DriverProof
from tests.link_cloud import DAY, Key, LinkCloud, b64

DOOR, OTHER_DOOR = new_door_id(bytes(16)), new_door_id(bytes(15) + b"\1")
KEY = SigningKey.generate()

DOOR_DATA = {
    "door": DOOR,
    "relay": "switch.strike",
    "access_time": 5,
    "releases_when": "on",
    "returns": "by_vestibule",
    "reports": True,
}
STRIKE = RadioStrike(
    strike_id=bytes.fromhex("a1b2c3d4e5f60718"),
    slot=2,
    psk=bytes(range(32)),
    next_psk=None,
    version=1,
    caps=Caps.CONTACT | Caps.TAMPER | Caps.BATTERY,
    keep_connected=True,
    address="C0:FF:EE:C0:FF:EE",
    heard=7,
)
STRIKE_DOOR_DATA = {"door": DOOR, "access_time": 5, "strike": stored_strike(STRIKE)}
CARRIER_DATA = {
    "issuer": "https://parcel.example",
    "jwk_set": json.dumps({"keys": [KEY.jwk()]}),
    "revoked": [],
    "doors": [DOOR],
    "methods": ["passkey"],
    "distance": 75,
    "accuracy": 50,
    "position_age": 30,
    "request_age": 120,
    "intake_key_sha256": "ab" * 32,
}


def read(*subentries: tuple[str, dict], zone=UTC, **data) -> BuildingSetup:
    """Read an entry with these subentries: each a kind and its data. Its title is ``kind`` and its number."""
    return building_of(
        MockConfigEntry(
            domain=DOMAIN,
            data=data,
            subentries_data=[
                ConfigSubentry(
                    data=MappingProxyType(data), subentry_type=kind, title=f"{kind} {number}", unique_id=str(number)
                ).as_dict()
                for number, (kind, data) in enumerate(subentries, 1)
            ],
        ),
        zone,
    )


def read_door(**changes) -> DoorSetup | None:
    """Read a door; None if it cannot be read."""
    setup = read(("door", DOOR_DATA | changes))
    assert setup.doors.keys() == setup.building.doors.keys()
    assert len(setup.doors) + len(setup.unreadable) == 1
    return setup.doors.get(DOOR)


def read_carrier(**changes) -> Carrier | None:
    """Read a carrier; None if it cannot be read."""
    setup = read(("carrier", CARRIER_DATA | changes))
    assert len(setup.building.carriers) + len(setup.unreadable) == 1
    assert len(setup.intake_keys) == len(setup.building.carriers)
    return next(iter(setup.building.carriers.values()), None)


# ---- the building ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, days, why",
    [
        ({}, 30, "of before there was a choice"),
        ({"persons_kept": "days_30"}, 30, "chosen"),
        ({"persons_kept": "days_90"}, 90, "chosen"),
        ({"persons_kept": "days_180"}, 90, "of a newer version: what it keeps is not deleted in haste"),
        ({"persons_kept": None}, 90, "edited by hand"),
        ({"persons_kept": ["days_30"]}, 90, "edited by hand"),
    ],
)
def test_how_long_persons_are_kept(data, days, why):
    assert read(**data).persons_kept.days == days, why


def test_a_choice_is_named_after_its_days():
    assert {kept.value: kept.days for kept in PersonsKept} == {"days_30": 30, "days_90": 90}


# ---- doors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored, position",
    [
        (None, None),
        ({"latitude": 52.5, "longitude": -13}, (52.5, -13.0)),
        ({"latitude": "52.5", "longitude": 180, "radius": 3}, (52.5, 180.0)),
    ],
)
def test_a_door_may_be_somewhere_else_than_home_assistant(stored, position):
    assert read_door(position=stored).position == position


@pytest.mark.parametrize(
    "stored",
    [{"latitude": 91, "longitude": 0}, {"latitude": 0, "longitude": float("nan")}, {"latitude": 0}, [1], "here"],
)
def test_a_door_that_is_nowhere_on_earth_cannot_be_read(stored):
    assert read_door(position=stored) is None


def test_a_door_without_anything_optional_is_a_plain_one():
    setup = read_door()
    assert setup.door == Door(DOOR, "door 1", 5.0)
    assert setup.sensors == {}
    assert setup.relay == Relay(
        "switch.strike", ReleasesWhen.ON, Returns.BY_VESTIBULE, reports=True, domain=RelayDomain.SWITCH
    )


def test_a_door_with_everything():
    setup = read_door(
        relay_domain="cover",
        hours=[{"days": ["mon", "sun"], "from": "22:00:00", "to": "06:30:00"}],
        contact="binary_sensor.contact",
        rex="0123456789abcdef0123456789abcdef",
        tamper="binary_sensor.tamper",
        lock_monitor="binary_sensor.bolt",
        relock="close",
        held_open_time=60.0,
        pre_alarm_time=15.0,
        on_power_loss="fail_safe",
        manual="administrators",
        pin={"salt": "01" * 16, "digest": "02" * 32},
    )
    assert setup.door == Door(
        id=DOOR,
        name="door 1",
        access_time=5.0,
        hours=(Hours(frozenset({Day.MONDAY, Day.SUNDAY}), time(22), time(6, 30)),),
        sensors=frozenset(Sensor),
        relock=RelockOn.CLOSE,
        held_open_time=60.0,
        pre_alarm_time=15.0,
        on_power_loss=OnPowerLoss.FAIL_SAFE,
        manual=ManualRule.ADMINISTRATORS,
        pin=Pin(b"\1" * 16, b"\2" * 32),
    )
    assert setup.relay.domain is RelayDomain.COVER
    assert setup.sensors == {
        Sensor.CONTACT: "binary_sensor.contact",
        Sensor.REX: "0123456789abcdef0123456789abcdef",
        Sensor.TAMPER: "binary_sensor.tamper",
        Sensor.LOCK_MONITOR: "binary_sensor.bolt",
    }


@pytest.mark.parametrize(
    "emptied", [{"hours": None}, {"hours": []}, {"contact": None}, {"pin": None}, {"held_open_time": None}]
)
def test_what_is_empty_is_not_there(emptied):
    assert read_door(**emptied).door == Door(DOOR, "door 1", 5.0)


@pytest.mark.parametrize("domain", ["switch", "button", "input_button", "lock", "cover"])
def test_what_can_drive_a_lock(domain):
    assert read_door(relay_domain=domain).relay.domain == domain


def test_a_fail_safe_switch_releases_when_it_is_off():
    assert read_door(releases_when="off").relay.releases_when is ReleasesWhen.OFF


ROW = {"days": ["mon"], "from": "08:00:00", "to": "18:00:00"}


@pytest.mark.parametrize(
    "damage",
    [
        {"door": "door:x"},
        {"door": None},
        {"access_time": None},
        {"access_time": "soon"},
        {"access_time": 0},
        {"access_time": -1},
        {"access_time": float("nan")},  # it would never be over
        {"access_time": float("inf")},
        {"releases_when": "sometimes"},
        {"returns": None},
        {"relay_domain": "light"},
        {"relay_domain": "lock", "releases_when": "off"},
        {"relay_domain": "cover", "releases_when": "off"},
        {"relay_domain": "button", "releases_when": "off"},
        {"relock": "never"},
        {"on_power_loss": "explodes"},
        {"manual": "friends"},
        {"held_open_time": -1},
        {"held_open_time": "long"},
        {"held_open_time": 15, "pre_alarm_time": 15},
        {"held_open_time": 60, "pre_alarm_time": float("nan")},
        {"hours": 7},
        {"hours": ["mon"]},
        {"hours": [ROW | {"days": ["monday"]}]},
        {"hours": [ROW | {"days": None}]},
        {"hours": [ROW | {"from": "8 o'clock"}]},
        {"hours": [ROW | {"to": 18}]},
        {"hours": [ROW | {"to": "18:00:00+02:00"}]},  # the building has a time zone
        {"hours": [ROW, {"days": ["tue"], "from": "08:00:00"}]},
        {"pin": "1234"},
        {"pin": {"salt": "01" * 16}},
        {"pin": {"salt": "01" * 16, "digest": "not hexadecimal"}},
    ],
)
def test_a_door_that_cannot_be_read_is_left_out_and_named(damage):
    assert read_door(**damage) is None
    setup = read(("door", DOOR_DATA | {"door": OTHER_DOOR}), ("door", DOOR_DATA | damage))
    assert setup.doors.keys() == {OTHER_DOOR}
    assert list(setup.unreadable.values()) == ["door 2"]


@pytest.mark.parametrize("lost", DOOR_DATA)
def test_a_door_that_lost_something_is_left_out(lost):
    assert read(("door", {name: value for name, value in DOOR_DATA.items() if name != lost})).doors == {}


def test_of_two_doors_with_one_id_the_first_stays():
    setup = read(("door", DOOR_DATA), ("door", DOOR_DATA | {"relay": "switch.other"}))
    assert setup.doors[DOOR].relay.entity == "switch.strike"
    assert list(setup.unreadable.values()) == ["door 2"]


# ---- carriers -------------------------------------------------------------------------------------------------------


def test_a_carrier_without_anything_optional_may_come_at_any_time_as_often_as_it_likes():
    carrier = read_carrier()
    assert (carrier.name, carrier.issuer, carrier.doors) == ("carrier 1", "https://parcel.example", {DOOR})
    assert (carrier.hours, carrier.rate) == ((), None)
    assert carrier.limits == EvidenceLimits(frozenset({DriverProof.PASSKEY}), 75, 50, 30, 120)
    assert [key.kid for key in carrier.keys] == [KEY.kid]


def test_a_carrier_with_hours_a_rate_and_a_revoked_key():
    carrier = read_carrier(hours=[ROW], rate=12, revoked=[KEY.kid])
    assert carrier.hours == (Hours(frozenset({Day.MONDAY}), time(8), time(18)),)
    assert carrier.rate == 12
    assert [key.status for key in carrier.keys] == [KeyStatus.REVOKED]


def test_no_rate_at_all_is_no_limit():
    assert read_carrier(rate=None).rate is None


@pytest.mark.parametrize(
    "damage",
    [
        {"issuer": "parcel.example"},
        {"jwk_set": "broken"},
        {"jwk_set": None},
        {"revoked": None},
        {"doors": ["door:x"]},
        {"methods": ["password"]},
        {"distance": "far"},
        {"hours": [ROW | {"from": None}]},
        {"rate": "often"},
    ],
)
def test_a_carrier_that_cannot_be_read_is_left_out_and_named(damage):
    assert read_carrier(**damage) is None


@pytest.mark.parametrize("lost", CARRIER_DATA)
def test_a_carrier_that_lost_something_is_left_out_whole(lost):
    setup = read(("carrier", {name: value for name, value in CARRIER_DATA.items() if name != lost}))
    assert list(setup.unreadable.values()) == ["carrier 1"]
    assert setup.building.carriers == {}
    assert setup.intake_keys == {}


def test_a_carrier_that_takes_anothers_key_or_issuer_is_left_out():
    other_key = json.dumps({"keys": [SigningKey.generate().jwk()]})
    setup = read(
        ("carrier", CARRIER_DATA),
        ("carrier", CARRIER_DATA | {"issuer": "https://other.example"}),
        ("carrier", CARRIER_DATA | {"jwk_set": other_key}),
    )
    assert setup.building.carriers.keys() == {"https://parcel.example"}
    assert list(setup.unreadable.values()) == ["carrier 2", "carrier 3"]


def test_a_carrier_is_known_by_its_intake_key():
    assert read(("carrier", CARRIER_DATA)).intake_keys == {"ab" * 32: "https://parcel.example"}


# ---- the building ---------------------------------------------------------------------------------------------------


def test_hours_are_meant_in_the_zone_of_the_building():
    zone = ZoneInfo("Europe/Berlin")
    assert read(zone=zone).building.zone is zone


def test_what_a_newer_version_added_is_no_matter_of_ours():
    setup = read(("door", DOOR_DATA | {"colour": "green"}), ("gateway", {"host": "192.0.2.1"}))
    assert setup.doors.keys() == {DOOR}
    assert setup.unreadable == {}


# ---- strikes --------------------------------------------------------------------------------------------------------


def test_a_strike_is_read_as_it_was_stored():
    setup = read(("door", STRIKE_DOOR_DATA)).doors[DOOR]
    assert setup.relay == STRIKE
    assert (setup.relay.address, setup.relay.heard) == (STRIKE.address, STRIKE.heard)
    assert json.loads(json.dumps(STRIKE_DOOR_DATA)) == STRIKE_DOOR_DATA


def test_a_second_key_is_read_as_well():
    stored = stored_strike(STRIKE) | {"next_psk": "ff" * 32}
    setup = read(("door", STRIKE_DOOR_DATA | {"strike": stored})).doors[DOOR]
    assert setup.relay.next_psk == b"\xff" * 32
    assert stored_strike(setup.relay) == stored


def test_a_strikes_keys_are_not_shown():
    stored = stored_strike(STRIKE) | {"next_psk": "ff" * 32}
    shown = repr(read(("door", STRIKE_DOOR_DATA | {"strike": stored})))
    assert "psk" not in shown
    assert repr(STRIKE.psk) not in shown


def test_a_strike_watches_the_door_along_with_the_chosen_sensors():
    setup = read(("door", STRIKE_DOOR_DATA | {"contact": "binary_sensor.contact", "rex": "binary_sensor.rex"}))
    door = setup.doors[DOOR]
    assert door.door.sensors == {Sensor.CONTACT, Sensor.TAMPER, Sensor.REX}
    assert door.sensors.keys() == {Sensor.CONTACT, Sensor.REX}


@pytest.mark.parametrize(
    "wrong",
    [
        {"strike_id": "a1b2c3d4e5f6"},
        {"strike_id": "strike"},
        {"slot": 0},
        {"slot": 9},
        {"psk": "00"},
        {"psk": None},
        {"next_psk": "00"},
        {"version": 0},
        {"caps": "contact"},
        {"heard": None},
    ],
)
def test_a_strike_that_cannot_be_read_is_left_out(wrong):
    setup = read(("door", STRIKE_DOOR_DATA | {"strike": stored_strike(STRIKE) | wrong}))
    assert (setup.doors, list(setup.unreadable.values())) == ({}, ["door 1"])


def test_a_strike_without_all_that_belongs_to_it_is_left_out():
    for name in stored_strike(STRIKE):
        stored = {key: value for key, value in stored_strike(STRIKE).items() if key != name}
        assert read(("door", STRIKE_DOOR_DATA | {"strike": stored})).doors == {}, name
    assert read(("door", STRIKE_DOOR_DATA | {"strike": None})).doors == {}


def test_two_doors_do_not_share_a_strike():
    setup = read(("door", STRIKE_DOOR_DATA), ("door", STRIKE_DOOR_DATA | {"door": OTHER_DOOR}))
    assert (list(setup.doors), list(setup.unreadable.values())) == ([DOOR], ["door 2"])


# ---- carriers that are linked ---------------------------------------------------------------------------------------


def linked_data(cloud: LinkCloud, **changes) -> dict:
    """What is stored of a carrier that was enrolled by a code."""
    terms = {name: value for name, value in CARRIER_DATA.items() if name not in ("jwk_set", "intake_key_sha256")}
    kept = {"host": "swift.example", "root": cloud.root.public.hex(), "key_set": cloud.key_set(), "dropped": []}
    return terms | {"issuer": cloud.issuer} | kept | changes


def jwk(key: Key) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public)}


def test_a_linked_carrier_is_known_by_its_key_set_each_key_for_its_time_and_has_no_intake_key():
    cloud = LinkCloud()
    setup = read(("carrier", linked_data(cloud)))
    (carrier,) = setup.building.carriers.values()
    (key,) = carrier.keys
    now = seconds()
    assert (key.kid, key.status) == (cloud.signing.kid, KeyStatus.ACTIVE)
    assert [key.opens(now + days * DAY) for days in (-2, 0, 19, 21)] == [False, True, True, False]
    assert setup.intake_keys == {}
    enrolment = setup.enrolments[cloud.issuer]
    assert (enrolment.host, enrolment.published.version, enrolment.root.public) == (
        "swift.example", 1, cloud.root.public,
    )  # fmt: skip


def test_a_key_that_a_newer_set_has_left_out_is_known_as_revoked():
    cloud, old = LinkCloud(), Key()
    (carrier,) = read(("carrier", linked_data(cloud, dropped=[jwk(old)]))).building.carriers.values()
    assert [(key.kid, key.status) for key in carrier.keys] == [
        (cloud.signing.kid, KeyStatus.ACTIVE),
        (old.kid, KeyStatus.REVOKED),
    ]


def test_a_set_that_has_expired_since_is_still_known_and_opens_nothing():
    cloud, now = LinkCloud(), int(seconds())
    text = cloud.key_set(iat=now - 30 * DAY, exp=now - 100)
    (carrier,) = read(("carrier", linked_data(cloud, key_set=text))).building.carriers.values()
    assert not any(key.opens(now) for key in carrier.keys)
    assert all(key.opens(now - 200) for key in carrier.keys)


def test_a_carrier_that_is_locked_out_says_so():
    cloud = LinkCloud()
    carrier = ConfigSubentry(
        data=MappingProxyType(linked_data(cloud)), subentry_type="carrier", title="Swift", unique_id="1"
    )
    entry = MockConfigEntry(domain=DOMAIN, subentries_data=[carrier.as_dict()])
    for locked_out in ({cloud.issuer}, set()):
        (carrier,) = building_of(entry, UTC, (), locked_out).building.carriers.values()
        assert carrier.locked_out is bool(locked_out)


SWIFT = LinkCloud()


@pytest.mark.parametrize(
    "damage",
    [
        {"key_set": ""},
        {"key_set": None},
        {"key_set": SWIFT.key_set(by=SWIFT.signing)},
        {"key_set": SWIFT.key_set(iss="https://other.example")},
        {"key_set": SWIFT.key_set(keys=[])[:-4]},
        {"root": Key().public.hex()},
        {"root": "00" * 32},
        {"root": "x"},
        {"issuer": "https://other.example"},
        {"issuer": "swift"},
        {"dropped": [{"kty": "OKP"}]},
        {"dropped": "x"},
    ],
)
def test_a_linked_carrier_that_cannot_be_read_is_left_out_whole(damage):
    setup = read(("carrier", linked_data(SWIFT, **damage)), ("door", DOOR_DATA))
    assert (setup.building.carriers, setup.enrolments) == ({}, {})
    assert list(setup.unreadable.values()) == ["carrier 1"]
    assert setup.doors, "and the rest is there"


@pytest.mark.parametrize("lost", ["root", "key_set", "dropped", "doors", "methods"])
def test_a_linked_carrier_that_lost_something_is_left_out_whole(lost):
    data = linked_data(SWIFT)
    del data[lost]
    assert read(("carrier", data)).building.carriers == {}


def test_no_carrier_can_have_the_key_of_one_that_is_linked():
    """Attack 78: whichever way it is named."""
    pasted = CARRIER_DATA | {"jwk_set": json.dumps({"keys": [jwk(SWIFT.signing)]})}
    other = LinkCloud("https://other.example")
    other.signing = SWIFT.signing
    setup = read(("carrier", linked_data(SWIFT)), ("carrier", pasted), ("carrier", linked_data(other)))
    assert setup.building.carriers.keys() == setup.enrolments.keys() == {SWIFT.issuer}
    assert list(setup.unreadable.values()) == ["carrier 2", "carrier 3"]
