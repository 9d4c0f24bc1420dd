"""Controllers in processes of their own, which can be killed at any point of a backup.

The jobs of tests/core/crash_process.py, for the journal's part in a backup of Home Assistant.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.core import crash_process as core
from tests.simulated import pulses_in
from vestibule_core.journal import COPIED
from vestibule_core.model import EventName


class _Watched:
    """A database connection that tells which step of a backup is passing."""

    def __init__(self, db: Any, passing: Callable[[str], None]) -> None:
        self._db = db
        self._passing = passing

    def execute(self, sql: str, *parameters: Any) -> Any:
        result = self._db.execute(sql, *parameters)
        if "wal_checkpoint" in sql:
            self._passing("log emptied")
        elif parameters and parameters[0][0] == COPIED:
            self._passing("note taken back" if sql.startswith("DELETE") else "note written")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@core._job
async def back_up(say: core.Say, folder: str, kill_at: str) -> None:
    """Open once, begin a backup, open once more, end it, and die at the named point, or stop in good order."""

    def passing(point: str) -> None:
        if point == kill_at:
            core._die()

    site = core._site(folder)
    async with site:

        async def unlock() -> None:
            site.clock.advance(60)
            text = site.token()
            assert (await site.present(text)).granted
            await site.controller.recorded()
            say(token=text, at=max(event.at for event in site.events))

        await unlock()
        site.journal._writer.db = _Watched(site.journal._writer.db, passing)  # type: ignore[assignment]
        passing("not begun")
        await site.journal.begin_copy()
        passing("begun")
        await unlock()
        passing("opened meanwhile")
        if kill_at == "stopped":
            return
        await site.journal.end_copy()
        passing("ended")


@core._job
async def begin(say: core.Say, folder: str, tokens: list[str], dies: bool = False, confirms: bool = False) -> None:
    """Start after that, say what is told at the start, present the old tokens, and die or end."""
    pulses = pulses_in(Path(folder) / "pulses")
    site = core._site(folder)
    async with site:
        by_hand = site.controller.by_hand
        say(restored=by_hand.restored, upto=by_hand.restored_upto, disputed=by_hand.disputed)
        await site.controller.recorded()
        told = [event.outcome for event in site.events]
        say(lines=told.count(EventName.JOURNAL_RESTORED), epochs=told.count(EventName.EPOCH_BEGUN))
        say(codes=[(await site.present(text)).code for text in tokens])
        if confirms:
            say(confirmed=(await by_hand.confirm_restore(core.ADMINISTRATOR)).code)
        say(fresh=(await site.present(site.token(jti=secrets.token_urlsafe(16)))).code)
        await site.controller.recorded()
        say(pulses=len(pulses_in(Path(folder) / "pulses")) - len(pulses))
        if dies:
            core._die()


if __name__ == "__main__":
    core.main()
