"""A strike on the radio that can lose its power between any two things that it does.

The points are made around the production code. What this module refuses to do: anything else than the real strike
before that (tests/gateway/strike/strikes.py).
"""

from __future__ import annotations

from pathlib import Path

from gateway.strike.relay import Relay
from tests.core.doorstrike.bench import PowerCut
from tests.gateway.strike.strikes import Gate
from vestibule_core.doorstrike.effects import Effect, HoldRelay, StartPulse
from vestibule_core.doorstrike.peripheral import Peripheral

from .ether import Radio


class FragileGate(Gate):
    """A strike in this process that can be held.

    ``effects_left``: power is cut when that many effects have been performed. ``releases``: the seconds of each release
    that the relay was told and did, HOLD as infinity.
    """

    def __init__(self, radio: Radio, folder: Path) -> None:
        super().__init__(radio, folder, longest=10.0, hold=True)
        self.effects_left: int | None = None
        self.releases: list[float] = []
        self._has_power = False

    @property
    def relay(self) -> Relay:
        return self.box.shell._relay

    @property
    def is_released(self) -> bool:
        return self.relay._output.read()

    @property
    def machine(self) -> Peripheral | None:
        """The protocol's machine; None without power."""
        return self.box.shell._machine if self._has_power else None

    async def power_up(self) -> None:
        await super().power_up()
        self._has_power = True
        shell = self.box.shell
        perform = shell._perform

        def perform_unless_cut(effect: Effect) -> bool | None:
            if self.effects_left == 0:
                self.effects_left = None
                self.lose_power()
            if not self._has_power:
                raise PowerCut
            if self.effects_left is not None:
                self.effects_left -= 1
            answer = perform(effect)
            if answer and isinstance(effect, StartPulse | HoldRelay):
                self.releases.append(effect.seconds if isinstance(effect, StartPulse) else float("inf"))
            return answer

        shell._perform = perform_unless_cut  # type: ignore[method-assign]

    async def cut_power(self) -> None:
        """Cut it, or clear away what is left after it was cut."""
        self.lose_power()
        if self._stack is not None:
            failed = self.box.shell.failed
            assert not failed.done() or isinstance(failed.exception(), PowerCut)
            await super().cut_power()

    def lose_power(self) -> None:
        """At once: whatever the strike was about to do, or had given to its radio, does not happen."""
        if self._has_power:
            self._has_power = False
            self.box.shell._machine = None
            self.relay.off()
            self.radio.cut_power("gate")
            self.box.gone.set_result(None)

    def check_releases(self) -> None:
        """What the relay was told is what it did, and no release was longer than it was to be."""
        assert len(self.releases) == self.pulses
        ends, releases = None, iter(self.releases)
        for word, at in self.moves:
            assert ends is None or at <= ends + 0.002, "its log is in milliseconds"
            ends = at + next(releases) if word == "on" else None
