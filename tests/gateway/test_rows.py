"""None of these may move a strike, or move it twice: the rows of protocol F that the gateway answers for.

One test per row, named after it, through the API over TLS. The rows of tokens and of the journal are proved on the core
as well (tests/core/test_attacks.py); here it is shown that nothing on the way in weakens them.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import time as clocks
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import time

import aiohttp
import pytest

from gateway import limits, tls
from gateway.policy import approve
from gateway.wait import DAY
from tests.core.crash_process import Processes
from tests.core.test_attacks import POINTS, bad_tokens
from tests.gateway.at_work import ANN, BOB, Disk, Gateway, put_request, raw_connection, trusting_context
from tests.gateway.house import House
from tests.simulated import IDENTITY, ISSUED_AT, Carrier, Moment, pulses_in, read_journal, some_doors
from vestibule_core import b64url, telling
from vestibule_core.api import pairing
from vestibule_core.api.client import GatewayClient, pair
from vestibule_core.errors import GatewayForbidden, GatewayImpostor, NotPaired, PairingFailed
from vestibule_core.hours import Day, Hours
from vestibule_core.model import Code, EventName, Sense, Sensor, read_clock
from vestibule_core.note import Checkpoint

ALL_DAY = (Hours(frozenset(Day), time(0), time(0)),)


async def several(callers, work):
    """Do ``work`` by so many at once; return what came of it."""
    return await asyncio.gather(*(work() for _ in range(callers)))


# ---- replay ----


async def test_row_24_the_same_token_twice_and_from_200_callers(tmp_path):
    """Same token twice, in series and from 200 concurrent callers: one success, rest ALREADY_SPENT."""
    carrier = Carrier()
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        await gateway.allow(admin, carrier)
        text = carrier.token(await admin.challenge(gateway.door, carrier))
        assert await admin.code(gateway.door, text) == "GRANTED"
        assert await admin.code(gateway.door, text) == "ALREADY_SPENT"
        # Two carriers' worth of requests in a second is more than one may make; time passes for them.
        text = carrier.token(await admin.challenge(gateway.door, carrier))
        codes = Counter()
        for _ in range(5):
            codes.update(await several(40, lambda: admin.code(gateway.door, text)))
            gateway.pass_time(1)
        assert codes == {"GRANTED": 1, "ALREADY_SPENT": 199}
        assert gateway.pulses == 2
    async with gateway.reopen() as again:
        assert await again.caller(admin.admission).code(again.door, text) == "ALREADY_SPENT"
        assert again.pulses == 2


async def test_row_25_the_same_jti_signed_again(gateway, open_for, carrier):
    """Same `jti`, new `exp`, validly signed again: ALREADY_SPENT."""
    door, jti = gateway.door, "B" * 21 + "A"
    nonce = await open_for.challenge(door, carrier)
    assert await open_for.code(door, carrier.token(nonce, jti=jti)) == "GRANTED"
    assert await open_for.code(door, carrier.token(nonce, jti=jti, exp=ISSUED_AT + 90)) == "ALREADY_SPENT"
    fresh = await open_for.challenge(door, carrier)
    assert await open_for.code(door, carrier.token(fresh, jti=jti)) == "ALREADY_SPENT"
    assert gateway.pulses == 1


async def test_row_26_challenge_reused_made_up_of_another_door_or_issuer(gateway, admin):
    """Challenge reused in a second token, made up, of another door, of another issuer; two valid tokens on one
    challenge in parallel: one pulse at the most; NONCE_UNKNOWN / ALREADY_SPENT.
    """
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    await gateway.allow(admin, a, b)
    door, other = gateway.all_doors
    nonce = await admin.challenge(door, a)
    assert await admin.code(door, a.token(nonce)) == "GRANTED"
    for text, code in [
        (a.token(nonce), "ALREADY_SPENT"),
        (a.token(b64url.encode(bytes(16))), "NONCE_UNKNOWN"),
        (a.token(await admin.challenge(other, a)), "NONCE_UNKNOWN"),
        (a.token(await admin.challenge(door, b)), "NONCE_UNKNOWN"),
        (b.token(await admin.challenge(door, a)), "NONCE_UNKNOWN"),
    ]:
        assert await admin.code(door, text) == code
    assert await admin.code(other, a.token(await admin.challenge(door, a), aud=other.id)) == "NONCE_UNKNOWN"
    nonce = await admin.challenge(door, a)
    both = await asyncio.gather(*(admin.code(door, a.token(nonce)) for _ in range(2)))
    assert sorted(both) == ["ALREADY_SPENT", "GRANTED"]
    assert gateway.pulses == 2


# ---- floods ----


async def test_row_27_a_flood_of_bad_tokens_then_the_good_one(gateway, admin):
    """Bad tokens from one source, some quoting a live challenge, then the good one: journal grows < 1 leaf/min, memory
    flat, the good one opens. (10^6 of them: on the core; here as many as get past the API in a minute.)
    """
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    await gateway.allow(admin, a, b)

    class Quoting:
        """What ``bad_tokens`` asks of a building."""

        carrier = a

        def __init__(self, good):
            self._good = good

        def token(self):
            return self._good

    good = b.token(await admin.challenge(gateway.door, b))
    bad = bad_tokens(Quoting(a.token(await admin.challenge(gateway.door, a))))
    answers = Counter()

    async def flood(seconds):
        for _ in range(seconds):
            for text in itertools.islice(bad, 30):
                answers[(await admin.unlock(gateway.door, text, iss=a.issuer)).status] += 1
            gateway.pass_time(1)

    began, before = clocks.monotonic(), gateway.journal.sequence
    await flood(10)
    gc.collect()
    tracemalloc.start()
    first, _ = tracemalloc.get_traced_memory()
    await flood(10)
    gc.collect()
    second, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert second - first < 256 * 1024, "memory is flat"
    assert answers[200] <= 20 + 20, "a burst, and one a second"
    assert answers[429] == 600 - answers[200]
    minutes = (clocks.monotonic() - began) / telling.SUMMARY_AFTER
    assert gateway.journal.sequence - before <= minutes
    assert await admin.code(gateway.door, good, iss=b.issuer) == "GRANTED"
    assert gateway.pulses == 1


async def test_row_28_a_flood_of_challenge_requests(gateway, admin):
    """Challenge requests without end by one principal: other issuers still get one that opens; nothing stored."""
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    await gateway.allow(admin, a, b)
    flooding, other = await gateway.pair("A"), await gateway.pair("B")
    for client, carrier in ((flooding, a), (other, b)):
        change = {"scopes": ["present"], "issuers": [carrier.issuer]}
        assert (await admin.put(f"/v1/clients/{client.id}", change)).status == 200
    await approve(gateway.policy, gateway.clients)
    early, before = await other.challenge(gateway.door, b), gateway.journal.sequence
    path = f"/v1/doors/{gateway.door.id}/challenge"
    asked = Counter()
    for _ in range(25):
        answers = await several(20, lambda: flooding.post(path, {"iss": a.issuer}))
        asked.update(answer.status for answer in answers)
    assert asked == {200: limits.CLIENT_BURST, 429: 500 - limits.CLIENT_BURST}
    assert gateway.journal.sequence == before, "nothing is stored"
    assert await other.code(gateway.door, b.token(early)) == "GRANTED", "also one of before the flood"
    assert await other.code(gateway.door, b.token(await other.challenge(gateway.door, b))) == "GRANTED"
    gateway.pass_time(1)
    assert await flooding.code(gateway.door, a.token(await flooding.challenge(gateway.door, a))) == "GRANTED"


async def test_row_29_challenge_without_authentication_or_for_an_issuer_not_the_callers(gateway, admin):
    """Challenge requested without authentication, or for an issuer not the caller's: 401 / 403, no challenge."""
    a, b = Carrier("A Parcels"), Carrier("B Parcels")
    await gateway.allow(admin, a, b)
    only_a = await gateway.pair("A")
    await admin.put(f"/v1/clients/{only_a.id}", {"scopes": ["present"], "issuers": [a.issuer]})
    await approve(gateway.policy, gateway.clients)
    path = f"/v1/doors/{gateway.door.id}/challenge"
    for caller, issuer, status in [
        (gateway.caller(), a.issuer, 401),
        (only_a, b.issuer, 403),
        (only_a, "https://unknown.example", 403),
        (admin, "https://unknown.example", 403),
        (only_a, a.issuer, 200),
    ]:
        said = await caller.post(path, {"iss": issuer})
        assert said.status == status
        assert (b"non" in said.body) is (status == 200)
    for_b = await admin.challenge(gateway.door, b)
    assert (await only_a.unlock(gateway.door, b.token(for_b))).json["word"] == "invalid_token"
    assert gateway.pulses == 0


# ---- clocks ----


@pytest.mark.parametrize("by", [-86400, 10 * 365 * 86400], ids=["back a day", "ahead ten years"])
async def test_row_30_system_clock_set_back_a_day_or_ahead_ten_years(tmp_path, by):
    """Doors with hours refuse CLOCK_UNTRUSTED; doors without hours work; no replay works. Nothing that waits for a day
    has waited for it.
    """
    carrier = Carrier()
    async with Gateway(tmp_path, doors=2) as gateway:
        with_hours, without = gateway.all_doors
        gateway.all_doors = (replace(with_hours, hours=ALL_DAY), without)
        admin = await gateway.pair()
        await gateway.allow(admin, carrier)

        async def fresh(door):
            return carrier.token(await admin.challenge(door, carrier), aud=door.id)

        spent, kept = await fresh(with_hours), await fresh(with_hours)
        assert await admin.code(with_hours, spent) == "GRANTED"
        await admin.put("/v1/policy", put_request(1, [carrier, Carrier("More", gateway.all_doors)]))
        gateway.clock.set_wall(by=by)
        await gateway.policy.look()
        assert (await admin.get("/v1/policy")).json["pending"]["seconds_left"] == DAY
        assert await admin.code(with_hours, spent) == "ALREADY_SPENT"
        assert await admin.code(with_hours, kept) == "NONCE_UNKNOWN", "the step voids what was promised before"
        assert await admin.code(with_hours, await fresh(with_hours)) == "CLOCK_UNTRUSTED"
        other = await fresh(without)
        assert await admin.code(without, other) == "GRANTED"
        assert await admin.code(without, other) == "ALREADY_SPENT"
        assert (await admin.get("/v1/doors")).json["clock_trusted"] is (by > 0)
    async with gateway.reopen() as again:  # and a restart makes no clock right
        again.all_doors = gateway.all_doors
        again.controller.apply(again.policy.building(again.all_doors), again.strikes)
        admin = again.caller(admin.admission)
        text = carrier.token(await admin.challenge(with_hours, carrier), aud=with_hours.id)
        assert await admin.code(with_hours, text) == "CLOCK_UNTRUSTED"
        assert again.pulses == 2


async def test_row_31_suspended_for_10_minutes_with_an_open_challenge(tmp_path, monkeypatch):
    """Suspend for 10 minutes with an open challenge: NONCE_EXPIRED (boot time, not monotonic)."""
    asleep, wall, clock_of = 0.0, clocks.time, clocks.clock_gettime
    # A suspended machine: its monotonic clock has stood still, boot time and wall clock have gone on.
    monkeypatch.setattr(clocks, "time", lambda: wall() + asleep)
    monkeypatch.setattr(
        clocks, "clock_gettime", lambda which: clock_of(which) + (asleep if which == clocks.CLOCK_BOOTTIME else 0)
    )
    carrier = Carrier()
    async with Gateway(tmp_path, clock=read_clock) as gateway:
        admin = await gateway.pair()
        await gateway.allow(admin, carrier)
        slept_through = carrier.token(await admin.challenge(gateway.door, carrier))
        gateway.window.open(replaces=False, trusts=False)
        asleep = 601.0
        assert await admin.code(gateway.door, slept_through) == "NONCE_EXPIRED"
        assert not (await gateway.caller().get("/v1/info")).json["pair"], "a pairing window is over as well"
        assert await admin.code(gateway.door, carrier.token(await admin.challenge(gateway.door, carrier))) == "GRANTED"
        assert gateway.pulses == 1


# ---- backups, crashes and bad disks ----


async def test_row_32_restored_from_a_backup(tmp_path):
    """Database restored from yesterday's backup, replay of today's token; the host was not started anew meanwhile."""
    path, carrier = tmp_path / "journal.db", Carrier()
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        await gateway.allow(admin, carrier)
        yesterday = carrier.token(await admin.challenge(gateway.door, carrier))
        assert await admin.code(gateway.door, yesterday) == "GRANTED"
        await gateway.controller.recorded()
        await gateway.journal.begin_copy()
        backup = path.read_bytes()
        await gateway.journal.end_copy()
        today = carrier.token(await admin.challenge(gateway.door, carrier))
        assert await admin.code(gateway.door, today) == "GRANTED"
        pulses = gateway.pulses
    path.write_bytes(backup)
    async with gateway.reopen() as again:
        back = again.caller(admin.admission)
        assert (await back.get("/v1/doors")).json["restored"]
        assert await back.code(again.door, yesterday) == "ALREADY_SPENT"
        assert await back.code(again.door, today) == "NONCE_UNKNOWN"
        assert again.pulses == pulses
        await again.told(EventName.JOURNAL_RESTORED)
        confirm = {"what": "restored", "ref": None}
        assert (await back.post("/v1/confirm", {**confirm, "actor": BOB})).json == {"code": "MANUAL_NOT_ALLOWED"}
        assert (await back.get("/v1/doors")).json["restored"]
        assert (await back.post("/v1/confirm", {**confirm, "actor": ANN})).json == {"code": "GRANTED"}
        assert not (await back.get("/v1/doors")).json["restored"]
        good = carrier.token(await back.challenge(again.door, carrier))
        assert await back.code(again.door, good) == "GRANTED"


@pytest.fixture(scope="module")
def gateways():
    """Gateways in processes of their own."""
    processes = Processes(module="tests.gateway.crash_process")
    yield processes
    processes.close()


@pytest.mark.parametrize("point, pulses, state, told, sentence", POINTS, ids=[row[0] for row in POINTS])
def test_row_33_killed_at_every_step(tmp_path, gateways, point, pulses, state, told, sentence):
    """SIGKILL between COMMIT and pulse, and at every other step: ALREADY_SPENT afterwards; row UNKNOWN."""
    report = gateways.run("unlock_at_gateway", folder=tmp_path, kill_at=point)
    assert report.killed
    assert len(pulses_in(tmp_path / "pulses")) == pulses
    again = gateways.run("replay_at_gateway", folder=tmp_path, tokens=report.all("token"), bearer=report["bearer"])
    assert again["moved_at_start"] == 0
    assert again["codes"] == [told]
    assert [row[1] for row in again["spent"]] == ([state] if state else [])
    assert ("outcome_unknown" in again["events"]) is (state == "UNKNOWN")
    assert len(pulses_in(tmp_path / "pulses")) == pulses


@pytest.mark.parametrize("point", ["spend: after COMMIT", "moved"])
def test_row_33_killed_during_a_release_that_the_controller_has_to_end(tmp_path, gateways, point):
    """The strike would stay released for ever: it is put back at the next start, and not released."""
    report = gateways.run("unlock_at_gateway", folder=tmp_path, kill_at=point, device_timed=False)
    assert report.killed
    pulses = len(pulses_in(tmp_path / "pulses"))
    replay = {"tokens": report.all("token"), "bearer": report["bearer"], "device_timed": False}
    again = gateways.run("replay_at_gateway", folder=tmp_path, **replay)
    assert (again["secured"], again["codes"]) == (1, ["ALREADY_SPENT"])
    assert len(pulses_in(tmp_path / "pulses")) == pulses
    assert gateways.run("replay_at_gateway", folder=tmp_path, **{**replay, "tokens": []})["secured"] == 0


@pytest.mark.parametrize("when", ["at once", "while it waits at the door"])
async def test_row_34_a_disk_that_fails_once_then_the_same_token(tmp_path, when):
    """Disk full, read-only, locked, sync error once: STORE_FAILED, no pulse, no retry; also after a restart."""
    carrier = Carrier()
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        await gateway.allow(admin, carrier)
        text = carrier.token(await admin.challenge(gateway.door, carrier))
        other = carrier.token(await admin.challenge(gateway.door, carrier))
        disk = Disk(gateway.journal)
        if when == "at once":
            disk.fails = True
        else:
            gateway.strike.at(Moment.REACHED, lambda: setattr(disk, "fails", True))
        assert await admin.code(gateway.door, text) == "STORE_FAILED"
        disk.fails = False  # there is room again
        assert await admin.code(gateway.door, text) == "STORE_FAILED"
        assert await admin.code(gateway.door, other) == "STORE_FAILED"
        assert (await admin.get("/v1/doors")).json["journal_failed"]
        assert gateway.pulses == 0
        assert (await admin.operate(gateway.door, "access", BOB)).json == {"code": "STORE_FAILED"}
        assert (await admin.operate(gateway.door, "access", ANN)).json == {"code": "GRANTED"}, "an administrator's hand"
        assert gateway.pulses == 1
    async with gateway.reopen() as again:
        back = again.caller(admin.admission)
        assert await back.code(again.door, text) in {"ALREADY_SPENT", "NONCE_UNKNOWN"}
        good = carrier.token(await back.challenge(again.door, carrier))
        assert await back.code(again.door, good) == "GRANTED"
        assert again.pulses == 2
    assert len(read_journal(tmp_path / "journal.db", "SELECT jti FROM spent")) == 1


# ---- pairing and the certificate ----


class ManInTheMiddle:
    """Has a certificate of its own for whoever connects, and passes on what it hears."""

    def __init__(self, gateway, folder):
        self.gateway, self.folder, self.heard = gateway, folder, b""

    async def __aenter__(self):
        self.folder.mkdir()
        certificate = await asyncio.to_thread(tls.keep, self.folder / "tls.pem", self.gateway.id)
        self.server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=certificate.context())
        self.port = self.server.sockets[0].getsockname()[1]
        self.tasks = []
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _pass_on(self, reader, writer):
        self.tasks.append(asyncio.current_task())
        port, context = self.gateway.front.port, trusting_context()
        upstream, to_gateway = await asyncio.open_connection("127.0.0.1", port, ssl=context)

        async def copy(source, sink, *, listens):
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    self.heard += data if listens else b""
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(
            copy(reader, to_gateway, listens=True), copy(upstream, writer, listens=False), return_exceptions=True
        )


@pytest.fixture
async def between(gateway, tmp_path):
    async with ManInTheMiddle(gateway, tmp_path / "between") as between:
        yield between


async def test_row_61_pairing_through_a_man_in_the_middle(gateway, between, session):
    """Gateway pairing through a TLS man in the middle: nothing decrypts; refused, no client made."""
    code = gateway.window.open(replaces=False, trusts=False)
    with pytest.raises(PairingFailed) as failed:
        await pair(session, "127.0.0.1", between.port, code, "Home Assistant")
    assert failed.value.reason is NotPaired.WRONG_CODE
    assert b"POST /v1/pair" in between.heard, "it did pass everything on"
    assert b"Home Assistant" not in between.heard
    assert gateway.clients.registry.clients == ()
    gateway.pass_time(1)
    paired = await pair(session, "127.0.0.1", gateway.front.port, code, "Home Assistant")
    assert paired.fingerprint == gateway.certificate.fingerprint


async def test_row_61_wrong_code(gateway, session):
    """Wrong code: refused, no client made."""
    code = gateway.window.open(replaces=False, trusts=False)
    with pytest.raises(PairingFailed) as failed:
        await pair(session, "127.0.0.1", gateway.front.port, code[::-1], "Home Assistant")
    assert failed.value.reason is NotPaired.WRONG_CODE
    assert gateway.clients.registry.clients == ()


async def test_row_61_message_1_replayed_or_from_an_older_window(gateway):
    """Message 1 replayed or from an older window: refused, no client made."""
    stranger = gateway.caller()

    def first(code):
        applicant = pairing.Applicant(
            code, gateway.id, gateway.window.nonce, gateway.certificate.fingerprint, os.urandom(32)
        )
        return applicant.first("Home Assistant")

    old = first(gateway.window.open(replaces=False, trusts=False))
    new = first(gateway.window.open(replaces=False, trusts=False))
    assert (await stranger.post("/v1/pair", old)).status == 403
    assert gateway.clients.registry.clients == ()
    gateway.pass_time(1)
    assert (await stranger.post("/v1/pair", new)).status == 200
    gateway.pass_time(1)
    for replayed in (new, old):
        assert (await stranger.post("/v1/pair", replayed)).status == 404
    gateway.window.open(replaces=False, trusts=False)
    for replayed in (new, old):
        assert (await stranger.post("/v1/pair", replayed)).status == 403
        gateway.pass_time(1)
    assert len(gateway.clients.registry.clients) == 1


async def test_row_62_call_to_an_impostor_certificate_after_pairing(gateway, between, session):
    """API call to an impostor certificate after pairing: `ServerFingerprintMismatch`, no header sent."""
    code = gateway.window.open(replaces=False, trusts=False)
    paired = await pair(session, "127.0.0.1", gateway.front.port, code, "Home Assistant")
    client = GatewayClient(session, "127.0.0.1", between.port, paired.token, [paired.fingerprint])
    for asked in (client.doors(), client.unlock(gateway.door.id, "a.b.c"), client.stream(0).__anext__()):
        with pytest.raises(GatewayImpostor) as impostor:
            await asked
        assert isinstance(impostor.value.__cause__, aiohttp.ServerFingerprintMismatch)
    assert between.heard == b""
    honest = GatewayClient(session, "127.0.0.1", gateway.front.port, paired.token, [paired.fingerprint])
    assert len((await honest.doors()).doors) == 2


# ---- who may do what ----


async def test_row_63_bearer_with_present_calls_operate_or_admin_revoked_bearer_or_one_in_the_query(
    gateway, admin, session, carrier
):
    """Bearer with `present` calls `operate`/`admin`; revoked bearer; bearer in the query string: 403 / 401."""
    await gateway.allow(admin, carrier)
    presents = await gateway.pair("Carrier's box")
    await admin.put(f"/v1/clients/{presents.id}", {"scopes": ["present"], "issuers": [carrier.issuer]})
    await approve(gateway.policy, gateway.clients)
    before = gateway.journal.sequence
    for asked in (
        presents.operate(gateway.door, "access"),
        presents.operate(gateway.door, "block"),
        presents.lockdown(True),
        presents.lockdown(False),
        presents.post("/v1/confirm", {"what": "clock", "actor": ANN, "ref": None}),
        presents.put("/v1/policy", put_request(1, [])),
        presents.get("/v1/clients"),
        presents.put(f"/v1/clients/{presents.id}", {"scopes": ["admin"], "issuers": None}),
        presents.ask("DELETE", f"/v1/clients/{admin.id}"),
        presents.get("/v1/doors"),
        presents.get("/v1/events?after=0"),
        presents.get("/v1/stream?after=0"),
    ):
        answer = await asked
        assert (answer.status, answer.json) == (403, {"error": "forbidden"})
    for name in ("access_token", "token", "bearer", "authorization"):
        path = f"/v1/doors?{name}={admin.token}"
        assert (await gateway.caller().get(path)).status == 401
    assert (await gateway.caller().get("/v1/doors", headers={"Cookie": f"token={admin.token}"})).status == 401
    assert (gateway.journal.sequence, gateway.pulses) == (before, 0)
    nonce = await presents.challenge(gateway.door, carrier)
    await admin.ask("DELETE", f"/v1/clients/{presents.id}")
    assert (await presents.unlock(gateway.door, carrier.token(nonce))).status == 401
    fingerprint = gateway.certificate.fingerprint
    revoked = GatewayClient(session, "127.0.0.1", gateway.front.port, presents.token, [fingerprint])
    with pytest.raises(GatewayForbidden):
        await revoked.unlock(gateway.door.id, carrier.token(nonce))
    assert gateway.pulses == 0


async def test_row_64_a_browser_page_or_a_rebound_name(gateway, admin):
    """A browser page posts to the gateway (`Origin` set), DNS-rebinding Host: refused."""
    access = {"do": "access", "actor": ANN, "ref": None}
    path = f"/v1/doors/{gateway.door.id}/operate"
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{gateway.front.port}"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{gateway.front.port}"},
        {"Host": "127.0.0.1.evil.example"},
    ):
        answer = await admin.post(path, access, headers=headers)
        assert (answer.status, answer.json) == (403, {"error": "forbidden"})
        assert (await admin.get("/v1/stream?after=0", headers=headers)).status == 403
        assert (await gateway.caller().get("/v1/info", headers=headers)).status == 403
        gateway.pass_time(1)
    preflight = await gateway.caller().ask(
        "OPTIONS", path, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status == 403
    assert not [name for name in preflight.headers if name.startswith("Access-Control")]
    assert gateway.pulses == 0


async def test_row_65_large_and_endless_bodies_and_idle_connections(gateway, admin, monkeypatch):
    """9 KiB body, endless chunked body, 500 idle TLS connections: 413 / closed / capped."""
    assert (await admin.post(f"/v1/doors/{gateway.door.id}/unlock", b"x" * 9 * 1024)).status == 413
    monkeypatch.setattr(limits, "LINGER", 0.1)
    async with raw_connection(gateway) as (reader, writer):
        head = f"PUT /v1/lockdown HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin.token}\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while not reader.at_eof():
                    writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
                    await writer.drain()
    async with admin.stream(after=gateway.stream.newest) as frames, contextlib.AsyncExitStack() as stack:
        await frames.next()
        for _ in range(10):
            await asyncio.gather(*(stack.enter_async_context(raw_connection(gateway)) for _ in range(50)))
        assert len(gateway.front.listener.places) <= limits.STRANGERS + 3
        assert (await gateway.caller().get("/v1/info")).status == 200
        assert (await admin.operate(gateway.door, "access")).json == {"code": "GRANTED"}
        await frames.event(EventName.ACCESS_GRANTED)


async def test_row_66_policy_with_a_stale_base_or_wider_without_the_button(gateway, admin, carrier):
    """Policy PUT with a stale base, version + 2, 2^63-1; admin bearer widens without the button: 409; pending."""
    carrier.doors = gateway.all_doors[:1]
    await gateway.allow(admin, carrier)
    wider = Carrier("Parcels", gateway.all_doors)
    good = put_request(1, [wider])
    for base, version in [(0, 1), (1, 3), (1, 2**63 - 1), (2, 3), (2**63 - 1, 2**63 - 1)]:
        answer = await admin.put("/v1/policy", {**good, "base": base, "version": version})
        assert (answer.status, answer.json) == (409, {"error": "conflict", "version": 1})
    for version in (2**63, -1, 1.5, "2", None, True):
        assert (await admin.put("/v1/policy", {**good, "version": version})).status == 400
    other = gateway.all_doors[1]
    challenge = f"/v1/doors/{other.id}/challenge", {"iss": carrier.issuer}
    assert (await admin.put("/v1/policy", good)).json == {"version": 2, "pending": True, "seconds_left": 86400}
    assert (await admin.post(*challenge)).status == 403
    assert (await admin.get("/v1/policy")).json["pending"]["why"] == ["Parcels: more doors"]
    # Not by asking again, not by a client that it makes an administrator, not by a restart.
    await admin.put("/v1/policy", put_request(2, [wider]))
    panel = await gateway.pair("Panel")
    await admin.put(f"/v1/clients/{panel.id}", {"scopes": ["admin", "present"], "issuers": None})
    assert (await panel.put("/v1/policy", put_request(3, [wider]))).status == 403
    assert (await admin.post(*challenge)).status == 403
    await approve(gateway.policy, gateway.clients)
    assert (await admin.post(*challenge)).status == 200
    assert gateway.pulses == 0


async def test_row_66_a_policy_that_waits_waits_over_a_restart(tmp_path):
    """And narrowing does not wait."""
    carrier = Carrier()
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        carrier.doors = gateway.all_doors
        await admin.put("/v1/policy", put_request(0, [carrier]))
    async with gateway.reopen() as again:
        back = again.caller(admin.admission)
        assert (await back.get("/v1/policy")).json["pending"]["seconds_left"] == DAY
        assert (await back.post(f"/v1/doors/{again.door.id}/challenge", {"iss": carrier.issuer})).status == 403
        await approve(again.policy, again.clients)
        text = carrier.token(await back.challenge(again.door, carrier))
        assert (await back.put("/v1/policy", put_request(1, []))).json["pending"] is False
        assert (await back.unlock(again.door, text)).json["word"] == "invalid_token", "its key is not known any more"
        assert again.pulses == 0


async def test_tampering_and_doors_of_others_are_refused_here_as_well(tmp_path):
    """Rows 14 and 39, through the API: what the building says holds whoever forwards a token."""
    carrier = Carrier()
    async with Gateway(tmp_path, setup={"sensors": frozenset({Sensor.TAMPER})}) as gateway:
        admin = await gateway.pair()
        await gateway.allow(admin, carrier)
        elsewhere = some_doors(1, "another building")[0]
        text = carrier.token(await admin.challenge(gateway.door, carrier), aud=elsewhere.id)
        assert await admin.code(gateway.door, text) == "WRONG_DOOR"
        assert (await admin.unlock(elsewhere, text)).status == 404
        gateway.controller.sense(gateway.door.id, Sensor.TAMPER, Sense.ACTIVE)
        await gateway.told(EventName.DOOR_TAMPERED)
        text = carrier.token(await admin.challenge(gateway.door, carrier))
        assert await admin.code(gateway.door, text) == "DOOR_UNAVAILABLE"
        denied = await gateway.told(EventName.ACCESS_DENIED, 2)
        assert [event.code for event in denied] == [Code.WRONG_DOOR, Code.TAMPERED]
        assert gateway.pulses == 0


# ---- witnesses ----


async def test_row_68_checkpoint_smaller_or_other_than_a_witness_holds(gateway, admin, open_for, carrier):
    """Lower size, same size and other root, a smaller tree than a receipt: not cosigned, alarm, remote unlock off. A
    forged larger receipt is ignored.
    """
    house = House()
    assert await house.show(admin, 5) == 200
    assert await house.show(admin, 4) == 409, "lower size"
    assert await house.show(admin, 5, other=True) == 409, "same size and another root"
    assert await house.show(admin, 7, other=True) == 409
    assert len(await gateway.told(EventName.WITNESS_REFUSED)) == 1
    assert await house.show(admin, 9) == 200, "and what does go on is cosigned as before"

    await gateway.controller.recorded()
    receipt = gateway.journal.checkpoint
    forged = receipt.replace(f"\n{gateway.journal.sequence}\n", f"\n{gateway.journal.sequence + 9}\n", 1)
    for nothing in (forged, house.note(99), "not a checkpoint"):
        assert (await admin.post("/v1/witness/receipt", {"note": nothing})).status == 404
    assert (await admin.post("/v1/witness/receipt", {"note": receipt})).json == {"disputed": False}
    assert await admin.code(gateway.door, carrier.token(await admin.challenge(gateway.door, carrier))) == "GRANTED"

    larger = IDENTITY.sign(Checkpoint(IDENTITY.verifier.name, 10_000, bytes(32)).text)
    waiting = carrier.token(await admin.challenge(gateway.door, carrier))
    assert (await admin.post("/v1/witness/receipt", {"note": larger})).json == {"disputed": True}
    assert (await admin.get("/v1/doors")).json["disputed"]
    await gateway.told(EventName.JOURNAL_DISPUTED)
    said = await admin.unlock(gateway.door, waiting)
    assert said.json == {"word": "refused", "code": "DOOR_UNAVAILABLE"}
    assert (await admin.operate(gateway.door, "access", BOB)).json == {"code": "JOURNAL_DISPUTED"}
    assert gateway.pulses == 1

    confirm = {"what": "journal", "ref": None}
    assert (await admin.post("/v1/confirm", {**confirm, "actor": BOB})).json == {"code": "MANUAL_NOT_ALLOWED"}
    assert (await admin.post("/v1/confirm", {**confirm, "actor": ANN})).json == {"code": "GRANTED"}
    assert not (await admin.get("/v1/doors")).json["disputed"]
    assert await admin.code(gateway.door, carrier.token(await admin.challenge(gateway.door, carrier))) == "GRANTED"
    assert (await admin.post("/v1/witness/receipt", {"note": larger})).json == {"disputed": False}, "it was looked at"
