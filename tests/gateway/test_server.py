"""The API: who may ask what, and what is said to whom."""

import asyncio
import logging
import os
import ssl
from dataclasses import replace

import aiohttp
import pytest

from gateway import policy
from gateway.policy import approve
from gateway.server import Api, Front
from tests.gateway.at_work import ANN, BOB, Disk, Gateway, put_request, raw_connection, trusting_context
from tests.simulated import IDENTITY, Carrier, Moment, some_doors
from vestibule_core import b64url
from vestibule_core.api import messages, pairing
from vestibule_core.api.messages import Scope
from vestibule_core.errors import JournalMoved
from vestibule_core.model import ManualRule, Sense, Sensor
from vestibule_core.note import open_note
from vestibule_core.proof import EntryProof

DOOR = some_doors(1)[0].id

SCOPES = {
    # route: what a client needs for it; None: anybody may ask
    "GET /v1/info": None,
    "POST /v1/pair": None,
    "GET /v1/clients": "admin",
    "PUT /v1/clients/{client}": "admin",
    "DELETE /v1/clients/{client}": "admin",
    "GET /v1/doors": "read",
    "POST /v1/doors/{door}/challenge": "present",
    "POST /v1/doors/{door}/unlock": "present",
    "POST /v1/doors/{door}/operate": "operate",
    "PUT /v1/lockdown": "operate",
    "POST /v1/confirm": "admin",
    "GET /v1/policy": "read",
    "PUT /v1/policy": "admin",
    "GET /v1/events": "read",
    "GET /v1/stream": "read",
    "GET /v1/witness": "read",
    "PUT /v1/witness": "admin",
    "PUT /v1/witness/cosigned": "admin",
    "POST /v1/witness/receipt": "read",
    "GET /v1/journal/checkpoint": "read",
    "GET /v1/journal/proof": "read",
}
"""Written down apart from the server's own table: a route that is added there has to be added here."""


def path_of(route):
    return route.split()[1].replace("{door}", DOOR).replace("{client}", "0" * 16)


async def test_this_table_has_every_route_of_the_api(gateway):
    routes = {f"{route.method} {route.resource.canonical}" for route in Api(gateway).app.router.routes()}
    assert routes == SCOPES.keys()


async def test_without_a_bearer_nothing_but_the_information_answers(gateway):
    stranger = gateway.caller()
    for route in SCOPES:
        answer = await stranger.ask(route.split()[0], path_of(route), b"{}")
        assert answer.status == {"GET /v1/info": 200, "POST /v1/pair": 404}.get(route, 401), route
        if answer.status == 401:
            assert answer.json == {"error": "unauthorized"}
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_in_a_pairing_window_nothing_but_that_answers_besides(gateway):
    stranger = gateway.caller()
    gateway.window.open(replaces=False, trusts=False)
    for route in SCOPES:
        answer = await stranger.ask(route.split()[0], path_of(route), b"{}")
        assert answer.status == {"GET /v1/info": 200, "POST /v1/pair": 403}.get(route, 401), route


PATHS = ["/", "/v1", "/v1/", "/v1/info/", "/v2/info", "/v1/doors/", "/admin", "/..", "//v1/info"]


async def test_nor_does_any_other_path(gateway):
    stranger = gateway.caller()
    for path in PATHS:
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
            assert (await stranger.ask(method, path)).status == 401, (method, path)
        gateway.pass_time(60)


async def test_nor_does_any_other_method(gateway, admin):
    stranger = gateway.caller()
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"):
        assert (await stranger.ask(method, "/v1/info")).status == 401, method
        answer = await admin.ask(method, "/v1/info")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET"), method


@pytest.fixture
async def panel(gateway, admin):
    """A client whose scopes a test sets; see ``only``."""
    return await gateway.pair("Panel")


async def only(gateway, admin, client, *scopes, issuers=None):
    said = await admin.put(f"/v1/clients/{client.id}", {"scopes": list(scopes), "issuers": issuers})
    assert said.status == 200, said
    await approve(gateway.policy, gateway.clients)


@pytest.mark.parametrize("scope", Scope)
async def test_each_scope_opens_its_own_routes_and_no_others(gateway, admin, panel, scope):
    await only(gateway, admin, panel, scope)
    for route, needed in SCOPES.items():
        answer = await panel.ask(route.split()[0], path_of(route), b"{}")
        if needed in (None, scope):
            assert answer.status not in (401, 403), (route, answer)
        else:
            assert (answer.status, answer.json) == (403, {"error": "forbidden"}), route
    assert gateway.pulses == 0


BEARERS = [
    ("Bearer {}x", "a character more"),
    ("bearer {}", "another word"),
    ("Basic {}", "another scheme"),
    ("{}", "no scheme"),
    ("Bearer  {}", "two spaces"),
    ("Bearer " + "A" * 43, "made up"),
    ("Bearer", "none"),
]


async def test_what_is_no_bearer_of_a_client_opens_nothing(gateway, admin):
    stranger = gateway.caller()
    for header, what in BEARERS:
        answer = await stranger.get("/v1/doors", headers={"Authorization": header.format(admin.token)})
        assert answer.status == 401, what
        assert admin.token.encode() not in answer.body


async def test_two_bearers_in_one_request_are_none(gateway, admin):
    async with raw_connection(gateway) as (reader, writer):
        bearer = f"Authorization: Bearer {admin.token}\r\n"
        writer.write(f"GET /v1/doors HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n{bearer}\r\n".encode())
        assert (await reader.readline()).split()[1] in (b"400", b"401")


# ---- browsers ----


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://gateway.local:7443", ""])
async def test_a_browser_is_turned_away_whatever_it_knows(gateway, admin, origin):
    for caller in (admin, gateway.caller()):
        for method, path in (("GET", "/v1/info"), ("GET", "/v1/doors"), ("POST", f"/v1/doors/{DOOR}/operate")):
            answer = await caller.ask(method, path, headers={"Origin": origin})
            assert (answer.status, answer.json) == (403, {"error": "forbidden"})
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


HOSTS = [
    ("localhost", True),
    ("localhost:7443", True),
    ("LOCALHOST.", True),
    ("127.0.0.1:7443", True),
    ("192.168.1.7", True),
    ("[::1]:7443", True),
    ("[fe80::1]", True),
    ("gateway.local", True),
    ("Gateway.Local.:7443", True),
    ("evil.example", False),
    ("gateway.local.evil.example", False),
    ("localhost.evil.example", False),
    ("127.0.0.1.evil.example", False),
    ("other.local", False),
    ("", False),
    ("[localhost]", False),
    ("::1", False),
    ("gateway.local:port", False),
    ("gateway.local/", False),
    ("user@gateway.local", False),
]


async def test_a_name_that_is_not_its_own_is_turned_away(gateway):
    """A page can let its own name mean our address (DNS rebinding); its browser still says that name."""
    for host, is_ours in HOSTS:
        async with raw_connection(gateway) as (reader, writer):
            writer.write(f"GET /v1/info HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == (b"200" if is_ours else b"403"), host


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: evil.example\r\n"], ids=["none", "two"])
async def test_one_name_is_needed(gateway, hosts):
    async with raw_connection(gateway) as (reader, writer):
        writer.write(f"GET /v1/info HTTP/1.0\r\n{hosts}\r\n".encode())
        assert (await reader.readline()).split()[1] in (b"400", b"403")


async def test_answers_are_kept_out_of_caches_and_say_nothing_of_what_serves_them(gateway, admin):
    for caller in (gateway.caller(), admin):
        for path in ("/v1/info", "/v1/doors", "/nowhere"):
            answer = await caller.get(path)
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Server"] == "vestibule"
            assert "Set-Cookie" not in answer.headers


# ---- what is asked ----


async def test_a_stranger_is_told_as_little_as_possible(gateway):
    stranger = gateway.caller()
    assert (await stranger.get("/v1/info")).json == {"id": gateway.id, "version": "0.0", "pair": False}
    gateway.window.open(replaces=False, trusts=False)
    nonce = b64url.encode(gateway.window.nonce)
    assert (await stranger.get("/v1/info")).json == {
        "id": gateway.id,
        "version": "0.0",
        "pair": True,
        "pair_nonce": nonce,
    }


async def test_a_token_opens_its_door_once(gateway, open_for, carrier):
    text = carrier.token(await open_for.challenge(gateway.door, carrier))
    said = await open_for.unlock(gateway.door, text)
    assert (said.status, said.json) == (200, {"word": "granted", "code": "GRANTED"})
    assert (await open_for.unlock(gateway.door, text)).json == {"word": "already_used", "code": "ALREADY_SPENT"}
    assert [len(strike.pulses) for strike in gateway.strikes.values()] == [1, 0]


async def test_a_decision_names_the_limit_that_was_exceeded(gateway, open_for, carrier):
    nonce = await open_for.challenge(gateway.door, carrier)
    text = carrier.token(nonce, chk={"gps": {"d": 76, "acc": 8, "age": 3}})
    answer = await open_for.unlock(gateway.door, text)
    assert answer.json == {"word": "refused", "code": "POLICY_EVIDENCE", "limit": "distance"}


async def test_why_a_building_is_shut_is_nobodys_business(gateway, open_for, carrier):
    text = carrier.token(await open_for.challenge(gateway.door, carrier))
    await open_for.lockdown(True)
    assert (await open_for.unlock(gateway.door, text)).json == {"word": "refused", "code": "DOOR_UNAVAILABLE"}
    assert (await open_for.unlock(gateway.door, "rubbish")).json == {"word": "invalid_token", "code": None}


async def test_a_token_of_another_door_is_refused_at_this_one(gateway, open_for, carrier):
    other = gateway.all_doors[1]
    text = carrier.token(await open_for.challenge(other, carrier), aud=other.id)
    assert await open_for.code(gateway.door, text) == "WRONG_DOOR"
    assert await open_for.code(other, text) == "GRANTED"


async def test_a_door_that_there_is_not(gateway, admin):
    for door in (some_doors(1, "another building")[0].id, "door:x", "x", "%00", "..%2f..%2finfo"):
        for verb in ("challenge", "unlock", "operate"):
            answer = await admin.post(f"/v1/doors/{door}/{verb}", {})
            assert (answer.status, answer.json) == (404, {"error": "not_found"})


PRESENTS = [
    # the bearer's issuers, who is named, status of a challenge, code of an unlock
    (None, "a", 200, "GRANTED"),
    (["a"], "a", 200, "GRANTED"),
    (["a", "b"], "a", 200, "GRANTED"),
    (["b"], "a", 403, None),
    ([], "a", 403, None),
    (None, None, None, "GRANTED"),
    (["a"], None, None, "GRANTED"),
    (["b"], None, None, "invalid_token"),
    (["a", "b"], None, None, None),
    (None, "b", None, "invalid_token"),
]


@pytest.mark.parametrize("issuers, named, challenge, code", PRESENTS)
async def test_a_client_presents_for_its_own_issuers(gateway, admin, panel, issuers, named, challenge, code):
    carriers = {"a": Carrier("A Parcels"), "b": Carrier("B Parcels")}
    await gateway.allow(admin, *carriers.values())
    of = None if issuers is None else [carriers[each].issuer for each in issuers]
    await only(gateway, admin, panel, "present", issuers=of)
    if challenge is not None:
        said = await panel.post(f"/v1/doors/{gateway.door.id}/challenge", {"iss": carriers[named].issuer})
        assert said.status == challenge
    text = carriers["a"].token(await admin.challenge(gateway.door, carriers["a"]))
    more = {} if named is None else {"iss": carriers[named].issuer}
    if code is None:
        assert (await panel.unlock(gateway.door, text, **more)).status == 403
    else:
        assert await panel.code(gateway.door, text, **more) == code
    assert gateway.pulses == (code == "GRANTED")


async def test_a_challenge_for_a_carrier_that_may_not_enter_there(gateway, admin):
    near, far = Carrier("Near", gateway.all_doors[:1]), Carrier("Far", gateway.all_doors[1:])
    await gateway.allow(admin, near, far)
    for carrier in (far, Carrier("Unknown")):
        said = await admin.post(f"/v1/doors/{gateway.door.id}/challenge", {"iss": carrier.issuer})
        assert said.status == 403


@pytest.fixture
async def holding(tmp_path):
    """A gateway whose door can be held open, and its first client."""
    setup = {"sensors": frozenset({Sensor.TAMPER}), "manual": ManualRule.ADMINISTRATORS}
    async with Gateway(tmp_path, device_timed=False, setup=setup) as gateway:
        yield gateway, await gateway.pair()


async def test_what_is_done_by_hand(holding):
    gateway, admin = holding
    door = gateway.door

    async def state():
        return (await admin.get("/v1/doors")).json["doors"][0]["state"]

    for do, member, value in [
        ("hold", "mode", "unlocked"),
        ("relock", "mode", "normal"),
        ("block", "mode", "blocked"),
        ("relock", "mode", "normal"),
        ("deliveries_off", "deliveries", False),
        ("deliveries_on", "deliveries", True),
    ]:
        assert (await admin.operate(door, do)).json == {"code": "GRANTED"}
        assert (await state())[member] == value
    gateway.controller.sense(door.id, Sensor.TAMPER, Sense.ACTIVE)
    assert (await admin.operate(door, "clear_tamper")).json == {"code": "TAMPERED"}
    gateway.controller.sense(door.id, Sensor.TAMPER, Sense.INACTIVE)
    assert (await admin.operate(door, "clear_tamper")).json == {"code": "GRANTED"}
    assert not (await state())["tampered"]
    assert (await admin.operate(door, "access")).json == {"code": "GRANTED"}
    assert gateway.pulses == 1
    assert (await state())["by"] == {"name": "Ann", "user_id": "ann-1"}


async def test_the_doors_own_rule_holds_for_whoever_is_named(holding):
    gateway, admin = holding
    assert (await admin.operate(gateway.door, "access", BOB)).json == {"code": "MANUAL_NOT_ALLOWED"}
    assert (await admin.operate(gateway.door, "hold", BOB)).json == {"code": "MANUAL_NOT_ALLOWED"}
    assert (await admin.operate(gateway.door, "block", BOB)).json == {"code": "GRANTED"}, "safer is anybody's"
    assert (await admin.operate(gateway.door, "access", ANN)).json == {"code": "DOOR_BLOCKED"}
    automation = {"user_id": None, "name": None, "admin": False}
    assert (await admin.operate(gateway.door, "relock", automation)).json == {"code": "GRANTED"}
    assert gateway.pulses == 0


async def test_a_lockdown_and_its_end(gateway, admin):
    assert (await admin.lockdown(True)).json == {"code": "GRANTED"}
    assert (await admin.get("/v1/doors")).json["lockdown"]
    assert (await admin.operate(gateway.door, "access")).json == {"code": "LOCKDOWN"}
    assert (await admin.lockdown(False)).json == {"code": "GRANTED"}
    assert (await admin.operate(gateway.door, "access")).json == {"code": "GRANTED"}


async def test_an_administrator_confirms_the_clock(gateway, admin):
    gateway.clock.set_wall(by=-3600)
    assert not (await admin.get("/v1/doors")).json["clock_trusted"]
    confirm = {"what": "clock", "ref": None}
    assert (await admin.post("/v1/confirm", {**confirm, "actor": BOB})).json == {"code": "MANUAL_NOT_ALLOWED"}
    assert (await admin.post("/v1/confirm", {**confirm, "actor": ANN})).json == {"code": "GRANTED"}
    assert (await admin.get("/v1/doors")).json["clock_trusted"]


async def test_the_policy_that_waits_is_shown_with_what_it_waits_for(gateway, admin, carrier):
    carrier.doors = gateway.all_doors
    wanted = put_request(0, [carrier])
    assert (await admin.put("/v1/policy", wanted)).json == {"version": 1, "pending": True, "seconds_left": 86400}
    gateway.pass_time(3600)
    assert (await admin.get("/v1/policy")).json == {
        "version": 1,
        "policy": {"zone": "UTC", "carriers": []},
        "pending": {"policy": wanted["policy"], "seconds_left": 82800, "why": ["Parcels: a new carrier"]},
        "trusted": False,
    }
    said = await admin.put("/v1/policy", put_request(0, []))
    assert (said.status, said.json) == (409, {"error": "conflict", "version": 1})


async def test_clients_are_listed_changed_and_removed(gateway, admin, panel):
    (first, second) = sorted(
        [
            {
                "id": admin.id,
                "name": "Home Assistant",
                "scopes": ["admin", "operate", "present", "read"],
                "issuers": None,
            },
            {"id": panel.id, "name": "Panel", "scopes": ["read"], "issuers": None},
        ],
        key=lambda client: client["id"],
    )
    assert (await admin.get("/v1/clients")).json == {"clients": [first, second]}
    change = {"scopes": ["present"], "issuers": ["https://a.example"]}
    assert (await admin.put(f"/v1/clients/{panel.id}", change)).json == {"pending": True, "seconds_left": 86400}
    said = await admin.ask("DELETE", f"/v1/clients/{panel.id}")
    assert (said.status, said.body) == (204, b"")
    assert (await panel.get("/v1/doors")).status == 401
    assert (await admin.ask("DELETE", f"/v1/clients/{panel.id}")).status == 404
    said = await admin.ask("DELETE", f"/v1/clients/{admin.id}")
    assert (said.status, said.json) == (409, {"error": "last_admin"})


async def test_the_journal_can_be_audited_from_outside(gateway, open_for, carrier):
    text = carrier.token(await open_for.challenge(gateway.door, carrier))
    await open_for.code(gateway.door, text)
    await gateway.controller.recorded()
    sequence = gateway.journal.sequence
    checkpoint = (await open_for.get("/v1/journal/checkpoint")).body.decode()
    assert open_note(checkpoint, [IDENTITY.verifier]).split("\n")[1] == str(sequence)
    granted = next(event for event in gateway.events if event.outcome == "access_granted")
    said = await open_for.get(f"/v1/journal/proof?seq={granted.sequence}")
    assert said.headers["Content-Type"].startswith("text/plain")
    entry, _ = EntryProof.parse(said.body.decode()).check([IDENTITY.verifier])
    assert (entry.leaf.kind, entry.person) == ("access_granted", None)
    assert b"driver-4711" not in said.body
    for query in (f"seq={sequence + 1}", "seq=0"):
        assert (await open_for.get(f"/v1/journal/proof?{query}")).status == 404
    for query in ("", "seq=", "seq=-1", "seq=x", f"seq={2**64}"):
        assert (await open_for.get(f"/v1/journal/proof?{query}")).status == 400


async def test_events_are_read_page_by_page(gateway, admin):
    for do in ("block", "relock") * 3:
        await admin.operate(gateway.door, do)
    seen, after = [], 0
    while events := (await admin.get(f"/v1/events?after={after}&limit=3")).json["events"]:
        assert len(events) <= 3
        seen += [event["seq"] for event in events]
        after = seen[-1]
    assert seen == list(range(1, gateway.journal.sequence + 1))
    for query in ("", "after=0&limit=0", "after=0&limit=501", "after=0&after=1", "after=0&limit="):
        assert (await admin.get(f"/v1/events?{query}")).status == 400
    assert (await admin.get(f"/v1/events?after={2**63 - 1}")).json["events"] == []


BODIES = [b"", b"null", b"[]", b"{", b"\xff", b'{"x":1}', b'"' + b"[" * 5000, b"\xef\xbb\xbf{}", b"NaN"]


async def test_a_body_that_cannot_be_read_changes_nothing(gateway, admin):
    before = gateway.journal.sequence
    for route in SCOPES:
        if route.split()[0] in ("GET", "DELETE") or route == "POST /v1/pair":
            continue
        for body in BODIES:
            answer = await admin.ask(route.split()[0], path_of(route).replace("0" * 16, admin.id), body)
            assert (answer.status, answer.json) == (400, {"error": "bad_request"}), (route, body)
    assert (gateway.journal.sequence, gateway.pulses) == (before, 0)


# ---- when things go wrong ----


async def test_when_the_journal_has_failed_nothing_more_is_allowed(gateway, open_for, carrier):
    text = carrier.token(await open_for.challenge(gateway.door, carrier))
    Disk(gateway.journal).fails = True
    assert await open_for.code(gateway.door, text) == "STORE_FAILED"
    for asked in (
        open_for.put("/v1/policy", put_request(1, [])),
        open_for.put(f"/v1/clients/{open_for.id}", {"scopes": ["admin", "read"], "issuers": None}),
    ):
        answer = await asked
        assert (answer.status, answer.json) == (503, {"error": "store_failed"})
    assert (await open_for.get("/v1/doors")).json["journal_failed"]
    said = await open_for.post(f"/v1/doors/{gateway.door.id}/challenge", {"iss": carrier.issuer})
    assert said.status == 403, "what was to be less is less all the same"


async def test_an_entry_that_cannot_be_read_is_left_out_and_nothing_else(gateway, admin):
    """Doors go on; who follows sees by the numbers that one is missing."""
    await admin.operate(gateway.door, "access")
    await gateway.controller.recorded()
    gateway.journal._writer.db.execute("UPDATE leaf SET bytes = CAST('{}' AS BLOB) WHERE seq = 2")
    answer = await admin.get("/v1/events?after=1")
    assert (answer.status, [event["seq"] for event in answer.json["events"]]) == (200, [3])
    assert (await admin.get("/v1/journal/proof?seq=2")).status == 404, "that entry was not signed"
    async with admin.stream(after=1) as frames:
        await frames.next()
        assert (await frames.event())["seq"] == 3
        await admin.operate(gateway.door, "access")
        assert (await frames.event())["seq"] == 4
    assert gateway.pulses == 2


async def test_when_old_entries_are_dropped_meanwhile_it_is_asked_again(gateway, admin, monkeypatch):
    run, moved = gateway.journal.run, [JournalMoved("meanwhile"), JournalMoved("meanwhile")]

    async def moving(after):
        if moved:
            raise moved.pop()
        return await run(after)

    monkeypatch.setattr(gateway.journal, "run", moving)
    answer = await admin.get("/v1/events?after=0")
    assert (answer.status, answer.json, answer.headers["Retry-After"]) == (503, {"error": "unavailable"}, "1")
    async with admin.stream() as frames:
        assert (await frames.event())["seq"] == 1


async def test_what_there_is_no_room_for_is_said(gateway, admin, monkeypatch):
    monkeypatch.setattr("gateway.clients.MAX_CLIENTS", 1)
    code = gateway.window.open(replaces=False, trusts=False)
    applicant = pairing.Applicant(
        code, gateway.id, gateway.window.nonce, gateway.certificate.fingerprint, os.urandom(32)
    )
    said = await gateway.caller().post("/v1/pair", applicant.first("One more"))
    assert (said.status, said.json) == (503, {"error": "unavailable"})
    monkeypatch.setattr(policy, "_NOTE", replace(policy._NOTE, most=10))
    said = await admin.put("/v1/policy", put_request(0, [], "Europe/Berlin"))
    assert (said.status, said.json) == (413, {"error": "too_large"})


async def test_where_it_cannot_listen_it_leaves_nothing_behind(gateway):
    with pytest.raises(OSError):  # noqa: PT011
        await Front.open(gateway, gateway.certificate.context(), "127.0.0.1", gateway.front.port)


async def test_a_gateway_that_stops_says_so(gateway, open_for, carrier):
    text = carrier.token(await open_for.challenge(gateway.door, carrier))
    await gateway.controller.stop()
    for verb, body in (("unlock", {"token": text}), ("challenge", {"iss": carrier.issuer})):
        said = await open_for.post(f"/v1/doors/{gateway.door.id}/{verb}", body)
        assert said.status in (404, 503), "the door is not at work any more"
    assert gateway.pulses == 0


async def test_a_caller_that_goes_away_stops_nothing(gateway, open_for, carrier):
    text = carrier.token(await open_for.challenge(gateway.door, carrier))
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait():
        reached.set()
        await go_on.wait()

    gateway.strike.at(Moment.TOLD, wait)
    presenting = asyncio.create_task(open_for.unlock(gateway.door, text))
    await reached.wait()
    presenting.cancel()
    await asyncio.gather(presenting, return_exceptions=True)
    await asyncio.sleep(0.05)
    go_on.set()
    await gateway.told("door_released")
    assert gateway.pulses == 1


async def test_a_bearer_that_is_taken_away_while_the_body_comes_does_nothing(gateway, admin, panel):
    await only(gateway, admin, panel, "operate", "admin")
    body = b'{"on":true,"actor":{"user_id":null,"name":null,"admin":true},"ref":null}'
    async with raw_connection(gateway) as (reader, writer):
        head = f"PUT /v1/lockdown HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {panel.token}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
        await writer.drain()
        await asyncio.sleep(0.05)
        assert (await admin.ask("DELETE", f"/v1/clients/{panel.id}")).status == 204
        writer.write(body[10:])
        assert (await reader.readline()).split()[1] == b"401"
    assert not gateway.controller.by_hand.locked_down


async def test_a_fault_of_ours_is_told_in_one_word(gateway, admin, monkeypatch, caplog):
    def broken():
        raise ZeroDivisionError("a bug, about ann-1")

    monkeypatch.setattr(gateway, "doors", broken)
    answer = await admin.get("/v1/doors")
    assert (answer.status, answer.json) == (500, {"error": "failed"})
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()


async def test_no_secret_is_in_the_log(gateway, open_for, carrier, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    text = carrier.token(await open_for.challenge(gateway.door, carrier))
    await open_for.unlock(gateway.door, text)
    await open_for.operate(gateway.door, "access")
    await gateway.caller().get(f"/v1/doors?bearer={open_for.token}", headers={"Authorization": f"Bearer {text[:43]}"})
    async with raw_connection(gateway) as (reader, writer):
        writer.write(f"GET / HTTP/1.1\r\nAuthorization: Bearer {open_for.token}\r\nbad header\r\n\r\n".encode())
        await reader.read()
    said = " ".join(f"{record.getMessage()} {record.exc_text or ''} {record.args}" for record in caplog.records)
    for secret in (open_for.token, text, "driver-4711", "Ann", "ann-1"):
        assert secret not in said


async def test_a_request_that_is_none_is_answered_in_one_word_and_not_logged(gateway, caplog):
    for nonsense in (b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"GET /v1/info HTTP/9.9\r\n\r\n", b"A" * 20000 + b"\r\n"):
        async with raw_connection(gateway) as (reader, writer):
            writer.write(nonsense)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.") or answer == b""
            assert b" 400 " in answer
            assert answer.endswith(b'{"error": "bad_request"}')
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_only_tls_of_today_is_spoken(gateway):
    context = trusting_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", gateway.front.port, ssl=context)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await gateway.caller().session.get(f"http://127.0.0.1:{gateway.front.port}/v1/info")


async def test_messages_are_what_the_clients_end_reads(gateway, open_for):
    """One codec for both ends: what is sent can be read by it."""
    for path, message in {
        "/v1/doors": messages.DOORS,
        "/v1/policy": messages.POLICY_VIEW,
        "/v1/events?after=0": messages.EVENTS,
        "/v1/clients": messages.CLIENTS,
        "/v1/info": messages.INFO,
        "/nowhere": messages.FAILURE,
    }.items():
        message.decode((await open_for.get(path)).body)
