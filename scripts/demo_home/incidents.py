"""What happens at the demo's building besides deliveries: a lockdown, and somebody who walks in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from . import radio, room
from .building import Part, entities_of, lockdown_of
from .demo import command
from .home import HomeFailed
from .stage import TELLING, Stage, stage, style

PASSAGE = 5.0
"""Seconds within which whoever walks in has opened the door and it has fallen shut."""
TELLS_WITHIN = 10.0
"""Seconds more for a Bluetooth strike: nobody is connected to it, and Home Assistant does not ask it all the time."""


def lockdown(folder: Path, *, on: bool) -> bool:
    """Lock the building down or lift that, as the manager, and show what a person and a driver get meanwhile."""
    with stage(folder, "gate") as at:
        switch = lockdown_of(at.home, at.demo.doors)
        was_on = at.home.get(f"/api/states/{switch}")["state"] == "on"
        at.title("The manager locks the building down." if on else "The manager lifts the lockdown.")
        word = "on" if on else "off"
        at.step("manager", f"turns {word} {switch}" + (f", which is {word} already" if was_on is on else ""))
        if refused := at.home.perform(f"switch.turn_{word}", {"entity_id": switch}):
            raise HomeFailed(refused)
        if was_on is not on:
            at.due.append(f"lockdown_{word}")
            if at.gateway_is_there:  # which carries it out, and tells of it, itself
                at.due.append(f"lockdown_{word}")
        at.hear(until=lambda: len(at.told) >= len(at.due), patience=TELLING)
        _show_modes(at)
        if not on:
            return at.end(f"Deliveries are let in again. Try it: {command(folder)} deliver {at.door.key}")
        at.say()
        _unlock_by_hand(at)
        at.say()
        at.refused("DOOR_UNAVAILABLE")
        return at.end(
            "Nobody is let in, by token or by hand; the way out is mechanical and stays free.\n"
            f"Lift the lockdown with: {command(folder)} lockdown off"
        )


def _show_modes(at: Stage) -> None:
    modes = {door.name: at.home.get(f"/api/states/{entities_of(at.home, door)[Part.MODE]}") for door in at.demo.doors}
    shown = ", ".join(f"{name}: {mode['state'].replace('_', ' ')}" for name, mode in modes.items())
    at.step("building", shown)


def _unlock_by_hand(at: Stage) -> None:
    before = at.releases()
    at.step("manager", f"unlocks the {at.door.name.lower()} by hand")
    said = at.home.perform("lock.unlock", {"entity_id": at.entities[Part.LOCK]})
    at.step("building", f"{style('red', '✗')} {said}")
    at.due.append("access_denied")
    at.expect(said is not None and "locked down" in said, "the manager was not told that the building is locked down")
    at.expect(at.releases() == before, "a relay moved")
    at.step(at.hardware, "did not move")


def walk_in(folder: Path, door_key: str) -> bool:
    """Have somebody go through a door that nobody released, and show what Home Assistant makes of it."""
    with stage(folder, door_key) as at:
        name = at.door.name.lower()
        before = at.releases()
        if at.state(Part.MODE)["state"] == "unlocked":
            raise HomeFailed(f"The {name} is held open: whoever walks in is welcome.")
        # Only where an exit button tells who leaves can an opening be known to be forced.
        forced = at.door.has_rex
        at.title(f"Somebody walks in at the {name}, and nobody let them in.")
        at.step("stranger", f"pulls the {name} open")
        began = datetime.now(UTC)
        if at.door.strike is not None:
            radio.pass_through(at.strike)
            at.step("strike", "is connected to nobody, and advertises that it has something to tell")
        elif at.door.gateway is not None:
            room.pass_through(at.gateway)
        elif refused := at.home.perform("simulated_relays.walk_in", {"door": at.door.key}):
            raise HomeFailed(refused)
        at.due += ["door_forced_open" if forced else "door_opened", "door_closed"]
        patience = PASSAGE + (TELLS_WITHIN if at.door.strike is not None else 0)

        def show(what: str, moment: datetime) -> None:
            after = f"{(moment - began).total_seconds():.1f} s later"
            # Who is not connected is told afterwards.
            late = f", told {(datetime.now(UTC) - moment).total_seconds():.1f} s after it was"
            heard = late if at.door.strike is not None else ""
            match what:
                case "door_forced_open":
                    at.step("event", f"door forced open: no access, and nobody pressed the exit button{heard}")
                case "door_opened":
                    at.step("event", f"door opened, by somebody from inside, maybe: no exit button tells{heard}")
                case "door_closed":
                    at.step("event", f"door closed, {after}{heard}")

        at.hear(until=lambda: len(at.told) >= 1 and (bool(at.reasons) or not forced), patience=patience, show=show)
        reasons = ", ".join(sorted(at.reasons)).replace("_", " ")
        at.step("problem", f"on: {reasons}" if reasons else "off")
        at.expect(at.reasons == ({"door_forced_open"} if forced else set()), "the problem is another one")
        at.step("lock", at.state(Part.LOCK)["state"])
        at.expect(at.state(Part.LOCK)["state"] == "locked", "the lock is not shown as it is")
        at.hear(until=lambda: len(at.told) >= 2, patience=patience, show=show)
        at.expect(
            at.state(Part.PROBLEM)["attributes"]["reasons"] == [], "the problem does not end when the door closes"
        )
        at.expect(at.releases() == before, "a relay moved")
        ending = "An alarm to be acted on" if forced else "Told, and no alarm: residents leave by the handle"
        return at.end(f"{ending}; automations can use the event and the problem sensor.")
