"""What administrators ask of the journal in Home Assistant: the same answers as an auditor gets offline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from homeassistant.core import Context, HomeAssistant
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError, Unauthorized
from homeassistant.setup import async_setup_component

from custom_components.vestibule import auditing, issues
from custom_components.vestibule.vestibule_core import audit
from custom_components.vestibule.vestibule_core.bundle import Bundle
from custom_components.vestibule.vestibule_core.errors import JournalMoved
from custom_components.vestibule.vestibule_core.merkle import leaf_hash
from custom_components.vestibule.vestibule_core.note import Checkpoint, NoteError, SignerKey, VerifierKey, open_note
from custom_components.vestibule.vestibule_core.proof import EntryProof
from tests.integration.site import Site

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
STRANGER = SignerKey("vestibule/stranger", PRIVATE).verifier
ALL = [
    (auditing.SERVICE_VERIFY, {}),
    (auditing.SERVICE_SHOW, {}),
    (auditing.SERVICE_PROVE, {"sequence": 1}),
    (auditing.SERVICE_EXPORT, {}),
    (auditing.SERVICE_EXPORT_PERSON, {"sequence": 1}),
    (auditing.SERVICE_DELETE_PERSON, {"sequence": 1}),
]


@pytest.fixture
async def delivered(site: Site) -> Site:
    """A building that let a driver in: entries 1 and 2 are the grant and its outcome."""
    await site.present(await site.token())
    return site


@pytest.fixture
def as_admin(hass_admin_user) -> Context:
    return Context(user_id=hass_admin_user.id)


async def verify(site: Site, **data: Any) -> dict[str, Any]:
    return await site.call("verify_journal", **data)


def key_of(answer: dict[str, Any]) -> VerifierKey:
    """Who signed, as the action tells."""
    return VerifierKey.parse(answer["signed_by"][-1]["key"])


def as_the_browser_shows_it(text: str) -> str:
    """A response is shown as YAML with its long lines folded, and copied from there."""
    return yaml.dump({"checkpoint": text}, default_style=">", width=60, allow_unicode=True).partition("\n")[2]


async def root_of_the_first(site: Site) -> str:
    rows: list[bytes] = []
    await site.embedded.journal._submit(
        lambda writer: rows.extend(writer.db.execute("SELECT bytes FROM leaf WHERE seq = 1").fetchone())
    )
    return leaf_hash(rows[0]).hex()


async def alter(site: Site, statement: str) -> None:
    """Change the running journal behind its controller's back."""
    await site.embedded.journal._submit(lambda writer: writer.db.execute(statement) and None)


# ---- who may ----


@pytest.mark.parametrize("action, data", ALL)
async def test_only_administrators_may_ask(delivered, hass_read_only_user, action, data):
    before = await delivered.call("show_journal")
    with pytest.raises(Unauthorized):
        await delivered.call(action, Context(user_id=hass_read_only_user.id), **data)
    assert await delivered.call("show_journal") == before


@pytest.mark.parametrize("action, data", ALL)
async def test_without_a_loaded_building_the_actions_say_so(hass, delivered, action, data):
    await hass.config_entries.async_unload(delivered.entry.entry_id)
    with pytest.raises(ServiceValidationError) as raised:
        await delivered.call(action, **data)
    assert raised.value.translation_key == "service_config_entry_not_loaded"


@pytest.mark.parametrize("action, data", [part for part in ALL if part[0] != auditing.SERVICE_EXPORT])
async def test_a_journal_that_has_failed_says_so(delivered, action, data):
    journal = delivered.embedded.journal
    await asyncio.to_thread(journal.close)
    with pytest.raises(HomeAssistantError) as raised:
        await delivered.call(action, **data)
    assert raised.value.translation_key == "journal_unavailable"


# ---- what happened ----


async def test_a_journal_that_nobody_touched_holds(delivered):
    answer = await verify(delivered)
    assert answer["holds"]
    assert answer["failure"] is None
    assert (answer["entries"], answer["persons"], answer["gone"], answer["may_be_cut"]) == (2, 1, 0, False)
    assert open_note(answer["checkpoint"], [key_of(answer)])
    assert answer["signed_by"] == [{"key": str(key_of(answer)), "checkpoints": answer["checkpoints"]}]
    assert (answer["signed_nothing"], answer["kept"]) == ([], None)
    entries = (await delivered.call("show_journal"))["entries"]
    assert (answer["latest"], answer["oldest"]) == (entries[0]["time"], entries[-1]["time"])


async def test_a_key_that_the_journal_merely_names_has_not_signed(delivered):
    await alter(delivered, f"""UPDATE meta SET value = '["{STRANGER}", ' || substr(value, 2) WHERE key = 'keys'""")
    answer = await verify(delivered)
    assert answer["holds"]
    assert answer["signed_nothing"] == [str(STRANGER)]
    assert str(STRANGER) not in str(answer["signed_by"])


async def test_entries_that_were_cut_off_at_the_beginning_are_told_of(delivered):
    peaks = f"""SELECT json_object('size', 1, 'peaks', json_array('{await root_of_the_first(delivered)}'))"""
    await alter(delivered, f"INSERT OR REPLACE INTO meta VALUES('base', ({peaks}))")
    for table in ("leaf", "person"):
        await alter(delivered, f"DELETE FROM {table} WHERE seq <= 1")
    answer = await verify(delivered)
    assert (answer["holds"], answer["gone"], answer["may_be_cut"]) == (True, 1, True)


async def test_row_67_an_altered_entry_is_named(delivered):
    await alter(delivered, "UPDATE leaf SET bytes = CAST(replace(bytes, 'GRANTED', 'REVOKED') AS BLOB) WHERE seq = 2")
    answer = await verify(delivered)
    assert not answer["holds"]
    assert (answer["failure"]["first"], answer["failure"]["last"]) == (2, 2)
    assert answer["checkpoint"] is None
    with pytest.raises(HomeAssistantError) as raised:
        await delivered.call("prove_entry", sequence=2)
    assert not isinstance(raised.value, ServiceValidationError)
    assert raised.value.translation_key == "no_proof"


async def test_a_missing_entry_is_named(delivered):
    await alter(delivered, "DELETE FROM leaf WHERE seq = 1")
    answer = await verify(delivered)
    assert (answer["failure"]["first"], answer["failure"]["last"]) == (1, 1)
    with pytest.raises(HomeAssistantError) as raised:
        await delivered.call("prove_entry", sequence=1)
    assert raised.value.translation_key == "journal_broken"


async def test_an_entry_that_cannot_be_read_is_told_of(delivered):
    await alter(delivered, """UPDATE leaf SET bytes = CAST('{}' AS BLOB) WHERE seq = 1""")
    with pytest.raises(HomeAssistantError) as raised:
        await delivered.call("show_journal")
    assert raised.value.translation_key == "journal_broken"
    assert raised.value.translation_placeholders["entry"] == "0"


@pytest.mark.parametrize("person", ["[]", "no JSON", "[" * 10_000, '{"sub": NaN}'], ids=["list", "text", "deep", "NaN"])
@pytest.mark.parametrize(
    "action, told",
    [("show_journal", "entry_unreadable"), ("export_person", "about_nobody"), ("delete_person", "about_nobody")],
)
async def test_a_persons_part_that_cannot_be_read_is_told_of(delivered, as_admin, action, told, person):
    await alter(delivered, f"UPDATE person SET json = '{person}' WHERE seq = 1")
    with pytest.raises(HomeAssistantError) as raised:
        await delivered.call(action, as_admin, **({} if action == "show_journal" else {"sequence": 1}))
    assert raised.value.translation_key == told
    await delivered.unlock(context=as_admin)  # the journal goes on


async def test_a_checkpoint_that_was_kept_shows_whether_something_was_cut_off(delivered):
    kept = (await verify(delivered))["checkpoint"]
    for text in (kept.strip(), as_the_browser_shows_it(kept)):
        answer = await verify(delivered, checkpoint=text)
        assert (answer["holds"], answer["kept"]) == (True, "matches")
    for table, column in (("leaf", "seq"), ("person", "seq"), ("checkpoint", "size")):
        await alter(delivered, f"DELETE FROM {table} WHERE {column} > 1")
    assert (await verify(delivered))["holds"]
    answer = await verify(delivered, checkpoint=kept)
    assert (answer["failure"]["last"], answer["kept"]) == (2, "contradicted")


@pytest.mark.parametrize("name", [None, "vestibule/another"])
async def test_what_is_no_checkpoint_of_this_journal_is_not_compared(delivered, name):
    other = "no note" if name is None else SignerKey(name, PRIVATE).sign(Checkpoint(name, 1, bytes(32)).text)
    with pytest.raises(ServiceValidationError) as raised:
        await verify(delivered, checkpoint=other)
    assert raised.value.translation_key == "checkpoint_unreadable"


async def test_entries_that_are_dropped_while_a_journal_is_verified_do_not_disturb(delivered, monkeypatch):
    class Moving(type(delivered.embedded.journal)):
        times = 0

        def runs(self, header):
            Moving.times += 1
            if Moving.times <= moved:
                raise JournalMoved
            return super().runs(header)

    monkeypatch.setattr(delivered.embedded.journal, "__class__", Moving)
    moved = 1
    assert (await verify(delivered))["holds"]
    moved, Moving.times = 2, 0
    with pytest.raises(HomeAssistantError) as raised:
        await verify(delivered)
    assert raised.value.translation_key == "journal_changing"


async def test_the_newest_entries_are_shown_with_who_it_was(delivered, hass_admin_user, as_admin):
    await delivered.unlock(context=as_admin)
    entries = (await delivered.call("show_journal", limit=3))["entries"]
    assert [entry["sequence"] for entry in entries] == [4, 3, 2]
    assert (entries[1]["outcome"], entries[1]["means"]) == ("access_granted", "manual")
    assert entries[1]["who"] == hass_admin_user.name
    assert (entries[1]["door"], entries[1]["door_name"]) == (delivered.door, delivered.device().name)
    [first] = (await delivered.call("show_journal"))["entries"][-1:]
    assert first["who"] == "driver-of-this-month"


async def test_those_of_one_door_are_shown(delivered):
    for where in ({"door": delivered.door}, {"device_id": delivered.device().id}):
        assert len((await delivered.call("show_journal", **where))["entries"]) == 2
    assert (await delivered.call("show_journal", door="door:another"))["entries"] == []
    with pytest.raises(ServiceValidationError):
        await delivered.call("show_journal", door=delivered.door, device_id=delivered.device().id)


@pytest.mark.parametrize("persons", [False, True])
async def test_an_entry_is_proved_to_somebody_who_has_only_the_key(delivered, persons):
    key = key_of(await verify(delivered))
    text = (await delivered.call("prove_entry", sequence=1, persons=persons))["proof"]
    entry, checkpoint = EntryProof.parse(text).check([key])
    assert (entry.leaf.kind, checkpoint.size) == ("access_granted", 2)
    assert (entry.person is not None) is persons
    with pytest.raises(NoteError):
        EntryProof.parse(text.replace("index 0", "index 1")).check([key])


async def test_an_entry_that_is_not_there_is_not_proved(delivered):
    with pytest.raises(ServiceValidationError) as raised:
        await delivered.call("prove_entry", sequence=99)
    assert raised.value.translation_key == "no_such_entry"
    assert raised.value.translation_placeholders == {"entry": "99", "first": "1", "last": "2"}


# ---- the download ----


type Client = Callable[..., Any]


@pytest.fixture
async def downloading(hass: HomeAssistant, socket_enabled: None, delivered: Site) -> Site:
    """Signing in over HTTP, so that Home Assistant can sign an address for somebody's session."""
    assert await async_setup_component(hass, "api", {})
    return delivered


async def exported_by(client: Any, **data: Any) -> str:
    answer = await client.post("/api/services/vestibule/export_journal?return_response", json=data)
    assert answer.status == 200, await answer.text()
    return (await answer.json())["service_response"]["url"]


async def test_the_journal_is_downloaded_from_its_address_alone_and_verified(
    downloading, hass_client, hass_client_no_auth
):
    url = await exported_by(await hass_client())
    answer = await (await hass_client_no_auth()).get(url)
    assert answer.status == 200
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="vestibule-journal-20')
    bundle = Bundle.open((await answer.read()).splitlines(keepends=True))
    key = key_of(await verify(downloading))
    verdict = audit.verify(bundle.header, bundle.runs(), keys=[key])
    assert verdict.holds
    assert (verdict.entries, verdict.persons) == (3, 2)
    assert Checkpoint.parse(open_note(verdict.newest, [key])).size == 3
    assert downloading.outcomes()[-1] == ("journal_exported", "GRANTED")


async def test_who_it_was_can_be_left_out(downloading, hass_client, hass_client_no_auth):
    url = await exported_by(await hass_client(), persons=False)
    client = await hass_client_no_auth()
    assert "driver-of-this-month" not in await (await client.get(url)).text()
    more = await client.get(url.replace("persons=no", "persons=yes"))
    assert more.status == 401


async def test_nobody_else_downloads_it(downloading, hass_client, hass_client_no_auth, hass_read_only_access_token):
    assert (await (await hass_client_no_auth()).get("/api/vestibule/journal")).status == 401
    answer = await (await hass_client(hass_read_only_access_token)).get("/api/vestibule/journal")
    assert answer.status == 403
    assert "driver" not in await answer.text()
    assert ("journal_exported", "GRANTED") not in downloading.outcomes()


async def test_a_journal_that_has_failed_is_not_downloaded(downloading, hass_client):
    client = await hass_client()
    await asyncio.to_thread(downloading.embedded.journal.close)
    assert (await client.get("/api/vestibule/journal")).status == 503


async def test_an_automation_is_given_no_address(delivered):
    with pytest.raises(ServiceValidationError) as raised:
        await delivered.call("export_journal")
    assert raised.value.translation_key == "export_by_person"


# ---- persons ----


async def test_a_person_is_given_all_that_is_said_about_them(delivered, as_admin):
    await delivered.present(await delivered.token(subject="another-driver"))
    token = await delivered.token()
    await delivered.present(token)
    entries = (await delivered.call("export_person", as_admin, sequence=1))["entries"]
    assert [entry["sequence"] for entry in entries] == [1, 5]
    assert {entry["person"]["sub"] for entry in entries} == {"driver-of-this-month"}
    assert entries[1]["person"]["token"] == token
    assert delivered.outcomes()[-1] == ("person_exported", "GRANTED")


async def test_row_69_a_person_is_deleted_and_the_journal_still_holds(delivered, as_admin):
    await delivered.present(await delivered.token(subject="another-driver"))
    await delivered.present(await delivered.token())
    assert await delivered.call("delete_person", as_admin, sequence=1) == {"entries": 2}
    shown = (await delivered.call("show_journal"))["entries"]
    assert [entry["who"] for entry in shown if entry["sequence"] in (1, 3, 5)] == [None, "another-driver", None]
    assert (await verify(delivered))["holds"]
    assert delivered.outcomes()[-1] == ("person_deleted", "GRANTED")
    with pytest.raises(ServiceValidationError) as raised:
        await delivered.call("delete_person", as_admin, sequence=1)
    assert raised.value.translation_key == "about_nobody"


async def test_whoever_deletes_himself_is_not_written_down_by_that(delivered, hass_admin_user, as_admin):
    await delivered.unlock(context=as_admin)
    await delivered.call("delete_person", as_admin, sequence=3)
    shown = (await delivered.call("show_journal"))["entries"]
    assert shown[0]["outcome"] == "person_deleted"
    assert hass_admin_user.name not in [entry["who"] for entry in shown]


async def test_nobody_is_deleted_while_a_backup_is_made(delivered, as_admin):
    await delivered.embedded.begin_backup()
    with pytest.raises(HomeAssistantError) as raised:
        await delivered.call("delete_person", as_admin, sequence=1)
    assert raised.value.translation_key == "backup_running"
    await delivered.embedded.end_backup()


@pytest.mark.parametrize("sequence", [0, -1, "x", None, 99, 2, 2**63 - 1, 2**63, 10**400])
async def test_what_names_no_person_changes_nothing(delivered, as_admin, sequence):
    before = await delivered.call("show_journal")
    with pytest.raises(Exception, match=r"about no person|sequence") as raised:
        await delivered.call("delete_person", as_admin, sequence=sequence)
    assert not isinstance(raised.value, AssertionError)
    assert await delivered.call("show_journal") == before


def test_the_repair_of_a_damaged_journal_leads_to_a_page_that_is_there():
    page, _, heading = issues._MORE[issues.Kind.JOURNAL_DAMAGED].partition("/blob/main/")[2].partition("#")
    lines = (Path(__file__).parents[2] / page).read_text().splitlines()
    assert heading in [line.removeprefix("## ").lower().replace(" ", "-") for line in lines if line.startswith("## ")]
