"""Manifests: which driver has which stops on a day. Read strictly, brought in whole or not at all, audited.

What it refuses to do: guess at a line, bring a part, or give a driver two routes at one time. A manifest that is
brought twice would otherwise open each door twice.
"""

from __future__ import annotations

import csv
import io
import json
import json.scanner
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import batched
from typing import Any, Final

from sqlalchemy import exists, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from . import audit
from .checks import StopState
from .drivers import NoSuch, NotPossible
from .store import Prefix, is_id, new_id
from .store.tables import Building, Door, Driver, Route, Stop, StopDoor

MAX_BYTES: Final = 8 * 2**20
MOST_STOPS: Final = 20_000
MOST_ON_PATH: Final = 8
"""Doors on the path of one stop."""
LONGEST_REFERENCE: Final = 64
LONGEST_SHIFT: Final = timedelta(hours=24)
_MOST_ERRORS: Final = 20
_AT_ONCE: Final = 1000
"""Rows in one statement."""
COLUMNS: Final = (
    "driver",
    "day",
    "shift_from",
    "shift_to",
    "building",
    "doors",
    "window_from",
    "window_to",
    "reference",
)
"""Of a CSV file. One line is one stop; lines of one driver, day and shift are one route, in their order. ``doors`` are
separated by spaces."""


class ManifestError(Exception):
    """A manifest cannot be used; nothing of it was. ``errors`` say where and why, a line each."""

    def __init__(self, errors: Iterable[str]) -> None:
        """Say why."""
        self.errors = tuple(errors)
        shown = self.errors[:_MOST_ERRORS]
        more = len(self.errors) - len(shown)
        super().__init__("\n".join([*shown, f"... and {more} more"] if more else shown))


@dataclass(frozen=True, slots=True)
class NewStop:
    """A stop as it is brought."""

    line: int
    building: str
    doors: tuple[str, ...]
    window_from: datetime
    window_to: datetime
    reference: str | None


@dataclass(frozen=True, slots=True)
class NewRoute:
    """A route as it is brought."""

    line: int
    driver: str
    day: date
    shift_from: datetime
    shift_to: datetime
    stops: tuple[NewStop, ...]


# ---- reading ----


def read_json(text: str) -> tuple[NewRoute, ...]:
    """Return the routes of ``{"routes": [{"driver", "day", "shift_from", "shift_to", "stops": [{"building", "doors",
    "window_from", "window_to", "reference"}]}]}``; raise ManifestError. ``reference`` may be left out.
    """
    _check_size(text)
    try:
        document = _Located(text).decode(text)
    except json.JSONDecodeError as err:
        raise ManifestError([f"line {err.lineno}: this is not JSON: {err.msg}"]) from err
    except (ValueError, RecursionError) as err:
        raise ManifestError([f"this is not JSON: {err}"]) from err
    errors: list[str] = []
    top = _Fields(document, errors, 1)
    routes = []
    for row in top.rows("routes"):
        fields = _Fields(row, errors, 1)
        stops = [_stop(_Fields(each, errors, fields.line)) for each in fields.rows("stops")]
        fields.only("driver", "day", "shift_from", "shift_to", "stops")
        routes.append(_route(fields, tuple(stop for stop in stops if stop is not None)))
    top.only("routes")
    return _complete(routes, errors)


def read_csv(text: str) -> tuple[NewRoute, ...]:
    """Return the routes of a CSV file with COLUMNS; raise ManifestError."""
    _check_size(text)
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    errors: list[str] = []
    stops: dict[tuple[str, ...], list[NewStop | None]] = {}
    heads: dict[tuple[str, ...], _Fields] = {}
    try:
        if tuple(next(rows, ())) != COLUMNS:
            raise ManifestError([f"line 1: the columns have to be {','.join(COLUMNS)}"])
        for row in rows:
            if not row:
                continue
            if len(row) != len(COLUMNS):
                errors.append(f"line {rows.line_num}: {len(row)} columns, not {len(COLUMNS)}")
                continue
            given: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
            given["doors"] = given["doors"].split()
            given["reference"] = given["reference"] or None
            fields = _Fields(given, errors, rows.line_num)
            route = tuple(row[:4])
            heads.setdefault(route, fields)
            stops.setdefault(route, []).append(_stop(fields))
    except csv.Error as err:
        raise ManifestError([f"line {rows.line_num}: this is not CSV: {err}"]) from err
    return _complete(
        [_route(heads[key], tuple(stop for stop in stops[key] if stop is not None)) for key in heads], errors
    )


def _check_size(text: str) -> None:
    if len(text) > MAX_BYTES:
        raise ManifestError([f"more than {MAX_BYTES // 2**20} MiB: bring it in parts"])


def _complete(routes: list[NewRoute | None], errors: list[str]) -> tuple[NewRoute, ...]:
    complete = tuple(route for route in routes if route is not None)
    if not errors and not complete:
        errors.append("line 1: there is no route in it")
    if sum(len(route.stops) for route in complete) > MOST_STOPS:
        errors.append(f"more than {MOST_STOPS} stops: bring it in parts")
    if errors:
        raise ManifestError(errors)
    return complete


class _Line(dict[str, Any]):
    """An object of JSON that knows in which line it begins."""

    line = 1


class _Located(json.JSONDecoder):
    """Reads JSON in which no object has a member twice, and remembers where each object began."""

    def __init__(self, text: str) -> None:
        super().__init__(object_pairs_hook=_unique, parse_constant=_refuse)
        parse_object: Callable[..., tuple[Any, int]] = self.parse_object  # type: ignore[has-type]
        lines, counted = 1, 0

        def located(s_and_end: tuple[str, int], *args: Any) -> tuple[Any, int]:
            nonlocal lines, counted
            begins = s_and_end[1]
            lines, counted = lines + text.count("\n", counted, begins), begins
            line = lines
            value, end = parse_object(s_and_end, *args)
            value.line = line
            return value, end

        self.parse_object = located
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def _unique(pairs: list[tuple[str, Any]]) -> _Line:
    members = _Line(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a member twice")
    return members


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


class _Fields:
    """The fields of one row. What is wrong with them goes to ``errors``, with the line; the field is None then."""

    def __init__(self, row: object, errors: list[str], line: int) -> None:
        self.line = getattr(row, "line", line)
        self._errors = errors
        self._row: Mapping[str, Any] = row if isinstance(row, dict) else {}
        if not isinstance(row, dict):
            self.wrong("this has to be an object: {...}")

    def wrong(self, why: str) -> None:
        self._errors.append(f"line {self.line}: {why}")

    def only(self, *known: str) -> None:
        for key in self._row.keys() - set(known):
            self.wrong(f"{key!r} is not known; there are {', '.join(known)}")

    def rows(self, key: str) -> list[Any]:
        rows = self._row.get(key)
        if not isinstance(rows, list) or not rows:
            self.wrong(f"{key}: this has to be a list with at least one in it")
            return []
        return rows

    def text(self, key: str, good: Callable[[str], bool], wanted: str) -> str | None:
        value = self._row.get(key)
        if isinstance(value, str) and good(value):
            return value
        self.wrong(f"{key}: this has to be {wanted}" if key in self._row else f"{key}: this is missing")
        return None

    def id(self, key: str, prefix: Prefix) -> str | None:
        return self.text(key, lambda text: is_id(text, prefix), f'an id: "{prefix}:..."')

    def moment(self, key: str) -> datetime | None:
        wanted = 'a moment with its offset from UTC: "2026-11-26T08:00:00+01:00"'
        spelt = self.text(key, lambda text: _or_none(moment, text) is not None, wanted)
        return None if spelt is None else moment(spelt)

    def doors(self) -> tuple[str, ...]:
        doors = self._row.get("doors")
        if (
            not isinstance(doors, list)
            or not 0 < len(doors) <= MOST_ON_PATH
            or not all(isinstance(door, str) and is_id(door, "door") for door in doors)
            or len(set(doors)) != len(doors)
        ):
            self.wrong(f"doors: these have to be 1 to {MOST_ON_PATH} different ids of doors, in the order of the path")
            return ()
        return tuple(doors)

    def reference(self) -> str | None:
        if self._row.get("reference") is None:
            return None
        wanted = f"at most {LONGEST_REFERENCE} characters, none of them a control character"
        return self.text("reference", lambda text: len(text) <= LONGEST_REFERENCE and text.isprintable(), wanted)


def moment(text: str) -> datetime:
    """Return a moment as dispatchers write it, with its offset from UTC; raise ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or not 2000 < at.year < 2200:
        raise ValueError("no moment with an offset from UTC")
    return at


def _or_none[T](read: Callable[[str], T], text: str) -> T | None:
    try:
        return read(text)
    except ValueError:
        return None


def _stop(fields: _Fields) -> NewStop | None:
    building, doors = fields.id("building", Prefix.BUILDING), fields.doors()
    begins, ends = fields.moment("window_from"), fields.moment("window_to")
    reference = fields.reference()
    if building is None or not doors or begins is None or ends is None:
        return None
    if ends <= begins:
        fields.wrong("window_to: this has to be after window_from")
        return None
    return NewStop(fields.line, building, doors, begins, ends, reference)


def _route(fields: _Fields, stops: tuple[NewStop, ...]) -> NewRoute | None:
    driver, begins, ends = fields.id("driver", Prefix.DRIVER), fields.moment("shift_from"), fields.moment("shift_to")
    spelt = fields.text("day", lambda text: _or_none(date.fromisoformat, text) is not None, 'a day: "2026-11-26"')
    day = None if spelt is None else date.fromisoformat(spelt)
    if driver is None or day is None or begins is None or ends is None:
        return None
    if not begins < ends <= begins + LONGEST_SHIFT:
        fields.wrong("shift_to: this has to be after shift_from, by 24 hours at the most")
        return None
    return NewRoute(fields.line, driver, day, begins, ends, stops)


# ---- bringing it in ----


async def bring(session: AsyncSession, routes: Iterable[NewRoute], source: str, now: datetime) -> list[str]:
    """Bring routes in, all or none (the session must not be committed after an error); return their ids.

    Raises ManifestError: a driver, building or door is not there, or a driver has another route at that time.
    """
    routes, errors = tuple(routes), list[str]()
    # Locked in one order, so that two manifests with one driver do not both see that the driver has no route.
    drivers = set(
        await session.scalars(
            select(Driver.id)
            .where(Driver.id.in_({route.driver for route in routes}), Driver.removed_at.is_(None))
            .order_by(Driver.id)
            .with_for_update()
        )
    )
    buildings = set(await session.scalars(select(Building.id).where(Building.removed_at.is_(None))))
    named = {door for route in routes for stop in route.stops for door in stop.doors}
    # Held until this is committed: a building's hello may be about to have one forgotten that nobody names.
    held = select(Door.id, Door.building_id).order_by(Door.id).with_for_update(read=True, key_share=True)
    doors = dict[str, str]()
    for some in batched(sorted(named), _AT_ONCE, strict=False):  # a statement has at most 32 767 values
        doors.update((await session.execute(held.where(Door.id.in_(some)))).tuples().all())
    taken: dict[str, list[tuple[datetime, datetime, str]]] = {}
    # Stops that nobody ended stay due for ever: of the routes with one, those that may be at that time.
    first, last = min(new.shift_from for new in routes), max(new.shift_to for new in routes)
    at_that_time = Route.shift_to > first, Route.shift_from < last
    has_due = exists().where(Stop.route_id == Route.id, Stop.state == StopState.DUE)
    for route in await session.scalars(select(Route).where(Route.driver_id.in_(drivers), *at_that_time, has_due)):
        taken.setdefault(route.driver_id, []).append((route.shift_from, route.shift_to, route.id))
    ids = []
    for new in routes:
        if new.driver not in drivers:
            errors.append(f"line {new.line}: there is no driver {new.driver}")
        for begins, ends, other in taken.get(new.driver, []):
            if new.shift_from < ends and begins < new.shift_to:
                errors.append(f"line {new.line}: the driver has a route at that time, {other}: cancel that first")
        taken.setdefault(new.driver, []).append((new.shift_from, new.shift_to, f"in line {new.line}"))
        for stop in new.stops:
            if stop.building not in buildings:
                errors.append(f"line {stop.line}: there is no building {stop.building}")
                continue
            for door in stop.doors:
                if doors.get(door) != stop.building:
                    errors.append(f"line {stop.line}: {stop.building} has no door {door}")
        if not errors:
            ids.append(await _add(session, new, source, now))
    if errors:
        raise ManifestError(errors)
    return ids


async def _add(session: AsyncSession, new: NewRoute, source: str, now: datetime) -> str:
    route = Route(
        id=new_id(Prefix.ROUTE),
        day=new.day,
        driver_id=new.driver,
        shift_from=new.shift_from,
        shift_to=new.shift_to,
        source=source,
        created_at=now,
    )
    session.add(route)
    await session.flush()
    ids = [new_id(Prefix.STOP) for _ in new.stops]
    stops: list[dict[str, Any]] = [
        {
            "id": id_,
            "route_id": route.id,
            "seq": seq,
            "building_id": stop.building,
            "window_from": stop.window_from,
            "window_to": stop.window_to,
            "state": StopState.DUE,
            "reference": stop.reference,
        }
        for seq, (id_, stop) in enumerate(zip(ids, new.stops, strict=True), 1)
    ]
    doors: list[dict[str, Any]] = [
        {"stop_id": id_, "position": position, "door_id": door, "opened_by": None}
        for id_, stop in zip(ids, new.stops, strict=True)
        for position, door in enumerate(stop.doors, 1)
    ]
    for table, rows in ((Stop, stops), (StopDoor, doors)):
        for some in batched(rows, _AT_ONCE, strict=False):  # whoever waits for a door comes in between
            await session.execute(insert(table), list(some))
    audit.record(session, now, source, "route brought", route.id, driver=new.driver, stops=len(stops))
    return route.id


async def end_stop(session: AsyncSession, stop_id: str, state: StopState, who: str, now: datetime) -> None:
    """Make a due stop done or cancelled, so that its doors open no more; raise NoSuch or NotPossible."""
    if state is StopState.DUE:
        raise NotPossible("what has ended does not become due again: bring another stop")
    stop = await session.get(Stop, stop_id, with_for_update=True)
    if stop is None or stop.state != StopState.DUE:
        raise NoSuch(f"there is no stop {stop_id} that is due")
    stop.state = state
    audit.record(session, now, who, f"stop {state}", stop_id)


async def cancel_route(session: AsyncSession, route_id: str, who: str, now: datetime) -> int:
    """Cancel the stops of a route that are due still; return how many. Raise NoSuch."""
    if await session.get(Route, route_id) is None:
        raise NoSuch(f"there is no route {route_id}")
    due = list(
        await session.scalars(
            select(Stop).where(Stop.route_id == route_id, Stop.state == StopState.DUE).with_for_update()
        )
    )
    for stop in due:
        stop.state = StopState.CANCELLED
    audit.record(session, now, who, "route cancelled", route_id, stops=len(due))
    return len(due)
