"""Home Assistant and a gateway as each other's witnesses: what was once in a journal cannot be taken out unseen.

Home Assistant keeps the newest checkpoint that it saw of the gateway's journal, and has the gateway keep one of the
building's. If either journal does not go on from what the other side holds, tokens are refused there until an
administrator has looked (protocol D). What this file refuses to do: cosign what is not yet on the disk, or forget a
checkpoint because its journal does not go on from it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.storage import Store
from homeassistant.util import dt as dt_util

from .const import DOMAIN
from .embedded import loaded_building
from .vestibule_core import receipts
from .vestibule_core.api.messages import Shown, Witnessed
from .vestibule_core.cosignature import cosign
from .vestibule_core.epoch import Head, read_head
from .vestibule_core.errors import (
    GatewayForbidden,
    GatewayImpostor,
    GatewayRefused,
    GatewayUnreachable,
    JournalMoved,
    MalformedMessage,
    StoreFailed,
)
from .vestibule_core.evidence import Broken
from .vestibule_core.journal import Journal
from .vestibule_core.note import NoteError, VerifierKey
from .vestibule_core.proof import EntryProof
from .vestibule_core.witness import Finding, look

if TYPE_CHECKING:
    from .remote import Remote

_LOGGER = logging.getLogger(__name__)

LOOK_EVERY: Final = 60.0
"""Seconds between two looks while the journals grow."""
MOST_BEFORE: Final = 16
"""Ends of earlier journals that are kept of a gateway."""


class Trouble(StrEnum):
    """Why an administrator has to look at a gateway's journal."""

    BEHIND = "behind"
    """It ends before an entry that it had."""
    FORKED = "forked"
    """It has other entries than it had, or does not show that it has the same."""
    GAP = "gap"
    """Entries were left out of what it told."""


_TROUBLE: Final = {Finding.BEHIND: Trouble.BEHIND, Finding.FORKED: Trouble.FORKED}


class Witness:
    """Of one gateway that is loaded."""

    def __init__(self, hass: HomeAssistant, remote: Remote, store: Store[dict[str, Any]], kept: dict[str, Any]) -> None:
        """Use ``Witness.open``."""
        self._hass = hass
        self._remote = remote
        self._store = store
        self._key = remote.key
        self.trouble = Trouble(kept["trouble"]) if kept.get("trouble") else None
        """Why an administrator has to look; None: there is no reason."""
        self.note: str | None = kept.get("note")
        """The newest checkpoint that was seen of the gateway's journal, signed by it."""
        self.before: list[str] = kept.get("before", [])
        """The ends of journals that an administrator has let go of."""
        self.failing_since: float | None = None
        """When looking began to fail although the gateway was there (monotonic seconds, less those in which it was
        away); None: it does not fail now.
        """
        self._failed_for = 0.0
        """Seconds for which it had failed when the gateway went away: going does not begin anew."""
        self._looked_under_earlier_keys = False
        self._shown: str | None = None
        """The building's checkpoint that the gateway has cosigned last."""
        self._due = asyncio.Event()
        self._looking = asyncio.Lock()

    @classmethod
    async def open(cls, hass: HomeAssistant, remote: Remote) -> Self:
        """Go on with what was kept."""
        store = witness_store(hass, remote.id)
        kept = await store.async_load() or {}
        if (note := kept.get("note")) is not None:
            try:
                read_head(note, (remote.key,))
            except NoteError:  # it was paired again, with a new key
                _LOGGER.warning("%s has another key than before: what was seen of its journal is archived", remote.name)
                kept |= {"note": None, "before": [*kept["before"], note][-MOST_BEFORE:]}
        return cls(hass, remote, store, kept)

    @callback
    def look_soon(self) -> None:
        """Look at both journals now."""
        self._due.set()

    async def keep(self) -> None:
        """Look whenever one of the journals has grown, until cancelled."""
        while True:
            is_due = self._due.is_set()  # it may have been set back, and written on to the same size
            self._due.clear()
            if self._remote.is_there and (is_due or self._has_grown()):
                async with self._looking:
                    await self._look()
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._due.wait()
            except TimeoutError:
                pass

    @callback
    def lost(self) -> None:
        """The gateway is away: that it shows nothing meanwhile is no failure of its own, and what was one stays so."""
        if self.failing_since is not None:
            self._failed_for = monotonic() - self.failing_since
            self.failing_since = None

    @callback
    def missing(self, first: int, last: int) -> None:
        """Note that the gateway has left out entries ``first`` to ``last`` of what it told."""
        _LOGGER.error("%s did not tell of its entries %s to %s", self._remote.name, first, last)
        if self.trouble is None:
            self.trouble = Trouble.GAP
            self._store.async_delay_save(self._to_keep)
            self._remote.notify()

    async def tell(self) -> None:
        """Show the gateway what it signed once, so that a new epoch names it. Raises what the client raises."""
        if self.trouble in (Trouble.BEHIND, Trouble.FORKED) and self.note is not None:
            with suppress(GatewayRefused, MalformedMessage):  # it cannot tell any more
                await self._remote.client.dispute(self.note)

    async def accept(self) -> None:
        """Go on with the gateway's journal as it is: an administrator has looked. What was held of it is archived."""
        async with self._looking:  # what is being looked at is still held against what was held before
            if self.trouble in (Trouble.BEHIND, Trouble.FORKED) and self.note is not None:
                self.before = [*self.before, self.note][-MOST_BEFORE:]
                self.note = None
            self.trouble = None
            await self._save()
        self._remote.notify()
        self.look_soon()

    # ---- looking ----

    @property
    def _journal(self) -> Journal | None:
        """The building's journal, while that is loaded."""
        building = loaded_building(self._hass)
        return None if building is None or building.controller.stopped else building.journal

    @property
    def _head(self) -> Head | None:
        return None if self.note is None else read_head(self.note, (self._key,))

    def _has_grown(self) -> bool:
        journal, head = self._journal, self._head
        if self.trouble is not None or head is None or head.size != self._remote.standing.newest:
            return True
        if journal is None or journal.checkpoint is None:
            return False
        # One that was cosigned before the journal was opened has its witnesses' lines behind its own.
        return self._shown is None or not journal.checkpoint.startswith(self._shown)

    async def _look(self) -> None:
        journal, head = self._journal, self._head
        ours = self._key if journal is None else journal.signer.verifier
        try:
            witnessed = await self._ask(head, ours)
            if witnessed is not None:
                try:
                    if journal is not None:
                        await self._show(journal, witnessed.held)
                finally:  # a gateway that does not cosign is looked at all the same
                    await self._see(head, witnessed)
            if journal is not None and not self._looked_under_earlier_keys:
                await self._look_under_earlier_keys(journal)
        except (GatewayUnreachable, GatewayImpostor, GatewayForbidden, GatewayRefused, MalformedMessage) as err:
            _LOGGER.debug("%s could not be witnessed: %s", self._remote.name, err)  # it is tried again
            self._note_failing()
        except StoreFailed, Broken, JournalMoved:  # the building's journal, which says so itself
            pass
        except Exception:
            _LOGGER.exception("A bug of Vestibule keeps %s from being witnessed", self._remote.name)
            self._note_failing()
        else:
            self._failed_for = 0.0
            if self.failing_since is not None:
                self.failing_since = None
                self._remote.notify()

    @callback
    def _note_failing(self) -> None:
        if self.failing_since is None and self._remote.is_there:
            self.failing_since = monotonic() - self._failed_for

    async def _look_under_earlier_keys(self, journal: Journal) -> None:
        """Hold the building's journal against what was seen of it while it had another key.

        Whoever sets it back and has its key go missing would otherwise begin anew with a new one. An earlier key signs
        no more, so once is enough.
        """
        header = await journal.header()
        own = journal.signer.verifier
        for key in {str(key): key for key in header.keys if key.name == own.name and key != own}.values():
            held = (await self._remote.client.witnessed(0, key)).held
            try:
                if held is not None and (disputed := await receipts.disputed_by(journal, held)) is not None:
                    self._dispute_ours(disputed)
            except NoteError as err:
                _LOGGER.warning("What %s holds of the building's journal proves nothing: %s", self._remote.name, err)
        self._looked_under_earlier_keys = True

    async def _ask(self, head: Head | None, ours: VerifierKey) -> Witnessed | None:
        """Return what the gateway shows; None: it cannot show that its journal goes on."""
        try:
            return await self._remote.client.witnessed(head.size if head else 0, ours)
        except GatewayRefused as err:
            if err.status != 404 or head is None:
                raise
            await self._find(Finding.FORKED, head)
            return None

    async def _see(self, head: Head | None, witnessed: Witnessed) -> None:
        """Look at how the gateway's journal has grown; hold its end and cosign that, or say what is wrong."""
        if (grown := witnessed.grown) is None:
            if head is not None:
                await self._find(Finding.BEHIND, head)
            return
        try:
            shown = read_head(grown.note, (self._key,))
            proof = await self._proof_of_epoch(shown) if head is not None and shown.epoch > head.epoch else None
            seen = look(head, grown, (self._key,), proof)
        except NoteError as err:
            raise MalformedMessage(str(err)) from err
        if seen.finding is Finding.ASK_AGAIN:
            return
        if seen.finding in _TROUBLE:
            assert head is not None
            await self._find(seen.finding, head)
            return
        if seen.finding is Finding.NEW_EPOCH and self.note is not None:
            _LOGGER.warning("%s goes on as a new epoch, which somebody has confirmed", self._remote.name)
            self.before = [*self.before, self.note][-MOST_BEFORE:]
        if self.trouble is not Trouble.GAP:  # of that only an administrator knows
            self.trouble = None
        if seen.shown.note != self.note:
            self.note = seen.shown.note
            await self._save()  # before it is cosigned: it must not be forgotten afterwards
        is_let_go = any(note.partition("\n")[0] == shown.checkpoint.origin for note in self.before)
        # What does not go on from what was cosigned under the same name is held, and never cosigned.
        if (journal := self._journal) is not None and self._shown is not None and not is_let_go:
            at = int(dt_util.utcnow().timestamp())
            await self._remote.client.cosigned(cosign(journal.signer, seen.shown.note, at))
        self._remote.notify()

    async def _proof_of_epoch(self, shown: Head) -> EntryProof | None:
        try:
            return await self._remote.client.proof(shown.epoch.first)
        except GatewayRefused as err:
            if err.status != 404:  # it is busy: nothing follows from that
                raise
            return None

    async def _find(self, finding: Finding, head: Head) -> None:
        """Keep what is wrong, and show the gateway what it signed once: it refuses tokens by itself then."""
        if self.trouble not in (_TROUBLE[finding], Trouble.GAP):  # a gap stays, also when its journal goes on again
            _LOGGER.error("The journal of %s does not go on from entry %s: %s", self._remote.name, head.size, finding)
            self.trouble = _TROUBLE[finding]
            await self._save()
            self._remote.notify()
        await self._remote.client.dispute(head.note)

    async def _show(self, journal: Journal, held: str | None) -> None:
        """Have the gateway cosign the building's journal, or find that this is not what the gateway holds of it."""
        if held is not None:
            try:
                disputed = await receipts.disputed_by(journal, held)
            except NoteError as err:  # forged, or about what was dropped after its time: it proves nothing
                _LOGGER.warning("What %s holds of the building's journal proves nothing: %s", self._remote.name, err)
                return
            if disputed is not None:
                self._dispute_ours(disputed)
                return
        newest = await receipts.newest_head(journal)
        if newest is None or newest.note == self._shown:
            return
        try:
            read_head(newest.note, (journal.signer.verifier,))
        except NoteError:  # it got a new key, which has signed nothing yet
            return
        before = read_head(held, (journal.signer.verifier,)) if held is not None else None
        is_new = before is not None and before.epoch != newest.epoch
        try:
            epoch = await receipts.first_of_epoch(journal) if is_new else None
            grown = await receipts.grown_since(journal, before.size if before is not None else 0)
        except NoteError:
            return
        if grown is None and is_new:
            grown = await receipts.grown_since(journal, 0)
        if grown is None or read_head(grown.note, (journal.signer.verifier,)).epoch != newest.epoch:
            return  # a new epoch began meanwhile: the next look is about that
        is_forked = look(before, grown, (journal.signer.verifier,), epoch).finding is Finding.FORKED
        if before is not None and is_forked:  # it was away when an epoch was begun, which names other ends than this
            self._dispute_ours(before.note)
            return
        signed = await self._remote.client.show(Shown(journal.signer.verifier, grown, epoch))
        try:
            await journal.cosigned(signed.note)
        except NoteError as err:
            raise MalformedMessage(str(err)) from err
        self._shown = grown.note

    @callback
    def _dispute_ours(self, held: str) -> None:
        if (building := loaded_building(self._hass)) is not None:
            building.controller.by_hand.dispute(held)

    # ---- keeping ----

    async def _save(self) -> None:
        await self._store.async_save(self._to_keep())

    @callback
    def _to_keep(self) -> dict[str, Any]:
        return {"note": self.note, "before": self.before, "trouble": self.trouble}


def witness_store(hass: HomeAssistant, gateway: str) -> Store[dict[str, Any]]:
    """Return where it is kept what was seen of a gateway's journal."""
    return Store(hass, 1, f"{DOMAIN}.witness.{gateway}", atomic_writes=True)


async def async_replace(hass: HomeAssistant, old: str, new: str) -> None:
    """Archive what was held of gateway ``old``, in whose place is ``new``."""
    kept = await witness_store(hass, old).async_load()
    if kept is None:
        return
    before = [*kept.get("before", []), *([kept["note"]] if kept.get("note") else [])][-MOST_BEFORE:]
    await witness_store(hass, new).async_save({"note": None, "before": before, "trouble": None})
    await witness_store(hass, old).async_remove()
