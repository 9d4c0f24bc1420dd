"""What dispatchers and their programs ask, with a scoped key (docs/carrier-api.openapi.yaml).

Bodies are read strictly and bounded; each change is audited by the function that makes it, under the key's id. What
this file refuses to do: open a door, show a coordinate, or show a secret a second time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from itertools import batched
from typing import Any, Final

from aiohttp import hdrs, web
from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from vestibule_core.strict import FLAG, Message, choice, optional, parsed, record, text

from . import alarms, api_keys, audit, buildings, drivers, manifests
from .api_keys import Scope
from .checks import Opening, StopState
from .drivers import LONGEST_NAME, NoSuch, NotPossible
from .intake import MAX_REQUEST, Call, ErrorWord, Route, TurnedAway, bad_request, not_found, said
from .manifests import MAX_BYTES, ManifestError
from .store import Prefix, StoreUnavailable, is_id, queries
from .store.tables import (
    Alarm,
    Building,
    Device,
    Door,
    Driver,
    Evidence,
    Request,
    RequestState,
    Stop,
)
from .store.tables import Route as DayRoute

_LOGGER = logging.getLogger(__name__)

MOST: Final = 200
"""Decisions, or entries of the audit, in one answer."""
_AT_ONCE: Final = 1000
"""Stops whose doors are looked for at once."""
_LONGEST_ID: Final = 60
_LONGEST_NUMBER: Final = 19
LIVE_EVERY: Final = 1.0
"""Seconds between two looks for what is new."""
LIVE_FOR: Final = timedelta(minutes=10)
"""For which a request's outcome may still change, and is told live."""
LIVE_LATE: Final = timedelta(seconds=90)
"""After its moment a decision may come to be seen: longer than a transaction waits for its turns, and replicas' clocks
differ.
"""
LIVE_MOST: Final = 16
"""Programs that follow at once, in each replica."""
LIVE_BEAT: Final = 15
"""Looks without anything new after which an empty line says that we are still there."""
_MAY_CHANGE: Final = frozenset({RequestState.ASKED, RequestState.SIGNED, RequestState.UNKNOWN})


class Ended(StrEnum):
    """How a stop ends."""

    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class _NewDriver:
    name: str
    vetted_until: datetime | None


@dataclass(frozen=True, slots=True)
class _DriverChange:
    active: bool
    vetted_until: datetime | None


@dataclass(frozen=True, slots=True)
class _StopEnd:
    state: Ended


def _spell(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_MOMENT: Final = parsed(manifests.moment, lambda at: _spell(at) or "")
NEW_DRIVER: Final = Message(
    record(_NewDriver, {"name": text(LONGEST_NAME, 1), "vetted_until": optional(_MOMENT)}), MAX_REQUEST
)
DRIVER_CHANGE: Final = Message(record(_DriverChange, {"active": FLAG, "vetted_until": optional(_MOMENT)}), MAX_REQUEST)
STOP_END: Final = Message(record(_StopEnd, {"state": choice(Ended)}), MAX_REQUEST)


@asynccontextmanager
async def _changing(call: Call) -> AsyncIterator[AsyncSession]:
    """Change something in one transaction; say what cannot be."""
    try:
        async with call.cloud.store.transaction() as session:
            yield session
    except NoSuch as err:
        raise not_found() from err
    except (NotPossible, ManifestError) as err:
        raise bad_request(str(err)) from err


# ---- drivers ----


async def _drivers(call: Call) -> web.Response:
    async with call.cloud.store.transaction() as session:
        found = await drivers.listed(session)
    return said({"drivers": [_driver(driver, devices) for driver, devices in found]})


async def _add_driver(call: Call) -> web.Response:
    wanted = call.read(NEW_DRIVER)
    async with _changing(call) as session:
        driver = await drivers.add(session, wanted.name, wanted.vetted_until, call.by.id, call.now)
    return said(_driver(driver, ()), HTTPStatus.CREATED)


async def _change_driver(call: Call) -> web.Response:
    wanted, id_ = call.read(DRIVER_CHANGE), call.id(Prefix.DRIVER)
    async with _changing(call) as session:
        driver = await drivers.get(session, id_)
        if driver.vetted_until != wanted.vetted_until:
            await drivers.vet(session, id_, wanted.vetted_until, call.by.id, call.now)
        if driver.active != wanted.active:
            await drivers.set_active(session, id_, wanted.active, call.by.id, call.now)
        devices = (await session.scalars(select(Device).where(Device.driver_id == id_))).all()
    return said(_driver(driver, devices))


async def _remove_driver(call: Call) -> web.Response:
    async with _changing(call) as session:
        await drivers.remove(session, call.id(Prefix.DRIVER), call.by.id, call.now)
    await call.cloud.store.scrub()
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def _invite(call: Call) -> web.Response:
    async with _changing(call) as session:
        secret = await drivers.invite(session, call.id(Prefix.DRIVER), call.by.id, call.now)
    # After "#": a browser sends it to nobody, no log has it, and a preview of the link does not follow it.
    link = f"{call.cloud.party.origin}/#join={secret}"
    return said({"link": link, "expires_at": _spell(call.now + drivers.INVITED_FOR)}, HTTPStatus.CREATED)


async def _revoke_driver(call: Call) -> web.Response:
    async with _changing(call) as session:
        revoked = await drivers.revoke(session, call.id(Prefix.DRIVER), call.by.id, call.now)
    return said({"devices": revoked})


async def _revoke_device(call: Call) -> web.Response:
    async with _changing(call) as session:
        revoked = await drivers.revoke(session, call.id(Prefix.DEVICE), call.by.id, call.now)
    return said({"devices": revoked})


def _driver(driver: Driver, devices: Iterable[Device]) -> dict[str, Any]:
    return {
        "id": driver.id,
        "name": driver.name,
        "active": driver.active,
        "vetted_until": _spell(driver.vetted_until),
        "created_at": _spell(driver.created_at),
        "devices": [
            {
                "id": device.id,
                "created_at": _spell(device.created_at),
                "revoked_at": _spell(device.revoked_at),
                "backed_up": device.backed_up,
            }
            for device in devices
        ],
    }


# ---- buildings, routes ----


async def _buildings(call: Call) -> web.Response:
    async with call.cloud.store.transaction() as session:
        found = await buildings.listed(session)
    return said(
        {
            "buildings": [
                {
                    "id": each.building.id,
                    "name": each.building.name,
                    "zone": each.building.zone,
                    "controllers": [
                        {
                            "key": controller.key,
                            "enrolled_at": _spell(controller.enrolled_at),
                            "connected_since": _spell(link.since if link is not None else None),
                        }
                        for controller, link in each.controllers
                    ],
                    "doors": [
                        {
                            "id": door.id,
                            "name": door.name,
                            "has_position": door.lat is not None,
                            "is_offered": door.id in each.offered,
                        }
                        for door in each.doors
                    ],
                }
                for each in found
            ]
        }
    )


async def _bring(call: Call) -> web.Response:
    try:
        manifest = call.body.decode()
    except UnicodeDecodeError as err:
        raise bad_request("this is not UTF-8 text") from err
    match call.request.content_type:
        case "application/json":
            read = manifests.read_json
        case "text/csv":
            read = manifests.read_csv
        case _:
            raise TurnedAway(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ErrorWord.BAD_REQUEST)
    async with _changing(call) as session:
        routes = await asyncio.to_thread(read, manifest)  # 20 000 stops take their time
        ids = await manifests.bring(session, routes, call.by.id, call.now)
    return said({"routes": ids}, HTTPStatus.CREATED)


async def _routes(call: Call) -> web.Response:
    try:
        day = date.fromisoformat(call.request.query.get("day", call.now.date().isoformat()))
    except ValueError as err:
        raise bad_request("day") from err
    async with call.cloud.store.transaction() as session:
        routes = (await session.scalars(select(DayRoute).where(DayRoute.day == day).order_by(DayRoute.id))).all()
        stops = (
            await session.scalars(
                select(Stop)
                .join(DayRoute, DayRoute.id == Stop.route_id)
                .where(DayRoute.day == day)
                .order_by(Stop.route_id, Stop.seq)
            )
        ).all()
        doors = dict[str, tuple[tuple[str, Opening], ...]]()
        for some in batched(stops, _AT_ONCE, strict=False):  # a statement has at most 32 767 values
            doors |= await queries.openings(session, [stop.id for stop in some])
    of: dict[str, list[dict[str, Any]]] = {route.id: [] for route in routes}
    for stop in stops:
        of[stop.route_id].append(
            {
                "id": stop.id,
                "building": stop.building_id,
                "window_from": _spell(stop.window_from),
                "window_to": _spell(stop.window_to),
                "state": stop.state,
                "reference": stop.reference,
                "doors": [{"id": door, "state": opening} for door, opening in doors[stop.id]],
            }
        )
    return said(
        {
            "routes": [
                {
                    "id": route.id,
                    "driver": route.driver_id,
                    "day": route.day.isoformat(),
                    "shift_from": _spell(route.shift_from),
                    "shift_to": _spell(route.shift_to),
                    "stops": of[route.id],
                }
                for route in routes
            ]
        }
    )


async def _cancel_route(call: Call) -> web.Response:
    async with _changing(call) as session:
        stops = await manifests.cancel_route(session, call.id(Prefix.ROUTE), call.by.id, call.now)
    return said({"stops": stops})


async def _end_stop(call: Call) -> web.Response:
    state = StopState(call.read(STOP_END).state)
    async with _changing(call) as session:
        await manifests.end_stop(session, call.id(Prefix.STOP), state, call.by.id, call.now)
    return web.Response(status=HTTPStatus.NO_CONTENT)


# ---- decisions, audit ----


async def _decisions(call: Call) -> web.Response:
    limit, before = _limit(call), call.request.query.get("before")
    if before is not None and not is_id(before, Prefix.REQUEST):
        raise bad_request("before")
    wanted = select(Request).order_by(Request.asked_at.desc(), Request.id.desc()).limit(limit)
    async with call.cloud.store.transaction() as session:
        if before is not None:
            if (start := await session.get(Request, before)) is None:
                raise not_found()
            wanted = wanted.where(
                or_(
                    Request.asked_at < start.asked_at,
                    and_(Request.asked_at == start.asked_at, Request.id < start.id),
                )
            )
        found = await _told(session, (await session.scalars(wanted)).all())
    return said({"decisions": found})


async def _live(call: Call) -> web.StreamResponse:
    """Tell each decision as soon as it is there, and again when its outcome is: one JSON object in a line, for as long
    as the caller listens and its key is good. Nothing is told twice, and nothing is left out.
    """
    cloud = call.cloud
    if cloud.followers >= LIVE_MOST:
        raise TurnedAway(HTTPStatus.SERVICE_UNAVAILABLE, ErrorWord.UNAVAILABLE, {hdrs.RETRY_AFTER: "10"})
    answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/x-ndjson", "X-Accel-Buffering": "no"})
    with cloud.following():
        await answer.prepare(call.request)
        quiet = LIVE_BEAT
        with suppress(ConnectionError):  # the listener has gone
            try:
                async with aclosing(_news(call)) as news:
                    async for lines in news:
                        quiet = 0 if lines else quiet + 1
                        for line in lines:
                            await answer.write(json.dumps(line).encode() + b"\n")
                        if quiet >= LIVE_BEAT:
                            await answer.write(b"\n")  # so that a listener who has gone is noticed
                            quiet = 0
            except StoreUnavailable as err:  # the answer has begun, so that it can only end
                _LOGGER.warning("The database does not answer: %s", err)
            await answer.write_eof()
    return answer


async def _news(call: Call) -> AsyncGenerator[list[dict[str, Any]]]:
    """Give what is new at each look, MOST at a time, nothing if nothing is; end with the key or the program.

    Looked for by when it was decided: a driver confirms a wish long after others have asked and were answered.
    """
    cloud, since, told = call.cloud, call.now - LIVE_FOR, dict[str, str]()
    while not cloud.ending.is_set():
        now = cloud.now()
        open_ = [id_ for id_, state in told.items() if state in _MAY_CHANGE]
        wanted = (
            select(Request.id, Request.state)
            .where(Request.asked_at >= now - LIVE_FOR, or_(Request.decided_at >= since, Request.id.in_(open_)))
            .order_by(Request.decided_at, Request.id)
        )
        async with cloud.store.reading() as session:
            states = dict((await session.execute(wanted)).tuples().all())
        told = {id_: told[id_] for id_ in states if id_ in told}
        new = [id_ for id_, state in states.items() if told.get(id_) != state]
        for ids in [*batched(new, MOST, strict=False)] or [()]:
            async with cloud.store.reading() as session:
                if not await api_keys.is_good(session, call.by.id):
                    return
                these = select(Request).where(Request.id.in_(ids)).order_by(Request.decided_at, Request.id)
                found = (await session.scalars(these)).all() if ids else ()
                lines = await _told(session, found) if ids else []
            told |= {each.id: each.state for each in found}
            yield lines
        since = now - LIVE_LATE
        await cloud.until_ending(LIVE_EVERY)


async def _told(session: AsyncSession, requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Return decisions as dispatchers see them. What was measured is there while the evidence is."""
    ids = [each.id for each in requests]
    evidence = {
        each.request_id: json.loads(each.record)
        for each in await session.scalars(select(Evidence).where(Evidence.request_id.in_(ids)))
    }
    of = {
        driver.id: driver.name
        for driver in await session.scalars(select(Driver).where(Driver.id.in_({each.driver_id for each in requests})))
    }
    doors = {
        door.id: (door.name, building)
        for door, building in (
            await session.execute(
                select(Door, Building.name)
                .join(Building, Building.id == Door.building_id)
                .where(Door.id.in_({each.door_id for each in requests}))
            )
        ).tuples()
    }
    return [
        {
            "request": each.id,
            "asked_at": _spell(each.asked_at),
            "decided_at": _spell(each.decided_at),
            "driver": {"id": each.driver_id, "name": of.get(each.driver_id)},
            "device": each.device_id,
            "stop": each.stop_id,
            "door": {"id": each.door_id, "name": doors.get(each.door_id, (None, None))[0]},
            "building": doors.get(each.door_id, (None, None))[1],
            "state": each.state,
            "code": each.code,
            "checks": each.told,
            "position": _measured(evidence.get(each.id)),
        }
        for each in requests
    ]


def _measured(evidence: dict[str, Any] | None) -> dict[str, Any] | None:
    if evidence is None or evidence["fix"] is None:
        return None
    measured = next(result["measured"] for result in evidence["results"] if result["check"] == "position")
    return {
        "metres": measured.get("d"),
        "accuracy": measured.get("acc"),
        "age": measured.get("age"),
        "limit": measured.get("limit"),
        "typed": evidence["fix"]["typed"],
    }


async def _audit(call: Call) -> web.Response:
    limit = _limit(call)
    before = call.number("before", 0) if "before" in call.request.query else None
    subject = call.request.query.get("subject")
    if subject is not None and not (len(subject) <= _LONGEST_ID and subject.isascii() and subject.isprintable()):
        raise bad_request("subject")
    async with call.cloud.store.transaction() as session:
        entries = await audit.newest(session, limit, before, subject)
    return said(
        {
            "entries": [
                {
                    "seq": each.seq,
                    "at": _spell(each.at),
                    "who": each.who,
                    "what": each.what,
                    "subject": each.subject,
                    "detail": each.detail,
                }
                for each in entries
            ]
        }
    )


async def _alarms(call: Call) -> web.Response:
    limit = _limit(call)
    before = call.number("before", 0) if "before" in call.request.query else None
    if (which := call.request.query.get("seen", "all")) not in _SEEN:
        raise bad_request("seen")
    async with call.cloud.store.transaction() as session:
        found = await alarms.listed(session, limit, before, seen=_SEEN[which])
    return said({"alarms": [_alarm(each) for each in found]})


_SEEN: Final = {"all": None, "true": True, "false": False}


async def _see_alarm(call: Call) -> web.Response:
    spelt = call.request.match_info["alarm"]
    if not (spelt.isascii() and spelt.isdecimal() and len(spelt) < _LONGEST_NUMBER):
        raise not_found()
    async with _changing(call) as session:
        alarm = await alarms.see(session, int(spelt), call.by.id, call.now)
    return said(_alarm(alarm))


def _alarm(alarm: Alarm) -> dict[str, Any]:
    return {
        "id": alarm.id,
        "at": _spell(alarm.at),
        "kind": alarm.kind,
        "building": alarm.building_id,
        "subject": alarm.subject,
        "detail": alarm.detail,
        "seen_at": _spell(alarm.seen_at),
        "seen_by": alarm.seen_by,
    }


def _limit(call: Call) -> int:
    if not (limit := call.number("limit", MOST, MOST)):
        raise bad_request("limit")
    return limit


ROUTES: Final = (
    Route("GET", "/v1/drivers", Scope.READ, _drivers),
    Route("POST", "/v1/drivers", Scope.DRIVERS, _add_driver, MAX_REQUEST),
    Route("PUT", "/v1/drivers/{driver}", Scope.DRIVERS, _change_driver, MAX_REQUEST),
    Route("DELETE", "/v1/drivers/{driver}", Scope.DRIVERS, _remove_driver),
    Route("POST", "/v1/drivers/{driver}/invitation", Scope.DRIVERS, _invite),
    Route("POST", "/v1/drivers/{driver}/revoke", Scope.DRIVERS, _revoke_driver),
    Route("DELETE", "/v1/devices/{device}", Scope.DRIVERS, _revoke_device),
    Route("GET", "/v1/buildings", Scope.READ, _buildings),
    Route("POST", "/v1/manifests", Scope.MANIFESTS, _bring, MAX_BYTES),
    Route("GET", "/v1/routes", Scope.READ, _routes),
    Route("DELETE", "/v1/routes/{route}", Scope.MANIFESTS, _cancel_route),
    Route("POST", "/v1/stops/{stop}/end", Scope.MANIFESTS, _end_stop, MAX_REQUEST),
    Route("GET", "/v1/decisions", Scope.READ, _decisions),
    Route("GET", "/v1/decisions/live", Scope.READ, _live),
    Route("GET", "/v1/alarms", Scope.READ, _alarms),
    Route("POST", "/v1/alarms/{alarm}/seen", Scope.ALARMS, _see_alarm),
    Route("GET", "/v1/audit", Scope.AUDIT, _audit),
)
