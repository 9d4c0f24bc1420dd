"""A delivery from end to end: a challenge, a token, an open door, and what is told of it."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from homeassistant.core import Context
from homeassistant.exceptions import ServiceValidationError
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import async_capture_events

from custom_components.vestibule.vestibule_core.keys import SigningKey
from custom_components.vestibule.vestibule_core.model import new_door_id
from custom_components.vestibule.vestibule_core.token import DriverProof
from tests.integration.site import Cloud, RelayButton


async def test_a_genuine_token_opens_its_door_once(site, relay):
    token = await site.token()
    assert relay.told == []

    answer = await site.present(token)

    assert answer == {"word": "granted", "code": "GRANTED", "door": site.door, "limit": None}
    assert relay.told == ["on"]
    assert site.lock().state == "unlocked"
    assert site.lock().attributes["changed_by"] == "Parcel Express"

    again = await site.present(token)
    assert again == {"word": "already_used", "code": "ALREADY_SPENT", "door": None, "limit": None}
    assert relay.told == ["on"]


CONFIRMED = {
    "driver": "passkey",
    "route": True,
    "distance": 12,
    "accuracy": 8,
    "position_age": 3,
    "request_age": 4,
}
"""The four confirmations as an event tells them: ID, route, position and time."""


async def test_every_decision_and_outcome_is_told_once_on_the_bus(site):
    await site.present(await site.token())
    await site.present(await site.token(distance=400))

    assert [event.data for event in site.events] == [
        {
            "door": site.door,
            "device": site.device().id,
            "means": "token",
            "outcome": outcome,
            "code": code,
            "carrier": "Parcel Express",
            "stop": True,
            "sequence": sequence,
            "time": event.data["time"],
            **confirmed,
        }
        for event, (outcome, code, sequence, confirmed) in zip(
            site.events,
            [
                ("access_granted", "GRANTED", 1, {"confirmed": CONFIRMED}),
                ("door_released", "GRANTED", 2, {}),
                ("access_denied", "POLICY_EVIDENCE", 3, {"confirmed": CONFIRMED | {"distance": 400}}),
            ],
            strict=True,
        )
    ]
    for event in site.events:
        time = dt_util.parse_datetime(event.data["time"])
        assert time.utcoffset().total_seconds() == 0
        assert abs((time - dt_util.utcnow()).total_seconds()) < 10


async def test_the_event_entity_writes_a_state_for_each_event_even_when_they_come_together(hass, site):
    changes = async_capture_events(hass, "state_changed")
    answers = await asyncio.gather(*[site.present(await site.token(distance=400)) for _ in range(5)])
    assert {answer["code"] for answer in answers} == {"POLICY_EVIDENCE"}

    written = [change.data["new_state"] for change in changes if change.data["entity_id"] == site.entity_id("event")]
    assert [state.attributes["sequence"] for state in written] == [1, 2, 3, 4, 5]
    assert len({state.state for state in written}) == 5
    told = site.events[-1].data
    assert {name: written[-1].attributes[name] for name in told.keys() - {"door", "device"}} == {
        name: value for name, value in told.items() if name not in {"door", "device"}
    }
    assert written[-1].attributes["event_type"] == "access_denied"


async def test_the_context_of_the_action_goes_through_to_relay_lock_and_events(hass, site, relay, hass_admin_user):
    context = Context(user_id=hass_admin_user.id)
    await site.present(await site.token(), context)
    assert relay.contexts == [context]
    for told in (event.context for event in site.events):
        assert (told.user_id, told.parent_id) == (context.user_id, context.id), "a child of its own for each event"
    for shown in (site.lock().context, site.access().context):
        assert (shown.user_id, shown.parent_id) == (None, None), "whoever carries a token does not open the door"
    assert site.access().context.id == site.events[-1].context.id, "where it can be looked up who that was"


async def test_a_presenter_needs_no_right_to_the_relay(hass, site, relay, hass_read_only_user):
    """The token is the authority: whoever hands it in need not be allowed to switch the lock's relay."""
    context = Context(user_id=hass_read_only_user.id)
    answer = await site.present(await site.token(), context)
    assert answer["word"] == "granted"
    (used,) = relay.contexts
    assert (used.user_id, used.parent_id) == (None, context.id)


@pytest.mark.parametrize(
    "changes, limit",
    [
        ({"driver": DriverProof.BADGE}, "method"),
        ({"distance": 76}, "distance"),
        ({"accuracy": 51}, "accuracy"),
        ({"position_age": 31}, "position_age"),
        ({"requested_at": 1_700_000_000}, "request_age"),
    ],
)
async def test_a_confirmation_outside_a_limit_of_the_building_opens_nothing(site, relay, changes, limit):
    answer = await site.present(await site.token(**changes))
    assert answer == {"word": "refused", "code": "POLICY_EVIDENCE", "door": site.door, "limit": limit}
    assert relay.told == []


def tampered(token: str, d: int | str = 0) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["chk"]["gps"]["d"] = d
    forged = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).decode().rstrip("=")
    return f"{header}.{forged}.{signature}"


def signed_by_a_stranger(token: str) -> str:
    return signed_by(SigningKey.generate(), token)


def signed_by(key: SigningKey, token: str) -> str:
    signed = token.rpartition(".")[0]
    signature = key.sign(signed.encode())
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


@pytest.mark.parametrize(
    "attack",
    [
        tampered,
        signed_by_a_stranger,
        lambda token: token + "=",
        lambda token: " " + token,
        lambda token: token * 3000,
        lambda token: "",
        lambda token: 12345,
        lambda token: "\ud800",
    ],
)
async def test_what_is_not_a_genuine_token_learns_nothing_and_leaves_no_trace(site, relay, attack):
    answer = await site.present(attack(await site.token()))
    assert answer == {"word": "invalid_token", "code": None, "door": None, "limit": None}
    assert relay.told == []
    assert site.events == []


async def test_a_signed_token_whose_claims_cannot_be_read_is_told_of_without_a_door(site, relay):
    answer = await site.present(signed_by(site.cloud.key, tampered(await site.token(), d="near")))
    assert answer == {"word": "invalid_token", "code": None, "door": None, "limit": None}
    (told,) = site.events
    assert (told.data["outcome"], told.data["code"]) == ("access_denied", "BAD_CLAIMS")
    assert (told.data["door"], told.data["device"], told.data["carrier"]) == (None, None, "Parcel Express")
    assert relay.told == []


async def test_a_token_for_another_buildings_door_is_refused(site, relay):
    elsewhere = new_door_id(bytes(16))
    answer = await site.present(site.cloud.token(elsewhere, await site.challenge()))
    assert (answer["word"], answer["code"]) == ("refused", "WRONG_DOOR")
    assert site.events[-1].data["door"] == elsewhere
    assert site.events[-1].data["device"] is None
    assert relay.told == []


async def test_a_made_up_challenge_opens_nothing(site, relay):
    answer = await site.present(site.cloud.token(site.door, "A" * 22))
    assert (answer["word"], answer["code"]) == ("refused", "NONCE_UNKNOWN")
    assert relay.told == []


async def test_two_tokens_on_one_challenge_open_once(site, relay):
    challenge = await site.challenge()
    answers = await asyncio.gather(*[site.present(site.cloud.token(site.door, challenge)) for _ in range(2)])
    assert sorted(answer["code"] for answer in answers) == ["ALREADY_SPENT", "GRANTED"]
    assert relay.told == ["on"]


async def test_one_token_from_many_callers_opens_once(site, relay):
    token = await site.token()
    answers = await asyncio.gather(*[site.present(token) for _ in range(50)])
    assert sorted(answer["code"] for answer in answers) == ["ALREADY_SPENT"] * 49 + ["GRANTED"]
    assert relay.told == ["on"]


async def test_a_carrier_opens_only_the_doors_it_was_given(hass, site, relay):
    button = RelayButton("gate")
    await button.install(hass)
    gate = site.add_door("Gate", button.entity_id)
    await hass.async_block_till_done()
    answer = await site.present(site.cloud.token(gate, await site.challenge()))
    assert answer["code"] == "NONCE_UNKNOWN", "a challenge is one door's"
    site.change("Parcel Express", doors=[gate])
    await hass.async_block_till_done()
    assert (await site.present(await site.token(gate)))["word"] == "granted"
    assert (button.told, relay.told) == (["press"], [])


async def test_jamming_burns_no_token(site, relay):
    token = await site.token()
    relay.lose()
    answer = await site.present(token)
    assert (answer["word"], answer["code"]) == ("unavailable", "STRIKE_UNREACHABLE")
    assert relay.told == []

    relay.find()
    assert (await site.present(token))["word"] == "granted"
    assert relay.told == ["on"]


async def test_a_caller_that_is_cancelled_leaves_a_whole_unlock_behind(hass, site, relay):
    token = await site.token()
    presenting = hass.async_create_task(site.call("present_token", token=token))
    await asyncio.sleep(0)
    presenting.cancel()
    await site.until("unlocked")
    await site.settle()
    assert relay.told == ["on"]
    assert site.outcomes() == [("access_granted", "GRANTED"), ("door_released", "GRANTED")]


# ---- asking for a challenge -----------------------------------------------------------------------------------------


async def test_a_challenge_is_asked_for_by_door_or_by_device(site):
    for where in ({"door": site.door}, {"device_id": site.device().id}):
        answer = await site.call("request_challenge", issuer=site.cloud.issuer, **where)
        assert (answer["door"], answer["ttl"]) == (site.door, 60)
        granted = await site.present(site.cloud.token(site.door, answer["challenge"]))
        assert granted["word"] == "granted"


async def test_any_user_may_ask_and_present(hass, site, hass_read_only_user):
    answer = await site.call(
        "request_challenge", Context(user_id=hass_read_only_user.id), door=site.door, issuer=site.cloud.issuer
    )
    assert answer["door"] == site.door


async def test_a_carrier_of_another_building_gets_no_challenge(site):
    with pytest.raises(ServiceValidationError) as raised:
        await site.challenge(cloud=Cloud("https://stranger.example"))
    assert raised.value.translation_key == "unknown_issuer"
