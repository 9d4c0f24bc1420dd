"""Somebody between a client and a strike: what is written to RX and notified of TX goes through his hands.

There is no encryption on the radio, so that he may do what he likes. What this module refuses to do: meddle with
anything else of a link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self

from bumble.att import Opcode

from .ether import Fate, Named, Pdu, Radio

_WRITES = (Opcode.ATT_WRITE_REQUEST, Opcode.ATT_WRITE_COMMAND)

type Tap = Callable[[bool, bytes], Sequence[bytes]]
"""Says what goes on in the place of a fragment; the first argument is whether it is for the strike."""


class Middle:
    """Somebody in the middle. Use it in a ``with``.

    ``to_strike`` and ``to_client`` are the fragments that went on. Verbs: ``tap`` is whatever he makes of a fragment;
    ``hold`` and ``release``; ``inject``.
    """

    def __init__(self, radio: Radio, client: Named, rx: int, tx: int) -> None:
        """``rx`` and ``tx`` are the handles of both characteristics."""
        self.tap: Tap = lambda to_strike, fragment: [fragment]
        self.to_strike: list[bytes] = []
        self.to_client: list[bytes] = []
        self._radio, self._client, self._rx, self._tx = radio, client, rx, tx
        self._air = ExitStack()
        self._ether = self._air.enter_context(radio.tap(client, "gate"))
        self._ether.rewrite(self._rewritten)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Be there no more; what he holds goes on, if there is still a link for it."""
        self._air.close()

    def hold(self) -> None:
        """Keep what is written to the strike next, and whatever follows it on the same link."""
        held = []

        def decide(pdu: Pdu) -> Fate:
            if held or not self._is_for_rx(pdu):
                return Fate.DELIVER
            held.append(pdu)
            return Fate.HOLD

        self._ether.decide(decide)

    def release(self) -> None:
        """Let go of it."""
        self._ether.decide(lambda _: Fate.DELIVER)
        self._ether.release()

    def inject(self, *fragments: bytes) -> None:
        """Let the client hear these, as if the strike had notified them."""
        for fragment in fragments:
            packet = bytes([Opcode.ATT_HANDLE_VALUE_NOTIFICATION]) + self._tx.to_bytes(2, "little") + fragment
            self._radio.forge("gate", self._client, packet)

    def _is_for_rx(self, pdu: Pdu) -> bool:
        return pdu.opcode in _WRITES and int.from_bytes(pdu.raw[1:3], "little") == self._rx

    def _rewritten(self, pdu: Pdu) -> list[bytes]:
        header, value = pdu.raw[:3], pdu.raw[3:]
        if self._is_for_rx(pdu):
            changed = self.tap(True, value)
            self.to_strike += changed
            # One response is expected: whatever he writes besides is a command.
            commands = [bytes([Opcode.ATT_WRITE_COMMAND]) + header[1:]] * (len(changed) - 1)
            return [begin + one for begin, one in zip([*commands, header], changed, strict=False)]
        if pdu.opcode == Opcode.ATT_HANDLE_VALUE_NOTIFICATION and int.from_bytes(header[1:], "little") == self._tx:
            changed = self.tap(False, value)
            self.to_client += changed
            return [header + one for one in changed]
        return [pdu.raw]
