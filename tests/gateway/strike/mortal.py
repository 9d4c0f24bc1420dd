"""A strike that kills itself at a point of an unlock, for ``GateProcess.die_at``; otherwise the real command.

The points are made here, around the production code, and counted from 0: one before each effect, from those of the
unlock to those of the pulse's end, and a second one inside of each effect that is a write, when the new piece is half
on the disk and has not taken the old one's place. The file ``die_at`` beside the configuration says which; if there is
none, it lives. It advertises more often than the real strike, as it is looked for again after each death. What this
module refuses to do: anything else than the real strike before that.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.__main__ import main
from gateway.strike import air
from gateway.strike.shell import Shell
from vestibule_core.doorstrike.effects import Effect, Persist, StartPulse

from .strikes import OFTEN


class _Mortal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count: int | None = None
        self.perform_all, self.perform = Shell._perform_all, Shell._perform

    def all_of_them(self, shell: Shell, effects: Sequence[Effect]) -> None:
        if any(isinstance(effect, StartPulse) for effect in effects) and (self.folder / "die_at").exists():
            self.count = 0
        self.perform_all(shell, effects)

    def passing(self) -> None:
        assert self.count is not None
        if self.count == int((self.folder / "die_at").read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def one(self, shell: Shell, effect: Effect) -> bool | None:
        if self.count is not None:
            self.passing()
            if isinstance(effect, Persist):
                half = effect.contents[: len(effect.contents) // 2]
                (self.folder / "state" / f"{effect.part}.new").write_bytes(half)
                self.passing()
        return self.perform(shell, effect)


if __name__ == "__main__":
    mortal = _Mortal(Path(sys.argv[sys.argv.index("--config") + 1]).parent)
    Shell._perform_all = lambda shell, effects: mortal.all_of_them(shell, effects)  # type: ignore[method-assign]
    Shell._perform = lambda shell, effect: mortal.one(shell, effect)  # type: ignore[method-assign]
    air.INTERVAL = OFTEN  # type: ignore[misc]
    sys.exit(main())
