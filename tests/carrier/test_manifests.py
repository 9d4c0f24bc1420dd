"""Manifests: read strictly, and brought in whole or not at all."""

import asyncio
import json
from datetime import timedelta
from itertools import batched

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from carrier import manifests
from carrier.checks import Reason, StopState
from carrier.drivers import NoSuch, NotPossible
from carrier.manifests import COLUMNS, ManifestError, NewRoute, NewStop
from carrier.store.tables import Route
from tests.simulated import some_doors
from vestibule_core.model import new_door_id

from .town import Town

DOOR, OTHER = (door.id for door in some_doors(2))
BUILDING, DRIVER, SECOND = f"building:{'a' * 26}", f"driver:{'a' * 26}", f"driver:{'b' * 26}"
STOP = {
    "building": BUILDING,
    "doors": [DOOR],
    "window_from": "2026-11-26T08:00:00+01:00",
    "window_to": "2026-11-26T10:00:00+01:00",
    "reference": "parcel-4711",
}
ROUTE = {
    "driver": DRIVER,
    "day": "2026-11-26",
    "shift_from": "2026-11-26T07:00:00+01:00",
    "shift_to": "2026-11-26T15:00:00+01:00",
    "stops": [STOP],
}
LINE = [DRIVER, *list(ROUTE.values())[1:4], BUILDING, f"{DOOR} {OTHER}", *list(STOP.values())[2:]]


def as_json(route=None, **changes):
    return json.dumps({"routes": [(route or ROUTE) | changes]}, indent=1)


def stop(**changes):
    return as_json(stops=[STOP | changes])


def as_csv(*lines):
    return "\n".join(",".join(line) for line in (COLUMNS, *lines)) + "\n"


def errors(read, text):
    with pytest.raises(ManifestError) as raised:
        read(text)
    return raised.value.errors


def test_both_forms_say_the_same():
    (route,) = manifests.read_json(stop(doors=[DOOR, OTHER]))
    (same,) = manifests.read_csv(as_csv(LINE))
    assert (route.driver, route.day, route.shift_from, route.shift_to) == (
        same.driver,
        same.day,
        same.shift_from,
        same.shift_to,
    )
    for one, other in zip(route.stops, same.stops, strict=True):
        assert (one.building, one.doors, one.window_from, one.window_to, one.reference) == (
            other.building,
            other.doors,
            other.window_from,
            other.window_to,
            other.reference,
        )


def test_lines_of_one_driver_and_shift_are_one_route_in_their_order():
    second = [*LINE[:5], OTHER, *LINE[6:]]
    another = [SECOND, *LINE[1:]]
    routes = manifests.read_csv(as_csv(LINE, another, second))
    assert [(route.driver, [stop.line for stop in route.stops]) for route in routes] == [
        (DRIVER, [2, 4]),
        (SECOND, [3]),
    ]


def test_a_spreadsheet_s_byte_order_mark_and_an_empty_line_are_no_error():
    assert manifests.read_csv("\ufeff" + as_csv(LINE).replace("\n", "\r\n") + "\r\n")


BAD = [
    ("a member twice", '{"routes": [], "routes": []}', "an object has a member twice"),
    ("a number that is none", '{"routes": NaN}', "NaN is no JSON"),
    ("text after it", as_json() + "x", "line 21: this is not JSON"),
    ("no object", "[]", "line 1: this has to be an object"),
    ("no routes", '{"routes": []}', "line 1: routes: this has to be a list with at least one in it"),
    ("an unknown key", as_json(speed=1), "line 3: 'speed' is not known"),
    ("an unknown key at the top", as_json()[:-2] + ', "x": 1}', "line 1: 'x' is not known"),
    ("no stops", as_json(stops=[]), "line 3: stops: this has to be a list"),
    ("a stop that is none", as_json(stops=[7]), "line 3: this has to be an object"),
    ("no driver", as_json({k: v for k, v in ROUTE.items() if k != "driver"}), "line 3: driver: this is missing"),
    ("a driver by name", as_json(driver="Erika"), "line 3: driver: this has to be an id"),
    ("a driver without a name", as_json(driver="driver:\0"), "line 3: driver: this has to be an id"),
    ("a driver by half a character", as_json(driver="driver:\ud800"), "line 3: driver: this has to be an id"),
    ("a building of another kind", stop(building=DRIVER), "line 9: building: this has to be an id"),
    ("a door by half a character", stop(doors=["\ud800"]), "line 9: doors: these have to be 1 to 8"),
    ("a door by name", stop(doors=["door:\0"]), "line 9: doors: these have to be 1 to 8"),
    ("a day that is none", as_json(day="2026-02-30"), "line 3: day: this has to be a day"),
    ("a moment without an offset", as_json(shift_from="2026-11-26T07:00:00"), "line 3: shift_from: this has to be"),
    ("a shift that ends before it begins", as_json(shift_to="2026-11-26T06:00:00+01:00"), "line 3: shift_to: this has"),
    ("a shift of two days", as_json(shift_to="2026-11-28T06:00:00+01:00"), "line 3: shift_to: this has to be after"),
    ("a window that ends before it begins", stop(window_to="2026-11-26T06:00:00Z"), "line 9: window_to: this has"),
    ("no doors", stop(doors=[]), "line 9: doors: these have to be 1 to 8"),
    ("a door twice", stop(doors=[DOOR, DOOR]), "line 9: doors: these have to be 1 to 8 different"),
    ("too many doors", stop(doors=[door.id for door in some_doors(9)]), "line 9: doors: these have to be 1 to 8"),
    ("a reference with a line break", stop(reference="a\nb"), "line 9: reference: this has to be at most 64"),
    ("a very long reference", stop(reference="x" * 65), "line 9: reference: this has to be at most 64"),
]


@pytest.mark.parametrize("text, says", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_wrong_in_json_is_said_with_its_line(text, says):
    assert any(says in error for error in errors(manifests.read_json, text)), errors(manifests.read_json, text)


BAD_CSV = [
    ("other columns", "driver,day\n", "line 1: the columns have to be driver,day,"),
    ("nothing in it", as_csv(), "line 1: there is no route in it"),
    ("a column too many", as_csv([*LINE, "x"]), "line 2: 10 columns, not 9"),
    ("a quote that does not end", as_csv(LINE) + '"driver:x', "line 3: this is not CSV"),
    ("a wrong line among good ones", as_csv(LINE, ["Erika", *LINE[1:]], LINE), "line 3: driver: this has to be an id"),
]


@pytest.mark.parametrize("text, says", [row[1:] for row in BAD_CSV], ids=[row[0] for row in BAD_CSV])
def test_what_is_wrong_in_csv_is_said_with_its_line(text, says):
    assert any(error.startswith(says) for error in errors(manifests.read_csv, text))


def test_everything_that_is_wrong_is_said_at_once_but_not_without_end():
    text = as_csv(*(["Erika", *LINE[1:8], "x" * 65] for _ in range(30)))
    with pytest.raises(ManifestError) as raised:
        manifests.read_csv(text)
    assert len(raised.value.errors) == 31  # the driver once for the route, the reference for each stop
    assert str(raised.value).splitlines()[-1] == "... and 11 more"


def test_what_is_too_large_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(manifests, "MAX_BYTES", 10)
    assert "bring it in parts" in errors(manifests.read_json, as_json())[0]
    monkeypatch.undo()
    monkeypatch.setattr(manifests, "MOST_STOPS", 1)
    assert "bring it in parts" in errors(manifests.read_json, as_json(stops=[STOP, STOP]))[0]


@given(st.text(max_size=200) | st.recursive(st.none() | st.text(max_size=5), st.lists).map(json.dumps))
def test_nothing_else_than_a_manifest_is_ever_read(text):
    for read in (manifests.read_json, manifests.read_csv):
        with pytest.raises(ManifestError):
            read(text)


def test_nesting_without_end_is_refused():
    assert errors(manifests.read_json, "[" * 100_000)


# ---- bringing it in ----


@pytest.fixture
async def town(store, tmp_path):
    return await Town.founded(store, tmp_path)


def of(town, *, begins=None, doors=None, **changes):
    begins = begins or town.now + timedelta(days=1)
    ends = (begins + timedelta(hours=4)).isoformat()
    row = STOP | {
        "building": town.building,
        "doors": doors or [town.site.door.id],
        "window_from": begins.isoformat(),
        "window_to": ends,
    }
    return ROUTE | {"driver": town.driver, "shift_from": begins.isoformat(), "shift_to": ends, "stops": [row]} | changes


async def bring(town, *routes):
    read = manifests.read_json(json.dumps({"routes": routes}))
    async with town.store.transaction() as session:
        return await manifests.bring(session, read, "command", town.now)


async def test_one_wrong_route_and_none_is_brought(town):
    before = await town.rows("SELECT count(*) FROM route")
    wrong = of(town, begins=town.now + timedelta(days=2), driver=DRIVER)
    with pytest.raises(ManifestError, match=f"there is no driver {DRIVER}"):
        await bring(town, of(town), wrong)
    assert await town.rows("SELECT count(*) FROM route") == before
    assert len(await bring(town, of(town))) == 1


async def test_a_building_that_is_not_there_and_a_door_of_another_are_refused(town):
    other = of(town)
    other["stops"][0]["building"] = BUILDING
    with pytest.raises(ManifestError, match=f"there is no building {BUILDING}"):
        await bring(town, other)
    with pytest.raises(ManifestError, match="has no door door:"):
        await bring(town, of(town, doors=["door:" + "a" * 26]))


async def test_more_doors_than_a_statement_has_values_are_looked_for(town):
    now = town.now + timedelta(days=1)
    doors = iter([town.site.door.id, *(new_door_id(number.to_bytes(16)) for number in range(32_799))])
    stops = tuple(
        NewStop(line, town.building, path, now, now + timedelta(hours=1), None)
        for line, path in enumerate(batched(doors, 8, strict=True), 1)
    )
    route = NewRoute(1, town.driver, now.date(), now, now + timedelta(hours=1), stops)
    with pytest.raises(ManifestError) as raised:
        async with town.store.transaction() as session:
            await manifests.bring(session, [route], "command", town.now)
    assert len(raised.value.errors) == 32_799


async def test_a_manifest_that_is_brought_twice_does_not_open_each_door_twice(town):
    await bring(town, of(town))
    with pytest.raises(ManifestError, match="the driver has a route at that time"):
        await bring(town, of(town))
    with pytest.raises(ManifestError, match="in line 1: cancel that first"):
        await bring(town, *[of(town, begins=town.now + timedelta(days=5))] * 2)


async def test_old_routes_that_nobody_ended_are_not_read_again(town):
    old = [of(town, begins=town.now - timedelta(days=days)) for days in range(2, 9)]
    await bring(town, *old)
    read = []
    event.listen(Route, "load", noted := lambda route, _: read.append(route.id))
    try:
        await bring(town, of(town))
        assert read == []
        with pytest.raises(ManifestError, match="the driver has a route at that time"):
            await bring(town, old[3])
        assert len(read) == 1
    finally:
        event.remove(Route, "load", noted)


async def test_of_two_that_bring_the_same_at_once_one_does(town):
    done = await asyncio.gather(bring(town, of(town)), bring(town, of(town)), return_exceptions=True)
    assert sorted(isinstance(one, ManifestError) for one in done) == [False, True]
    assert await town.rows("SELECT count(*) FROM route") == [2]


async def test_a_cancelled_route_makes_room_and_its_doors_open_no_more(town):
    (route,) = await town.rows("SELECT id FROM route")
    async with town.store.transaction() as session:
        assert await manifests.cancel_route(session, route, "command", town.now) == 1
    async with town.site:
        assert (await town.ask()).code == Reason.STOP_CANCELLED
        town.stop = (await town.bring([[town.site.door.id]]))[0]
        assert (await town.ask()).state == "granted"


async def test_a_stop_that_is_done_opens_no_more_and_does_not_come_back(town):
    async with town.store.transaction() as session:
        await manifests.end_stop(session, town.stop, StopState.DONE, "command", town.now)
        with pytest.raises(NoSuch):
            await manifests.end_stop(session, town.stop, StopState.CANCELLED, "command", town.now)
        with pytest.raises(NotPossible):
            await manifests.end_stop(session, town.stop, StopState.DUE, "command", town.now)
        with pytest.raises(NoSuch):
            await manifests.cancel_route(session, "route:none", "command", town.now)
    async with town.site:
        assert (await town.ask()).code == Reason.STOP_DONE
