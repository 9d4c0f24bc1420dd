"""What the building allows, whatever a cloud has signed: protocol A.2 steps 7 to 10."""

from dataclasses import replace

import pytest

from tests.simulated import ISSUED_AT, Carrier, some_doors
from vestibule_core import challenge, policy, token
from vestibule_core.model import Code, Decision, Limit
from vestibule_core.policy import Building, EvidenceLimits
from vestibule_core.token import DriverProof

DOOR, OTHER_DOOR = some_doors(2)
SECRET, BOOT = bytes(32), 1000.0


def judge(*, limits=None, door=DOOR, spent=(), boot=BOOT, doors=(DOOR, OTHER_DOOR), **claims):
    carrier = Carrier(doors=[DOOR], limits=limits)
    nonce = challenge.make(SECRET, door.id, carrier.issuer, BOOT, b"salt")
    unlock = token.verify(carrier.token(nonce, aud=door.id, **claims), {k.kid: k for k in carrier.trusted}, None)
    spent = {unlock.spend_key} if spent else set()
    return policy.judge(unlock, Building.of(doors, [carrier.admitted]), spent, SECRET, boot)


def gps(d=75, acc=50, age=30):
    return {"d": d, "acc": acc, "age": age}


def test_a_door_that_the_carrier_was_granted_opens():
    assert judge() is None


def test_the_checks_come_in_the_order_of_the_protocol():
    """Of all that is wrong the first is told: the door, the spend, the challenge, the building's own rules."""
    wrong = {"door": OTHER_DOOR, "spent": True, "boot": BOOT + 61, "chk": {"drv": "badge"}}
    told = [judge(**wrong, doors=[DOOR]), judge(**wrong)]
    wrong["spent"] = False
    told.append(judge(**wrong))
    wrong["boot"] = BOOT
    told.append(judge(**wrong))
    wrong["door"] = DOOR
    told.append(judge(**wrong))
    assert [refusal.code for refusal in told] == [
        Code.WRONG_DOOR,
        Code.ALREADY_SPENT,
        Code.NONCE_EXPIRED,
        Code.POLICY_CARRIER_DOOR,
        Code.POLICY_EVIDENCE,
    ]


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
