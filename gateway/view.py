"""What clients see of a gateway, composed anew each time: nothing here is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from vestibule_core import token
from vestibule_core.api.messages import (
    MAX_ALARMS,
    BuildingChanged,
    CarrierAlarm,
    ClientId,
    Doors,
    Hello,
    PolicyMark,
)
from vestibule_core.evidence import Broken, Entry, Run
from vestibule_core.model import AccessEvent, Checks, Code, DoorId, EventName, Means
from vestibule_core.policy import Building

if TYPE_CHECKING:
    from .edge import Edge


@dataclass(frozen=True, slots=True)
class Origin:
    """Which client asked for something, and what it calls that."""

    client: ClientId
    ref: str | None


def _standing(edge: Edge) -> dict[str, Any]:
    controller = edge.controller
    return {
        "lockdown": controller.by_hand.locked_down,
        "newest": edge.stream.newest,
        "restored": controller.by_hand.restored,
        "clock_trusted": controller.clock_is_trusted,
        "journal_failed": edge.journal.failed,
        "disputed": controller.by_hand.disputed,
        "alarms": (*(CarrierAlarm(*each) for each in edge.carriers.alarms), *edge.links.alarms)[:MAX_ALARMS],
    }


def _mark(edge: Edge) -> PolicyMark:
    return PolicyMark(edge.policy.version, edge.policy.pending is not None)


def doors(edge: Edge) -> Doors:
    """Return all doors, and the gateway as a whole."""
    return Doors(doors=tuple(edge.doors()), **_standing(edge))


def hello(edge: Edge) -> Hello:
    """Return what a stream begins with."""
    return Hello(
        id=edge.id,
        name=edge.name,
        version=edge.version,
        policy=_mark(edge),
        next=edge.next,
        doors=tuple(edge.doors()),
        **_standing(edge),
    )


def building(edge: Edge) -> BuildingChanged:
    """Return the gateway as a whole."""
    return BuildingChanged(policy=_mark(edge), next=edge.next, **_standing(edge))


def told(event: AccessEvent, client: ClientId | None = None) -> AccessEvent:
    """Return an event as it is told: to everybody, or to ``client`` if that has asked for it, by its own name."""
    own = isinstance(event.origin, Origin) and client is not None and event.origin.client == client
    ref = event.origin.ref if own and isinstance(event.origin, Origin) else None
    return replace(event, at=round(max(event.at, 0.0), 3), origin=ref)


def of_entry(entry: Entry, allowed: Building) -> AccessEvent:
    """Return the event that an entry of the journal is about, as it was told; raise ValueError if it cannot be read.

    Nothing of a person. Whose token it was, is known by its key while the policy has that.
    """
    leaf = entry.leaf
    key = allowed.keys.get(leaf.kid) if leaf.kid is not None else None
    carrier = allowed.carriers.get(key.issuer) if key is not None else None
    means = Means(leaf.means) if leaf.means is not None else None
    outcome = EventName(leaf.kind)
    return AccessEvent(
        outcome=outcome,
        door=DoorId(leaf.door) if leaf.door is not None else None,
        at=leaf.at,
        code=Code(leaf.code) if leaf.code is not None else None,  # type: ignore[call-arg] # a member by its value
        means=means,
        spend_id=bytes.fromhex(leaf.spend_id) if leaf.spend_id is not None else None,
        kid=leaf.kid,
        issuer=carrier.issuer if carrier else None,
        carrier=carrier.name if carrier else None,
        has_stop=means is Means.TOKEN and leaf.door is not None,
        checks=_checks(entry) if means is Means.TOKEN and outcome in _DECISIONS else None,
        sequence=leaf.sequence,
        **(_numbers(entry) if outcome in _NUMBERED else {}),
    )


_DECISIONS: Final = frozenset({EventName.ACCESS_GRANTED, EventName.ACCESS_DENIED})
"""What a token is kept with, for as long as persons are."""


def _checks(entry: Entry) -> Checks | None:
    text = entry.person.read().get("token") if entry.person is not None else None
    claims = token.claimed(text)
    return claims.checks if claims is not None else None


_NUMBERED: Final = frozenset(
    {
        EventName.REFUSALS_COUNTED,
        EventName.STRIKE_SLOT_ADDED,
        EventName.STRIKE_SLOT_DELETED,
        EventName.STRIKE_RIGHTS_CHANGED,
        EventName.STRIKE_AUTHENTICATION_FAILED,
    }
)
"""What has a number beside it, in the place of a person."""


def _numbers(entry: Entry) -> dict[str, Any]:
    besides = entry.person.read() if entry.person is not None else {}
    if isinstance(counts := besides.get("counts"), dict):
        return {"count": sum(counts.values())}
    return {name: besides.get(name) for name in ("count", "slot")}


DAMAGED: Final = 1000
"""Entries that are tried, one after the other, to find the first that can be read."""


async def missed(edge: Edge, after: int, limit: int | None = None) -> tuple[AccessEvent, ...]:
    """Return the next events after number ``after``, at most ``limit``; none: there are none yet.

    An entry that cannot be read is left out: that its number is missing, is seen. Raises StoreFailed, JournalMoved (ask
    again), or Broken where more of the journal is damaged.
    """
    header = await edge.journal.header()
    after = max(min(after, edge.stream.newest), header.base.size)
    damaged = 0
    while True:
        try:
            run = await edge.journal.run(after)
        except Broken as err:
            if err.after != after or damaged == DAMAGED:
                raise
            damaged, after = damaged + 1, after + 1
            edge.stream.cannot_read(after)
            continue
        if run is None:
            return ()
        if found := tuple(islice(_readable(run, edge), limit)):
            return found
        after = run.last


def _readable(run: Run, edge: Edge) -> Iterator[AccessEvent]:
    parts = {part.sequence: part for part in run.persons}
    for sequence, data in enumerate(run.leaves, run.first):
        try:
            yield of_entry(Entry.of(sequence, data, parts.get(sequence)), edge.controller.building)
        except ValueError:
            edge.stream.cannot_read(sequence)
