"""What was accepted, held against what the carrier says that it issued: attack 70, and the way back from it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from homeassistant.core import HomeAssistant

from custom_components.vestibule import link
from custom_components.vestibule.const import JOURNAL_FILE
from tests.integration.site import Site
from tests.integration.test_link import Clock, clock, cloud, linked, site, until
from tests.integration.test_repairs import Repairs, repairs, texts
from tests.link_cloud import DAY, Key, LinkCloud

__all__ = ["clock", "cloud", "repairs", "site"]  # fixtures

pytestmark = pytest.mark.usefixtures("socket_enabled")

LOCKED_OUT = ("access_denied", "CARRIER_LOCKED_OUT")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look all the time."""
    assert (link.LOOK_EVERY, link.APART) == (300, 0.2)
    monkeypatch.setattr(link, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(link, "APART", 0.01)


def today(clock: Clock) -> date:
    return datetime.fromtimestamp(clock.now, UTC).date()


def next_day(clock: Clock) -> date:
    """Let it be twenty past midnight; return the day that is over."""
    over = today(clock)
    midnight = datetime(over.year, over.month, over.day, tzinfo=UTC) + timedelta(days=1)
    clock.tick(midnight.timestamp() + 1200 - clock.now)
    return over


async def send_list(cloud: LinkCloud, day: date, jtis: Iterable[str], **members: Any) -> None:
    connection = await cloud.linked()
    text = cloud.issued(connection.hello["ctl"], list(jtis), day=day, **members)
    await connection.say(type="issued", list=text)


async def listed(site: Site, cloud: LinkCloud, day: date, jtis: Iterable[str]) -> None:
    """Send a day's list, and wait until it was read."""
    await send_list(cloud, day, jtis)
    await until(lambda: site.embedded.links.newest_list(cloud.issuer) == day)


async def shown(repairs: Repairs) -> set[str]:
    return {issue["translation_key"] for issue in (await repairs.listed()).values()}


async def until_shown(repairs: Repairs, *kinds: str) -> None:
    async with asyncio.timeout(30):
        while await shown(repairs) != {*kinds}:  # noqa: ASYNC110 - as an eye on the page would
            await asyncio.sleep(0.02)


@pytest.fixture
async def stolen(hass: HomeAssistant, site: Site, cloud: LinkCloud, clock: Clock, repairs: Repairs) -> date:
    """A token was accepted that the carrier has not issued, and its list of that day, which is returned, says so."""
    assert (await cloud.deliver(site.door))["word"] == "granted"
    day = next_day(clock)
    await send_list(cloud, day, ["A" * 22])
    await until_shown(repairs, "carrier_never_issued")
    return day


@pytest.fixture
async def locked_out(hass: HomeAssistant, site: Site, cloud: LinkCloud, clock: Clock, stolen: date) -> date:
    """It was still missing a day later."""
    clock.tick(DAY + 1)
    await until(lambda: site.embedded.links.locked_out == {cloud.issuer})
    return stolen


async def test_what_was_issued_is_no_repair(site, cloud, clock, repairs):
    jtis = []
    for _ in range(3):
        await cloud.deliver(site.door)
        jtis.append(cloud.jti)
    await listed(site, cloud, next_day(clock), jtis)
    clock.tick(DAY + 1)
    await until_shown(repairs)


async def test_a_token_that_was_never_issued_is_told_of_and_its_list_asked_for_again(
    site, cloud, clock, repairs, stolen
):
    """Attack 70."""
    connection = await cloud.linked()
    await cloud.until(lambda: connection.asked_lists == [stolen.isoformat()])
    (issue,) = (await repairs.listed()).values()
    assert "Swift" in texts(issue)
    assert issue["severity"] == "error"
    assert (await cloud.deliver(site.door))["word"] == "granted", "it is not locked out yet"
    clock.tick(3601)
    await cloud.until(lambda: connection.asked_lists[1:] == [stolen.isoformat()])


async def test_a_list_that_has_it_after_all_ends_the_alarm(site, cloud, clock, repairs, stolen):
    clock.tick(5)
    await send_list(cloud, stolen, [cloud.jti])
    await until_shown(repairs)
    clock.tick(DAY + 1)
    assert (await cloud.deliver(site.door))["word"] == "granted"


async def test_a_carrier_that_did_not_issue_what_was_accepted_is_locked_out_a_day_later(
    hass, site, cloud, relay, repairs, locked_out
):
    """Attack 70."""
    outcome = await cloud.deliver(site.door)
    assert (outcome["word"], outcome["code"]) == ("refused", "CARRIER_LOCKED_OUT")
    await site.settle()
    assert LOCKED_OUT in site.outcomes()
    assert relay.told == ["on"], "of before"
    await until_shown(repairs, "carrier_locked_out", "carrier_never_issued")
    told = [event.data for event in site.events if event.data["outcome"] == "carrier_locked_out"]
    assert [event["carrier"] for event in told] == ["Swift"]


async def test_nothing_of_a_carrier_that_is_locked_out_opens_whichever_way_it_comes(site, cloud, relay, locked_out):
    token = cloud.token(site.door, await site.challenge())
    assert (await site.present(token))["code"] == "CARRIER_LOCKED_OUT"
    assert relay.told == ["on"], "of before"


async def test_a_token_under_way_when_its_carrier_is_locked_out_opens_nothing(site, cloud, clock, relay, stolen):
    answer = await cloud.challenge(site.door)
    clock.tick(DAY + 1)
    await until(lambda: site.embedded.links.locked_out)
    outcome = await cloud.unlock(cloud.token(site.door, answer["non"]))
    assert outcome["word"] == "refused"
    assert relay.told == ["on"], "of before"


async def test_the_lock_out_survives_a_restart(hass, site, cloud, relay, locked_out):
    await hass.config_entries.async_reload(site.entry.entry_id)
    assert site.embedded.controller.building.carriers[cloud.issuer].locked_out, "from the first moment on"
    await linked(site, cloud, 2)
    assert (await cloud.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT"
    assert relay.told == ["on"], "of before"


async def test_the_alarm_and_its_time_survive_a_restart(hass, site, cloud, clock, repairs, stolen):
    clock.tick(DAY - 600)
    await hass.config_entries.async_reload(site.entry.entry_id)
    await linked(site, cloud, 2)
    await until_shown(repairs, "carrier_never_issued")
    clock.tick(601)
    await until(lambda: site.embedded.links.locked_out == {cloud.issuer})


async def test_a_list_that_comes_too_late_does_not_let_it_in_again(site, cloud, repairs, locked_out):
    await send_list(cloud, locked_out, [cloud.jti])
    await until_shown(repairs, "carrier_locked_out")
    assert (await cloud.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT"


async def test_an_administrator_lets_it_in_again_in_his_own_name(
    hass, site, cloud, relay, repairs, locked_out, hass_admin_user
):
    await until_shown(repairs, "carrier_locked_out", "carrier_never_issued")
    issue_id = f"carrier_locked_out_{site.subentry('Swift').subentry_id}"
    form = await repairs.open(issue_id)
    assert form.type == "form"
    done = await repairs.confirm(form)
    assert done.type == "create_entry"
    await until_shown(repairs)
    assert (await cloud.deliver(site.door))["word"] == "granted"
    await site.settle()
    (event,) = [event for event in site.events if event.data["outcome"] == "carrier_approved"]
    assert (event.data["carrier"], event.context.user_id) == ("Swift", hass_admin_user.id)
    assert relay.told == ["on", "on"]


async def test_that_it_was_let_in_again_survives_a_restart(hass, site, cloud, repairs, locked_out):
    await until_shown(repairs, "carrier_locked_out", "carrier_never_issued")
    await repairs.confirm(await repairs.open(f"carrier_locked_out_{site.subentry('Swift').subentry_id}"))
    await hass.config_entries.async_reload(site.entry.entry_id)
    await linked(site, cloud, 2)
    assert (await cloud.deliver(site.door))["word"] == "granted"


async def test_a_lock_out_harms_no_other_carrier(hass, site, cloud, relay, locked_out):
    async with LinkCloud("https://slow.example", "Slow") as other:
        site.add_linked_carrier("Slow", other)
        await linked(site, other)
        assert (await other.deliver(site.door))["word"] == "granted"
        assert (await cloud.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT"
        site.remove("Slow")
        await hass.async_block_till_done()


async def test_a_token_of_the_last_second_of_a_day_is_in_the_list_of_that_day(site, cloud, clock, repairs):
    """Attack 70: 23:59:59 of the issuer's clock, presented after midnight of ours."""
    next_day(clock)
    over = today(clock) - timedelta(days=1)
    last = int(datetime(today(clock).year, today(clock).month, today(clock).day, tzinfo=UTC).timestamp()) - 1
    claims = {"chk": {"drv": "passkey", "rte": "r", "gps": {"d": 1, "acc": 1, "age": 1}, "req": last - 2}}
    assert (await cloud.deliver(site.door, iat=last, exp=last + 120, **claims))["word"] == "granted"
    before = cloud.jti
    assert (await cloud.deliver(site.door))["word"] == "granted", "of the next day: in tomorrow's list"
    await listed(site, cloud, over, [before])
    await until_shown(repairs)
    await listed(site, cloud, next_day(clock), [cloud.jti])
    clock.tick(DAY + 1)
    await until_shown(repairs)


async def test_a_list_that_is_withheld_is_told_after_two_days_and_locks_nobody_out(site, cloud, clock, repairs):
    """Attack 70."""
    await cloud.deliver(site.door)
    clock.tick(2 * DAY - 60)
    await asyncio.sleep(0.1)
    assert await shown(repairs) == set()
    clock.tick(120)
    await until_shown(repairs, "carrier_no_list")
    assert (await cloud.deliver(site.door))["word"] == "granted"
    clock.tick(2 * DAY)
    await asyncio.sleep(0.1)
    assert site.embedded.links.locked_out == frozenset()
    assert (await cloud.deliver(site.door))["word"] == "granted"


async def test_half_a_list_says_nothing_of_what_is_not_in_it(site, cloud, clock, repairs):
    await cloud.deliver(site.door)
    day = next_day(clock)
    at = int(clock.now) - 60
    await send_list(cloud, day, ["A" * 22], parts=2, iat=at)
    await asyncio.sleep(0.2)
    assert await shown(repairs) == set()
    await send_list(cloud, day, [cloud.jti], parts=2, part=1, iat=at)
    await until(lambda: site.embedded.links.newest_list(cloud.issuer) == day)
    await until_shown(repairs)


@pytest.mark.parametrize(
    "members",
    [
        {"by": Key()},
        {"iss": "https://slow.example"},
        {"ctl": "vestibule/other+1234abcd+AUtPT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P"},
    ],
    ids=["another key", "another issuer", "another controller"],
)
async def test_a_list_that_is_not_the_carriers_for_this_building_counts_for_nothing(
    site, cloud, clock, repairs, members
):
    await cloud.deliver(site.door)
    await send_list(cloud, next_day(clock), ["A" * 22], **members)
    await asyncio.sleep(0.2)
    assert await shown(repairs) == set()
    assert site.embedded.links.newest_list(cloud.issuer) is None
    assert (await cloud.deliver(site.door))["word"] == "granted", "and the link stands"


async def test_a_key_that_signs_tokens_signs_no_list(site, cloud, clock, repairs, stolen):
    """The thief of a signing key cannot hide what he did."""
    await send_list(cloud, stolen, [cloud.jti], by=cloud.signing)
    await asyncio.sleep(0.2)
    assert await shown(repairs) == {"carrier_never_issued"}


async def test_a_carrier_that_was_deleted_and_added_anew_is_not_locked_out(hass, site, cloud, repairs, locked_out):
    site.remove("Swift")
    await until_shown(repairs)
    await until(lambda: not site.embedded.links.locked_out)
    site.add_linked_carrier("Swift", cloud)
    await linked(site, cloud, 2)
    assert (await cloud.deliver(site.door))["word"] == "granted"


async def test_what_a_newer_version_noted_locks_the_carrier_out_until_somebody_looks(hass, site, cloud, repairs):
    await hass.config_entries.async_unload(site.entry.entry_id)
    with closing(sqlite3.connect(hass.config.path(".storage", JOURNAL_FILE))) as journal, journal:
        written = journal.execute("UPDATE meta SET value = '{}' WHERE key = ?", (f"link:{cloud.issuer}",))
        assert written.rowcount == 1
    assert await hass.config_entries.async_setup(site.entry.entry_id)
    await linked(site, cloud, 2)
    assert (await cloud.deliver(site.door))["code"] == "CARRIER_LOCKED_OUT"
    await until_shown(repairs, "carrier_locked_out")
    await repairs.confirm(await repairs.open(f"carrier_locked_out_{site.subentry('Swift').subentry_id}"))
    assert (await cloud.deliver(site.door))["word"] == "granted"
