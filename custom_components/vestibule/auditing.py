"""What administrators can ask of the journal: actions with responses, and an exported journal to download.

What this file refuses to do: take a person's name in an action. Home Assistant records the data of actions, so the name
of who is to be deleted would stay; whoever is meant is meant by the number of an entry.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import probatio
from aiohttp import hdrs, web
from homeassistant.components.http.auth import async_sign_path
from homeassistant.components.http.const import KEY_HASS_USER
from homeassistant.const import ATTR_DEVICE_ID
from homeassistant.core import Context, HomeAssistant, ServiceCall, ServiceResponse, SupportsResponse, callback
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers import service
from homeassistant.helpers.http import KEY_HASS, HomeAssistantView
from homeassistant.util import dt as dt_util

from .actor import async_actor, raise_unless_done
from .const import CONF_DOOR, DOMAIN
from .embedded import Embedded
from .services import door_of, loaded_building
from .vestibule_core import audit, bundle, proof
from .vestibule_core.erasure import Subject
from .vestibule_core.errors import BackupRunning, StoreFailed
from .vestibule_core.evidence import Broken, Entry
from .vestibule_core.leaf import Person
from .vestibule_core.model import EventName
from .vestibule_core.note import Checkpoint, NoteError, open_note

SERVICE_VERIFY: Final = "verify_journal"
SERVICE_SHOW: Final = "show_journal"
SERVICE_PROVE: Final = "prove_entry"
SERVICE_EXPORT: Final = "export_journal"
SERVICE_EXPORT_PERSON: Final = "export_person"
SERVICE_DELETE_PERSON: Final = "delete_person"

ATTR_CHECKPOINT: Final = "checkpoint"
ATTR_LIMIT: Final = "limit"
ATTR_PERSONS: Final = "persons"
ATTR_SEQUENCE: Final = "sequence"

MOST_SHOWN: Final = 500
"""Entries that one call shows."""
LINK_LASTS: Final = timedelta(minutes=5)
"""How long the address of an exported journal can be opened."""
_URL: Final = f"/api/{DOMAIN}/journal"

_SEQUENCE: Final = {probatio.Required(ATTR_SEQUENCE): probatio.All(probatio.Coerce(int), probatio.Range(min=1))}
_SHOW: Final = {
    probatio.Optional(CONF_DOOR): cv.string,
    probatio.Optional(ATTR_DEVICE_ID): cv.string,
    probatio.Optional(ATTR_LIMIT, default=50): probatio.All(
        probatio.Coerce(int), probatio.Range(min=1, max=MOST_SHOWN)
    ),
}


@callback
def async_setup_auditing(hass: HomeAssistant) -> None:
    """Register the actions and the download, for good."""
    actions: list[tuple[str, Callable[[ServiceCall], Awaitable[ServiceResponse]], dict[Any, Any]]] = [
        (SERVICE_VERIFY, _verify, {probatio.Optional(ATTR_CHECKPOINT): cv.string}),
        (SERVICE_SHOW, _show, _SHOW),
        (SERVICE_PROVE, _prove, {**_SEQUENCE, probatio.Optional(ATTR_PERSONS, default=False): cv.boolean}),
        (SERVICE_EXPORT, _export, {probatio.Optional(ATTR_PERSONS, default=True): cv.boolean}),
        (SERVICE_EXPORT_PERSON, _export_person, _SEQUENCE),
        (SERVICE_DELETE_PERSON, _delete_person, _SEQUENCE),
    ]
    for name, action, fields in actions:
        response = SupportsResponse.OPTIONAL if action is _delete_person else SupportsResponse.ONLY
        service.async_register_admin_service(
            hass, DOMAIN, name, _explained(action), probatio.Schema(fields), supports_response=response
        )
    hass.http.register_view(_ExportView())


def _explained(action: Callable[[ServiceCall], Awaitable[ServiceResponse]]) -> Callable[[ServiceCall], Any]:
    """Return the action with its errors in the reader's language."""

    async def explained(call: ServiceCall) -> ServiceResponse:
        with _translated():
            return await action(call)

    return explained


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except StoreFailed as err:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="store_failed") from err
    except BackupRunning as err:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="backup_running") from err
    except Broken as err:
        place = {"entry": str(err.after), "why": str(err)}
        raise HomeAssistantError(
            translation_domain=DOMAIN, translation_key="journal_broken", translation_placeholders=place
        ) from err
    except NoteError as err:
        raise ServiceValidationError(
            translation_domain=DOMAIN, translation_key="no_proof", translation_placeholders={"why": str(err)}
        ) from err


# ---- what happened ----


async def _verify(call: ServiceCall) -> ServiceResponse:
    """Say whether the journal is what was signed, and where it first is not."""
    journal = loaded_building(call.hass).journal
    header = await journal.header()
    kept = None
    if note := call.data.get(ATTR_CHECKPOINT):
        kept = Checkpoint.parse(open_note(note.rstrip("\n") + "\n", header.keys))
    verdict = await call.hass.async_add_executor_job(
        lambda: audit.verify(header, journal.runs(header), keys=header.keys, kept=kept)
    )
    failure = verdict.failure
    return {
        "holds": verdict.holds,
        "entries": verdict.entries,
        "dropped": verdict.dropped,
        "persons": verdict.persons,
        "checkpoints": verdict.checkpoints,
        "keys": [str(key) for key in verdict.keys],
        "checkpoint": verdict.newest,
        "failure": {"first": failure.first, "last": failure.last, "why": failure.why} if failure else None,
    }


async def _show(call: ServiceCall) -> ServiceResponse:
    """Return the newest entries, newest first."""
    embedded = loaded_building(call.hass)
    is_of_a_door = CONF_DOOR in call.data or ATTR_DEVICE_ID in call.data
    door = door_of(call, embedded) if is_of_a_door else None
    try:
        entries = await embedded.journal.newest_entries(door, call.data[ATTR_LIMIT])
    except ValueError as err:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="entry_unreadable") from err
    return {"entries": [_shown(entry) | {"who": _name(_person(entry))} for entry in entries]}


async def _prove(call: ServiceCall) -> ServiceResponse:
    """Return the proof that an entry is in the journal."""
    journal = loaded_building(call.hass).journal
    header = await journal.header()
    sequence, person = call.data[ATTR_SEQUENCE], call.data[ATTR_PERSONS]
    entry_proof = await call.hass.async_add_executor_job(
        lambda: proof.prove(header, journal.runs(header), sequence, person=person)
    )
    return {"proof": str(entry_proof)}


async def _export(call: ServiceCall) -> ServiceResponse:
    """Return an address under which whoever asks can download the journal for a while."""
    loaded_building(call.hass)
    if call.context.user_id is None:  # it is signed for the person's own session, and would be nobody's
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="export_by_person")
    persons = "yes" if call.data[ATTR_PERSONS] else "no"
    return {"url": async_sign_path(call.hass, f"{_URL}?{ATTR_PERSONS}={persons}", LINK_LASTS)}


# ---- persons ----


async def _export_person(call: ServiceCall) -> ServiceResponse:
    """Return every entry about the person of an entry, with all that it says about that person."""
    embedded = loaded_building(call.hass)
    subject = await _subject(call, embedded)
    await _note(call, embedded, EventName.PERSON_EXPORTED)
    entries = await embedded.journal.about(subject)
    return {"entries": [_shown(entry) | {"person": _person(entry)} for entry in entries]}


async def _delete_person(call: ServiceCall) -> ServiceResponse:
    """Delete the person of an entry from every entry; what happened stays."""
    embedded = loaded_building(call.hass)
    subject = await _subject(call, embedded)
    count = await embedded.controller.delete_person(subject)
    # Who deletes himself is not written down anew by that.
    await _note(call, embedded, EventName.PERSON_DELETED, named=call.context.user_id != subject.user_id)
    return {"entries": count}


async def _subject(call: ServiceCall, embedded: Embedded) -> Subject:
    sequence = call.data[ATTR_SEQUENCE]
    if (subject := await embedded.journal.subject(sequence)) is None:
        raise ServiceValidationError(
            translation_domain=DOMAIN, translation_key="about_nobody", translation_placeholders={"entry": str(sequence)}
        )
    return subject


async def _note(call: ServiceCall, embedded: Embedded, what: EventName, *, named: bool = True) -> None:
    """Record what an administrator did with the journal; raise unless that was possible."""
    actor = await async_actor(call.hass, call.context)
    decision = await embedded.controller.by_hand.note(what, actor, call.context, named=named)
    raise_unless_done(decision, embedded.name)


# ---- what is shown of an entry ----


def _shown(entry: Entry) -> dict[str, Any]:
    leaf = entry.leaf
    return {
        "sequence": leaf.sequence,
        "time": dt_util.utc_from_timestamp(leaf.at).isoformat(),
        "door": leaf.door,
        "outcome": leaf.kind,
        "code": leaf.code,
        "means": leaf.means,
    }


def _person(entry: Entry) -> Person | None:
    return entry.person.read() if entry.person is not None else None


def _name(person: Person | None) -> str | None:
    return None if person is None else person.get("user") or person.get("sub")


# ---- the download ----


class _ExportView(HomeAssistantView):
    """The exported journal (bundle.py), for administrators."""

    url = _URL
    name = f"api:{DOMAIN}:journal"

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Send the journal, run by run: it may be larger than the memory."""
        hass, user = request.app[KEY_HASS], request[KEY_HASS_USER]
        if not user.is_admin:
            return self.json_message("Only administrators may export the journal", HTTPStatus.FORBIDDEN)
        try:
            embedded = loaded_building(hass)
            origin = Context(user_id=user.id)
            actor = await async_actor(hass, origin)
            decision = await embedded.controller.by_hand.note(EventName.JOURNAL_EXPORTED, actor, origin)
            raise_unless_done(decision, embedded.name)
            header = await embedded.journal.header()
        except (HomeAssistantError, StoreFailed) as err:
            return self.json_message(str(err), HTTPStatus.SERVICE_UNAVAILABLE)
        persons = request.query.get(ATTR_PERSONS) != "no"
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "application/jsonl",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="vestibule-journal-{dt_util.now():%Y-%m-%d}.jsonl"',
                hdrs.CACHE_CONTROL: "no-store",
            }
        )
        await response.prepare(request)
        await response.write(bundle.encode_header(header))
        last = header.base.size
        # An error from here on breaks the connection off: what was received says itself that its end is missing.
        while (run := await embedded.journal.run(last)) is not None:
            lines = await hass.async_add_executor_job(partial(bundle.encode_run, run, persons=persons))
            await response.write(lines)
            last = run.last
        await response.write(bundle.encode_end(last))
        await response.write_eof()
        return response
