"""Print the table of goals; name goals to measure only those."""

from __future__ import annotations

import argparse

from . import decisions, durable, history, live
from .table import machine

PARTS = {
    ("G1", "G2", "G3"): decisions.measure,
    ("G6",): durable.syncs_of_an_unlock,
    ("G8",): durable.races_and_kills,
    ("G9",): history.accepts,
    ("G10",): history.memory,
    ("G11",): live.unlock_by_token,
    ("G12",): live.lock_to_strike,
    ("G14",): live.many_accesses,
    ("G15",): live.start_and_memory,
    ("G19",): history.verification,
}


def main() -> None:
    """Measure and print."""
    known = sorted(goal for goals in PARTS for goal in goals)
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("goal", nargs="*", help=f"of {', '.join(known)}; default: all")
    wanted = set(parser.parse_args().goal) or set(known)
    if unknown := wanted - set(known):
        parser.error(f"no such goal: {', '.join(sorted(unknown))}")
    print(f"Measured on {machine()}.\n")
    print("| goal | what | measured | limit | met |\n|---|---|---|---|---|")
    for goals, measure in PARTS.items():
        if wanted & set(goals):
            for row in measure():
                if row.goal in wanted:
                    print(row, flush=True)


if __name__ == "__main__":
    main()
