"""The links with carriers' clouds: what this building is at its end of each, and what comes of what they say.

For each carrier that was enrolled by a code, one outbound connection, from Home Assistant's start until the building
is unloaded. Over it come requests for challenges and tokens (presenting.py), newer key sets, which are kept in the
carrier's subentry, and the daily lists, which what was accepted is held against (vestibule_core/reconcile.py). What
this file refuses to do: believe a key that its carrier's root has not signed, tell of a lock-out before it is on disk,
or let one carrier's link touch another carrier.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from homeassistant.core import Context, HomeAssistant, callback
from homeassistant.util import dt as dt_util

from . import presenting
from .building import Enrolment
from .const import CONF_DROPPED, CONF_ISSUER, CONF_KEY_SET, CONF_ROOT
from .embedded import doors_elsewhere
from .presenting import Obstacle
from .remote import loaded_gateways, new_session
from .vestibule_core import b64url, keyset, reconcile
from .vestibule_core import token as tokens
from .vestibule_core.bucket import Buckets
from .vestibule_core.errors import KeySetInvalid, MalformedMessage, Refused, StoreFailed
from .vestibule_core.keys import KeyStatus, TrustedKey
from .vestibule_core.keyset import Issued, KeySet, Root
from .vestibule_core.leaf import Person
from .vestibule_core.link.client import Enrolled, Link, WrongIssuer, enrol
from .vestibule_core.link.code import EnrolmentCode
from .vestibule_core.link.messages import MAX_DOORS, Begin, Hello, Keys, LinkedDoor
from .vestibule_core.link.standing import CONTESTED, LinkState
from .vestibule_core.model import AccessEvent, Actor, Code, Decision, DoorId, EventName, Issuer, Word
from .vestibule_core.note import SignerKey
from .vestibule_core.reconcile import Alarm, State
from .vestibule_core.token import Claims

if TYPE_CHECKING:
    from .embedded import Embedded, VestibuleConfigEntry

_LOGGER = logging.getLogger(__name__)

LOOK_EVERY: Final = 300.0
"""Seconds between two looks at what was accepted and listed, if nothing happens."""
APART: Final = 0.2
"""Seconds between two looks at the least."""
SETS_APART, SETS_AT_ONCE = 900.0, 4.0
"""Seconds between two newer key sets of a carrier, and how many may come at once."""
TOLD_AGAIN: Final = 3600.0
"""Seconds for which an acceptance is told again after each new connection: its frame may have been lost."""
MOST_TOLD: Final = 500
"""Acceptances of one carrier that are told again."""
_STATE: Final = "link:"
"""What the journal notes of a carrier's reconciliation, by its issuer."""
_NAME: Final = 60
"""Characters of a door's name that a cloud is told."""
_NAMES: Final = 1488
"""Bytes of JSON for the names of all doors: a hello with 24 doors still fits into its frame."""

_CHECKPOINT: Final = 1000
"""Characters of a checkpoint that a cloud takes."""
_JTI: Final = 22
"""Characters of a token's id; one whose driver was deleted has another form."""

_CODES: Final = {
    Obstacle.FORBIDDEN: Code.POLICY_CARRIER_DOOR,
    Obstacle.TOO_MANY: Code.RATE_LIMITED,
    Obstacle.AWAY: Code.STRIKE_UNREACHABLE,
    Obstacle.STOPPING: Code.STOPPING,
}
"""What a carrier hears of a door that was not asked."""
_CAME_OF: Final = {
    EventName.DOOR_RELEASED,
    EventName.DOOR_ALREADY_UNLOCKED,
    EventName.RELEASE_FAILED,
    EventName.OUTCOME_UNKNOWN,
}
"""What an acceptance ends with, one of these for each."""


@dataclass(frozen=True, slots=True)
class _Acceptance:
    """A token that was accepted lately, as its cloud is told of it."""

    at: float
    """Monotonic seconds."""
    jti: bytes
    door: DoorId
    code: Code


class Linked:
    """This building, as the cloud of one carrier meets it (``vestibule_core.link.client.Host``)."""

    def __init__(self, hass: HomeAssistant, embedded: Embedded, issuer: Issuer, instance: bytes) -> None:
        """Be at the controller's end of this carrier's link; ``instance`` is new with each start."""
        self.issuer: Final = issuer
        self.key: SignerKey = embedded.journal.signer
        self.refused: str | None = None
        """Why the newest key set that came was not taken (KeySetInvalid's reason); None: it was."""
        self.waiting: Keys | None = None
        """A newer key set that is good, and came too soon after others."""
        self._hass = hass
        self._embedded = embedded
        self._instance = instance

    @property
    def doors(self) -> tuple[LinkedDoor, ...]:
        """The doors that the carrier may enter, as its cloud is told of them."""
        carrier = self._embedded.setup.building.carriers.get(self.issuer)
        return linked_doors(self._hass, self._embedded, carrier.doors if carrier else ())

    def hello(self, begin: Begin) -> Hello:
        """Say who is here. Raises WrongIssuer."""
        if begin.issuer != self.issuer:
            raise WrongIssuer(begin.issuer)
        enrolment = self._embedded.setup.enrolments[self.issuer]
        return hello(self._embedded, begin, self._instance, self.doors, enrolment.published.version)

    async def challenge(self, door: DoorId) -> tuple[str, int]:
        """Return a challenge of a door and for how many seconds it is good; raise Refused."""
        try:
            return await presenting.challenge(self._hass, self._embedded, self.issuer, door)
        except presenting.NotAsked as err:
            raise Refused(_CODES[err.why]) from err

    async def present(self, token: str) -> tuple[Word, Code | None]:
        """Have a token judged; return when the strike has answered."""
        if (door := tokens.claimed_door(token)) is None:
            return Code.MALFORMED.word, None
        try:
            answer = await presenting.present(self._hass, self._embedded, self.issuer, door, token, self.issuer)
        except presenting.NotAsked as err:
            return _CODES[err.why].word, _CODES[err.why]
        # A code of a newer gateway, or one that is told to nobody by its own name, is left out.
        return answer.word, next((code for code in Code if code == answer.code), None)

    async def take_keys(self, keys: Keys) -> None:
        """Take a key set, and hold it against the one before. Raises KeySetInvalid; then nothing has changed.

        Each newer one is stored, and is a change at each gateway, which takes few from us: one that comes too soon
        after others waits, so that no carrier keeps what concerns another from being changed. One that only takes keys
        away never waits.
        """
        embedded, self.waiting = self._embedded, None
        if (enrolment := embedded.setup.enrolments.get(self.issuer)) is None:
            return  # the carrier was removed in this moment
        others = embedded.setup.building.keys.values()
        try:
            is_same = keys.root == enrolment.root.public
            root = enrolment.root if is_same else keyset.succeed(enrolment.published, keys.root)
            taken = (key.kid for key in others if key.issuer != self.issuer)
            published = keyset.read(keys.set, root, enrolment.published, int(dt_util.utcnow().timestamp()), {*taken})
        except KeySetInvalid as err:
            if err.reason != self.refused:
                _LOGGER.error("A key set of %s was refused: %s", self.issuer, err.reason)  # noqa: TRY400 - it says where
            self.refused = err.reason
            raise
        self.refused = None
        if published == enrolment.published and root == enrolment.root:
            return
        kids = [{key.kid for key in each.trusted} for each in (published, enrolment.published)]
        if not kids[0] < kids[1] and not embedded.links.may_change.take(self.issuer, monotonic()):
            self.waiting = keys
        else:
            embedded.keep(enrolment.subentry_id, stored_key_set(root, keys.set, published, enrolment.keys))

    async def take_issued(self, text: str) -> None:
        """Take a part of a daily list. Raises KeySetInvalid."""
        embedded = self._embedded
        if (enrolment := embedded.setup.enrolments.get(self.issuer)) is None:
            return  # the carrier was removed in this moment
        now = int(dt_util.utcnow().timestamp())
        part = keyset.read_issued(text, enrolment.published, self.key.verifier, now)
        embedded.links.take_list(part, now)


@dataclass(slots=True)
class _Line:
    """A link at work."""

    host: Linked
    link: Link
    running: asyncio.Task[None]
    said: tuple[str, tuple[LinkedDoor, ...]]
    """Where it leads, and the doors that its hello has told."""


class Links:
    """Those of one building that is loaded, and what was reconciled. Belongs to one event loop."""

    def __init__(
        self, hass: HomeAssistant, entry: VestibuleConfigEntry, embedded: Embedded, noted: Mapping[str, str]
    ) -> None:
        """Go on from what the journal has noted; nothing is connected before ``start``."""
        self._hass = hass
        self._entry = entry
        self._embedded = embedded
        self.instance: Final = os.urandom(16)
        """Tells this start of this installation from others, and from copies of it."""
        self._lines: dict[Issuer, _Line] = {}
        self._states: dict[Issuer, State] = _read_states(noted)
        self._kept = dict(self._states)
        self.locked_out = frozenset(name for name, state in self._states.items() if state.locked_out)
        """Carriers whose tokens are refused until an administrator has looked: as it is on disk."""
        self.may_change: Buckets[Issuer] = Buckets(per_second=1 / SETS_APART, burst=SETS_AT_ONCE, most=100)
        """How often a carrier's keys may be other ones."""
        self._names: dict[Issuer, str] = {}
        self._accepted: dict[Issuer, deque[_Acceptance]] = {}
        """What was told lately."""
        self._jtis: dict[Issuer, dict[bytes, str]] = {}
        """The ids of tokens that were accepted lately, by their spend ids."""
        self._taken_over: dict[Issuer, float] = {}
        """When another connection with this building's key took a link over (monotonic seconds)."""
        self._came: deque[tuple[Issuer, bytes, DoorId, Code]] = deque(maxlen=MOST_TOLD)
        """What came of tokens, and is to be told."""
        self._due = asyncio.Event()
        self._looking = asyncio.Lock()
        self._keeping: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._listeners: list[Callable[[], None]] = []

    # ---- life ----

    @callback
    def start(self, *_: Any) -> None:
        """Connect, now that Home Assistant has started."""
        if self._session is None and not self._embedded.controller.stopped:
            self._session = new_session(self._hass)
            self.follow()

    @callback
    def follow(self) -> None:
        """Have one link for each carrier that is enrolled, which says what is so now."""
        if self._session is None:
            return
        enrolments = self._embedded.setup.enrolments
        for name in [*self._lines]:
            line, enrolment = self._lines[name], enrolments.get(name)
            if enrolment is None or (enrolment.host, line.host.doors) != line.said:
                self._lines.pop(name).running.cancel()
        if self._keeping is None and self._has_work:
            keeping = self._keep()
            self._keeping = self._entry.async_create_background_task(self._hass, keeping, "reconcile carriers")
        self._due.set()
        self._notify()

    @callback
    def _connect_new(self) -> None:
        """Connect with those that there is no link to; what was accepted of them is known by now."""
        for name, enrolment in self._embedded.setup.enrolments.items():
            if name not in self._lines:
                self._lines[name] = self._connect(name, enrolment)

    def _connect(self, name: Issuer, enrolment: Enrolment) -> _Line:
        host = Linked(self._hass, self._embedded, name, self.instance)
        assert self._session is not None
        link = Link(self._session, enrolment.host, host)
        link.subscribe(lambda: self._link_changed(name))
        running = self._entry.async_create_background_task(self._hass, link.run(), f"link with {name}")
        return _Line(host, link, running, (enrolment.host, host.doors))

    @callback
    def _link_changed(self, name: Issuer) -> None:
        if (line := self._lines.get(name)) is None:
            return
        now = monotonic()
        if line.link.state is LinkState.TAKEN_OVER:
            self._taken_over[name] = now
        if line.link.is_connected:
            for each in self._accepted.get(name, ()):
                if now - each.at < TOLD_AGAIN:
                    line.link.accepted(each.jti, each.door, each.code)
            self._due.set()  # lists may be asked for again
        self._notify()

    async def stop(self) -> None:
        """Let go of all links; may be repeated. What waits to be kept is kept."""
        tasks = [line.running for line in self._lines.values()]
        self._lines = {}
        if self._keeping is not None:
            tasks.append(self._keeping)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            await self._look()
            self._keeping = None
        if self._session is not None:
            self._session.detach()
            self._session = None

    @callback
    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when what is shown of a link may have changed."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @callback
    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    # ---- how they are ----

    def is_connected(self, name: Issuer) -> bool:
        """Return whether the cloud of a carrier is linked now."""
        return (line := self._lines.get(name)) is not None and line.link.is_connected

    def state(self, name: Issuer) -> LinkState:
        """Return how the link of a carrier is."""
        return line.link.state if (line := self._lines.get(name)) is not None else LinkState.CONNECTING

    def trouble(self, name: Issuer) -> LinkState | None:
        """Return what has kept the link of a carrier from standing for so long that people have to hear of it."""
        return line.link.trouble if (line := self._lines.get(name)) is not None else None

    def is_contested(self, name: Issuer) -> bool:
        """Return whether a copy of this installation has taken a link over lately, also if it was taken back since."""
        return name in self._taken_over and monotonic() - self._taken_over[name] < CONTESTED

    def keys_refused(self, name: Issuer) -> str | None:
        """Return why a carrier's newest key set was not taken (KeySetInvalid's reason); None: it was."""
        return line.host.refused if (line := self._lines.get(name)) is not None else None

    def alarms(self, name: Issuer) -> frozenset[Alarm]:
        """Return what an administrator has to know of what was accepted and listed."""
        state = self._states.get(name)
        others = frozenset() if state is None else state.alarms(_now()) - {Alarm.LOCKED_OUT}
        return others | {Alarm.LOCKED_OUT} if name in self.locked_out else others

    def newest_list(self, name: Issuer) -> date | None:
        """Return the latest day whose list is here, None if there is none."""
        state = self._states.get(name)
        return None if state is None else state.newest

    # ---- what was accepted ----

    @callback
    def heard(self, event: AccessEvent) -> None:
        """Take what happened in the building: what an accepted token came to, its cloud is told."""
        if event.issuer is None or event.issuer not in self._embedded.setup.enrolments or event.outcome not in _CAME_OF:
            return
        assert event.spend_id is not None
        assert event.door is not None
        assert event.code is not None
        self._came.append((event.issuer, event.spend_id, event.door, event.code))
        self._due.set()

    @callback
    def carried(self, claims: Claims, code: Code) -> None:
        """Take a token that a gateway has accepted from our hands, or may have; ``code`` says what came of it."""
        if claims.issuer in self._embedded.setup.enrolments:
            self._tell(claims.issuer, claims.jti, claims.door, code)
            self._change(claims.issuer, lambda state: reconcile.accept(state, [(claims.jti, claims.issued_at)], _now()))

    def _tell(self, name: Issuer, jti: str, door: DoorId, code: Code) -> None:
        each = _Acceptance(monotonic(), b64url.decode(jti.encode()), door, code)
        self._accepted.setdefault(name, deque(maxlen=MOST_TOLD)).append(each)
        if (line := self._lines.get(name)) is not None:
            line.link.accepted(each.jti, door, code)

    # ---- what was issued ----

    @callback
    def take_list(self, part: Issued, now: int) -> None:
        """Take a part of a list, whose signature was verified."""
        self._change(part.issuer, lambda state: reconcile.take_list(state, part, now))

    async def approve(self, name: Issuer, actor: Actor, origin: Context | None) -> Decision:
        """Let a carrier in again: an administrator has looked. Recorded, with who it was."""
        async with self._looking:
            if (state := self._states.get(name)) is None or not actor.is_trusted:
                return Decision(Code.WRONG_ISSUER if state is None else Code.MANUAL_NOT_ALLOWED)
            approved = reconcile.approve(state)
            by_hand = self._embedded.controller.by_hand
            event, person = by_hand.record_of(EventName.CARRIER_APPROVED, actor, origin, named=True)
            try:
                await self._write(replace(event, issuer=name, carrier=self._title(name)), {name: approved}, person)
            except StoreFailed:
                return Decision(Code.STORE_FAILED)
            self._states[name] = approved
            self._show()
            return Decision(Code.GRANTED)

    def _change(self, name: Issuer, change: Callable[[State], State]) -> None:
        if (state := self._states.get(name)) is not None:
            self._states[name] = change(state)
        self._due.set()

    # ---- one look after the other ----

    @property
    def _has_work(self) -> bool:
        """Whether there is a carrier with a link, or was one until now."""
        return bool(self._embedded.setup.enrolments or self._states)

    async def _keep(self) -> None:
        while self._has_work:
            self._due.clear()
            try:
                await self._look()
            except Exception:
                # Whatever it is: a carrier that is reconciled no more would be trusted for ever.
                _LOGGER.exception("A bug of Vestibule keeps what was accepted from being held against what was issued")
            self._connect_new()
            await asyncio.sleep(APART)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._due.wait()
        self._keeping = None

    async def _look(self) -> None:
        """Read what was accepted, see what follows from it, keep that, and only then tell of it."""
        async with self._looking:
            for name in self._embedded.setup.enrolments:
                self._title(name)
                with suppress(StoreFailed):  # said where it failed; then no token is accepted here
                    await self._read(name)
                self._states[name] = reconcile.look(self._states[name], _now())
            await self._take_what_waited()
            self._ask_for_lists()
            await self._save()
            self._show()
            self._tell_what_came()

    async def _read(self, name: Issuer) -> None:
        """Take from the journal what was accepted of a carrier since it was read last."""
        journal = self._embedded.journal
        is_new = name not in self._states
        state = self._states.setdefault(name, reconcile.begin(name, 0, _now()))
        while (read := await journal.accepted(name, state.upto)).upto != state.upto:
            known = self._jtis.setdefault(name, {})
            for spend in read.spends:
                known[tokens.spend_id_of(name, spend.jti)] = spend.jti
            for oldest in [*known][:-MOST_TOLD]:
                del known[oldest]
            accepted = () if is_new else ((spend.jti, spend.issued_at) for spend in read.spends)
            state = self._states[name] = reconcile.accept(self._states[name], accepted, _now(), read.upto)

    async def _take_what_waited(self) -> None:
        for line in [*self._lines.values()]:
            if (keys := line.host.waiting) is not None:
                with suppress(KeySetInvalid):  # its repair says so
                    await line.host.take_keys(keys)

    def _ask_for_lists(self) -> None:
        for name, line in self._lines.items():
            if line.link.is_connected:
                self._states[name], days = reconcile.questions(self._states[name], _now())
                for day in days:
                    line.link.ask_list(day)

    async def _save(self) -> None:
        """Keep what has changed, and record who is linked or locked out since."""
        known = {subentry.data.get(CONF_ISSUER) for subentry in self._entry.subentries.values()}
        changed: dict[Issuer, State | None] = {}
        happened = []
        for gone in self._states.keys() - known:  # not one that cannot be read
            del self._states[gone]
        for gone in self._kept.keys() - self._states.keys():
            changed[gone] = None
            happened.append((EventName.CARRIER_UNLINKED, gone))
        for name, state in self._states.items():
            if state != (before := self._kept.get(name)):
                changed[name] = state
                if before is None:
                    happened.append((EventName.CARRIER_LINKED, name))
                if state.locked_out and not (before and before.locked_out):
                    happened.append((EventName.CARRIER_LOCKED_OUT, name))
        with suppress(StoreFailed):  # said where it failed; a carrier is locked out all the same
            for what, name in happened:
                at = dt_util.utcnow().timestamp()
                event = AccessEvent(outcome=what, door=None, at=at, issuer=name, carrier=self._title(name))
                await self._write(event, {name: changed.pop(name, self._states.get(name))})
            if changed:
                await self._embedded.journal.note(_notes(changed))
                self._kept |= {name: state for name, state in changed.items() if state is not None}

    async def _write(
        self, event: AccessEvent, changed: Mapping[Issuer, State | None], person: Person | None = None
    ) -> None:
        """Record an event, and keep what follows from it in the same moment. Raises StoreFailed."""
        await self._embedded.journal.append(event, person, _notes(changed))
        for name, state in changed.items():
            if state is None:
                self._kept.pop(name, None)
            else:
                self._kept[name] = state

    def _title(self, name: Issuer) -> str | None:
        """Return a carrier's name: as it was, if the carrier is gone."""
        if (carrier := self._embedded.setup.building.carriers.get(name)) is not None:
            self._names[name] = carrier.name
        return self._names.get(name)

    @callback
    def _show(self) -> None:
        """Let hold at once, here and at gateways, who is locked out and who is no more."""
        locked_out = frozenset(name for name, state in self._states.items() if state.locked_out)
        if locked_out != self.locked_out:
            for name in locked_out - self.locked_out:
                _LOGGER.error("%s is locked out: it did not issue what was accepted in its name", name)
            self.locked_out = locked_out
            self._embedded.apply()
            for gateway in loaded_gateways(self._hass):
                gateway.agreement.look_soon()
        self._notify()

    @callback
    def _tell_what_came(self) -> None:
        while self._came:
            name, spend_id, door, code = self._came.popleft()
            if (jti := self._jtis.get(name, {}).get(spend_id)) is not None and len(jti) == _JTI:
                self._tell(name, jti, door, code)


# ---- what is said ----


async def enrol_here(
    hass: HomeAssistant,
    embedded: Embedded,
    code: EnrolmentCode,
    doors: Iterable[DoorId],
    taken: Container[Issuer],
    others: Container[str],
) -> Enrolled:
    """Enrol this building at a cloud, with these doors; ``taken`` and ``others`` are other carriers' issuers and kids.

    Raises NotLinked, KeySetInvalid or WrongIssuer (whose it is, is another carrier here).
    """
    told = linked_doors(hass, embedded, doors)

    def say(begin: Begin) -> Hello:
        if begin.issuer in taken:
            raise WrongIssuer(begin.issuer)
        return hello(embedded, begin, embedded.links.instance, told, 0)

    session = new_session(hass)
    try:
        return await enrol(session, code, embedded.journal.signer, say, _now(), others)
    finally:
        session.detach()


def linked_doors(hass: HomeAssistant, embedded: Embedded, doors: Iterable[DoorId]) -> tuple[LinkedDoor, ...]:
    """Return doors as a carrier's cloud is told of them; those that nobody has are left out."""
    here = (hass.config.latitude, hass.config.longitude)
    zone = str(hass.config.time_zone)  # out of YAML it is a kind of its own, which is no text to the core
    elsewhere = doors_elsewhere(hass)
    ours = embedded.setup.doors
    chosen = sorted(door for door in doors if door in ours or door in elsewhere)[:MAX_DOORS]
    told = []
    for door in chosen:
        setup = ours.get(door)
        name = setup.door.name if setup is not None else elsewhere[door]
        latitude, longitude = (setup.position if setup is not None else None) or here
        shown = _shown(name, _NAMES // len(chosen))
        told.append(LinkedDoor(door, shown, zone, round(latitude, 6), round(longitude, 6)))
    return tuple(told)


def _shown(name: str, size: int) -> str:
    """Return a name as a cloud is told it, of no more than ``size`` bytes in JSON."""
    shown = "".join(letter for letter in name if letter.isprintable())[:_NAME].strip()
    while len(json.dumps(shown)) > size:
        shown = shown[:-1].rstrip()
    return shown or "Door"


def hello(embedded: Embedded, begin: Begin, instance: bytes, doors: tuple[LinkedDoor, ...], key_set: int) -> Hello:
    """Return who is here, for the connection that has begun; ``key_set`` is the version of the newest one."""
    checkpoint = embedded.journal.checkpoint
    return Hello(
        controller=embedded.journal.signer.verifier,
        issuer=begin.issuer,
        nonce=begin.nonce,
        instance=instance,
        doors=doors,
        key_set=key_set,
        checkpoint=checkpoint if checkpoint is not None and len(checkpoint) <= _CHECKPOINT else None,
    )


# ---- how it is kept ----


def stored_key_set(root: Root, text: str, published: KeySet, before: Iterable[TrustedKey] = ()) -> dict[str, Any]:
    """Return a key set, and what it has left out of ``before``, as a carrier's subentry keeps it."""
    all_keys = keyset.replaced(before, published)
    return {
        CONF_ROOT: root.public.hex(),
        CONF_KEY_SET: text,
        CONF_DROPPED: [key.jwk() for key in all_keys if key.status is KeyStatus.REVOKED],
    }


def _notes(changed: Mapping[Issuer, State | None]) -> dict[str, str | None]:
    return {
        _STATE + name: None if state is None else json.dumps(reconcile.STATE.write(state), separators=(",", ":"))
        for name, state in changed.items()
    }


def _read_states(noted: Mapping[str, str]) -> dict[Issuer, State]:
    states = {}
    for name, text in noted.items():
        if name.startswith(_STATE):
            of = Issuer(name.removeprefix(_STATE))
            try:
                states[of] = reconcile.STATE.read(json.loads(text))
            except ValueError, MalformedMessage:
                # Written by a newer version. What it knew of lock-outs must not be lost with it.
                _LOGGER.error("What is kept of the reconciliation with %s cannot be read: it is locked out", of)  # noqa: TRY400
                states[of] = replace(reconcile.begin(of, 0, _now()), locked_out=True)
    return states


def _now() -> int:
    return int(dt_util.utcnow().timestamp())
