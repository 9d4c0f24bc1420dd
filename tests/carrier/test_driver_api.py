"""The driver's API: a device by a link, a door by a passkey; and what an attacker gets, which is nothing."""

import asyncio
import json
from datetime import time, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from carrier import drivers, limits, manifests
from carrier.decide import Unreachable
from carrier.manifests import NewRoute, NewStop
from carrier.store.tables import Device, Driver, Session
from tests.carrier.authenticator import Authenticator
from tests.carrier.served import FAR, ORIGIN, PLACE, Phone, Served, outcome
from tests.simulated import Moment
from vestibule_core import b64url
from vestibule_core.hours import Day, Hours
from vestibule_core.model import Actor


@pytest.fixture
async def served(tmp_path):
    async with Served(tmp_path) as served:
        yield served


# ---- the way of a driver ----


async def test_a_driver_joins_sees_todays_stop_and_opens_its_doors_in_order(served):
    phone = await served.phone()
    today = await phone.today()
    assert (today["driver"], today["company"]) == ("Kim Example", "Swift Parcels")
    (stop,) = today["stops"]
    assert (stop["id"], stop["building"], stop["state"]) == (served.stop, "Linden Court", "due")
    assert [(door["name"], door["state"]) for door in stop["doors"]] == [("Gate", "not_yet"), ("Lobby", "not_yet")]

    assert await phone.open(1) == ("refused", {"route": "earlier_door_first"})
    assert await phone.open(0) == ("granted", {})
    assert await phone.open(1) == ("granted", {})
    assert served.site.pulses == 2
    assert [door["state"] for door in (await phone.today())["stops"][0]["doors"]] == ["opened", "opened"]
    assert await phone.open(0) == ("refused", {"route": "already_asked"})
    assert served.site.pulses == 2


async def test_a_route_of_tomorrow_is_not_shown_tonight_although_its_shift_has_begun(served):
    """The door would refuse it as not today's."""
    now = served.now()
    begins, ends = now - timedelta(hours=1), now + timedelta(hours=2)
    stop = NewStop(1, served.building, served.doors, begins, ends, None)
    tomorrow = now.astimezone(ZoneInfo("Europe/Berlin")).date() + timedelta(days=1)
    async with served.store.transaction() as session:
        await manifests.bring(session, [NewRoute(1, served.other, tomorrow, begins, ends, (stop,))], "tests", now)
    phone = await served.phone(served.other)
    assert (await phone.today())["stops"] == []


async def test_all_of_it_is_the_same_on_postgresql(tmp_path, cluster):
    async with Served(tmp_path, database=cluster.create()) as served:
        secret = await served.invite(served.driver)
        results = await asyncio.gather(*(Phone(served).join(secret) for _ in range(6)))
        assert results.count(204) == 1
        phone = await served.phone()
        clone = Phone(served, phone.device.copy(), phone.cookie)
        _, begun = await phone.wish()
        credential = phone.device.get(begun["options"])
        answers = await asyncio.gather(*(phone.answer(begun, credential) for _ in range(20)))
        assert sorted(status for status, _ in answers) == [200] + [410] * 19
        assert await clone.open(1) == ("refused", {"id": "passkey_copied"})
        assert await phone.open(1) == ("granted", {})
        assert [door["state"] for door in (await phone.today())["stops"][0]["doors"]] == ["opened", "opened"]
        newest = (await served.ask("GET", "/v1/decisions"))["decisions"]
        assert [each["state"] for each in newest] == ["granted", "refused", "granted"]
        assert len((await served.ask("GET", f"/v1/decisions?before={newest[0]['request']}"))["decisions"]) == 2
        assert (await phone.send("DELETE", "/driver/session"))[0] == 204
        assert await phone.sign_in() == 204
        await served.ask("DELETE", f"/v1/drivers/{served.driver}")
        assert (await phone.send("GET", "/driver/today"))[0] == 401
        assert served.site.pulses == 2


async def test_each_confirmation_is_told_by_itself_with_what_to_do(served):
    phone = await served.phone()
    _, begun = await phone.wish(place=FAR)
    _, lines = await phone.answer(begun)
    assert [line["event"] for line in lines] == ["check"] * 4 + ["outcome"]
    where = lines[2]
    assert (where["check"], where["passed"], where["reason"]) == ("position", False, "too_far")
    assert (where["text"], where["advice"]) == (
        "You are not at this door.",
        "Go to the door, then try again. Is it the right building?",
    )
    assert lines[-1]["state"] == "refused"
    served.advance(seconds=10)  # to walk there
    _, begun = await phone.wish()
    _, lines = await phone.answer(begun)
    assert [line["event"] for line in lines] == ["check"] * 4 + ["building", "outcome"]


async def test_a_page_that_lost_its_line_asks_what_became_of_it_and_opens_nothing_by_that(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    path = f"/driver/requests/{begun['request']}"
    assert await phone.send("GET", path) == (404, {"error": "not_found"})
    _, lines = await phone.answer(begun)
    for _ in range(2):
        status, said = await phone.send("GET", path)
        assert status == 200
        assert said["events"] == [line for line in lines if line["event"] != "building"]
    assert served.site.pulses == 1
    other = await served.phone(served.other)
    assert await other.send("GET", path) == (404, {"error": "not_found"})


async def test_a_driver_who_goes_away_in_the_middle_is_decided_all_the_same(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    told, going_on = asyncio.Event(), asyncio.Event()

    async def wait():
        told.set()
        await going_on.wait()

    served.site.strike.at(Moment.TOLD, wait)
    body = {"credential": phone.device.get(begun["options"])}
    asking = asyncio.create_task(phone.send("POST", f"/driver/requests/{begun['request']}", json=body))
    await told.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await phone.send("GET", f"/driver/requests/{begun['request']}"))[1]["events"][-1]["event"] == "check"
    going_on.set()
    for _ in range(200):
        _, said = await phone.send("GET", f"/driver/requests/{begun['request']}")
        if said["events"][-1]["event"] == "outcome":
            break
        await asyncio.sleep(0.02)
    assert outcome(said["events"]) == ("granted", {})


async def test_without_a_connected_building_nothing_is_signed_and_the_door_stays_free(tmp_path):
    async with Served(tmp_path, connected=False) as served:
        phone = await served.phone()
        for _ in range(2):
            assert await phone.open() == ("unreachable", {})
        assert [door["state"] for door in (await phone.today())["stops"][0]["doors"]] == ["not_yet", "not_yet"]
        async with served.http.get("/health") as answer:
            assert await answer.json() == {"status": "ok", "buildings_connected": 0}


async def test_a_building_that_refuses_says_why_as_far_as_the_driver_may_know(served):
    phone = await served.phone()
    await served.site.controller.by_hand.set_lockdown(True, Actor("ann-1", "Ann", is_admin=True))
    _, begun = await phone.wish()
    _, lines = await phone.answer(begun)
    assert lines[-1] == {
        "event": "outcome",
        "state": "refused_by_building",
        "code": "DOOR_UNAVAILABLE",
        "text": "This door cannot be used at the moment.",
        "advice": "Call your dispatcher.",
        "may_ask_again": False,
    }
    assert served.site.pulses == 0


async def test_a_driver_is_told_whether_this_door_may_be_asked_for_again(served):
    """As outside of the building's hours: once more. Also whoever asks later what became of it."""
    phone = await served.phone()

    async def asks(door=0, **position):
        _, begun = await phone.wish(door, **position)
        _, lines = await phone.answer(begun)
        _, later = await phone.send("GET", f"/driver/requests/{begun['request']}")
        assert later["events"][-1] == lines[-1]
        return lines[-1]["state"], lines[-1]["may_ask_again"]

    assert await asks(place=FAR) == ("refused", True)
    served.advance(seconds=10)
    hour = (served.now().hour + 6) % 23
    served.site.carrier.hours = (Hours(frozenset(Day), time(hour), time(hour + 1)),)
    served.site.controller.apply(served.site.building, served.site.strikes)
    assert await asks() == ("refused_by_building", True)
    assert await asks() == ("refused_by_building", False)
    assert await asks() == ("refused", False)  # it was asked for already
    assert await asks(1) == ("refused", True)  # the one before it has to open first
    await served.ask("POST", f"/v1/stops/{served.stop}/end", json={"state": "done"})
    assert await asks(1) == ("refused", False)


async def test_a_door_that_opened_or_may_have_is_not_asked_for_again(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    assert (await phone.answer(begun))[1][-1]["may_ask_again"] is False
    served.link.unlock = _silent
    _, begun = await phone.wish(1)
    _, lines = await phone.answer(begun)
    assert (lines[-1]["state"], lines[-1]["may_ask_again"]) == ("unknown", False)


async def _silent(challenge, text):
    raise Unreachable


async def test_a_phone_that_is_withdrawn_while_the_building_is_asked_is_told_so(served):
    phone = await served.phone()
    give = served.link.challenge

    async def withdrawn(building, door):
        await served.ask("POST", f"/v1/drivers/{served.driver}/revoke")
        return await give(building, door)

    served.link.challenge = withdrawn
    _, begun = await phone.wish()
    _, lines = await phone.answer(begun)
    assert [line["event"] for line in lines] == ["check"] * 4 + ["building"] + ["check"] * 4 + ["outcome"]
    assert (lines[5]["passed"], lines[5]["text"]) == (False, "This phone was withdrawn.")
    assert (lines[-1]["state"], lines[-1]["code"]) == ("refused", "device_revoked")
    assert served.site.pulses == 0


# ---- attacks: assertions ----


async def test_a_confirmed_wish_leaves_no_position_but_in_the_evidence(served):
    phone = await served.phone()
    assert (await phone.open())[0] == "granted"
    async with served.store.connection() as connection:
        rows = (await connection.exec_driver_sql("SELECT payload FROM ceremony WHERE kind = 'request'")).all()
    assert [json.loads(payload) for (payload,) in rows] == [{}]


async def test_a_replayed_assertion_opens_nothing(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    credential = phone.device.get(begun["options"])
    assert outcome((await phone.answer(begun, credential))[1]) == ("granted", {})
    assert await phone.answer(begun, credential) == (410, {"error": "expired"})
    _, again = await phone.wish(1)
    assert await phone.answer(again, credential) == (410, {"error": "expired"})
    assert served.site.pulses == 1


async def test_50_copies_of_one_assertion_at_once_open_one_door_once(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    credential = phone.device.get(begun["options"])
    answers = await asyncio.gather(*(phone.answer(begun, credential) for _ in range(50)))
    assert [status for status, _ in answers].count(200) == 1
    assert {status for status, _ in answers} <= {200, 410, 429}
    assert served.site.pulses == 1


async def test_an_assertion_for_one_request_is_worth_nothing_for_another(served):
    phone = await served.phone()
    _, here = await phone.wish()
    _, far = await phone.wish(place=FAR)
    credential = phone.device.get(here["options"])
    assert await phone.answer(far, credential) == (404, {"error": "not_found"})
    assert here["options"]["challenge"] != far["options"]["challenge"]
    assert outcome((await phone.answer(far))[1]) == ("refused", {"position": "too_far"})
    assert served.site.pulses == 0


async def test_what_was_asked_for_is_kept_here_and_cannot_be_changed_with_the_answer(served):
    phone = await served.phone()
    _, begun = await phone.wish(place=FAR)
    body = {"credential": phone.device.get(begun["options"]), "position": phone.position(PLACE)}
    assert (await phone.send("POST", f"/driver/requests/{begun['request']}", json=body))[0] == 400


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"verifies_user": False}, "no_user_verification"),
        ({"user_is_there": False}, "not_verified"),
        ({"origin": "https://evil.example"}, "not_verified"),
        ({"rp_id": "evil.example"}, "not_verified"),
        ({"cross_origin": True}, "not_verified"),
        ({"counter": 0}, "passkey_copied"),
    ],
    ids=lambda change: next(iter(change)) if isinstance(change, dict) else "",
)
async def test_an_assertion_that_is_not_quite_right_confirms_nobody(served, change, reason):
    phone = await served.phone()
    for name, value in change.items():
        setattr(phone.device, name, value)
    assert await phone.open() == ("refused", {"id": reason})
    assert served.site.pulses == 0


async def test_a_cloned_device_is_found_when_both_have_signed(served):
    phone = await served.phone()
    clone = Phone(served, phone.device.copy(), phone.cookie)
    assert await phone.open() == ("granted", {})
    assert await clone.open(1) == ("refused", {"id": "passkey_copied"})
    assert await phone.open(1) == ("granted", {})


async def test_another_drivers_device_confirms_nobody_else(served):
    mine, theirs = await served.phone(), await served.phone(served.other)
    _, begun = await mine.wish()
    credential = theirs.device.get(begun["options"])
    assert outcome((await mine.answer(begun, credential))[1]) == ("refused", {"id": "not_verified"})
    _, begun = await mine.wish()
    as_mine = theirs.device.get(begun["options"], id=mine.device.id)
    assert outcome((await mine.answer(begun, as_mine))[1]) == ("refused", {"id": "not_verified"})
    _, begun = await mine.wish()
    assert await theirs.answer(begun, mine.device.get(begun["options"])) == (404, {"error": "not_found"})
    assert await theirs.open() == ("refused", {"route": "not_on_route"})
    assert served.site.pulses == 0


async def test_an_assertion_made_for_signing_in_opens_nothing(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    _, said = await phone.send("POST", "/driver/sign-in")
    assert (await phone.answer(begun, phone.device.get(said["options"])))[0] == 404
    _, begun = await phone.wish()
    body = {"credential": phone.device.get(begun["options"])}
    assert (await phone.send("POST", "/driver/sign-in/passkey", json=body))[0] == 410


async def test_an_assertion_that_comes_too_late_opens_nothing(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    served.advance(seconds=31)
    assert outcome((await phone.answer(begun))[1]) == ("refused", {"position": "position_old"})
    _, begun = await phone.wish()
    served.advance(seconds=61)
    state, reasons = outcome((await phone.answer(begun))[1])
    assert (state, reasons["time"]) == ("refused", "request_old")
    _, begun = await phone.wish()
    served.advance(seconds=121)
    assert await phone.answer(begun) == (410, {"error": "expired"})


async def test_a_revoked_device_is_signed_out_and_opens_nothing(served):
    phone = await served.phone()
    _, begun = await phone.wish()
    (driver,) = [each for each in (await served.ask("GET", "/v1/drivers"))["drivers"] if each["id"] == served.driver]
    await served.ask("DELETE", f"/v1/devices/{driver['devices'][0]['id']}")
    assert await phone.answer(begun) == (401, {"error": "unauthorized"})
    assert (await phone.send("GET", "/driver/today"))[0] == 401
    assert await phone.sign_in() == 403
    assert served.site.pulses == 0


async def test_a_typed_position_is_refused_unless_this_cloud_is_for_tests_and_marked_then(served, tmp_path):
    phone = await served.phone()
    assert await phone.wish(typed=True) == (403, {"error": "forbidden"})
    (tmp_path / "b").mkdir()
    async with Served(tmp_path / "b", typed=True) as demo:
        phone = await demo.phone()
        assert (await phone.today())["typed_positions"]
        assert await phone.open(typed=True) == ("granted", {})
        (decision,) = (await demo.ask("GET", "/v1/decisions"))["decisions"]
        assert decision["position"]["typed"] is True


# ---- attacks: links ----


async def test_a_link_registers_one_device_and_looking_at_it_burns_nothing(served):
    secret = await served.invite(served.driver)
    looking = Phone(served)
    for _ in range(3):
        assert (await looking.send("POST", "/driver/join", json={"invitation": secret}))[0] == 200
    first, second = Phone(served), Phone(served)
    assert await first.join(secret) == 204
    assert await second.join(secret) == 404
    assert second.cookie == ""


async def test_two_phones_that_use_one_link_at_once_get_one_device(served):
    secret = await served.invite(served.driver)
    results = await asyncio.gather(*(Phone(served).join(secret) for _ in range(6)))
    assert results.count(204) == 1


async def test_a_link_that_is_too_old_void_or_guessed_registers_nothing(served):
    void = await served.invite(served.driver)
    secret = await served.invite(served.driver)
    assert await Phone(served).join(void) == 404
    assert await Phone(served).join(b64url.encode(bytes(32))) == 404
    served.advance(hours=25)
    assert await Phone(served).join(secret) == 404


async def test_an_answer_for_one_link_does_not_use_another(served):
    mine, theirs = await served.invite(served.driver), await served.invite(served.other)
    phone = Phone(served)
    _, said = await phone.send("POST", "/driver/join", json={"invitation": mine})
    body = {"invitation": theirs, "credential": phone.device.create(said["options"])}
    assert await phone.send("POST", "/driver/join/passkey", json=body) == (410, {"error": "expired"})
    assert await Phone(served).join(theirs) == 204


async def test_a_device_that_does_not_know_its_owner_or_is_of_another_page_is_not_registered(served):
    secret = await served.invite(served.driver)
    assert await Phone(served, Authenticator(ORIGIN, "swift.example", verifies_user=False)).join(secret) == 403
    assert await Phone(served, Authenticator("https://evil.example", "swift.example")).join(secret) == 403
    assert await Phone(served).join(secret) == 204, "the link is good still"


@pytest.mark.parametrize("method, path", [("POST", "/v1/drivers/{}/revoke"), ("DELETE", "/v1/drivers/{}")])
async def test_who_is_revoked_or_removed_in_the_middle_of_joining_is(tmp_path, cluster, monkeypatch, method, path):
    """Neither waits for the other: PostgreSQL would end one of the two, and it might be the revocation."""
    async with Served(tmp_path, database=cluster.create()) as served:
        add_device, changing = drivers.add_device, []

        async def slowly(*arguments, **members):
            changing.append(asyncio.create_task(served.request(method, path.format(served.driver))))
            await asyncio.wait(changing, timeout=0.5)
            return await add_device(*arguments, **members)

        phone = Phone(served)
        monkeypatch.setattr(drivers, "add_device", slowly)
        assert await phone.join(await served.invite(served.driver)) == 204
        (answer,) = await asyncio.gather(*changing)
        assert answer.ok
        assert (await phone.send("GET", "/driver/today"))[0] == 401
        async with served.store.transaction() as session:
            assert [each.revoked_at is None for each in await session.scalars(select(Device))] == [False]


async def test_a_passkey_is_registered_once(served):
    phone = await served.phone()
    assert await Phone(served, phone.device).join(await served.invite(served.other)) == 409


async def test_a_driver_has_five_devices_at_the_most(served):
    for _ in range(5):
        await served.phone()
    assert await Phone(served).join(await served.invite(served.driver)) == 409


# ---- sessions ----


async def test_the_cookie_is_out_of_reach_of_scripts_other_sites_and_plain_http(served):
    phone = await served.phone()
    parts = {part.strip() for part in phone.set_cookie.split(";")[1:]}
    assert parts == {"HttpOnly", "Secure", "SameSite=Strict", "Path=/", "Max-Age=2592000"}
    async with served.store.transaction() as session:
        rows = (await session.connection()).exec_driver_sql("SELECT * FROM session")
        assert phone.cookie not in str((await rows).all())


async def test_a_stolen_cookie_opens_nothing(served):
    phone = await served.phone()
    thief = Phone(served, cookie=phone.cookie)
    assert await thief.open() == ("refused", {"id": "not_verified"})
    assert served.site.pulses == 0


async def test_a_driver_signs_out_and_in_again_with_the_passkey_alone(served):
    phone = await served.phone()
    cookie = phone.cookie
    assert (await phone.send("DELETE", "/driver/session"))[0] == 204
    phone.cookie = cookie
    assert (await phone.send("GET", "/driver/today"))[0] == 401
    phone.cookie = ""
    assert await phone.sign_in() == 204
    assert (await phone.today())["driver"] == "Kim Example"
    served.advance(days=31)
    assert (await phone.send("GET", "/driver/today"))[0] == 401


async def test_a_stranger_and_a_passkey_without_its_owner_do_not_sign_in(served):
    phone = await served.phone()
    assert await Phone(served).sign_in() == 403
    phone.device.verifies_user = False
    assert await phone.sign_in() == 403
    phone.device.verifies_user = True
    _, said = await phone.send("POST", "/driver/sign-in")
    body = {"credential": phone.device.get(said["options"])}
    assert (await phone.send("POST", "/driver/sign-in/passkey", json=body))[0] == 204
    assert (await phone.send("POST", "/driver/sign-in/passkey", json=body))[0] == 410


# ---- attacks: pages of others, floods ----


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
    ],
    ids=str,
)
async def test_a_page_of_another_origin_asks_in_vain(served, headers):
    phone = await served.phone()
    status, said = await phone.send("POST", "/driver/requests", json={}, headers=headers)
    assert (status, said) == (403, {"error": "forbidden"})
    assert (await phone.send("POST", "/driver/sign-in", headers=headers))[0] == 403
    if "Origin" not in headers or headers["Origin"]:
        assert (await phone.send("GET", "/driver/today", headers=headers))[0] == 403


async def test_what_is_no_request_is_refused_by_a_constant_word(served):
    phone = await served.phone()
    good = {"stop": served.stop, "door": served.doors[0], "position": phone.position()}
    for body in (
        b"",
        b"[]",
        b"\xff",
        json.dumps(good | {"more": 1}).encode(),
        json.dumps(good | {"stop": "stop:"}).encode(),
        json.dumps(good | {"position": phone.position(lat=91)}).encode(),
        json.dumps(good | {"position": phone.position(accuracy=-1)}).encode(),
        json.dumps(good).replace("8", "NaN", 1).encode(),
        json.dumps(good | {"position": phone.position(at=10**30)}).encode(),
    ):
        status, said = await phone.send("POST", "/driver/requests", data=body)
        assert (status, said["error"]) == (400, "bad_request"), body


async def test_a_body_that_is_too_large_is_not_read_to_its_end(served):
    phone = await served.phone()
    assert (await phone.send("POST", "/driver/requests", data=b"x" * 9000))[0] == 413

    async def endless():
        for _ in range(1000):
            yield b"x" * 1000

    assert (await phone.send("POST", "/driver/requests", data=endless()))[0] == 413


async def test_whoever_floods_from_a_drivers_address_keeps_no_driver_out(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "STRANGER_PER_SECOND", 0.0)
    async with Served(tmp_path) as served:
        phone = await served.phone()
        stranger = Phone(served)
        answers = [(await stranger.send("POST", "/driver/sign-in"))[0] for _ in range(80)]
        assert 429 in answers
        guesser = Phone(served, cookie=b64url.encode(bytes(32)))
        assert (await guesser.send("GET", "/driver/today"))[0] == 429
        assert await phone.open() == ("granted", {})


async def test_one_device_that_floods_is_held_up_and_no_other(served):
    phone, other = await served.phone(), await served.phone(served.other)
    stop = await served.bring(served.other)
    statuses = [(await phone.wish())[0] for _ in range(20)]
    assert 429 in statuses
    assert await other.open(0, stop) == ("granted", {})


async def test_a_removed_drivers_name_devices_and_sessions_are_gone(served):
    phone = await served.phone()
    assert await phone.open() == ("granted", {})
    await served.ask("DELETE", f"/v1/drivers/{served.driver}")
    assert (await phone.send("GET", "/driver/today"))[0] == 401
    assert await phone.sign_in() == 403
    async with served.store.transaction() as session:
        driver = await session.get_one(Driver, served.driver)
        assert driver.name is None
        assert (await session.scalars(select(Session))).all() == []
        assert all(each.revoked_at for each in await session.scalars(select(Device)))
