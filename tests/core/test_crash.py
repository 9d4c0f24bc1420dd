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
            kill_after=chance.uniform(0, 0.03) if number else 1.0,  # once long enough for a slow disk
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


# ---- what is shut stays shut ----

SHUT = [
    # what was done before, what is asked for, what is so once it is committed, what was so before
    ([], "lockdown", {"mode": "locked_down", "locked_down": True}, {"mode": "normal", "locked_down": False}),
    (["block"], "lockdown", {"mode": "locked_down", "locked_down": True}, {"mode": "blocked", "locked_down": False}),
    (["lockdown"], "lift", {"mode": "normal", "locked_down": False}, {"mode": "locked_down", "locked_down": True}),
    (["block", "lockdown"], "lift", {"mode": "blocked"}, {"mode": "locked_down"}),
    ([], "block", {"mode": "blocked"}, {"mode": "normal"}),
    (["block"], "normal", {"mode": "normal"}, {"mode": "blocked"}),
    (["unlock"], "block", {"mode": "blocked"}, {"mode": "normal"}),
    ([], "no deliveries", {"deliveries": False}, {"deliveries": True}),
    (["no deliveries"], "deliveries", {"deliveries": True}, {"deliveries": False}),
    ([], "tamper", {"tampered": True}, {"tampered": False}),
    (["tamper"], "clear tamper", {"tampered": False}, {"tampered": True}),
]
STEPS = ["asked", "note: written", "note: before COMMIT", "note: after COMMIT", "confirmed"]


@pytest.mark.parametrize("first, what, after, before", SHUT, ids=[" and ".join([*row[0], row[1]]) for row in SHUT])
@pytest.mark.parametrize("step", STEPS)
def test_crash_at_every_step_of_an_order(tmp_path, processes, step, first, what, after, before):
    """Before the COMMIT nothing is confirmed and nothing has changed; from the COMMIT on it is so after a restart."""
    report = processes.run("order", folder=tmp_path, first=first, what=what, kill_at=step)
    assert report.killed
    assert bool(report.all("confirmed")) is (step == "confirmed")
    committed = STEPS.index(step) >= STEPS.index("note: after COMMIT")
    found = processes.run("look", folder=tmp_path)
    assert {name: found[name] for name in after} == (after if committed else before)
    shut = {"locked_down": "LOCKDOWN", "blocked": "DOOR_BLOCKED"}.get(found["mode"])
    assert found["by_hand"] == (shut or "GRANTED")
    told = shut or ("GRANTED" if found["deliveries"] else "DELIVERIES_OFF")
    assert found["token"] == ("TAMPERED" if found["tampered"] else told)
    assert found["pulses"] == 0, "nothing is released at start"


HOLDING = [
    # killed at, how often the strike is put back at the next start, sentence
    ("asked", 0, "nothing has happened"),
    ("note: before COMMIT", 0, "the strike was not told: nothing is to be ended"),
    ("note: after COMMIT", 1, "it may have been told"),
    ("told", 1, "it was told"),
    ("moved", 1, "it holds, and nobody was told"),
    ("held", 1, "it was confirmed to a process that died of it"),
    ("confirmed", 1, "it was held open on purpose, and that ends with the process"),
]


@pytest.mark.parametrize("step, secured, sentence", HOLDING, ids=[row[0] for row in HOLDING])
def test_crash_at_every_step_of_a_hold_ends_it(tmp_path, processes, step, secured, sentence):
    """`unlocked` does not survive: at the next start the strike is put back, and the door is normal."""
    assert processes.run("order", folder=tmp_path, first=[], what="unlock", kill_at=step).killed
    found = processes.run("look", folder=tmp_path)
    assert (found["secured"], found["holds"], found["pulses"]) == (secured, 0, 0)
    assert found["mode"] == "normal"
    assert processes.run("look", folder=tmp_path)["secured"] == 0, "once is enough"


@pytest.mark.parametrize("step", ["told to secure", "secured"])
def test_crash_while_a_hold_is_ended_ends_it_again(tmp_path, processes, step):
    report = processes.run("order", folder=tmp_path, first=["unlock"], what="normal", kill_at=step)
    assert report.killed
    found = processes.run("look", folder=tmp_path)
    assert (found["secured"], found["mode"]) == (1, "normal")


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_crash_at_random_points_of_many_orders(tmp_path, processes, kills):
    """Whatever was confirmed last is so after the restart; what was asked for last and not confirmed may be."""
    chance = random.Random(kills)
    after_lockdown, deliveries, locked_down = "normal", True, False
    for number in range(kills):
        report = processes.run("orders_for_ever", folder=tmp_path, seed=number, kill_after=chance.uniform(0, 0.03))
        assert report.killed
        asked, answered = report.all("asked"), report.all("answered")
        possible = []
        for count in {len(answered), len(asked)}:  # the last one is there or not
            state = [after_lockdown, deliveries, locked_down]
            for what, code in zip(asked[:count], [*answered, "GRANTED"], strict=False):
                if code == "GRANTED":
                    _do(what, state)
            possible.append(state)
        found = processes.run("look", folder=tmp_path)
        mode = [found["mode"]] if not found["locked_down"] else [state[0] for state in possible]
        assert any(
            [shown, found["deliveries"], found["locked_down"]] == state for state in possible for shown in mode
        ), (report.said, found.said)
        assert (found["locked_down"]) is (found["mode"] == "locked_down")
        assert (found["holds"], found["pulses"]) == (0, 0)
        deliveries, locked_down = found["deliveries"], found["locked_down"]
        if not locked_down:
            after_lockdown = found["mode"]
        elif len(possible) == 2 and possible[0][0] != possible[1][0]:
            processes.run("order", folder=tmp_path, first=[], what="lift")
            locked_down, after_lockdown = False, processes.run("look", folder=tmp_path)["mode"]
        else:
            after_lockdown = possible[0][0]


def _do(what, state):
    """Do to [mode without a lockdown, deliveries, locked down] what an order that was granted does."""
    match what:
        case "lockdown" | "lift":
            state[2] = what == "lockdown"
        case "deliveries" | "no deliveries":
            state[1] = what == "deliveries"
        case _:  # no hold outlives its process
            state[0] = "blocked" if what == "block" else "normal"


# ---- many at once ----


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
