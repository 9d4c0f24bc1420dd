"""One connection to a strike at work: the client's end (client.py) on a GATT link.

Time comes from a clock that is handed in, packets go out in order from one task, and whatever the client says is told
to whoever made the connection, in order. What it refuses to do: know how a link comes about, or reconnect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from ..errors import OutcomeUnknown, StrikeUnreachable  # noqa: TID252 - the core is imported relatively
from ..model import Now  # noqa: TID252
from .client import Answered, Client, Ended, Ending, Greeted, Output, Paired, Write
from .wire import Caps, Command, Hello

_LOGGER = logging.getLogger(__name__)

HANG_UP_TIME: Final = 2.0
"""Seconds that a link may take to close before nobody waits for it any more."""

REASONS: Final = {
    Ending.LINK_LOST: "the connection was lost",
    Ending.NO_HELLO: "it is connected but does not answer: restart the strike",
    Ending.OTHER_STRIKE: "another strike answers at its address: pair it again if it was replaced",
    Ending.VERSION: "it speaks another version of the protocol: update Vestibule or the strike",
    Ending.STALE: "the connection was not used in time",
    Ending.REFUSED: "it refused the key: pair it again if it stays so",
    Ending.NO_ANSWER: "it did not answer in time",
    Ending.VIOLATION: "it answered something that is not its own: somebody may be interfering, or it needs an update",
    Ending.RENEW: "the connection is being renewed",
    Ending.CLOSED: "the connection was closed",
}
"""Why a strike cannot be asked any more, in words for a person."""


class GattLink(Protocol):
    """One connection to a strike's service. Every exception of the stack beneath is a StrikeUnreachable here."""

    @property
    def size(self) -> int:
        """Bytes of a write without response (ATT_MTU - 3)."""
        ...

    async def subscribe(self, notified: Callable[[bytes], None]) -> None:
        """Call ``notified`` in the event loop with each notification of TX, also with one that comes at once."""
        ...

    async def write(self, fragment: bytes, *, with_response: bool) -> None:
        """Write to RX."""
        ...

    async def close(self) -> None:
        """Disconnect; may be repeated."""
        ...


class StrikeRadio(Protocol):
    """How one strike is reached: Home Assistant's Bluetooth stack, plain bleak, a test's memory."""

    async def connect(self, lost: Callable[[], None]) -> GattLink:
        """Connect; call ``lost`` in the event loop when the link is gone. Cancelled, it leaves no link behind.

        Raises StrikeUnreachable with a reason that a person can read.
        """
        ...


class Connection:
    """One connection, from ``open`` to ``close``."""

    def __init__(
        self,
        paired: Paired,
        *,
        keep: bool,
        hear: Callable[[Output], None],
        clock: Callable[[], Now],
        random: Callable[[int], bytes],
    ) -> None:
        """``hear`` is called with whatever the client says besides what it writes."""
        self.paired = paired
        self.proven = False
        """The strike has proved its key, and answers."""
        self.caps: Caps | None = None
        """What HELLO says of the strike; true once it is proven."""
        self.users = 0
        """How many are using it: it is not to be closed for want of use."""
        self.needed_until = 0.0
        """Somebody will want it until then, in the clock's boot seconds."""
        self.lingers_until: float | None = None
        """A pulse is expected to be over by then."""
        self.began = 0.0
        """When it was about to subscribe."""
        self.news = asyncio.Event()
        """Set whenever something has happened."""
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._keep, self._hear, self._clock, self._random = keep, hear, clock, random
        self._link: GattLink | None = None
        self._client: Client | None = None
        self._greeted = asyncio.Event()
        self._subscribed = False
        self._was_lost = False
        self._turn = asyncio.Lock()
        self._asked = False
        self._answer: asyncio.Future[Answered | None] | None = None
        self._outbox: asyncio.Queue[Write] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._hang_up: asyncio.Task[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether the strike has greeted and the connection is not over."""
        return self._greeted.is_set() and not self.ended.done()

    @property
    def said(self) -> Hello | None:
        """What whoever answered says of itself, also if it is another strike. Nothing of it is proved."""
        return None if self._client is None else self._client.said

    async def open(self, radio: StrikeRadio) -> None:
        """Connect, subscribe and wait for the strike's HELLO; raise StrikeUnreachable."""
        self._link = await radio.connect(self._lost)
        try:
            # Before the subscription is written: the strike's time may start with it.
            self.began = self._clock().boot
            self._client = Client(self.paired, self._link.size, self._random, self.began, keep=self._keep)
            self._writer = asyncio.get_running_loop().create_task(self._write(self._link, self._client))
            if self._was_lost:
                self._take(self._client.lost())
            else:
                await self._link.subscribe(self._notified)
            # Not before: a strike hangs up on whoever asks for HELLO without having subscribed.
            self._subscribed = True
            self._arm()
            await self._greeted.wait()
            self._raise_if_ended()
        except BaseException:
            await self.close()
            raise

    async def ask(self, command: Command, body: bytes = b"", *, sent: Callable[[], None] = lambda: None) -> Answered:
        """Ask one thing after the other and return the answer. ``sent`` is called when there is no way back.

        Raises StrikeUnreachable (the strike was not told) or OutcomeUnknown (it may have been).
        """
        async with self._turn:
            assert self._client is not None
            if self._asked or (self.proven and not self._client.ready):
                await self._answered()  # to what somebody asked who has gone, or to a PING
            self._raise_if_ended()
            outputs = self._client.command(command, self._clock().boot, body)
            self._asked = True
            sent()
            self._take(outputs)
            answer = await self._answered()
            if answer is None:
                raise OutcomeUnknown(REASONS[self.ended.result().ending])
            return answer

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep it from being closed for want of use."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.news.set()

    async def close(self) -> None:
        """End it, and return when the link is closed, or does not want to be. May be repeated."""
        if self._client is not None:
            self._take(self._client.close())
        if self._hang_up is not None:
            await asyncio.wait({self._hang_up})
        elif self._link is not None:
            await self._close_link(self._link)

    # ---- what the radio says ----

    def _lost(self) -> None:
        self._was_lost = True
        if self._client is not None:
            self._take(self._client.lost())

    def _notified(self, fragment: bytes) -> None:
        assert self._client is not None
        self._take(self._client.notified(fragment, self._clock().boot))

    def _elapsed(self) -> None:
        assert self._client is not None
        self._take(self._client.elapsed(self._clock().boot))

    # ---- what the client says ----

    def _take(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Write():
                    self._outbox.put_nowait(output)
                    continue
                case Greeted(hello):
                    self.caps = hello.caps
                    self._greeted.set()
                case Answered():
                    self.proven = True
                    self._asked = False
                    self._resolve(output)
                case Ended():
                    self._end(output)
            self._hear(output)
            self.news.set()
        self._arm()

    def _end(self, ended: Ended) -> None:
        assert self._link is not None
        self.ended.set_result(ended)
        self._greeted.set()
        self._resolve(None)
        self._hang_up = asyncio.get_running_loop().create_task(self._close_link(self._link))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._subscribed and self._client is not None and (due := self._client.due) is not None:
            left = max(0.0, due - self._clock().boot)
            self._timer = asyncio.get_running_loop().call_later(left, self._elapsed)

    # ---- waiting ----

    async def _answered(self) -> Answered | None:
        """Wait for the next answer; None: it is over."""
        if self.ended.done():
            return None
        self._answer = asyncio.get_running_loop().create_future()
        return await self._answer

    def _resolve(self, answer: Answered | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _raise_if_ended(self) -> None:
        if self.ended.done():
            raise StrikeUnreachable(REASONS[self.ended.result().ending])

    # ---- the link ----

    async def _write(self, link: GattLink, client: Client) -> None:
        try:
            while True:
                write = await self._outbox.get()
                await link.write(write.fragment, with_response=write.with_response)
        except StrikeUnreachable as error:
            _LOGGER.debug("A write failed: %s", error)
        finally:
            self._take(client.lost())

    async def _close_link(self, link: GattLink) -> None:
        if self._writer is not None and self._writer is not asyncio.current_task():
            self._writer.cancel()
            await asyncio.wait({self._writer})
            if not self._writer.cancelled() and (error := self._writer.exception()) is not None:
                _LOGGER.error("Writing to a strike failed in an unforeseen way", exc_info=error)
        with suppress(TimeoutError, StrikeUnreachable):
            async with asyncio.timeout(HANG_UP_TIME):
                await link.close()
