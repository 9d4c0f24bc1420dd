"""What the driver's page asks: set up a device by a link, sign in, today's stops, and a door.

A browser in which a device has signed in holds a cookie. With that it sees today's stops and may ask; to open, each
request needs the passkey, for exactly what was asked. What this file refuses to do: decide (decide.py does), take a
wish's content twice from a browser (it is kept here until the device has answered), burn a link before a device is
registered by it, or stop a decision because whoever asked has gone.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from aiohttp import hdrs, web
from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core import b64url
from vestibule_core.errors import MalformedMessage
from vestibule_core.strict import FLAG, Message, integer, listed, number, raw, record, text

from . import drivers, passkeys, words
from .checks import Asked, AssertionFacts, Check, Fix, Reason, Verdict, is_today
from .decide import decide
from .intake import (
    MAX_REQUEST,
    Call,
    Caller,
    ErrorWord,
    Guest,
    Route,
    TurnedAway,
    forbidden,
    identifier,
    not_found,
    octets,
    said,
)
from .passkeys import Assertion, NotProven, Registration
from .store import Prefix, StoreUnavailable, new_id, queries, sha256
from .store.tables import Building, Ceremony, Device, Door, Driver, Request, RequestState, Session, Stop
from .store.tables import Route as DayRoute

COOKIE: Final = "__Host-driver"
WISH_ROUTE: Final = ("POST", "/driver/requests")
SESSION: Final = timedelta(days=30)
"""For which a browser stays signed in."""
CEREMONY: Final = timedelta(seconds=passkeys.PATIENCE)
DEVICES: Final = 5
"""That a driver may have at once."""
SESSIONS: Final = 5
"""Of one device: the newest."""


# ---- what bodies say ----


@dataclass(frozen=True, slots=True)
class _Join:
    invitation: bytes


@dataclass(frozen=True, slots=True)
class _Joined:
    invitation: bytes
    credential: Registration


@dataclass(frozen=True, slots=True)
class _Shown:
    credential: Assertion


@dataclass(frozen=True, slots=True)
class _Position:
    lat: float
    lon: float
    accuracy: float
    at: int
    typed: bool


@dataclass(frozen=True, slots=True)
class _Wish:
    stop: str
    door: str
    position: _Position


_REGISTRATION: Final = record(
    Registration,
    {
        "id": ("credential_id", octets(1023)),
        "clientDataJSON": ("client_data", octets(2048)),
        "attestationObject": ("attestation", octets(4096)),
        "transports": listed(text(20), 8),
    },
)
_ASSERTION: Final = record(
    Assertion,
    {
        "id": ("credential_id", octets(1023)),
        "clientDataJSON": ("client_data", octets(2048)),
        "authenticatorData": ("authenticator_data", octets(1024)),
        "signature": octets(1024),
    },
)
JOIN: Final = Message(record(_Join, {"invitation": raw(32)}), MAX_REQUEST)
JOINED: Final = Message(record(_Joined, {"invitation": raw(32), "credential": _REGISTRATION}), 2 * MAX_REQUEST)
SHOWN: Final = Message(record(_Shown, {"credential": _ASSERTION}), MAX_REQUEST)
WISH: Final = Message(
    record(
        _Wish,
        {
            "stop": identifier(Prefix.STOP),
            "door": identifier("door"),
            "position": record(
                _Position,
                {
                    "lat": number(-90, 90),
                    "lon": number(-180, 180),
                    "accuracy": number(0, 1_000_000),
                    "at": integer(0, 253_402_300_799),
                    "typed": FLAG,
                },
            ),
        },
    ),
    MAX_REQUEST,
)


# ---- set up a device ----


async def _join(call: Call) -> web.Response:
    """Answer a link with the options for a new passkey. To look at a link burns nothing."""
    secret, challenge = b64url.encode(call.read(JOIN).invitation), os.urandom(32)
    async with call.cloud.store.transaction() as session:
        if (driver := await drivers.invited(session, secret, call.now)) is None:
            raise not_found()
        devices = await _devices(session, driver.id)
        session.add(_ceremony(challenge, "register", driver.id, {"link": sha256(secret).hex()}, call.now))
        options = passkeys.registration_options(
            call.cloud.party,
            challenge,
            user_handle=driver.id.encode(),
            name=driver.name or "",
            known=[each.credential_id for each in devices],
        )
    return said({"options": options})


async def _joined(call: Call) -> web.Response:
    """Register the device, use up the link and sign in, all or nothing."""
    wanted = call.read(JOINED)
    secret, said_by = b64url.encode(wanted.invitation), wanted.credential
    try:
        challenge = passkeys.challenge_in(said_by.client_data)
        made = passkeys.verify_registration(call.cloud.party, challenge, said_by)
    except NotProven as err:
        raise forbidden() from err
    try:
        async with call.cloud.store.transaction() as session:
            driver = await drivers.use_invitation(session, secret, call.now)
            used = await queries.use_ceremony(session, sha256(challenge), "register", call.now)
            if used is None or used["link"] != sha256(secret).hex():
                raise _expired()
            if driver is None or not await _may_come_in(session, driver):
                raise not_found()
            if len(await _devices(session, driver)) >= DEVICES:
                raise _conflict()
            device = await drivers.add_device(
                session,
                driver,
                credential_id=made.credential_id,
                public_key=made.public_key,
                sign_count=made.sign_count,
                backed_up=made.backed_up,
                transports=list(said_by.transports),
                now=call.now,
            )
            await session.flush()
            return await _signed_in(session, device.id, call.now)
    except IntegrityError as err:  # a passkey that is registered already
        raise _conflict() from err


async def _devices(session: AsyncSession, driver: str) -> Sequence[Device]:
    return (await session.scalars(select(Device).where(Device.driver_id == driver, Device.revoked_at.is_(None)))).all()


# ---- sign in ----


async def _sign_in(call: Call) -> web.Response:
    challenge = os.urandom(32)
    async with call.cloud.store.transaction() as session:
        session.add(_ceremony(challenge, "sign_in", None, {}, call.now))
    return said({"options": passkeys.assertion_options(call.cloud.party, challenge, [])})


async def _sign_in_shown(call: Call) -> web.Response:
    shown = call.read(SHOWN).credential
    try:
        challenge = passkeys.challenge_in(shown.client_data)
    except NotProven as err:
        raise forbidden() from err
    async with call.cloud.store.transaction() as session:
        if await queries.use_ceremony(session, sha256(challenge), "sign_in", call.now) is None:
            raise _expired()
        device = await session.scalar(select(Device).where(Device.credential_id == shown.credential_id))
        if device is None or device.revoked_at is not None or not await _may_come_in(session, device.driver_id):
            raise forbidden()
        try:
            proof = passkeys.verify_assertion(
                call.cloud.party, challenge, shown, public_key=device.public_key, sign_count=device.sign_count
            )
        except NotProven as err:
            raise forbidden() from err
        if not (proof.user_verified and proof.count_rose and await _count(session, device, proof.sign_count)):
            raise forbidden()
        return await _signed_in(session, device.id, call.now)


async def _sign_out(call: Call) -> web.Response:
    secret = _secret(call.request)
    assert secret is not None, "it is what the caller was known by"
    async with call.cloud.store.transaction() as session:
        await session.execute(delete(Session).where(Session.secret_sha256 == sha256(secret)))
    answer = web.Response(status=HTTPStatus.NO_CONTENT)
    answer.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return answer


async def _signed_in(session: AsyncSession, device: str, now: datetime) -> web.Response:
    """Sign a device in; of its older sessions, the newest few are kept."""
    secret = os.urandom(32)
    older = select(Session.secret_sha256).where(Session.device_id == device).order_by(Session.created_at.desc())
    too_old = (await session.scalars(older.offset(SESSIONS - 1))).all()
    await session.execute(delete(Session).where(Session.secret_sha256.in_(too_old)))
    session.add(Session(secret_sha256=sha256(secret), device_id=device, created_at=now, expires_at=now + SESSION))
    answer = web.Response(status=HTTPStatus.NO_CONTENT)
    answer.set_cookie(
        COOKIE,
        b64url.encode(secret),
        max_age=int(SESSION.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="Strict",
    )
    return answer


async def caller(session: AsyncSession, request: web.Request, now: datetime) -> Caller | None:
    """Return who has signed in in the browser that asks: a device that is not revoked, of a driver who is active."""
    if (secret := _secret(request)) is None:
        return None
    found = await session.execute(
        select(Device.id, Device.driver_id)
        .join(Session, Session.device_id == Device.id)
        .join(Driver, Driver.id == Device.driver_id)
        .where(
            Session.secret_sha256 == sha256(secret),
            Session.expires_at > now,
            Device.revoked_at.is_(None),
            Driver.active,
            Driver.removed_at.is_(None),
        )
    )
    return None if (row := found.one_or_none()) is None else Caller(*row)


async def _may_come_in(session: AsyncSession, driver_id: str) -> bool:
    driver = await session.get_one(Driver, driver_id)
    return driver.active and driver.removed_at is None


def _secret(request: web.Request) -> bytes | None:
    try:
        return _COOKIE_TEXT.read(request.cookies.get(COOKIE))
    except MalformedMessage:
        return None


_COOKIE_TEXT: Final = raw(32)


async def _count(session: AsyncSession, device: Device, to: int) -> bool:
    """Keep how often a device has signed; return False if another request has brought it as far in between.

    A device that does not count says 0 each time: that needs no writing down.
    """
    if device.sign_count == to == 0:
        return True
    changed = await session.execute(
        update(Device)
        .where(Device.id == device.id, Device.sign_count < to)
        .values(sign_count=to)
        .execution_options(synchronize_session=False)
    )
    return cast("CursorResult[Any]", changed).rowcount == 1


# ---- today ----


async def _today(call: Call) -> web.Response:
    cloud, now = call.cloud, call.now
    async with cloud.store.transaction() as session:
        driver = await session.get_one(Driver, call.driver)
        about = timedelta(days=1)
        rows = (
            await session.execute(
                select(Stop, DayRoute, Building)
                .join(DayRoute, DayRoute.id == Stop.route_id)
                .join(Building, Building.id == Stop.building_id)
                .where(
                    DayRoute.driver_id == driver.id, DayRoute.day.between((now - about).date(), (now + about).date())
                )
                .order_by(DayRoute.shift_from, DayRoute.id, Stop.seq)
            )
        ).all()
        stops = [
            (stop, route, building)
            for stop, route, building in rows
            if is_today(route.day, route.shift_from, route.shift_to, ZoneInfo(building.zone), now)
        ]
        doors = await queries.openings(session, [stop.id for stop, _, _ in stops])
        wanted = {door for path in doors.values() for door, _ in path}
        names = {door.id: door.name for door in await session.scalars(select(Door).where(Door.id.in_(wanted)))}
    return said(
        {
            "company": cloud.party.name,
            "driver": driver.name,
            "typed_positions": cloud.typed_positions,
            "stops": [
                {
                    "id": stop.id,
                    "building": building.name,
                    "zone": building.zone,
                    "from": int(max(stop.window_from, route.shift_from).timestamp()),
                    "to": int(min(stop.window_to, route.shift_to).timestamp()),
                    "state": stop.state,
                    "doors": [{"id": door, "name": names[door], "state": opening} for door, opening in doors[stop.id]],
                }
                for stop, route, building in stops
            ],
        }
    )


# ---- a door ----


async def _wish(call: Call) -> web.Response:
    """Keep what a driver asks for, and answer with what the device is to sign: that, and nothing else."""
    wish, request = call.read(WISH), new_id(Prefix.REQUEST)
    if wish.position.typed and not call.cloud.typed_positions:
        raise forbidden()
    content = passkeys.canonical(
        {
            "request": request,
            "driver": call.driver,
            "device": call.by.id,
            "stop": wish.stop,
            "door": wish.door,
            "position": asdict(wish.position),
            "asked_at": call.now.timestamp(),
            "random": b64url.encode(os.urandom(32)),
        }
    )
    challenge = passkeys.challenge_of(content)
    async with call.cloud.store.transaction() as session:
        session.add(_ceremony(challenge, "request", call.driver, {"content": content.decode()}, call.now))
        device = await session.get_one(Device, call.by.id)
    options = passkeys.assertion_options(call.cloud.party, challenge, [device.credential_id])
    return said({"request": request, "options": options})


async def _answer(call: Call) -> web.StreamResponse:
    """Take the device's answer, and say line by line what comes of it. The decision is made whoever listens."""
    shown = call.read(SHOWN).credential
    asked = await _asked(call, shown)
    lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    deciding = call.cloud.work(_decide(call, asked, lines))
    answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/x-ndjson", "X-Accel-Buffering": "no"})
    with suppress(ConnectionError):  # the page asks later what became of it
        await answer.prepare(call.request)
        while (line := await lines.get()) is not None:
            await answer.write(json.dumps(line).encode() + b"\n")
        await answer.write_eof()
    await deciding
    return answer


async def _decide(call: Call, asked: Asked, lines: asyncio.Queue[dict[str, Any] | None]) -> None:
    def judged(verdict: Verdict) -> None:
        for result in verdict.results:
            lines.put_nowait(_check_line(result.check, result.reason))
        if verdict.passed:
            lines.put_nowait({"event": "building"})

    try:
        outcome = await decide(call.cloud.desk, asked, judged)
        again = await _may_ask_again(call, outcome.state, asked.stop, asked.door)
        lines.put_nowait(_outcome_line(outcome.state, outcome.code, may_ask_again=again))
    except StoreUnavailable:  # nothing was sent
        lines.put_nowait(_outcome_line("unavailable", None, may_ask_again=True))
    finally:
        lines.put_nowait(None)


def _check_line(check: Check, reason: Reason | None) -> dict[str, Any]:
    what, advice = ("", "") if reason is None else words.REASONS[reason]
    line = {"event": "check", "check": check, "passed": reason is None}
    return line | {"reason": reason, "text": what, "advice": advice}


def _outcome_line(state: str, code: str | None, *, may_ask_again: bool) -> dict[str, Any]:
    what, advice = words.told(code)
    line = {"event": "outcome", "state": state, "code": code, "text": what, "advice": advice}
    return line | {"may_ask_again": may_ask_again}


_NEVER_AGAIN: Final = frozenset({RequestState.GRANTED, RequestState.UNKNOWN})
_UNDER_WAY: Final = frozenset({RequestState.ASKED, RequestState.SIGNED})


async def _may_ask_again(call: Call, state: str, stop: str, door: str) -> bool:
    """Return whether a door may be asked for once more at its stop, as far as the database can be asked."""
    if state in _NEVER_AGAIN:
        return False
    try:
        async with call.cloud.store.reading() as session:
            return await queries.is_free(session, call.driver, stop, door)
    except StoreUnavailable:
        return state == RequestState.UNREACHABLE  # which has given the door back


def _lines_of(request: Request) -> list[dict[str, Any]]:
    """Return what was said of the confirmations of a request."""
    return [
        _check_line(Check(each["check"]), None if each["reason"] is None else Reason(each["reason"]))
        for each in request.told
    ]


async def _asked(call: Call, shown: Assertion) -> Asked:
    """Return what was asked for and whether the device has signed that; use the challenge up."""
    request = call.request.match_info["request"]
    try:
        key = sha256(passkeys.challenge_in(shown.client_data))
    except NotProven as err:
        raise forbidden() from err
    async with call.cloud.store.transaction() as session:
        found = await session.execute(
            select(Ceremony, Device)
            .join(Device, Device.id == call.by.id)
            .where(Ceremony.challenge_sha256 == key, Ceremony.kind == "request", Ceremony.driver_id == call.driver)
        )
        if (row := found.one_or_none()) is None:
            raise not_found()
        ceremony, device = row
        if ceremony.used_at is not None:
            raise _expired()
        text = ceremony.payload["content"].encode()
        content = json.loads(text)
        if content["request"] != request or content["device"] != call.by.id:
            raise not_found()
        if not await queries.use_up(session, key, "request", call.now):
            raise _expired()
        facts = await _facts(session, call, shown, passkeys.challenge_of(text), device)
    position = content["position"]
    return Asked(
        request=request,
        driver=content["driver"],
        device=content["device"],
        assertion=facts,
        stop=content["stop"],
        door=content["door"],
        fix=Fix(
            position["lat"],
            position["lon"],
            position["accuracy"],
            datetime.fromtimestamp(position["at"], UTC),
            position["typed"],
        ),
        asked_at=datetime.fromtimestamp(content["asked_at"], UTC),
    )


async def _facts(
    session: AsyncSession, call: Call, shown: Assertion, challenge: bytes, device: Device
) -> AssertionFacts:
    if shown.credential_id != device.credential_id:
        return _NOTHING_SHOWN
    try:
        proof = passkeys.verify_assertion(
            call.cloud.party, challenge, shown, public_key=device.public_key, sign_count=device.sign_count
        )
    except NotProven:
        return _NOTHING_SHOWN
    counted = proof.count_rose and await _count(session, device, proof.sign_count)
    return AssertionFacts(
        verified=True,
        user_verified=proof.user_verified,
        sign_count_ok=counted,
    )


_NOTHING_SHOWN: Final = AssertionFacts(verified=False, user_verified=False, sign_count_ok=False)


async def _state(call: Call) -> web.Response:
    """Say again what has become of a request. Nothing is asked of the building again."""
    async with call.cloud.store.reading() as session:
        request = await session.get(Request, call.id(Prefix.REQUEST))
    if request is None or request.driver_id != call.driver:
        raise not_found()
    lines = _lines_of(request)
    if request.state not in _UNDER_WAY:
        again = await _may_ask_again(call, request.state, request.stop_id, request.door_id)
        lines.append(_outcome_line(request.state, request.code, may_ask_again=again))
    return said({"events": lines})


# ---- small things ----


def _ceremony(challenge: bytes, kind: str, driver: str | None, payload: dict[str, Any], now: datetime) -> Ceremony:
    return Ceremony(
        challenge_sha256=sha256(challenge),
        kind=kind,
        driver_id=driver,
        payload=payload,
        expires_at=now + CEREMONY,
    )


def _expired() -> TurnedAway:
    return TurnedAway(HTTPStatus.GONE, ErrorWord.EXPIRED)


def _conflict() -> TurnedAway:
    return TurnedAway(HTTPStatus.CONFLICT, ErrorWord.CONFLICT)


ROUTES: Final = (
    Route("POST", "/driver/join", Guest.ANYBODY, _join, MAX_REQUEST),
    Route("POST", "/driver/join/passkey", Guest.ANYBODY, _joined, 2 * MAX_REQUEST),
    Route("POST", "/driver/sign-in", Guest.ANYBODY, _sign_in),
    Route("POST", "/driver/sign-in/passkey", Guest.ANYBODY, _sign_in_shown, MAX_REQUEST),
    Route("DELETE", "/driver/session", Guest.DRIVER, _sign_out),
    Route("GET", "/driver/today", Guest.DRIVER, _today),
    Route(*WISH_ROUTE, Guest.DRIVER, _wish, MAX_REQUEST),
    Route("POST", "/driver/requests/{request}", Guest.DRIVER, _answer, MAX_REQUEST),
    Route("GET", "/driver/requests/{request}", Guest.DRIVER, _state),
)
