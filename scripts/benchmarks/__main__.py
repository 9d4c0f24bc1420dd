"""Print the table of goals; name goals to measure only those."""

from __future__ import annotations

import argparse

from . import (
    carrier_decision,
    carrier_links,
    carrier_load,
    decisions,
    durable,
    gateway_beside,
    gateway_load,
    gateway_rates,
    gateway_start,
    gateway_streams,
    history,
    live,
)
from .table import machine

PARTS = (
    (("G1", "G2", "G3"), decisions.measure),
    (("G4",), gateway_rates.accepts_per_second),
    (("G5",), gateway_rates.slow_disk),
    (("G6",), durable.syncs_of_an_unlock),
    (("G6",), gateway_rates.syncs_of_an_unlock),
    (("G8",), durable.races_and_kills),
    (("G8",), gateway_rates.races),
    (("G9",), history.accepts),
    (("G10",), history.memory),
    (("G10",), gateway_streams.memory),
    (("G11",), live.unlock_by_token),
    (("G12",), live.lock_to_strike),
    (("G13",), gateway_beside.while_a_recorder_commits),
    (("G14",), live.many_accesses),
    (("G15",), live.start_and_memory),
    (("G15",), gateway_start.readiness),
    (("G16",), gateway_rates.fresh_connections),
    (("G18",), gateway_streams.events_at_many),
    (("G19",), history.verification),
    (("Load",), gateway_load.good_token_in_a_flood),
    (("Dead",), gateway_beside.dead_board),
    (("Dead",), gateway_beside.dead_gateway),
    (("Decision",), carrier_decision.cost),
    (("Links",), carrier_links.connected),
    (("Replicas",), carrier_load.under_load),
)


def main() -> None:
    """Measure and print."""
    known = sorted({goal for goals, _ in PARTS for goal in goals}, key=lambda goal: (len(goal), goal))
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("goal", nargs="*", help=f"of {', '.join(known)}; default: all")
    wanted = set(parser.parse_args().goal) or set(known)
    if unknown := wanted - set(known):
        parser.error(f"no such goal: {', '.join(sorted(unknown))}")
    print(f"Measured on {machine()}.\n")
    print("| goal | what | measured | limit | met |\n|---|---|---|---|---|")
    for goals, measure in PARTS:
        if wanted & set(goals):
            for row in measure():
                if row.goal in wanted:
                    print(row, flush=True)


if __name__ == "__main__":
    main()
