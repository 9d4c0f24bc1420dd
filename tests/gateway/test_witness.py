"""The gateway as a witness of others' journals, and its own journal as others see it."""

import asyncio
import json
from itertools import islice

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import witness as module
from tests.gateway.at_work import Gateway
from tests.gateway.house import KEY, House
from tests.simulated import IDENTITY
from vestibule_core import receipts, witness
from vestibule_core.api.messages import Scope, client_id
from vestibule_core.cosignature import cosign, cosigned_at
from vestibule_core.epoch import read_head
from vestibule_core.errors import MalformedMessage
from vestibule_core.model import EventName
from vestibule_core.note import SignerKey
from vestibule_core.schema import LONGEST
from vestibule_core.witness import Finding, Grown


@pytest.fixture
async def gateway(tmp_path):
    async with Gateway(tmp_path) as gateway:
        yield gateway


@pytest.fixture
async def admin(gateway):
    return await gateway.pair()


async def ask(caller, old=0, key=KEY):
    return await caller.get("/v1/witness", params={"old": old, "key": str(key.verifier)})


# ---- what it holds of others ----


async def test_what_goes_on_is_held_durably_and_cosigned(tmp_path, gateway, admin):
    house = House()
    before = gateway.journal.sequence
    for size in (3, 3, 8):
        body = {"key": str(KEY.verifier), "grown": str(house.grown(size)), "epoch": None}
        said = await admin.put("/v1/witness", body)
        house.seen = size
        note = said.json["note"]
        assert note.startswith(house.note(size))
        assert cosigned_at(note, IDENTITY.verifier) == int(gateway.clock().wall)
    assert gateway.journal.sequence == before, "no entry: two journals that witness each other would never rest"
    assert (await ask(admin)).json["held"] == house.note(8)


async def test_a_checkpoint_that_was_cosigned_is_shown_again_at_each_start_and_stays_as_long_as_it_is(gateway, admin):
    """A quiet building's Home Assistant starts often between two entries; its journal's file has the cosigned one."""
    bare = House().note(3)
    shown = bare
    for _ in range(20):
        said = await admin.put(
            "/v1/witness", {"key": str(KEY.verifier), "grown": str(Grown(0, (), shown)), "epoch": None}
        )
        assert said.status == 200
        shown = said.json["note"]
        assert shown == cosign(IDENTITY, bare, int(gateway.clock().wall))
    assert (await ask(admin)).json["held"] == bare


async def test_what_was_seen_is_known_after_a_restart(tmp_path):
    house = House()
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        assert await house.show(admin, 8) == 200
    async with gateway.reopen() as again:
        back = again.caller(admin.admission)
        assert (await ask(back)).json["held"] == house.note(8)
        assert await house.show(back, 7) == 409
        assert await house.show(back, 12) == 200


async def test_a_refusal_is_on_record_once_until_it_goes_on_again(gateway, admin):
    house = House()
    await house.show(admin, 8)
    for _ in range(5):
        assert await house.show(admin, 6) == 409
    await house.show(admin, 9)
    assert await house.show(admin, 7) == 409
    assert [event.outcome for event in gateway.events].count(EventName.WITNESS_REFUSED) == 2


async def test_a_proof_about_another_size_is_no_alarm(gateway, admin):
    """Two looks at once, say."""
    house = House()
    await house.show(admin, 8)
    house.seen = 5
    assert await house.show(admin, 9) == 409
    assert EventName.WITNESS_REFUSED not in gateway.outcomes


async def test_many_that_show_the_same_at_once_are_one_after_the_other(gateway, admin):
    houses = [House() for _ in range(20)]
    assert await asyncio.gather(*(house.show(admin, 5) for house in houses)) == [200] * 20


# ---- whose places are taken, and that nothing is let go of ----


def new_house(name="vestibule/house"):
    return House(SignerKey(name, Ed25519PrivateKey.generate()))


async def fill(caller):
    """Show made-up journals for as long as there is a place for them; return how many there were."""
    count = 0
    while (status := await new_house().show(caller, 1)) == 200:
        count += 1
    assert status == 503
    return count


async def made_admin(gateway, admin, name="Home Assistant", **how):
    """Pair another one, and let it do everything."""
    other = await gateway.pair(name, **how)
    wanted = {"scopes": sorted(Scope), "issuers": None}
    await admin.put(f"/v1/clients/{other.id}", wanted)
    await gateway.clients.approve()
    return other


async def test_journals_are_known_by_their_keys_and_a_client_has_places_for_a_few(gateway, admin, monkeypatch, caplog):
    monkeypatch.setattr(module, "MOST", 3)
    houses = [new_house() for _ in range(4)]
    assert [await house.show(admin, 2) for house in houses] == [200, 200, 200, 503]
    assert await houses[0].show(admin, 3) == 200
    (said,) = [record for record in caplog.records if record.message == "no_place_for_journal"]
    assert said.facts == {"client": admin.id}


async def test_a_home_assistant_that_was_installed_again_and_again_is_still_witnessed(gateway):
    """Each time it is paired anew, in the place of the one before, and has a journal that nobody knows."""
    houses = []
    for _ in range(2 * module.MOST):
        again = await gateway.pair(replaces=True)
        houses.append(new_house())
        assert await houses[-1].show(again, 2) == 200
    held = [(await ask(again, key=house.key)).json["held"] for house in houses]
    assert held == [house.note(2) for house in houses], "and none of the earlier ones is forgotten"


async def test_a_client_that_was_paired_again_has_new_places(tmp_path):
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        assert await fill(admin) == module.MOST
    async with gateway.reopen() as restarted:
        before = restarted.caller(admin.admission)
        assert await fill(before) == 0, "a restart gives none"
        again = await restarted.pair(replaces=True)
        assert await fill(again) == module.MOST


async def test_who_fills_all_places_takes_none_of_another_client_and_pushes_nothing_out(gateway, admin):
    """An administrator's bearer was stolen: with made-up journals he wants to have another's forgotten."""
    honest, house = await made_admin(gateway, admin), House()
    assert await house.show(honest, 8) == 200
    assert await fill(admin) == module.MOST
    assert await house.show(honest, 6) == 409, "it was set back"
    assert gateway.outcomes[-1] is EventName.WITNESS_REFUSED
    assert await house.show(honest, 9) == 200
    assert await new_house().show(honest, 1) == 200


@pytest.mark.parametrize("how", ["removed by another client", "replaced at the gateway"])
async def test_a_journal_that_is_set_back_while_its_client_is_removed_and_paired_again_is_found_out(tmp_path, how):
    """Who has Home Assistant's key would show it as a journal that nobody has seen."""
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        honest, house = await made_admin(gateway, admin), House()
        assert await house.show(honest, 8) == 200
        if how == "removed by another client":
            assert (await admin.ask("DELETE", f"/v1/clients/{honest.id}")).status == 204
            assert await fill(admin) == module.MOST
            back = await made_admin(gateway, admin)
        else:
            back = await gateway.pair(replaces=True)
        assert await fill(back) == module.MOST
        house.seen = 0
        assert await house.show(back, 6) == 409
        assert gateway.outcomes[-1] is EventName.WITNESS_REFUSED
    async with gateway.reopen() as restarted:
        assert await house.show(restarted.caller(back.admission), 6) == 409


async def test_a_journal_that_somebody_else_shows_stays_in_the_place_of_who_showed_it_first(
    gateway, admin, monkeypatch
):
    """What is held, whoever may read can ask for, and show in his own name."""
    monkeypatch.setattr(module, "MOST", 2)
    honest, house = await made_admin(gateway, admin), House()
    assert await house.show(honest, 8) == 200
    assert await house.show(admin, 8) == 200
    assert await fill(admin) == 2
    assert await fill(honest) == 1
    assert await house.show(admin, 9) == 200, "what is known needs no place"


async def test_what_was_held_before_places_were_counted_is_still_held(tmp_path):
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        await House().show(admin, 8)
        name, noted = gateway.journal._writer.db.execute(
            "SELECT key, value FROM meta WHERE key LIKE 'witness:%'"
        ).fetchone()
        earlier = {key: value for key, value in json.loads(noted).items() if key != "by"}
        await gateway.journal.note({name: json.dumps(earlier)})
    async with gateway.reopen() as again:
        back, house = again.caller(admin.admission), House()
        assert (await ask(back)).json["held"] == house.note(8)
        assert await house.show(back, 7) == 409


@pytest.mark.parametrize(
    "letter, count",
    [("x", 4000), ("\N{LATIN SMALL LETTER E WITH ACUTE}", 4000), ("\N{GRINNING FACE}", 2600)],
)
async def test_a_name_that_is_too_long_for_what_is_held_closes_no_journal(gateway, admin, letter, count):
    """A bearer was stolen. A note that the file does not take is a failure of the store, and stops every door."""
    house = new_house(letter * count)
    body = {"key": str(house.key.verifier), "grown": str(house.grown(1)), "epoch": None}
    said = await admin.put("/v1/witness", json.dumps(body, ensure_ascii=False).encode())
    assert said.status == 400
    assert not gateway.journal.failed
    assert await House().show(admin, 1) == 200


def test_all_that_may_be_held_of_one_journal_fits_into_the_file_however_it_is_spelt():
    wide = "\N{GRINNING FACE}"
    key = SignerKey(wide * 240, Ed25519PrivateKey.generate()).verifier
    longest = wide * (module.MAX_NOTE // len(wide.encode()))
    held = module.Held(key, longest, (longest,) * module.MOST_BEFORE, client_id("0" * 16))
    assert len(module._NOTE.encode(held)) < LONGEST / 2


async def test_what_is_not_signed_by_its_key_is_not_even_looked_at(gateway, admin):
    mine = House()
    stranger = House(SignerKey("vestibule/house", Ed25519PrivateKey.generate()))
    body = {"key": str(KEY.verifier), "grown": str(stranger.grown(2)), "epoch": None}
    assert (await admin.put("/v1/witness", body)).status == 400
    later = KEY.renamed("vestibule/house/epoch/1/2").verifier
    body = {"key": str(later), "grown": str(mine.grown(2)), "epoch": None}
    assert (await admin.put("/v1/witness", body)).status == 400
    assert (await admin.put("/v1/witness", {**body, "more": 1})).status == 400
    assert (await ask(admin)).json["held"] is None


async def test_a_new_epoch_is_held_and_the_end_that_it_names_is_archived(tmp_path, gateway, admin):
    from tests.core.test_witness import Log

    (tmp_path / "house").mkdir()
    async with Log(tmp_path / "house" / "a.db") as log, Log(tmp_path / "house" / "b.db") as restored:
        await log.add(5)
        lost = await log.head()
        shown = {"key": str(IDENTITY.verifier), "grown": str(await log.grown()), "epoch": None}
        assert (await admin.put("/v1/witness", shown)).status == 200
        await restored.add(2)
        shown["grown"] = str(await restored.grown())
        assert (await admin.put("/v1/witness", shown)).status == 409
        await restored.begin_epoch(lost.note)
        shown |= {"grown": str(await restored.grown()), "epoch": str(await restored.epoch_proof())}
        assert (await admin.put("/v1/witness", shown)).status == 200
    kept = json.loads(
        gateway.journal._writer.db.execute("SELECT value FROM meta WHERE key LIKE 'witness:%'").fetchone()[0]
    )
    assert kept["before"] == [lost.note]


# ---- its own journal ----


async def test_its_journal_is_shown_to_go_on_from_whatever_was_seen_of_it(gateway, admin):
    held = None
    for do in ("block", "relock", "block", "relock"):
        await admin.operate(gateway.door, do)
        await gateway.controller.recorded()
        grown = Grown.parse((await ask(admin, held.size if held else 0)).json["grown"])
        seen = witness.look(held, grown, (IDENTITY.verifier,))
        assert seen.finding is Finding.GROWN
        held = seen.shown
    more = Grown.parse((await ask(admin, held.size + 1)).json["grown"])
    assert (more.old, more.note) == (0, held.note), "it never had that many"


async def test_a_cosigned_checkpoint_is_kept_if_the_witness_is_known(gateway, admin):
    note = gateway.journal.checkpoint
    cosigned = cosign(KEY, note, 1_800_000_000)
    assert (await admin.put("/v1/witness/cosigned", {"note": cosigned})).status == 403, "nobody knows who that is"
    await House().show(admin, 1)
    assert (await admin.put("/v1/witness/cosigned", {"note": cosigned})).status == 204
    size = read_head(note, [IDENTITY.verifier]).size
    (kept,) = gateway.journal._writer.db.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
    assert kept == cosigned
    other = cosign(KEY, House().note(3), 1_800_000_000)
    for wrong in (other, "nothing"):
        assert (await admin.put("/v1/witness/cosigned", {"note": wrong})).status == 404


async def test_entries_that_were_dropped_cannot_be_shown(gateway, admin, monkeypatch):
    async def gone(*_):
        from vestibule_core.note import NoteError

        raise NoteError("gone")

    monkeypatch.setattr(receipts, "grown_since", gone)
    assert (await ask(admin, 1)).status == 404


async def test_a_client_that_asks_for_many_proofs_at_once_keeps_no_other_waiting(gateway, admin, monkeypatch):
    """Each of a long journal takes seconds: who may only read must not keep a witness from looking."""
    reader = await gateway.pair("Reader")
    may_go_on, real = asyncio.Event(), receipts.grown_since

    async def slow(journal, old):
        await may_go_on.wait()
        return await real(journal, old)

    monkeypatch.setattr(receipts, "grown_since", slow)
    async with asyncio.TaskGroup() as tasks:
        floods = [tasks.create_task(ask(reader, 1)) for _ in range(10)]
        honest = tasks.create_task(ask(admin, 1))
        async with asyncio.timeout(10):
            for next_turned_away in islice(asyncio.as_completed(floods), 9):
                await next_turned_away
        may_go_on.set()
    assert sorted(each.result().status for each in floods) == [200, *[429] * 9]
    assert honest.result().status == 200
    assert (await ask(reader, 1)).status == 200, "one after the other is possible"


async def test_a_gateway_that_was_set_back_finds_out_by_the_receipt(tmp_path):
    """Its card was copied, and the copy put in after more had happened."""
    async with Gateway(tmp_path) as gateway:
        admin = await gateway.pair()
        await gateway.controller.recorded()
        gateway.journal.close()
        copy = (tmp_path / "journal.db").read_bytes()
    async with gateway.reopen() as again:
        back = again.caller(admin.admission)
        for do in ("block", "relock"):
            await back.operate(again.door, do)
        await again.controller.recorded()
        receipt = again.journal.checkpoint
    (tmp_path / "journal.db").write_bytes(copy)
    async with gateway.reopen() as set_back:
        back = set_back.caller(admin.admission)
        assert (await back.post("/v1/witness/receipt", {"note": receipt})).json == {"disputed": True}
        assert (await back.get("/v1/doors")).json["disputed"]
    async with gateway.reopen() as later:
        assert (await later.caller(admin.admission).get("/v1/doors")).json["disputed"], "a restart is no way out"


async def test_a_note_that_was_changed_on_the_disk_is_not_believed():
    note = House().note(2).replace("\n2\n", "\n3\n")
    with pytest.raises(MalformedMessage, match="not signed"):
        module._read(json.dumps({"key": str(KEY.verifier), "note": note, "before": []}))
