"""What the building allows, whatever a cloud has signed: protocol A.2 steps 7 to 10."""

from dataclasses import replace
from datetime import UTC, time
from zoneinfo import ZoneInfo

import pytest

from tests.simulated import ISSUED_AT, Carrier, some_doors
from vestibule_core import challenge, policy, token
from vestibule_core.door import Alarm, DoorState, Lock
from vestibule_core.history import History
from vestibule_core.hours import Day, Hours
from vestibule_core.model import Code, Decision, DoorMode, Limit, Now, Sense, Word
from vestibule_core.policy import Building, EvidenceLimits
from vestibule_core.token import DriverProof

DOOR, OTHER_DOOR = some_doors(2)
SECRET, BOOT = bytes(32), 1000.0


def judge(
    *,
    limits=None,
    door=DOOR,
    spent=False,
    is_spent=False,
    boot=BOOT,
    doors=(DOOR, OTHER_DOOR),
    elsewhere=(),
    state=DoorState(),  # noqa: B008 - frozen
    hours=(),
    rate=None,
    accepted=(),
    zone=UTC,
    wall=ISSUED_AT,
    newest=0.0,
    spoilt=lambda admitted: admitted,
    **claims,
):
    """Judge a good token for ``door``, of a carrier that was granted DOOR; the first keywords say what is wrong."""
    carrier = Carrier(doors=[DOOR], limits=limits, hours=hours, rate=rate)
    nonce = challenge.make(SECRET, door.id, carrier.issuer, BOOT, b"salt")
    unlock = token.verify(carrier.token(nonce, aud=door.id, **claims), {k.kid: k for k in carrier.trusted}, None)
    history = History()
    if spent:
        history.remember(unlock.spend_key)
    for at in accepted:
        history.count(carrier.issuer, door.id, at)
    building = Building.of(doors, [spoilt(carrier.admitted)], zone=zone, elsewhere=[door.id for door in elsewhere])
    known = state if door.id in building.doors else None
    return policy.judge(unlock, building, known, history, newest, SECRET, Now(wall, boot), is_spent=is_spent)


def timed(valid_from=0, valid_until=None):
    """What makes a carrier's keys good for a time only."""
    return lambda admitted: replace(
        admitted,
        keys=tuple(replace(key, valid_from=valid_from, valid_until=valid_until) for key in admitted.keys),
    )


def gps(d=75, acc=50, age=30):
    return {"d": d, "acc": acc, "age": age}


def test_a_door_that_the_carrier_was_granted_opens():
    assert judge() is None


# ---- the key's time, and a carrier that is locked out ----


@pytest.mark.parametrize(
    "times, is_good",
    [
        ((0, None), True),
        ((ISSUED_AT, ISSUED_AT + 1), True),
        ((ISSUED_AT + 1, None), False),
        ((0, ISSUED_AT), False),
    ],
)
def test_36_a_key_opens_nothing_outside_of_its_time(times, is_good):
    assert judge(spoilt=timed(*times)) == (None if is_good else Decision(Code.KEY_REVOKED, DOOR.id))


def test_36_a_key_that_was_taken_away_since_the_signature_was_verified_opens_nothing():
    assert judge(spoilt=lambda admitted: replace(admitted, keys=())) == Decision(Code.KEY_REVOKED, DOOR.id)


def test_70_a_carrier_that_is_locked_out_opens_nothing_and_is_told_so():
    refused = judge(spoilt=lambda admitted: replace(admitted, locked_out=True))
    assert refused == Decision(Code.CARRIER_LOCKED_OUT, DOOR.id)
    assert (Code.CARRIER_LOCKED_OUT.word, Code.CARRIER_LOCKED_OUT.told) == (Word.REFUSED, "CARRIER_LOCKED_OUT")


def test_the_checks_come_in_the_order_of_the_protocol():
    """Of all that is wrong the first is told, and each that is put right uncovers the next."""
    shut = {"mode": DoorMode.LOCKED_DOWN, "accepts_deliveries": False, "tampered": True}
    wrong = {
        "doors": [],
        "elsewhere": [OTHER_DOOR],
        "door": OTHER_DOOR,
        "spent": True,
        "boot": BOOT + 61,
        "chk": {"drv": "badge"},
        "hours": NEVER,
        "wall": ISSUED_AT + 121,
        "rate": 1,
        "accepted": [BOOT],
        "state": DoorState(**shut),
    }
    right = [
        {"elsewhere": []},
        {"doors": [DOOR, OTHER_DOOR]},
        {"spent": False},
        {"boot": BOOT},
        {"door": DOOR},
        {"chk": {}},
        {"wall": ISSUED_AT},
        {"hours": ()},
        {"rate": None},
        {"state": DoorState(**shut | {"mode": DoorMode.BLOCKED})},
        {"state": DoorState(**shut | {"mode": DoorMode.NORMAL})},
        {"state": DoorState(tampered=True)},
    ]
    told = []
    for change in right:
        told.append(judge(**wrong).code)
        wrong |= change
    told.append(judge(**wrong).code)
    assert told == [
        Code.NOT_SPENDER,
        Code.WRONG_DOOR,
        Code.ALREADY_SPENT,
        Code.NONCE_EXPIRED,
        Code.POLICY_CARRIER_DOOR,
        Code.POLICY_EVIDENCE,
        Code.CLOCK_UNTRUSTED,
        Code.POLICY_HOURS,
        Code.POLICY_RATE,
        Code.LOCKDOWN,
        Code.DOOR_BLOCKED,
        Code.DELIVERIES_OFF,
        Code.TAMPERED,
    ]
    assert judge(**wrong | {"state": DoorState()}) is None


def test_a_door_of_the_building_whose_tokens_another_controller_spends():
    """Attack 35: the same door must not be spent for in two places."""
    assert judge(doors=[], elsewhere=[DOOR]) == Decision(Code.NOT_SPENDER, DOOR.id)
    assert judge(doors=[OTHER_DOOR], elsewhere=[OTHER_DOOR]) == Decision(Code.WRONG_DOOR, DOOR.id)


def test_a_token_that_is_spent_is_judged_once_more_by_everything_but_its_own_spend():
    """Just before the strike is told: the building may have changed while the disk was written."""
    accepted = {"is_spent": True, "spent": True, "rate": 1, "accepted": [BOOT]}
    assert judge(**accepted) is None
    assert judge(**accepted, state=DoorState(mode=DoorMode.LOCKED_DOWN)).code is Code.LOCKDOWN
    assert judge(**accepted, boot=BOOT + 61).code is Code.NONCE_EXPIRED
    assert judge(**accepted, hours=NEVER).code is Code.POLICY_HOURS
    assert judge(**accepted, limits=EvidenceLimits(distance=0)).code is Code.POLICY_EVIDENCE


def test_a_door_that_the_carrier_was_not_granted_stays_shut():
    assert judge(door=OTHER_DOOR) == Decision(Code.POLICY_CARRIER_DOOR, OTHER_DOOR.id)


@pytest.mark.parametrize(
    "chk, limit, why",
    [
        ({"drv": "passkey"}, None, "a passkey is accepted"),
        ({"drv": "device_key"}, None, "the key of the driver's device is accepted"),
        ({"drv": "badge"}, Limit.METHOD, "a badge is not, unless the building says so"),
        ({"gps": gps()}, None, "every value at its limit is inside"),
        ({"gps": gps(d=76)}, Limit.DISTANCE, "a metre too far"),
        ({"gps": gps(acc=51)}, Limit.ACCURACY, "a metre too vague"),
        ({"gps": gps(age=31)}, Limit.POSITION_AGE, "a position a second too old"),
        ({"gps": gps(d=0, acc=0, age=0)}, None, "at the door, exactly, now"),
        ({"req": ISSUED_AT - 120}, None, "asked two minutes before"),
        ({"req": ISSUED_AT - 121}, Limit.REQUEST_AGE, "asked a second earlier than that"),
        ({"req": ISSUED_AT}, None, "asked in the same second"),
        ({"req": ISSUED_AT + 1}, Limit.REQUEST_AGE, "asked after the answer"),
        ({"drv": "badge", "gps": gps(d=76)}, Limit.METHOD, "of two exceeded limits the first is named"),
    ],
)
def test_the_four_confirmations_against_the_default_limits(chk, limit, why):
    assert judge(chk=chk) == (Decision(Code.POLICY_EVIDENCE, DOOR.id, limit) if limit else None)


@pytest.mark.parametrize(
    "limits, chk, granted",
    [
        (EvidenceLimits(methods=frozenset({DriverProof.BADGE})), {"drv": "badge"}, True),
        (EvidenceLimits(methods=frozenset({DriverProof.BADGE})), {"drv": "passkey"}, False),
        (EvidenceLimits(distance=500), {"gps": gps(d=500)}, True),
        (EvidenceLimits(distance=0), {"gps": gps(d=1)}, False),
        (EvidenceLimits(accuracy=5), {"gps": gps(acc=6)}, False),
        (EvidenceLimits(position_age=300), {"gps": gps(age=300)}, True),
        (EvidenceLimits(request_age=0), {"req": ISSUED_AT - 1}, False),
    ],
)
def test_the_building_sets_its_own_limits_for_each_carrier(limits, chk, granted):
    assert (judge(limits=limits, chk=chk) is None) is granted


# ---- what shuts a door ----


@pytest.mark.parametrize(
    "state, code, why",
    [
        (DoorState(), None, "a normal door"),
        (DoorState(mode=DoorMode.UNLOCKED), None, "a door that is held open is granted, without a pulse"),
        (DoorState(mode=DoorMode.BLOCKED), Code.DOOR_BLOCKED, "a blocked door"),
        (DoorState(mode=DoorMode.LOCKED_DOWN), Code.LOCKDOWN, "a building that is locked down"),
        (DoorState(accepts_deliveries=False), Code.DELIVERIES_OFF, "a door that takes no deliveries"),
        (DoorState(mode=DoorMode.UNLOCKED, accepts_deliveries=False), Code.DELIVERIES_OFF, "not even open ones"),
        (DoorState(tampered=True), Code.TAMPERED, "a door whose enclosure was opened"),
        (DoorState(tamper=Sense.FAULT, contact=Sense.FAULT), None, "a sensor that is out of order shuts nobody out"),
        (DoorState(Lock.UNKNOWN), None, "a strike that is not heard of is asked when it comes to that"),
        (DoorState(contact=Sense.ACTIVE, alarm=Alarm.HELD_OPEN), None, "a door that stands open"),
    ],
)
def test_what_shuts_a_door_to_deliveries(state, code, why):
    assert judge(state=state) == (Decision(code, DOOR.id) if code else None)


# ---- hours and clocks ----

# ISSUED_AT is Monday, 2026-09-21, 14:13:20 UTC.
NEVER = (Hours(frozenset(), time(0), time(0)),)
AFTERNOON = (Hours(frozenset({Day.MONDAY}), time(14, 13), time(18)),)
MORNING = (Hours(frozenset({Day.MONDAY}), time(7), time(14, 13)),)
UNTIL_NOW = (Hours(frozenset({Day.MONDAY}), time(7), time(14, 14)),)


@pytest.mark.parametrize(
    "of_the_door, of_the_carrier, open_, why",
    [
        ((), (), True, "nobody has hours"),
        (AFTERNOON, (), True, "the door is open"),
        (MORNING, (), False, "the door is not"),
        ((), AFTERNOON, True, "the carrier may deliver"),
        ((), MORNING, False, "the carrier may not"),
        (AFTERNOON, MORNING, False, "the carrier may not, at a door that is open"),
        (MORNING, AFTERNOON, False, "it may, at a door that is not open"),
        (AFTERNOON, UNTIL_NOW, True, "both are open"),
        (MORNING + AFTERNOON, (), True, "rows add up"),
    ],
)
def test_the_hours_of_the_door_and_of_the_carrier_both_hold(of_the_door, of_the_carrier, open_, why):
    door = replace(DOOR, hours=of_the_door)
    refused = judge(door=door, doors=[door], hours=of_the_carrier)
    assert refused == (None if open_ else Decision(Code.POLICY_HOURS, DOOR.id))


@pytest.mark.parametrize(
    "wall, issued_at, code, why",
    [
        (ISSUED_AT, ISSUED_AT, None, "both clocks are inside"),
        (ISSUED_AT - 30, ISSUED_AT, Code.POLICY_HOURS, "ours is not inside yet"),
        (ISSUED_AT, ISSUED_AT - 30, Code.POLICY_HOURS, "the issuer's is not"),
        (ISSUED_AT + 120, ISSUED_AT, None, "clocks may differ by two minutes"),
        (ISSUED_AT + 121, ISSUED_AT, Code.CLOCK_UNTRUSTED, "and no more"),
        (ISSUED_AT - 121, ISSUED_AT, Code.CLOCK_UNTRUSTED, "whichever is behind"),
        (ISSUED_AT + 10 * 365 * 86400, ISSUED_AT, Code.CLOCK_UNTRUSTED, "ten years ahead (attack 30)"),
        (ISSUED_AT - 86400, ISSUED_AT, Code.CLOCK_UNTRUSTED, "a day behind (attack 30)"),
    ],
)
def test_hours_are_judged_by_our_clock_and_by_the_issuers(wall, issued_at, code, why):
    claims = {"iat": issued_at, "exp": issued_at + 60, "chk": {"req": issued_at - 5}}
    assert judge(hours=AFTERNOON, wall=wall, **claims) == (Decision(code, DOOR.id) if code else None)
    assert judge(wall=wall, **claims) is None, "a door without hours works, whatever the clocks say"


@pytest.mark.parametrize("ahead, code", [(-100.0, None), (0.0, None), (5.0, None), (5.1, Code.CLOCK_UNTRUSTED)])
def test_a_clock_that_is_earlier_than_the_journal_is_not_trusted(ahead, code):
    newest = ISSUED_AT + ahead
    assert judge(hours=AFTERNOON, newest=newest) == (Decision(code, DOOR.id) if code else None)
    assert judge(newest=newest) is None


def test_hours_are_meant_in_the_buildings_time_zone():
    assert judge(hours=AFTERNOON, zone=UTC) is None
    assert judge(hours=MORNING, zone=ZoneInfo("America/New_York")) is None
    assert judge(hours=AFTERNOON, zone=ZoneInfo("America/New_York")).code is Code.POLICY_HOURS


# ---- rate ----


@pytest.mark.parametrize(
    "rate, accepted, code, why",
    [
        (None, [BOOT] * 1000, None, "without a rate as often as it likes"),
        (1, [], None, "the first one"),
        (1, [BOOT], Code.POLICY_RATE, "no second one within the hour"),
        (1, [BOOT - 3600], None, "one of an hour ago is over"),
        (1, [BOOT - 3599], Code.POLICY_RATE, "one of a second less is not"),
        (3, [BOOT - 20, BOOT - 10], None, "two of three"),
        (3, [BOOT - 20, BOOT - 10, BOOT], Code.POLICY_RATE, "three of three"),
        (0, [], Code.POLICY_RATE, "none at all is a rate, too"),
    ],
)
def test_the_rate_of_a_carrier_at_a_door(rate, accepted, code, why):
    assert judge(rate=rate, accepted=accepted) == (Decision(code, DOOR.id) if code else None)


# ---- the building ----


def test_a_building_finds_doors_carriers_and_keys():
    carrier = Carrier(doors=[DOOR])
    building = Building.of([DOOR, OTHER_DOOR], [carrier.admitted])
    assert building.doors == {DOOR.id: DOOR, OTHER_DOOR.id: OTHER_DOOR}
    assert building.carriers[carrier.issuer].name == "Parcels"
    assert list(building.keys) == [carrier.key.kid]


def test_nobody_can_change_a_building_behind_a_decision():
    building = Building.of([DOOR], [])
    with pytest.raises(TypeError):
        building.doors[OTHER_DOOR.id] = OTHER_DOOR


def test_two_carriers_cannot_share_an_issuer():
    with pytest.raises(ValueError, match="share an issuer"):
        Building.of([DOOR], [Carrier("A").admitted, replace(Carrier("B").admitted, issuer=Carrier("A").issuer)])


def test_a_carrier_cannot_publish_the_key_of_another():
    """Else B's tokens would be judged as A's, or A's would stop working (attack 78)."""
    a, b = Carrier("A").admitted, Carrier("B").admitted
    with pytest.raises(ValueError, match="belongs to two"):
        Building.of([DOOR], [a, replace(b, keys=a.keys)])
    with pytest.raises(ValueError, match="belongs to two"):
        Building.of([DOOR], [a, replace(b, keys=tuple(replace(key, issuer=b.issuer) for key in a.keys))])
