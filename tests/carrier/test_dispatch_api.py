"""The dispatchers' API: what a key may do, manifests in two spellings, decisions as they are made."""

import asyncio
import json
import logging
from datetime import timedelta

import pytest
from sqlalchemy import text
from yarl import URL

from carrier import api_keys, manifests
from carrier.api_keys import Scope
from carrier.dispatch_api import LIVE_EVERY, MOST, ROUTES
from carrier.manifests import NewRoute, NewStop
from carrier.store import Prefix, new_id
from carrier.store.tables import Request, RequestState
from tests.carrier.linked import greet
from tests.carrier.served import FAR, HOST, PLACE, Served
from tests.simulated import IDENTITY
from vestibule_core.link.messages import Keys

NONE = "{}:" + "a" * 26
"""An id of nothing."""


@pytest.fixture
async def served(tmp_path):
    async with Served(tmp_path) as served:
        yield served


async def key(served, *scopes):
    async with served.store.transaction() as session:
        row, secret = await api_keys.add(session, "a program", scopes, "tests", served.now())
    return row.id, secret


def filled(path, served):
    names = {
        "driver": served.driver,
        "device": NONE.format("device"),
        "route": NONE.format("route"),
        "stop": served.stop,
        "alarm": 1,
    }
    return path.format(**names)


# ---- keys ----


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_key_is_good_for_its_scopes_and_nothing_else(served, scope):
    _, secret = await key(served, scope)
    for route in ROUTES:
        if route.path == "/v1/decisions/live" and route.who is scope:
            continue
        headers = {"Authorization": f"Bearer {secret}"}
        async with served.http.request(route.method, filled(route.path, served), headers=headers, data=b"") as answer:
            assert (answer.status == 403) is (route.who is not scope), route.path


@pytest.mark.parametrize("shown", ["", "Bearer ", "Bearer vck_" + "A" * 43, "Basic x", "bearer {}", "Bearer {}x", "{}"])
async def test_whatever_is_no_key_opens_no_route(served, shown):
    headers = {"Authorization": shown.format(served.key)}
    for route in ROUTES:
        async with served.http.request(route.method, filled(route.path, served), headers=headers) as answer:
            assert answer.status == 401, route.path
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_revoked_key_is_worth_nothing_at_once(served):
    id_, secret = await key(served, Scope.READ)
    headers = {"Authorization": f"Bearer {secret}"}
    assert (await served.http.get("/v1/drivers", headers=headers)).status == 200
    async with served.store.transaction() as session:
        await api_keys.revoke(session, id_, "tests", served.now())
    assert (await served.http.get("/v1/drivers", headers=headers)).status == 401


async def test_a_key_is_taken_from_its_header_alone_and_from_no_other_origins_page(served):
    assert (await served.http.get(f"/v1/drivers?key={served.key}&access_token={served.key}")).status == 401
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
        assert (await served.request("GET", "/v1/drivers", headers=headers)).status == 403
    assert (await served.request("GET", "/v1/drivers", headers={"Origin": served.origin})).status == 200


async def test_a_drivers_session_is_no_key(served):
    phone = await served.phone()
    assert (await phone.send("GET", "/v1/drivers"))[0] == 401


# ---- drivers ----


async def test_a_driver_is_added_invited_vetted_revoked_and_removed_and_each_is_audited(served):
    until = (served.now() + timedelta(days=9)).isoformat()
    added = await served.ask("POST", "/v1/drivers", json={"name": "Sam", "vetted_until": None})
    id_, path = added["id"], f"/v1/drivers/{added['id']}"
    phone = await served.phone(id_)
    stop = await served.bring(id_)
    assert await phone.open(0, stop) == ("refused", {"id": "vetting_missing"})
    changed = await served.ask("PUT", path, json={"active": True, "vetted_until": until})
    assert changed["vetted_until"].endswith("Z")
    assert len(changed["devices"]) == 1
    assert await phone.open(0, stop) == ("granted", {})
    await served.ask("PUT", path, json={"active": False, "vetted_until": until})
    assert (await phone.send("GET", "/driver/today"))[0] == 401
    assert await served.ask("POST", f"{path}/revoke") == {"devices": 1}
    await served.ask("DELETE", path)
    assert (await served.request("PUT", path, json={"active": True, "vetted_until": None})).status == 404
    entries = (await served.ask("GET", f"/v1/audit?subject={id_}"))["entries"]
    assert [entry["what"] for entry in reversed(entries)] == [
        "driver added",
        "driver invited",
        "vetting changed",
        "driver deactivated",
        "driver removed",
    ]
    assert {entry["who"].partition(":")[0] for entry in entries} == {"key"}
    assert "Sam" not in json.dumps(await served.ask("GET", "/v1/audit"))


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "vetted_until": None},
        {"name": "x" * 81, "vetted_until": None},
        {"name": "a\u202eb", "vetted_until": None},
        {"name": "Sam"},
        {"name": "Sam", "vetted_until": "2027-01-01"},
        {"name": "Sam", "vetted_until": None, "admin": True},
        {"name": 7, "vetted_until": None},
    ],
    ids=str,
)
async def test_a_driver_that_cannot_be_is_refused(served, body):
    async with await served.request("POST", "/v1/drivers", json=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"] == "bad_request"


async def test_an_id_of_another_kind_is_not_there(served):
    assert (await served.request("POST", f"/v1/drivers/{served.stop}/revoke")).status == 404
    assert (await served.request("DELETE", f"/v1/devices/{served.driver}")).status == 404


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(request, tmp_path):
    """A cloud on each kind of database."""
    database = request.getfixturevalue("cluster").create() if request.param == "postgresql" else ""
    async with Served(tmp_path, database=database) as served:
        yield served


async def test_what_no_database_can_hold_is_refused_alike_and_never_logged(either, caplog):
    phone = await either.phone()
    headers = {"Authorization": f"Bearer {either.key}", "Origin": either.origin}
    headers["Cookie"] = f"__Host-driver={phone.cookie}"
    for method, path, status in (
        ("GET", "/v1/decisions?before={}", 400),
        ("GET", "/v1/audit?subject={}", 400),
        ("PUT", "/v1/drivers/driver:{}", 404),
        ("DELETE", "/v1/drivers/driver:{}", 404),
        ("POST", "/v1/drivers/driver:{}/invitation", 404),
        ("POST", "/v1/drivers/driver:{}/revoke", 404),
        ("DELETE", "/v1/devices/device:{}", 404),
        ("DELETE", "/v1/routes/route:{}", 404),
        ("POST", "/v1/stops/stop:{}/end", 404),
        ("POST", "/v1/alarms/{}/seen", 404),
        ("GET", "/driver/requests/req:{}", 404),
    ):
        body = {"PUT": {"active": True, "vetted_until": None}, "POST": {"state": "done"}}.get(method)
        for spelt in ("%00", "%ed%a0%80", "%ff"):
            url = either.http._base_url.join(URL(path.format(spelt), encoded=True))
            async with either.http.request(method, url, headers=headers, json=body) as answer:
                assert answer.status == status, url
    for name, value in (
        ("driver", "driver:{}"),
        ("building", "building:{}"),
        ("doors", "door:{}"),
        ("reference", "{}"),
    ):
        for character in ("\0", "\ud800"):
            wrong = manifest(either)
            route, spelt = wrong["routes"][0], value.format(character)
            (route if name == "driver" else route["stops"][0])[name] = [spelt] if name == "doors" else spelt
            async with await either.request("POST", "/v1/manifests", json=wrong) as answer:
                assert answer.status == 400
                assert name in (await answer.json())["why"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# ---- manifests ----


def manifest(served, **stop):
    now = served.now()
    begins, ends = (now - timedelta(hours=1)).isoformat(), (now + timedelta(hours=1)).isoformat()
    stop = {
        "building": served.building,
        "doors": list(served.doors),
        "window_from": begins,
        "window_to": ends,
        "reference": "P-2",
    } | stop
    day = now.date().isoformat()
    return {"routes": [{"driver": served.other, "day": day, "shift_from": begins, "shift_to": ends, "stops": [stop]}]}


async def test_a_manifest_is_brought_once_as_json_and_its_stops_are_ended(served):
    (route,) = (await served.ask("POST", "/v1/manifests", json=manifest(served)))["routes"]
    async with await served.request("POST", "/v1/manifests", json=manifest(served)) as again:
        assert again.status == 400
        assert "cancel that first" in (await again.json())["why"]
    listed = (await served.ask("GET", f"/v1/routes?day={served.now().date()}"))["routes"]
    (mine,) = [each for each in listed if each["id"] == route]
    (stop,) = mine["stops"]
    assert (stop["state"], stop["reference"], len(stop["doors"])) == ("due", "P-2", 2)
    await served.ask("POST", f"/v1/stops/{stop['id']}/end", json={"state": "done"})
    assert (await served.request("POST", f"/v1/stops/{stop['id']}/end", json={"state": "done"})).status == 404
    assert await served.ask("DELETE", f"/v1/routes/{route}") == {"stops": 0}


async def test_a_manifest_is_brought_as_csv(served):
    route = manifest(served)["routes"][0]
    stop = route["stops"][0]
    columns = "driver,day,shift_from,shift_to,building,doors,window_from,window_to,reference"
    row = [route["driver"], route["day"], route["shift_from"], route["shift_to"], stop["building"]]
    row += [" ".join(stop["doors"]), stop["window_from"], stop["window_to"], ""]
    text = f"{columns}\n{','.join(row)}\n"
    headers = {"Content-Type": "text/csv"}
    assert len((await served.ask("POST", "/v1/manifests", data=text.encode(), headers=headers))["routes"]) == 1


@pytest.mark.long
async def test_more_stops_in_a_day_than_a_statement_has_values_are_listed(either):
    now = either.now()
    stop = NewStop(1, either.building, either.doors, now, now + timedelta(hours=1), None)
    for times in (1, 2):
        shift = now + timedelta(hours=2 * times)
        route = NewRoute(1, either.other, now.date(), shift, shift + timedelta(hours=1), (stop,) * 16_400)
        async with either.store.transaction() as session:
            await manifests.bring(session, [route], "tests", now)
    routes = (await either.ask("GET", f"/v1/routes?day={now.date()}"))["routes"]
    stops = [each for route in routes for each in route["stops"] if route["driver"] == either.other]
    assert len(stops) == 32_800
    assert {len(each["doors"]) for each in stops} == {2}


async def test_a_wrong_line_is_named_and_nothing_of_the_manifest_is_taken(served):
    wrong = manifest(served, building=NONE.format("building"))
    async with await served.request("POST", "/v1/manifests", json=wrong) as answer:
        assert answer.status == 400
        assert f"there is no building {NONE.format('building')}" in (await answer.json())["why"]
    for data, kind in ((b"\xff", "text/csv"), (b"{", "application/json"), (b"", "text/csv")):
        async with await served.request("POST", "/v1/manifests", data=data, headers={"Content-Type": kind}) as answer:
            assert answer.status == 400
    async with await served.request(
        "POST", "/v1/manifests", data=b"x", headers={"Content-Type": "text/plain"}
    ) as answer:
        assert answer.status == 415
    assert len((await served.ask("GET", f"/v1/routes?day={served.now().date()}"))["routes"]) <= 1


async def test_a_cancelled_stop_opens_nothing(served):
    phone = await served.phone()
    await served.ask("POST", f"/v1/stops/{served.stop}/end", json={"state": "cancelled"})
    assert await phone.open() == ("refused", {"route": "stop_cancelled"})


# ---- decisions ----


async def test_a_decision_is_told_with_what_was_measured_and_never_a_place(served):
    phone = await served.phone()
    await phone.open(place=FAR)
    served.advance(seconds=10)
    await phone.open()
    newest, oldest = (await served.ask("GET", "/v1/decisions"))["decisions"]
    assert (newest["state"], oldest["state"], oldest["code"]) == ("granted", "refused", "too_far")
    assert (oldest["driver"]["name"], oldest["building"], oldest["door"]["name"]) == (
        "Kim Example",
        "Linden Court",
        "Gate",
    )
    assert oldest["position"]["metres"] == pytest.approx(412, abs=2)
    assert (newest["position"]["metres"], newest["position"]["typed"]) == (0, False)
    older = await served.ask("GET", f"/v1/decisions?limit=1&before={newest['request']}")
    assert [each["request"] for each in older["decisions"]] == [oldest["request"]]
    said = json.dumps([newest, oldest]) + json.dumps(await served.ask("GET", "/v1/audit"))
    for coordinate in (*PLACE, *FAR):
        assert str(coordinate) not in said


async def next_line(following):
    async for line in following.content:
        if line.strip():
            return json.loads(line)
    raise AssertionError("the line ended")


async def test_decisions_are_followed_as_they_are_made_and_told_once(served):
    phone = await served.phone()
    following = await served.request("GET", "/v1/decisions/live")
    assert following.content_type == "application/x-ndjson"
    assert await phone.open() == ("granted", {})
    async with asyncio.timeout(10):
        decision = await next_line(following)
        while decision["state"] in ("asked", "signed"):
            decision = await next_line(following)
    assert (decision["state"], decision["driver"]["name"]) == ("granted", "Kim Example")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5):
            await next_line(following)
    following.close()


async def test_whoever_follows_hears_nothing_more_once_the_key_is_revoked(served):
    id_, secret = await key(served, Scope.READ)
    phone = await served.phone()
    following = await served.http.get("/v1/decisions/live", headers={"Authorization": f"Bearer {secret}"})
    async with served.store.transaction() as session:
        await api_keys.revoke(session, id_, "tests", served.now())
    assert await phone.open() == ("granted", {})
    async with asyncio.timeout(10):
        assert (await following.content.read()).strip() == b""


async def others(served, request, count, **late):
    """Let there be refused requests like this one, asked for and decided later."""
    async with served.store.transaction() as session:
        like = await session.get_one(Request, request)
        kept = {column.key: getattr(like, column.key) for column in Request.__table__.columns}
        moved = {name: kept[name] + timedelta(**late) for name in ("asked_at", "decided_at")}
        session.add_all(
            Request(**kept | moved | {"id": new_id(Prefix.REQUEST), "state": RequestState.REFUSED})
            for _ in range(count)
        )


async def test_an_outcome_is_told_however_many_were_decided_since(served):
    phone = await served.phone()
    await phone.open()
    (request,) = [each["request"] for each in (await served.ask("GET", "/v1/decisions"))["decisions"]]
    async with served.store.transaction() as session:
        (await session.get_one(Request, request)).state = RequestState.SIGNED
    following = await served.request("GET", "/v1/decisions/live")
    async with asyncio.timeout(20):
        assert (await next_line(following))["state"] == "signed"
        await others(served, request, MOST, seconds=5)
        assert {(await next_line(following))["state"] for _ in range(MOST)} == {"refused"}
        served.advance(minutes=2)  # nothing of then is looked at any more, but for what may change
        await asyncio.sleep(2 * LIVE_EVERY)
        async with served.store.transaction() as session:
            (await session.get_one(Request, request)).state = RequestState.GRANTED
        told = await next_line(following)
    assert (told["request"], told["state"]) == (request, "granted")
    following.close()


async def test_a_wish_that_was_confirmed_late_is_told_however_many_asked_since(served):
    phone = await served.phone()
    await phone.open(place=FAR)
    following = await served.request("GET", "/v1/decisions/live")
    async with asyncio.timeout(20):
        first = await next_line(following)
        _, begun = await phone.wish(1)
        await others(served, first["request"], 2 * MOST, seconds=5)
        assert len({(await next_line(following))["request"] for _ in range(2 * MOST)}) == 2 * MOST
        await phone.answer(begun)
        assert (await next_line(following))["request"] == begun["request"]
    following.close()


async def test_a_line_that_has_begun_only_ends_when_the_database_does_not_answer(served):
    reader, writer = await asyncio.open_connection("127.0.0.1", served.front.port)
    asked = f"GET /v1/decisions/live HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {served.key}\r\n"
    writer.write(f"{asked}Connection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
        async with served.store.transaction() as session:
            await session.execute(text("ALTER TABLE request RENAME TO gone"))
        rest = await reader.read()
    assert b"HTTP/1.1" not in rest
    assert rest.endswith(b"0\r\n\r\n")
    writer.close()


async def test_the_program_ends_although_somebody_follows(served):
    following = await served.request("GET", "/v1/decisions/live")
    async with asyncio.timeout(10):
        await served.front.close()
        assert (await following.content.read()).strip() == b""


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=1&limit=2", "limit=-1"])
async def test_a_limit_that_is_none_is_refused(served, query):
    assert (await served.request("GET", f"/v1/decisions?{query}")).status == 400
    assert (await served.request("GET", f"/v1/audit?{query}")).status == 400


async def test_a_body_that_is_too_large_is_refused(served):
    assert (await served.request("POST", "/v1/drivers", data=b"x" * 9000)).status == 413


# ---- alarms and buildings ----


async def test_an_alarm_waits_until_somebody_has_seen_it_and_stays_listed(served):
    first, second = await served.alarm(), await served.alarm("B" * 22)
    listed = (await served.ask("GET", "/v1/alarms"))["alarms"]
    assert [(each["id"], each["kind"], each["seen_at"]) for each in listed] == [
        (second, "never_issued", None),
        (first, "never_issued", None),
    ]
    assert listed[1] | {"at": ""} == {
        "id": first,
        "at": "",
        "kind": "never_issued",
        "building": served.building,
        "subject": "A" * 22,
        "detail": {"door": served.site.door.id, "controller": "controller:x"},
        "seen_at": None,
        "seen_by": None,
    }
    seen = await served.ask("POST", f"/v1/alarms/{first}/seen")
    assert seen["seen_by"].startswith("key:")
    assert (await served.ask("GET", "/v1/alarms?seen=true"))["alarms"] == [seen]
    assert [each["id"] for each in (await served.ask("GET", "/v1/alarms?seen=false"))["alarms"]] == [second]
    assert [each["id"] for each in (await served.ask("GET", f"/v1/alarms?before={second}&limit=1"))["alarms"]] == [
        first
    ]
    assert (await served.ask("GET", "/v1/audit?limit=1"))["entries"][0]["what"] == "alarm seen"
    for path in (f"/v1/alarms/{first}/seen", "/v1/alarms/99/seen", "/v1/alarms/x/seen", "/v1/alarms/-1/seen"):
        assert (await served.request("POST", path)).status == 404
    assert (await served.request("GET", "/v1/alarms?seen=maybe")).status == 400


async def test_buildings_are_listed_with_who_is_connected_and_which_doors_are_offered(served):
    (building,) = (await served.ask("GET", "/v1/buildings"))["buildings"]
    (controller,) = building["controllers"]
    assert (controller["key"], controller["connected_since"]) == (str(IDENTITY.verifier), None)
    assert [door["is_offered"] for door in building["doors"]] == [True, True]
    async with await greet(f"127.0.0.1:{served.front.port}", IDENTITY, host=HOST) as raw:
        await raw.hear(Keys)
        (building,) = (await served.ask("GET", "/v1/buildings"))["buildings"]
        assert building["controllers"][0]["connected_since"].endswith("Z")
        assert [door["is_offered"] for door in building["doors"]] == [False, False]
        assert (await served.ask("GET", "/health"))["buildings_connected"] == 1
