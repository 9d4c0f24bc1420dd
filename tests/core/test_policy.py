"""What the building allows, whatever a cloud has signed: protocol A.2 step 10."""

from dataclasses import replace

import pytest

from tests.simulated import ISSUED_AT, Carrier, some_doors
from vestibule_core import token
from vestibule_core.model import Code, Decision, Limit
from vestibule_core.policy import Building, EvidenceLimits, decide
from vestibule_core.token import DriverProof

DOOR, OTHER_DOOR = some_doors(2)
NONCE = "A" * 22


def judge(*, limits=None, door=DOOR, **claims):
    carrier = Carrier(doors=[DOOR], limits=limits)
    text = carrier.token(NONCE, aud=door.id, **claims)
    claims = token.verify(text, {key.kid: key for key in carrier.trusted}, None).claims
    return decide(claims, carrier.admitted)


def gps(d=75, acc=50, age=30):
    return {"d": d, "acc": acc, "age": age}


def test_a_door_that_the_carrier_was_granted_opens():
    assert judge() == Decision(Code.GRANTED, DOOR.id)


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
    decision = judge(chk=chk)
    assert decision.limit is limit
    assert decision.code is (Code.POLICY_EVIDENCE if limit else Code.GRANTED)


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
    assert judge(limits=limits, chk=chk).granted is granted


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
