"""Every body and every frame of the gateway's API: its exact JSON, and nothing else."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.core.api.documents import DOORS, ISSUERS, JUNK, carrier, policy, spoilt
from vestibule_core import reconcile, wire
from vestibule_core.api import messages
from vestibule_core.api.messages import (
    MAX_CLIENTS,
    Admission,
    Answer,
    CarrierAlarm,
    ChallengeAnswer,
    ChallengeRequest,
    Client,
    ClientChange,
    Clients,
    ClientTaken,
    Confirm,
    Confirmed,
    Disputed,
    Done,
    DoorChanged,
    DoorDescription,
    Doors,
    DoorsChanged,
    Events,
    Failure,
    Happened,
    Hello,
    Info,
    LinkAlarm,
    Lockdown,
    NextCertificate,
    Operate,
    Operation,
    Peer,
    PendingPolicy,
    PolicyMark,
    PolicyRequest,
    PolicyTaken,
    PolicyView,
    Scope,
    Shown,
    Signed,
    UnlockRequest,
    Witnessed,
    bearer,
    client_id,
    client_name,
    gateway_id,
    new_gateway_id,
    next_certificate_text,
)
from vestibule_core.api.policy import EMPTY, POLICY
from vestibule_core.door import Alarm, DoorState, Lock, Opener
from vestibule_core.errors import MalformedMessage
from vestibule_core.model import (
    AccessEvent,
    Actor,
    Checks,
    Code,
    Decision,
    Door,
    DoorMode,
    EventName,
    Limit,
    ManualRule,
    Means,
    OnPowerLoss,
    RelockOn,
    Sense,
    Sensor,
    Word,
    issuer,
)
from vestibule_core.nnpsk0 import MAX_PAYLOAD
from vestibule_core.note import SignerKey
from vestibule_core.proof import EntryProof
from vestibule_core.strict import Message
from vestibule_core.strike import Capabilities
from vestibule_core.witness import Grown

ID = gateway_id("a" * 26)
TOKEN = bearer("A" * 43)
KEY = SignerKey("gateway", Ed25519PrivateKey.from_private_bytes(bytes(32)))
PERSON, AUTOMATION = Actor("u1", "Ada", True), Actor(None, None, False)
PERSON_JSON = {"user_id": "u1", "name": "Ada", "admin": True}
AUTOMATION_JSON = {"user_id": None, "name": None, "admin": False}

STATE = DoorState(
    lock=Lock.ACCESSED,
    released=True,
    securing=True,
    mode=DoorMode.BLOCKED,
    accepts_deliveries=False,
    tampered=True,
    contact=Sense.ACTIVE,
    tamper=Sense.FAULT,
    alarm=Alarm.HELD_OPEN,
    by=Opener("Ada", "u1"),
)
STATE_JSON = {
    "lock": "accessed",
    "releasing": False,
    "unanswered": False,
    "released": True,
    "securing": True,
    "mode": "blocked",
    "deliveries": False,
    "tampered": True,
    "contact": "active",
    "rex": "unknown",
    "tamper": "fault",
    "lock_monitor": "unknown",
    "alarm": "held_open",
    "by": {"name": "Ada", "user_id": "u1"},
}
DOOR = DoorDescription(
    Door(
        DOORS[0],
        "Parcel room",
        5.0,
        sensors=frozenset({Sensor.REX, Sensor.CONTACT}),
        relock=RelockOn.CLOSE,
        held_open_time=60.0,
        pre_alarm_time=10.0,
        on_power_loss=OnPowerLoss.FAIL_SAFE,
        manual=ManualRule.ADMINISTRATORS,
    ),
    "Modbus board",
    Capabilities(device_timed=True, feedback=False, can_secure=True, can_hold=False),
    True,
    STATE,
)
DOOR_JSON = {
    "id": DOORS[0],
    "name": "Parcel room",
    "access_time": 5.0,
    "sensors": ["contact", "rex"],
    "held_open_time": 60.0,
    "pre_alarm_time": 10.0,
    "relock": "close",
    "on_power_loss": "fail_safe",
    "manual": "administrators",
    "model": "Modbus board",
    "device_timed": True,
    "feedback": False,
    "can_hold": False,
    "can_secure": True,
    "reachable": True,
    "state": STATE_JSON,
}
BARE = DoorDescription(Door(DOORS[1], "", 3.0), "", Capabilities(False, True, False, True), False, DoorState())
BARE_JSON = DOOR_JSON | {
    "id": DOORS[1],
    "name": "",
    "access_time": 3.0,
    "sensors": [],
    "held_open_time": None,
    "pre_alarm_time": 0.0,
    "relock": "timeout",
    "on_power_loss": "fail_secure",
    "manual": "everyone",
    "model": "",
    "device_timed": False,
    "feedback": True,
    "can_hold": True,
    "can_secure": False,
    "reachable": False,
    "state": STATE_JSON
    | {
        "lock": "unknown",
        "released": False,
        "securing": False,
        "mode": "normal",
        "deliveries": True,
        "tampered": False,
        "contact": "unknown",
        "tamper": "unknown",
        "alarm": "none",
        "by": None,
    },
}
STANDING = {
    "lockdown": True,
    "newest": 7,
    "restored": False,
    "clock_trusted": True,
    "journal_failed": False,
    "disputed": False,
    "alarms": [
        {"iss": "https://parcels.example", "alarm": "never_issued"},
        {"iss": "https://parcels.example", "alarm": "no_link"},
    ],
}
STANDS = STANDING | {
    "alarms": (
        CarrierAlarm(issuer("https://parcels.example"), reconcile.Alarm.NEVER_ISSUED),
        CarrierAlarm(issuer("https://parcels.example"), LinkAlarm.NO_LINK),
    )
}
EVENT = AccessEvent(
    outcome=EventName.ACCESS_GRANTED,
    door=DOORS[0],
    at=1700000000.5,
    code=Code.GRANTED,
    means=Means.TOKEN,
    spend_id=bytes(range(16)),
    kid="k" * 43,
    issuer=ISSUERS[0],
    carrier="North",
    has_stop=True,
    checks=Checks("passkey", 12, 8, 3, -4),
    sequence=7,
    origin="ref-1",
)
EVENT_JSON = {
    "seq": 7,
    "at": 1700000000.5,
    "outcome": "access_granted",
    "door": DOORS[0],
    "code": "GRANTED",
    "means": "token",
    "kid": "k" * 43,
    "issuer": ISSUERS[0],
    "carrier": "North",
    "stop": True,
    "checks": {"driver": "passkey", "distance": 12, "accuracy": 8, "position_age": 3, "request_age": -4},
    "count": None,
    "slot": None,
    "spend_id": "000102030405060708090a0b0c0d0e0f",
    "ref": "ref-1",
}
BARE_EVENT = AccessEvent(EventName.REFUSALS_COUNTED, None, 0.0, count=3)
BARE_EVENT_JSON = dict.fromkeys(EVENT_JSON) | {"outcome": "refusals_counted", "at": 0.0, "stop": False, "count": 3}
del BARE_EVENT_JSON["ref"], BARE_EVENT_JSON["checks"]
NEXT = NextCertificate(bytes(32), "a note")
NEXT_JSON = {"fp": "00" * 32, "note": "a note"}
CLIENT = Client(client_id("0" * 16), "Home Assistant", frozenset(Scope), frozenset(ISSUERS))
CLIENT_JSON = {
    "id": "0" * 16,
    "name": "Home Assistant",
    "scopes": ["admin", "operate", "present", "read"],
    "issuers": sorted(ISSUERS),
}
SOME_POLICY = policy(carrier())
POLICY_JSON = POLICY.write(SOME_POLICY)

GROWN = Grown(2, (bytes(32), b"1" * 32), KEY.sign("vestibule/gateway\n3\n" + "A" * 43 + "=\n"))
PROOF = EntryProof(1, b'{"kind":"epoch_begun"}', None, (bytes(32),), GROWN.note)

EXAMPLES = [
    # message, value, JSON
    ("FAILURE", Failure("forbidden"), {"error": "forbidden"}),
    ("FAILURE", Failure("conflict", 7), {"error": "conflict", "version": 7}),
    ("INFO", Info(ID, "0.6.0"), {"id": ID, "version": "0.6.0", "pair": False}),
    ("INFO", Info(ID, "0.6.0", bytes(16)), {"id": ID, "version": "0.6.0", "pair": True, "pair_nonce": "A" * 22}),
    (
        "ADMISSION",
        Admission(
            TOKEN,
            client_id("0" * 16),
            KEY.verifier,
            "Parcel room",
            frozenset({Scope.READ}),
            False,
            (Peer(client_id("1" * 16), "Home Assistant", frozenset({Scope.ADMIN})),),
        ),
        {
            "token": TOKEN,
            "client_id": "0" * 16,
            "gateway_key": str(KEY.verifier),
            "name": "Parcel room",
            "scopes": ["read"],
            "trusted": False,
            "clients": [{"id": "1" * 16, "name": "Home Assistant", "scopes": ["admin"]}],
        },
    ),
    ("CLIENTS", Clients((CLIENT,)), {"clients": [CLIENT_JSON]}),
    ("CLIENT_CHANGE", ClientChange(frozenset({Scope.PRESENT}), None), {"scopes": ["present"], "issuers": None}),
    ("CLIENT_CHANGE", ClientChange(frozenset(), frozenset()), {"scopes": [], "issuers": []}),
    ("CLIENT_TAKEN", ClientTaken(True, 86400), {"pending": True, "seconds_left": 86400}),
    ("DOORS", Doors(doors=(DOOR, BARE), **STANDS), {"doors": [DOOR_JSON, BARE_JSON], **STANDING}),
    ("CHALLENGE_REQUEST", ChallengeRequest(ISSUERS[0]), {"iss": ISSUERS[0]}),
    ("CHALLENGE_ANSWER", ChallengeAnswer("n" * 22, 60), wire.challenge_answer("n" * 22, 60)),
    ("UNLOCK_REQUEST", UnlockRequest("a.b.c"), {"token": "a.b.c"}),
    ("UNLOCK_REQUEST", UnlockRequest("\ud800", ISSUERS[1]), {"token": "\ud800", "iss": ISSUERS[1]}),
    ("ANSWER", Answer(Word.GRANTED, "GRANTED"), {"word": "granted", "code": "GRANTED"}),
    ("ANSWER", Answer(Word.INVALID_TOKEN, None), {"word": "invalid_token", "code": None}),
    (
        "ANSWER",
        Answer(Word.REFUSED, "POLICY_EVIDENCE", Limit.DISTANCE),
        {"word": "refused", "code": "POLICY_EVIDENCE", "limit": "distance"},
    ),
    *(("OPERATE", Operate(do, PERSON, "r"), {"do": do.value, "actor": PERSON_JSON, "ref": "r"}) for do in Operation),
    ("LOCKDOWN", Lockdown(True, AUTOMATION, None), {"on": True, "actor": AUTOMATION_JSON, "ref": None}),
    ("CONFIRM", Confirm(Confirmed.CLOCK, PERSON, None), {"what": "clock", "actor": PERSON_JSON, "ref": None}),
    ("CONFIRM", Confirm(Confirmed.RESTORED, PERSON, ""), {"what": "restored", "actor": PERSON_JSON, "ref": ""}),
    ("WITNESSED", Witnessed(None, None), {"grown": None, "held": None}),
    ("WITNESSED", Witnessed(GROWN, GROWN.note), {"grown": str(GROWN), "held": GROWN.note}),
    (
        "SHOWN",
        Shown(KEY.verifier, GROWN, PROOF),
        {"key": str(KEY.verifier), "grown": str(GROWN), "epoch": str(PROOF)},
    ),
    ("SHOWN", Shown(KEY.verifier, GROWN, None), {"key": str(KEY.verifier), "grown": str(GROWN), "epoch": None}),
    ("SIGNED", Signed(GROWN.note), {"note": GROWN.note}),
    ("DISPUTED", Disputed(True), {"disputed": True}),
    *(("DONE", Done(code), {"code": code.value}) for code in Code),
    (
        "POLICY_VIEW",
        PolicyView(7, SOME_POLICY, PendingPolicy(EMPTY, 60, ("more doors",)), True),
        {
            "version": 7,
            "policy": POLICY_JSON,
            "pending": {"policy": {"zone": "UTC", "carriers": []}, "seconds_left": 60, "why": ["more doors"]},
            "trusted": True,
        },
    ),
    (
        "POLICY_VIEW",
        PolicyView(0, EMPTY, None, False),
        {"version": 0, "policy": {"zone": "UTC", "carriers": []}, "pending": None, "trusted": False},
    ),
    (
        "POLICY_REQUEST",
        PolicyRequest(2**63 - 1, 1, SOME_POLICY),
        {"base": 2**63 - 1, "version": 1, "policy": POLICY_JSON},
    ),
    ("POLICY_TAKEN", PolicyTaken(8, True, 86400), {"version": 8, "pending": True, "seconds_left": 86400}),
    ("POLICY_TAKEN", PolicyTaken(8, False, None), {"version": 8, "pending": False, "seconds_left": None}),
    ("EVENTS", Events((BARE_EVENT, EVENT), 7), {"events": [BARE_EVENT_JSON, EVENT_JSON], "newest": 7}),
    (
        "FRAME",
        Hello(
            doors=(DOOR,), **STANDS, id=ID, name="Parcel room", version="0.6.0", policy=PolicyMark(7, True), next=NEXT
        ),
        {
            "type": "hello",
            "id": ID,
            "name": "Parcel room",
            "version": "0.6.0",
            "policy": {"version": 7, "pending": True},
            "next": NEXT_JSON,
            "doors": [DOOR_JSON],
            **STANDING,
        },
    ),
    ("FRAME", Happened(EVENT), {"type": "event", "event": EVENT_JSON}),
    ("FRAME", DoorChanged(DOOR), {"type": "door", "door": DOOR_JSON}),
    (
        "FRAME",
        messages.BuildingChanged(**STANDS, policy=PolicyMark(0, False), next=None),
        {"type": "building", **STANDING, "policy": {"version": 0, "pending": False}, "next": None},
    ),
    ("FRAME", DoorsChanged((BARE,)), {"type": "doors", "doors": [BARE_JSON]}),
]


def message(name):
    return getattr(messages, name)


@pytest.mark.parametrize("name, value, written", EXAMPLES)
def test_each_message_has_its_exact_json(name, value, written):
    assert json.loads(message(name).encode(value)) == written
    assert message(name).decode(json.dumps(written).encode()) == value


def test_no_message_has_been_forgotten_here():
    assert {name for name, each in vars(messages).items() if isinstance(each, Message)} == {
        name for name, *_ in EXAMPLES
    }
    frames = {type(value) for name, value, _ in EXAMPLES if name == "FRAME"}
    assert frames == set(messages.Frame.__value__.__args__) - {messages.Newer}, "which nobody writes"


BODIES = st.sampled_from([(name, message(name).encode(value)) for name, value, _ in EXAMPLES])


@given(BODIES.flatmap(lambda example: st.tuples(st.just(example[0]), spoilt(example[1]))))
def test_any_spoilt_message_is_malformed_or_another_message(example):
    name, body = example
    try:
        value = message(name).decode(body)
    except MalformedMessage:
        return
    assert message(name).decode(message(name).encode(value)) == value


@given(
    st.sampled_from([name for name, *_ in EXAMPLES]), st.binary() | JUNK.map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_malformed(name, body):
    with pytest.raises(MalformedMessage):
        message(name).decode(body)


def example(name, **changed):
    """A message's first example, in which some members are changed."""
    written = next(written for each, _, written in EXAMPLES if each == name)
    return json.dumps(written | changed).encode()


WRONG = [
    ("INFO", {"pair": True}, "open to pairing without a nonce"),
    ("INFO", {"pair_nonce": "A" * 22}, "a nonce and not open"),
    ("INFO", {"id": "A" * 26}, "upper case"),
    ("INFO", {"id": "a" * 25 + "b"}, "spare bits set: a second spelling of an id"),
    ("ADMISSION", {"token": "A" * 42}, "a bearer that is too short"),
    ("ADMISSION", {"token": "A" * 42 + "B"}, "a second spelling of a bearer"),
    ("ADMISSION", {"token": "A" * 42 + "\n"}, "a bearer that would end a header"),
    ("ADMISSION", {"client_id": "0" * 15 + "G"}, "not hexadecimal"),
    ("ADMISSION", {"gateway_key": "gateway"}, "no key"),
    ("ADMISSION", {"scopes": ["everything"]}, "a scope that is not known"),
    ("CLIENT_CHANGE", {"scopes": ["read", "read"]}, "a scope twice"),
    ("CLIENT_CHANGE", {"issuers": ["north"]}, "no issuer"),
    ("CLIENTS", {"clients": [CLIENT_JSON | {"name": ""}]}, "a client without a name"),
    ("CLIENTS", {"clients": [CLIENT_JSON | {"name": "x" * 65}]}, "a name that is too long"),
    ("CLIENTS", {"clients": [CLIENT_JSON | {"name": "a\u202eb"}]}, "a name that turns the text around"),
    ("DOORS", {"doors": [DOOR_JSON | {"access_time": -1}]}, "a time that runs backwards"),
    ("DOORS", {"doors": [DOOR_JSON | {"hours": []}]}, "hours, which are not told"),
    ("DOORS", {"doors": [DOOR_JSON | {"state": STATE_JSON | {"lock": "open"}}]}, "a state that is none"),
    ("DOORS", {"newest": -1}, "before the first event"),
    ("UNLOCK_REQUEST", {"iss": None}, "null for an issuer that may be left out"),
    ("UNLOCK_REQUEST", {"token": 1}, "no text"),
    ("OPERATE", {"do": "open"}, "nothing that can be done"),
    ("OPERATE", {"ref": "x" * 65}, "a ref that is too long"),
    ("OPERATE", {"actor": PERSON_JSON | {"admin": 1}}, "one is not true"),
    ("POLICY_REQUEST", {"base": 2**63}, "a version that is too large"),
    ("POLICY_REQUEST", {"base": "1"}, "a version that is a text"),
    ("EVENTS", {"events": [EVENT_JSON] * 501}, "too many events"),
    ("EVENTS", {"events": [EVENT_JSON | {"spend_id": "00"}]}, "an id that is too short"),
    ("EVENTS", {"events": [EVENT_JSON | {"seq": 0}]}, "before the first event"),
    ("EVENTS", {"events": [EVENT_JSON | {"sub": "driver-1"}]}, "a person"),
    ("FRAME", {"type": "goodbye"}, "a frame that is not known"),
    ("FRAME", {"next": NEXT_JSON | {"fp": "00" * 31}}, "a fingerprint that is too short"),
]


@pytest.mark.parametrize("name, changed, sentence", WRONG, ids=[sentence for *_, sentence in WRONG])
def test_what_is_not_that_message(name, changed, sentence):
    assert message(name).decode(example(name))
    with pytest.raises(MalformedMessage):
        message(name).decode(example(name, **changed))


@pytest.mark.parametrize("name", sorted({name for name, *_ in EXAMPLES}))
def test_a_message_is_bounded(name):
    with pytest.raises(MalformedMessage, match="too long"):
        message(name).decode(example(name) + b" " * messages.MAX_ANSWER)


def test_a_request_has_at_most_8_kib_and_a_policy_64():
    for name in ("OPERATE", "LOCKDOWN", "CONFIRM", "CHALLENGE_REQUEST", "UNLOCK_REQUEST", "CLIENT_CHANGE"):
        assert message(name).most == wire.MAX_REQUEST == 8192
    assert message("POLICY_REQUEST").most == 65536


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("limit", [None, Limit.ACCURACY])
def test_what_a_presenter_hears_is_what_home_assistant_says(code, limit):
    decision = Decision(code, DOORS[0], limit)
    assert json.loads(messages.ANSWER.encode(Answer.of(decision))) == wire.decision_answer(decision)


def test_what_a_host_gave_along_with_a_request_is_told_only_if_it_is_a_text():
    event = AccessEvent(EventName.DOOR_OPENED, DOORS[0], 1.0, origin=object())
    assert "ref" not in messages.EVENT.write(event)


def test_the_longest_admission_fits_into_one_answer_to_pairing():
    peer = Peer(client_id("1" * 16), "\U0001f6aa" * 64, frozenset(Scope))
    admission = Admission(
        TOKEN,
        client_id("0" * 16),
        KEY.verifier,
        "\U0001f6aa" * 100,
        frozenset(Scope),
        True,
        (peer,) * (MAX_CLIENTS - 1),
    )
    body = messages.ADMISSION.encode(admission)
    assert len(body) <= MAX_PAYLOAD
    assert messages.ADMISSION.decode(body) == admission


def test_a_bearer_is_shown_to_nobody():
    admission = next(value for name, value, _ in EXAMPLES if name == "ADMISSION")
    assert TOKEN not in repr(admission)
    assert "a.b.c" not in repr(UnlockRequest("a.b.c"))


# ---- ids and names ----


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_16_bytes_make_a_gateways_id(one, other):
    assert gateway_id(new_gateway_id(one)) == new_gateway_id(one)
    assert (new_gateway_id(one) == new_gateway_id(other)) is (one == other)


def test_a_name_can_be_shown():
    assert client_name("Anna's \u00e4lteres Home Assistant") == "Anna's \u00e4lteres Home Assistant"
    for text in ("", "x" * 65, "a\nb", "a\0b", "\u200b", "\ud800"):
        with pytest.raises(ValueError, match="not a name"):
            client_name(text)


# ---- the next certificate ----


def test_the_next_certificate_is_announced_by_the_key_of_pairing():
    fingerprint = bytes(range(32))
    text = next_certificate_text(ID, fingerprint)
    assert text == f"vestibule gateway certificate\n{ID}\n{fingerprint.hex()}\n"
    announced = NextCertificate(fingerprint, KEY.sign(text))
    assert announced.is_announced_by(ID, KEY.verifier)


def test_nobody_else_announces_a_next_certificate():
    other = SignerKey("gateway", Ed25519PrivateKey.generate())
    text = next_certificate_text(ID, bytes(32))
    assert not NextCertificate(bytes(32), other.sign(text)).is_announced_by(ID, KEY.verifier), "another key"
    assert not NextCertificate(bytes([1] * 32), KEY.sign(text)).is_announced_by(ID, KEY.verifier), "another certificate"
    assert not NextCertificate(bytes(32), KEY.sign(text)).is_announced_by(gateway_id("e" * 26), KEY.verifier), (
        "its twin"
    )
    assert not NextCertificate(bytes(32), KEY.sign("gateway\n7\nAAAA\n")).is_announced_by(ID, KEY.verifier), (
        "a checkpoint"
    )
    assert not NextCertificate(bytes(32), "").is_announced_by(ID, KEY.verifier)


# ---- a gateway that is newer ----


def event_frame(**changes):
    return json.dumps({"type": "event", "event": EVENT_JSON | changes}).encode()


@pytest.mark.parametrize(
    "changes", [{"outcome": "door_sang"}, {"code": "TOO_LOUD"}, {"outcome": "door_sang", "code": "TOO_LOUD"}]
)
def test_an_event_in_words_that_are_not_known_yet_keeps_its_place(changes):
    body = event_frame(**changes)
    with pytest.raises(MalformedMessage):
        messages.FRAME.decode(body)
    assert messages.newer_event(body) == messages.Newer(7)


@pytest.mark.parametrize(
    "body",
    [
        event_frame(),
        event_frame(outcome="door_sang", seq=None),
        event_frame(outcome="door_sang", seq="7"),
        event_frame(outcome="door_sang", at=-1),
        event_frame(outcome=7),
        event_frame(code=7),
        b"[]",
        b"{}",
        b'{"type": "event", "event": []}',
        b'{"type": "event", "event": {"seq": 7, "outcome": "door_sang", "code": null}}',
        b"no JSON",
    ],
)
def test_nothing_else_is_taken_for_that(body):
    assert messages.newer_event(body) is None
