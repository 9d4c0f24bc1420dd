"""Whether all sides counted the same: who presented, what was spent, what moved, and what was told on the bus.

Everything has been stopped by now. The journals are read as an auditor reads them, the relays' logs and Home
Assistant's recorder from their files.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.demo_home.home import REPOSITORY
from vestibule_core.evidence import read_header, read_runs
from vestibule_core.leaf import Leaf
from vestibule_core.model import Code, Word
from vestibule_core.schema import look

from .site import Site
from .traffic import NO_ANSWER, TURNED_AWAY, Presented, Traffic
from .witness import Listener, source_of

UNRECORDED: Final = 12.0
"""Seconds before a kill of Home Assistant from which its recorder may lack events of the building's own journal."""
NEWS_AGAIN: Final = 3
"""Events that a kill may have told as news once more: those of a tenth of a second."""


@dataclass
class Judgement:
    """What was found."""

    said: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note what is wrong unless it holds."""
        if not holds:
            self.wrong.append(otherwise)


def verify(journal: Path) -> tuple[bool, str]:
    """Return whether a journal that nobody writes to holds, by the command of auditors, and what that says."""
    command = [sys.executable, "-m", "gateway", "journal", "verify", str(journal)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).strip().partition("\n")[0]


def judge(site: Site, traffic: Traffic, listener: Listener, kills: list[float], ended: float) -> Judgement:
    """Compare everything; ``kills``: when Home Assistant was killed, ``ended``: for good; in seconds since 1970."""
    found = Judgement(wrong=list(traffic.wrong))
    leaves = {source: _leaves(path) for source, path in site.journals.items()}
    for source, path in site.journals.items():
        holds, what = verify(path)
        found.said.append(f"{source}'s journal: {len(leaves[source])} entries, {what}")
        found.expect(holds, f"the {source}'s journal does not hold: {what}")
    _tokens(site, traffic.presented, found)
    _relays(site, [leaf for of in leaves.values() for leaf in of], found)
    _told(site, leaves, listener, kills, ended, found)
    return found


def _leaves(journal: Path) -> list[Leaf]:
    with look(journal) as db:
        header = read_header(db)
        return [entry.leaf for run in read_runs(db, header) for entry in run.entries()]


def _tokens(site: Site, presented: list[Presented], found: Judgement) -> None:
    spent: dict[str, str] = {}
    for journal in site.journals.values():
        with contextlib.closing(sqlite3.connect(journal)) as db:
            rows = db.execute("SELECT jti, state FROM spent").fetchall()
        for jti, state in rows:
            found.expect(jti not in spent, "a token was spent by two controllers")
            spent[jti] = state
    by_id = {token.jti: token for token in presented}
    found.expect(spent.keys() <= by_id.keys(), "something was spent that nobody presented")
    counts: Counter[str] = Counter()
    for jti, token in by_id.items():
        state, words = spent.get(jti), token.words
        counts["granted"] += (granted := "granted" in words)
        counts["not told"] += (unknown := not granted and bool({Word.UNKNOWN_OUTCOME, NO_ANSWER} & set(words)))
        if granted:
            found.expect(state == "GRANTED", f"a token that was granted is {state or 'not spent'}")
        elif state is not None:
            found.expect(unknown or state == "FAILED", f"a token is spent ({state}), and what was said is {words}")
        if set(words) == {TURNED_AWAY}:
            found.expect(state is None, "a token is spent that was not looked at")
    states = ", ".join(f"{number} {state}" for state, number in sorted(Counter(spent.values()).items()))
    found.said.append(
        f"tokens: {len(presented)} made, {counts['granted']} granted, {counts['not told']} whose outcome was not "
        f"told; spent {len(spent)} ({states})"
    )
    found.expect(counts["granted"] <= len(spent) <= counts["granted"] + counts["not told"] + _count(spent, "FAILED"),
                 "more tokens are spent than were granted or not answered")  # fmt: skip
    found.expect(counts["granted"] > 0, "no token was granted")


def _count(spent: dict[str, str], state: str) -> int:
    return sum(each == state for each in spent.values())


def _relays(site: Site, leaves: list[Leaf], found: Judgement) -> None:
    for door in site.doors:
        kinds = Counter(leaf.kind for leaf in leaves if leaf.door == door.id and leaf.code in (None, "GRANTED"))
        moves, recorded = door.moves(), kinds["access_granted"] + kinds["door_unlocked"]
        found.said.append(
            f"{door.name}: {kinds['access_granted']} granted and {kinds['door_unlocked']} times held open, "
            f"{kinds['door_released']} released, the relay moved {moves} times"
        )
        found.expect(moves <= recorded, f"{door.name}: the relay moved {moves} times for {recorded} records")
        found.expect(
            kinds["door_released"] <= moves, f"{door.name}: released {kinds['door_released']} times, moved {moves}"
        )


def _told(
    site: Site, leaves: dict[str, list[Leaf]], listener: Listener, kills: list[float], ended: float, found: Judgement
) -> None:
    recorded = _recorded(site.home.folder / "home-assistant_v2.db")
    for source, entries in leaves.items():
        at = {leaf.sequence: leaf.at for leaf in entries if leaf.at < ended}
        heard = [
            [event for event in connection if source_of(event) == source and event["sequence"] is not None]
            for connection in listener.connections
        ]
        for connection in heard:
            numbers = [event["sequence"] for event in connection]
            whole = list(range(numbers[0], numbers[0] + len(numbers))) if numbers else []
            found.expect(
                numbers == whole, f"{source}: not told once and in order on one connection, from {numbers[:1]}"
            )
        in_recorder = [event for event in recorded if source_of(event) == source and event["sequence"] is not None]
        first = min(event["sequence"] for event in in_recorder)
        due = set(range(first, max(at) + 1))
        told = Counter(event["sequence"] for event in in_recorder)
        live = Counter(event["sequence"] for connection in heard for event in connection)
        missing = due - told.keys()
        found.expect(first <= 3, f"{source}: the first event that was told is {first}")
        found.expect(
            told.keys() <= {leaf.sequence for leaf in entries},
            f"{source}: something was told that is not in the journal",
        )
        if source == "building":  # what is told as it happens, and is not yet recorded when Home Assistant is killed
            late = {number for number in missing if any(0 <= kill - at[number] < UNRECORDED for kill in kills)}
            # Its recorder ends before the last callers are turned away.
            late |= missing & {leaf.sequence for leaf in entries if leaf.code == Code.STOPPING}
            missing -= late
        else:
            late = set()
        news = Counter(event["sequence"] for event in in_recorder if not event.get("late"))
        again = sum(times - 1 for times in news.values())
        found.said.append(
            f"{source}'s events: {len(due)} due, {sum(live.values())} heard live, {sum(told.values())} recorded, "
            f"{sum(times - 1 for times in told.values())} of them told again ({again} as news), "
            f"{len(late)} lost by the recorder with a kill or a stop"
        )
        found.expect(not missing, f"{source}: never recorded: {sorted(missing)[:10]}, {len(missing)} in all")
        found.expect(again <= NEWS_AGAIN * len(kills), f"{source}: {again} events were told as news twice")


def _recorded(path: Path) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as recorder:
        rows = recorder.execute(
            "SELECT shared_data FROM events JOIN event_types USING (event_type_id) JOIN event_data USING (data_id)"
            " WHERE event_types.event_type = 'vestibule_access' ORDER BY event_id"
        ).fetchall()
    return [json.loads(data) for (data,) in rows]
