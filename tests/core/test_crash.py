"""At most once, whatever dies: SIGKILL at random, and many callers at once (goals G6 and G8).

The default run is small; the long one makes the figures of the performance table and prints them (``-m long -s``).
"""

import asyncio
import random
from collections import Counter

import pytest

from tests.simulated import Site, pulses_in
from vestibule_core.model import Code, issuer
from vestibule_core.token import spend_id

ISSUER = issuer("https://parcels.example")


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("device_timed", [True, False], ids=["device-timed", "controller-timed"])
def test_crash_at_random_points_of_an_unlock(tmp_path, processes, kills, device_timed):
    """One building, unlocked again and again by processes that are killed. All old tokens are presented after each."""
    chance = random.Random(kills)
    tokens, granted, codes, in_the_middle = [], 0, Counter(), 0
    for number in range(kills):
        report = processes.run(
            "unlock_for_ever",
            folder=tmp_path,
            number=number,
            device_timed=device_timed,
            kill_after=chance.uniform(0, 0.03),
        )
        assert report.killed
        fresh = report.all("token")
        in_the_middle += len(fresh) > len(report.all("code"))
        assert set(report.all("code")) <= {"GRANTED"}
        granted += len(report.all("code"))
        tokens += fresh
        pulses = pulses_in(tmp_path / "pulses")
        again = processes.run("replay", folder=tmp_path, tokens=fresh[-3:], device_timed=device_timed)
        assert again["moved_at_start"] == 0
        assert set(again["codes"]) <= {"ALREADY_SPENT", "NONCE_UNKNOWN"}
        codes.update(again["codes"])
        assert pulses_in(tmp_path / "pulses") == pulses

    last = processes.run("replay", folder=tmp_path, tokens=tokens, device_timed=device_timed)
    assert set(last["codes"]) <= {"ALREADY_SPENT", "NONCE_UNKNOWN"}
    pulses, rows = pulses_in(tmp_path / "pulses"), dict(last["spent"])
    assert len(pulses) == len(set(pulses)), "a token moved the strike twice"
    recorded = {spend_id(ISSUER, jti).hex() for jti in rows}
    assert set(pulses) <= recorded, "the strike moved without a durable record"
    assert "SPENT" not in rows.values(), "every spend has an outcome, if only an unknown one"
    assert granted <= len(pulses) <= len(rows)
    assert len(pulses) > 0
    assert in_the_middle > 0, "no kill came during an unlock"
    print(
        f"\n{kills} kills: {len(tokens)} tokens, {granted} answered, {len(pulses)} pulses, {len(rows)} durable records "
        f"({Counter(rows.values())}), {in_the_middle} killed in the middle of an unlock; replayed: {dict(codes)}"
    )


@pytest.mark.parametrize("tokens", [10, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
async def test_race_of_200_callers_for_each_token(tmp_path, tokens):
    """Each token presented by 200 callers at once, all tokens at once at one door: one pulse per token (G8)."""
    async with Site(tmp_path / "journal.db") as site:
        outcomes = Counter()
        for _ in range(0, tokens, 5):
            texts = [site.token() for _ in range(5)]
            decisions = await asyncio.gather(*(site.present(text) for _ in range(200) for text in texts))
            outcomes.update(decision.code for decision in decisions)
        moved = Counter(pulse.spend_id for pulse in site.strike.pulses)
        assert len(moved) == tokens
        assert set(moved.values()) == {1}
        assert outcomes == {Code.GRANTED: tokens, Code.ALREADY_SPENT: 199 * tokens}
        print(f"\n{tokens} tokens x 200 callers: {len(site.strike.pulses)} pulses, {dict(outcomes)}")
    assert [state for _, state in site.spent()] == ["GRANTED"] * tokens


@pytest.mark.parametrize("device_timed", [True, False], ids=["device-timed", "controller-timed"])
def test_g6_a_lone_unlock_is_synced_exactly_once_before_the_strike_is_told(tmp_path, counted_processes, device_timed):
    """Counted by the operating system's own calls, at the moment when the command arrives at the strike."""
    for number in range(3):  # on a new journal, and on an old one
        report = counted_processes.run("unlock", folder=tmp_path, number=number, device_timed=device_timed)
        at = {line["point"]: line["syncs"] for line in report.said if "point" in line}
        assert at == {"told": 1, "moved": 1}
        assert report["code"] == "GRANTED"


def test_g6_holds_when_the_log_has_just_been_copied_back(tmp_path, counted_processes):
    """The copy costs syncs of its own, outside of any unlock: the next one still has exactly one."""
    report = counted_processes.run("unlocks_with_copies", folder=tmp_path, count=12)
    assert report["copies"] > 2
    assert report["syncs"] == [1] * 12
