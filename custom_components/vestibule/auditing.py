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
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError, Unauthorized
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers import service
from homeassistant.helpers.http import KEY_HASS, HomeAssistantView
from homeassistant.util import dt as dt_util

from .actor import async_actor, raise_unless_done
from .const import CONF_DOOR, DOMAIN
from .embedded import Embedded
from .services import door_of, loaded_building
from .vestibule_core import audit, bundle, proof
from .vestibule_core.audit import Verdict
from .vestibule_core.errors import BackupRunning, JournalMoved, Refused, StoreFailed
from .vestibule_core.evidence import Broken, Entry, Header, Run
from .vestibule_core.kept import read_kept
from .vestibule_core.model import Code, DoorId, EventName
from .vestibule_core.note import MAX_SIZE, Checkpoint, NoteError
from .vestibule_core.proof import EntryProof

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

_SEQUENCE: Final = {
    probatio.Required(ATTR_SEQUENCE): probatio.All(probatio.Coerce(int), probatio.Range(min=1, max=MAX_SIZE))
}
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
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="journal_unavailable") from err
    except JournalMoved as err:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="journal_changing") from err
    except BackupRunning as err:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="backup_running") from err
    except Refused as err:  # whoever asked is an administrator no more
        raise Unauthorized from err
    except Broken as err:
        place = {"entry": str(err.after), "why": str(err)}
        raise HomeAssistantError(
            translation_domain=DOMAIN, translation_key="journal_broken", translation_placeholders=place
        ) from err


# ---- what happened ----


async def _verify(call: ServiceCall) -> ServiceResponse:
    """Say whether the journal is what was signed, and where it first is not."""

    def verify(header: Header, runs: Iterator[Run]) -> Verdict:
        return audit.verify(header, runs, keys=header.keys, kept=_kept(call, header))

    verdict = await _read_through(call, verify)
    failure, signed = verdict.failure, dict(verdict.signed)
    return {
        "holds": verdict.holds,
        "failure": {"first": failure.first, "last": failure.last, "why": failure.why} if failure else None,
        "entries": verdict.entries,
        "oldest": _time(verdict.oldest),
        "latest": _time(verdict.latest),
        "gone": verdict.dropped,
        "may_be_cut": verdict.may_be_cut,
        "persons": verdict.persons,
        "checkpoints": verdict.checkpoints,
        "signed_by": [{"key": str(key), "checkpoints": count} for key, count in signed.items()],
        "signed_nothing": [str(key) for key in verdict.keys if key not in signed],
        "kept": verdict.kept and verdict.kept.value,
        "checkpoint": verdict.newest if verdict.holds else None,
    }


async def _read_through[T](call: ServiceCall, read: Callable[[Header, Iterator[Run]], T]) -> T:
    """Return what ``read`` makes of the whole journal; it runs in another thread."""
    journal = loaded_building(call.hass).journal

    async def reading() -> T:
        header = await journal.header()
        return await call.hass.async_add_executor_job(lambda: read(header, journal.runs(header)))

    try:
        return await reading()
    except JournalMoved:  # what it was about to read has just had its time
        return await reading()


def _kept(call: ServiceCall, header: Header) -> Checkpoint | None:
    """Return the checkpoint that somebody hands over."""
    if not (note := call.data.get(ATTR_CHECKPOINT)):
        return None
    try:
        return read_kept(note, header.keys)
    except NoteError as err:
        raise ServiceValidationError(translation_domain=DOMAIN, translation_key="checkpoint_unreadable") from err


async def _show(call: ServiceCall) -> ServiceResponse:
    """Return the newest entries, newest first."""
    embedded = loaded_building(call.hass)
    is_of_a_door = CONF_DOOR in call.data or ATTR_DEVICE_ID in call.data
    door = door_of(call) if is_of_a_door else None
    entries = await embedded.journal.newest_entries(door, call.data[ATTR_LIMIT])
    try:
        return {"entries": [_shown(entry, embedded) | {"who": entry.who} for entry in entries]}
    except ValueError as err:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="entry_unreadable") from err


async def _prove(call: ServiceCall) -> ServiceResponse:
    """Return the proof that an entry is in the journal."""
    sequence, person = call.data[ATTR_SEQUENCE], call.data[ATTR_PERSONS]

    def prove(header: Header, runs: Iterator[Run]) -> EntryProof:
        if not header.base.size < sequence <= header.size:
            there = {"entry": str(sequence), "first": str(header.base.size + 1), "last": str(header.size)}
            raise ServiceValidationError(
                translation_domain=DOMAIN, translation_key="no_such_entry", translation_placeholders=there
            )
        return proof.prove(header, runs, sequence, person=person)

    try:
        return {"proof": str(await _read_through(call, prove))}
    except NoteError as err:
        raise HomeAssistantError(
            translation_domain=DOMAIN, translation_key="no_proof", translation_placeholders={"why": str(err)}
        ) from err


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
    if (subject := await embedded.journal.subject(call.data[ATTR_SEQUENCE])) is None:
        raise _about_nobody(call)
    await _note(call.hass, call.context, embedded, EventName.PERSON_EXPORTED)
    entries = await embedded.journal.about(subject)
    return {
        "entries": [_shown(entry, embedded) | {"person": entry.person and entry.person.read()} for entry in entries]
    }


async def _delete_person(call: ServiceCall) -> ServiceResponse:
    """Delete the person of an entry from every entry; what happened stays."""
    embedded, actor = loaded_building(call.hass), await async_actor(call.hass, call.context)
    if not (count := await embedded.controller.delete_person(call.data[ATTR_SEQUENCE], actor, call.context)):
        raise _about_nobody(call)
    return {"entries": count}


def _about_nobody(call: ServiceCall) -> ServiceValidationError:
    entry = {"entry": str(call.data[ATTR_SEQUENCE])}
    return ServiceValidationError(
        translation_domain=DOMAIN, translation_key="about_nobody", translation_placeholders=entry
    )


async def _note(hass: HomeAssistant, context: Context, embedded: Embedded, what: EventName) -> None:
    """Record what an administrator did with the journal; raise unless that was possible."""
    actor = await async_actor(hass, context)
    decision = await embedded.controller.by_hand.note(what, actor, context)
    if decision.code is Code.STORE_FAILED:
        raise HomeAssistantError(translation_domain=DOMAIN, translation_key="journal_unavailable")
    raise_unless_done(decision, embedded.name)


# ---- what is shown of an entry ----


def _shown(entry: Entry, embedded: Embedded) -> dict[str, Any]:
    leaf = entry.leaf
    doorway = embedded.doors.get(DoorId(leaf.door)) if leaf.door is not None else None
    return {
        "sequence": leaf.sequence,
        "time": _time(leaf.at),
        "door": leaf.door,
        "door_name": doorway.setup.door.name if doorway is not None else None,
        "outcome": leaf.kind,
        "code": leaf.code,
        "means": leaf.means,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else dt_util.utc_from_timestamp(at).isoformat()


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
            with _translated():
                await _note(hass, Context(user_id=user.id), embedded, EventName.JOURNAL_EXPORTED)
                header = await embedded.journal.header()
        except HomeAssistantError as err:
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
