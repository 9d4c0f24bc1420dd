"""The policy document, and what may hold of a new one before somebody has agreed to it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.api.documents import (
    DOORS,
    ISSUERS,
    JUNK,
    KIDS,
    carrier,
    key,
    policies,
    policy,
    spoilt,
)
from vestibule_core.api.policy import EMPTY, POLICY, Policy, encode, meet, parse, widened
from vestibule_core.errors import MalformedMessage
from vestibule_core.hours import NEVER, Day, Hours, is_open
from vestibule_core.keys import KeyStatus
from vestibule_core.policy import EvidenceLimits
from vestibule_core.token import Confirmations, DriverProof

NORTH, SOUTH = ISSUERS
MORNINGS = (Hours(frozenset({Day.MONDAY, Day.TUESDAY}), time(7), time(12)),)
LONGER = (Hours(frozenset({Day.MONDAY, Day.TUESDAY}), time(7), time(13)),)

# ---- the document ----


def test_the_document_says_what_it_says():
    limits = EvidenceLimits(frozenset({DriverProof.BADGE}), 1, 2, 3, 4)
    revoked = key(NORTH, 1, KeyStatus.REVOKED)
    one = carrier(keys=[key(NORTH, 0), revoked], limits=limits, hours=MORNINGS, rate=6)
    document = json.loads(encode(policy(one)))
    keys = document["carriers"][0].pop("keys")
    assert json.loads(keys) == {"keys": [key(NORTH, 0).jwk(), revoked.jwk()]}
    assert document == {
        "zone": "Europe/Berlin",
        "carriers": [
            {
                "issuer": "https://north.example",
                "name": "North",
                "revoked": [KIDS[NORTH][1]],
                "doors": sorted(DOORS[:2]),
                "limits": {"methods": ["badge"], "distance": 1, "accuracy": 2, "position_age": 3, "request_age": 4},
                "hours": [{"days": ["mon", "tue"], "from": "07:00", "to": "12:00"}],
                "rate": 6,
            }
        ],
    }


def test_the_document_says_how_long_a_key_is_good():
    timed = replace(key(NORTH, 1), valid_from=7, valid_until=9)
    one = policy(carrier(keys=[key(NORTH, 0), timed]))
    assert POLICY.write(one)["carriers"][0]["times"] == [{"kid": KIDS[NORTH][1], "from": 7, "until": 9}]
    assert parse(encode(one)) == one


@given(policies())
def test_any_policy_is_read_as_it_was_written(one):
    assert parse(encode(one)) == one


def test_a_time_of_the_day_keeps_its_seconds():
    hours = (Hours(frozenset({Day.MONDAY}), time(7, 0, 30), time(12, 0, 0, 5)),)
    assert parse(encode(policy(carrier(hours=hours)))).carriers[0].hours == hours


def test_a_gateway_that_was_told_nothing_lets_nobody_in():
    assert EMPTY.carriers == ()
    assert parse(encode(EMPTY)) == EMPTY


def test_the_zone_of_hours():
    assert EMPTY.tz is UTC
    assert policy().tz == ZoneInfo("Europe/Berlin")


def document(**changed):
    """The document of one carrier, in which some members of the carrier are changed."""
    whole = POLICY.write(policy(carrier()))
    whole["carriers"][0] |= changed
    return whole


TWICE = [{"days": ["mon"], "from": "07:00", "to": "12:00"}]
REFUSED = [
    (document() | {"zone": "Europe/Atlantis"}, "a zone that does not exist"),
    (document() | {"zone": "Europe"}, "a folder of zones"),
    (document() | {"zone": "../../etc/passwd"}, "another file"),
    (document() | {"zone": "/etc/localtime"}, "a path"),
    (document() | {"zone": ""}, "no zone"),
    (document() | {"zone": "Europe/\ud800"}, "half a character"),
    (document() | {"carriers": [*document()["carriers"], *document()["carriers"]]}, "the same carrier twice"),
    (document() | {"more": 1}, "a member too many"),
    (document(issuer="http://north.example"), "no issuer"),
    (document(keys="{}"), "no keys"),
    (document(keys={"keys": []}), "keys that are no text"),
    (document(keys="x" * 20_000), "a text that is too long for keys"),
    (document(keys='{"keys":[{"kty":"OKP","crv":"Ed25519","x":"' + "A" * 43 + '"}]}'), "a key that proves nothing"),
    (document(revoked=[KIDS[NORTH][1]]), "revoked is a key that is not there"),
    (document(revoked=["x"]), "revoked is no thumbprint"),
    (document(times=[{"kid": KIDS[NORTH][1], "from": 0, "until": 1}]), "a time of a key that is not there"),
    (document(times=[{"kid": KIDS[NORTH][0], "from": 0, "until": 1}] * 2), "two times of a key"),
    (document(times=None), "null is no time"),
    (document(doors=[DOORS[0], DOORS[0]]), "a door twice"),
    (document(doors=["front"]), "no door"),
    (document(rate=-1), "a rate below nothing"),
    (document(rate=1.5), "a fraction of a rate"),
    (document(rate=True), "true is no rate"),
    (document(hours=[{"days": ["mon"], "from": "7:00", "to": "12:00"}]), "another spelling of a time"),
    (document(hours=[{"days": ["mon"], "from": "07:00+01:00", "to": "12:00"}]), "a time with a zone"),
    (document(hours=[{"days": ["mon"], "from": "24:00", "to": "12:00"}]), "no time of any day"),
    (document(hours=[{"days": ["mon", "mon"], "from": "07:00", "to": "12:00"}]), "a day twice"),
    (document(hours=None), "null is not always"),
    (document(limits={}), "no limits"),
    (document(limits=document()["carriers"][0]["limits"] | {"methods": ["shouting"]}), "a way that is not known"),
    (document(limits=document()["carriers"][0]["limits"] | {"distance": 10**9}), "a limit that is none"),
]  # fmt: skip


@pytest.mark.parametrize("spoilt_document, sentence", REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_is_no_policy(spoilt_document, sentence):
    with pytest.raises(MalformedMessage):
        parse(json.dumps(spoilt_document))


def test_attack_78_no_carrier_brings_the_key_of_another():
    """Not even under the other's name: the same thumbprint would belong to both."""
    whole = document()
    whole["carriers"].append(whole["carriers"][0] | {"issuer": SOUTH})
    with pytest.raises(MalformedMessage, match="a key belongs to two carriers"):
        parse(json.dumps(whole))


def test_what_is_wrong_is_said_without_repeating_it():
    for whole in (document() | {"zone": "Hunter/Two"}, document(issuer="hunter"), document(keys="hunter")):
        with pytest.raises(MalformedMessage) as raised:
            parse(json.dumps(whole))
        assert "hunter" not in str(raised.value).lower()


@given(st.text() | JUNK.map(json.dumps))
def test_any_text_is_a_policy_or_malformed(kept):
    with pytest.raises(MalformedMessage):
        parse(kept)


@given(policies().flatmap(lambda one: spoilt(encode(one).encode())))
def test_any_spoilt_policy_is_malformed_or_another_policy(body):
    try:
        one = parse(body.decode("latin-1"))
    except MalformedMessage:
        return
    assert parse(encode(one)) == one


# ---- what two policies allow ----

PROBES = st.tuples(
    st.sampled_from([(name, kid) for name in ISSUERS for kid in KIDS[name]]),
    st.sampled_from(DOORS),
    st.integers(0, 7 * 48 - 1).map(lambda half_hours: 1_780_000_200 + 1800 * half_hours),
    st.builds(
        Confirmations,
        driver=st.sampled_from(DriverProof),
        distance=st.sampled_from([0, 50, 51, 75, 76]),
        accuracy=st.sampled_from([10, 11, 50]),
        position_age=st.sampled_from([10, 11, 30]),
        requested_at=st.sampled_from([940, 939, 880]),
    ),
    st.sampled_from([0, 1, 4, 100]),
)
"""A token that is presented: issuer and key, door, moment, confirmations, and how many there were within the hour."""


def allows(one, probe):
    """Whether a policy lets that token in, by the core's own words for each of its parts."""
    (name, kid), door, moment, confirmations, accepted = probe
    for each in one.carriers:
        if each.issuer == name:
            return (
                any(known.kid == kid and known.status is KeyStatus.ACTIVE for known in each.keys)
                and door in each.doors
                and each.limits.exceeded(confirmations, 1000) is None
                and is_open(each.hours, moment, one.tz)
                and (each.rate is None or accepted < each.rate)
            )
    return False


def test_the_moments_of_the_probes_are_a_whole_week():
    first = datetime.fromtimestamp(1_780_000_200, ZoneInfo("Europe/Berlin"))
    assert first.minute % 30 == 0
    assert first.utcoffset() == datetime.fromtimestamp(1_780_000_200 + 7 * 86400, first.tzinfo).utcoffset()


@given(policies(), policies(), PROBES)
def test_what_two_policies_have_in_common_is_what_both_allow(effective, requested, probe):
    assert allows(meet(effective, requested), probe) is (allows(effective, probe) and allows(requested, probe))


@given(policies(), policies("America/New_York"), PROBES)
def test_in_another_zone_nothing_is_allowed_that_one_of_them_refuses(effective, requested, probe):
    if allows(meet(effective, requested), probe):
        assert allows(effective, probe)
        assert allows(requested, probe)


@given(policies(), policies(), PROBES)
def test_it_does_not_matter_which_one_was_there_first(one, other, probe):
    assert allows(meet(one, other), probe) is allows(meet(other, one), probe)


@given(policies())
def test_a_policy_has_all_of_itself_in_common_with_itself(one):
    assert meet(one, one) == one
    assert widened(one, one) == ()


@given(policies(), policies(), PROBES)
def test_to_ask_once_more_changes_nothing(effective, requested, probe):
    now = meet(effective, requested)
    assert allows(meet(now, requested), probe) is allows(now, probe)
    assert meet(now, now) == now


@given(policies(), policies("America/New_York") | policies())
def test_what_holds_meanwhile_can_be_kept_and_read_again(effective, requested):
    now = meet(effective, requested)
    assert parse(encode(now)) == now


@given(policies(), policies(), PROBES)
def test_where_nothing_is_wider_the_requested_one_holds_at_once(effective, requested, probe):
    if not widened(effective, requested):
        assert meet(effective, requested) == requested
        assert allows(effective, probe) or not allows(requested, probe)


@given(policies(), policies("America/New_York") | policies())
def test_where_something_is_wider_the_requested_one_does_not_hold_yet(effective, requested):
    assert (meet(effective, requested) == requested) is (not widened(effective, requested))


# ---- what is told to people ----

FEWER = EvidenceLimits(frozenset({DriverProof.PASSKEY}), 75, 50, 30, 120)
WIDENED = [
    # before, after, why
    (policy(), policy(carrier()), ("North: a new carrier",)),
    (policy(carrier()), policy(), ()),
    (policy(carrier()), policy(replace(carrier(), name="Nord")), ()),
    (policy(carrier()), policy(carrier(keys=[key(NORTH, 0), key(NORTH, 1)])), ("North: another key",)),
    (policy(carrier(keys=[key(NORTH, 0), key(NORTH, 1)])), policy(carrier()), ()),
    (policy(carrier()), policy(carrier(keys=[key(NORTH, 0, KeyStatus.REVOKED)])), ()),
    (policy(carrier(keys=[key(NORTH, 0, KeyStatus.REVOKED)])), policy(carrier()), ("North: another key",)),
    (policy(carrier()), policy(carrier(keys=[key(NORTH, 0), key(NORTH, 1, KeyStatus.REVOKED)])), ()),
    (policy(carrier()), policy(carrier(doors=DOORS)), ("North: more doors",)),
    (policy(carrier()), policy(carrier(doors=DOORS[:1])), ()),
    (policy(carrier(limits=FEWER)), policy(carrier()), ("North: another way to prove who the driver is",)),
    (policy(carrier()), policy(carrier(limits=FEWER)), ()),
    (policy(carrier()), policy(carrier(limits=EvidenceLimits(distance=76))), ("North: drivers who are farther away",)),
    (policy(carrier()), policy(carrier(limits=EvidenceLimits(accuracy=51))),
     ("North: positions that are less accurate",)),
    (policy(carrier()), policy(carrier(limits=EvidenceLimits(position_age=31))), ("North: positions that are older",)),
    (policy(carrier()), policy(carrier(limits=EvidenceLimits(request_age=121))), ("North: requests that are older",)),
    (policy(carrier(hours=MORNINGS)), policy(carrier(hours=LONGER)), ("North: more hours",)),
    (policy(carrier(hours=MORNINGS)), policy(carrier()), ("North: more hours",)),
    (policy(carrier()), policy(carrier(hours=MORNINGS)), ()),
    (policy(carrier(rate=5)), policy(carrier(rate=6)), ("North: more accesses within an hour",)),
    (policy(carrier(rate=5)), policy(carrier()), ("North: more accesses within an hour",)),
    (policy(carrier()), policy(carrier(rate=5)), ()),
    (policy(carrier()), policy(carrier(), zone="Europe/Vienna"), ("hours in another time zone",)),
    (policy(), policy(zone="Europe/Vienna"), ()),
    (policy(carrier(doors=[])), policy(carrier(rate=5), carrier(SOUTH)), ("North: more doors", "North: a new carrier")),
]  # fmt: skip


@pytest.mark.parametrize("before, after, why", WIDENED)
def test_what_a_policy_allows_more_is_said_in_words(before, after, why):
    assert widened(before, after) == why


# ---- what holds meanwhile ----


def test_what_is_narrower_holds_at_once_and_what_is_wider_does_not():
    before = carrier(doors=DOORS[:2], rate=5, hours=MORNINGS)
    after = replace(carrier(doors=DOORS[1:], rate=2, hours=LONGER), name="Nord")
    now = meet(policy(before), policy(after, carrier(SOUTH)))
    assert now == policy(replace(before, doors=frozenset({DOORS[1]}), rate=2, name="Nord"))


def test_a_key_that_is_new_waits_and_one_that_is_revoked_is_revoked():
    before = carrier(keys=[key(NORTH, 0), key(NORTH, 1)])
    after = carrier(keys=[key(NORTH, 0, KeyStatus.REVOKED), key(NORTH, 2)])
    assert meet(policy(before), policy(after)).carriers[0].keys == (key(NORTH, 0, KeyStatus.REVOKED),)


@pytest.mark.parametrize(
    "before, after, is_more, meanwhile",
    [
        ((0, None), (5, 9), False, (5, 9)),
        ((5, 9), (5, 9), False, (5, 9)),
        ((5, 9), (6, 8), False, (6, 8)),
        ((5, 9), (4, 9), True, (5, 9)),
        ((5, 9), (5, 10), True, (5, 9)),
        ((5, 9), (6, None), True, (6, 9)),
        ((5, None), (4, 7), True, (5, 7)),
    ],
)
def test_a_key_that_is_to_be_good_for_longer_waits(before, after, is_more, meanwhile):
    def timed(times):
        return policy(carrier(keys=[replace(key(NORTH, 0), valid_from=times[0], valid_until=times[1])]))

    assert widened(timed(before), timed(after)) == (("North: a key for longer",) if is_more else ())
    assert meet(timed(before), timed(after)) == timed(meanwhile)


def test_a_revoked_key_does_not_come_back_before_its_time():
    before, after = carrier(keys=[key(NORTH, 0, KeyStatus.REVOKED)]), carrier()
    assert meet(policy(before), policy(after)) == policy(before)


def test_a_carrier_whose_keys_are_all_new_is_out_until_then():
    assert meet(policy(carrier()), policy(carrier(keys=[key(NORTH, 2)]))) == policy()


def test_hours_of_another_zone_let_nobody_in_until_then():
    """Which minutes they have in common changes over the year: nobody tries to say it."""
    before, after = policy(carrier(hours=MORNINGS)), policy(carrier(hours=MORNINGS), zone="Asia/Tokyo")
    now = meet(before, after)
    assert now == policy(carrier(hours=NEVER))
    assert meet(after, Policy("Asia/Tokyo", after.carriers)) == after, "once agreed to, they hold"


def test_a_carrier_without_hours_keeps_the_old_ones_in_the_old_zone():
    before, after = policy(carrier(hours=MORNINGS)), policy(carrier(), zone="Asia/Tokyo")
    assert meet(before, after) == before
