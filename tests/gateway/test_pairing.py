"""The pairing window: one code, one nonce, ten minutes, one attempt a second, one success."""

import asyncio
import os

import pytest

from gateway.clients import TooManyClients
from gateway.pairing import OPEN_FOR, NoWindow, TooSoon, Window
from tests.gateway.at_work import GATEWAY_ID, Disk
from tests.gateway.test_clients import Desk
from tests.simulated import IDENTITY
from vestibule_core.api import pairing
from vestibule_core.errors import StoreFailed, Violation

FINGERPRINT = bytes(range(32))


class Room(Desk):
    """A gateway that can be paired with, and nothing else."""

    async def __aenter__(self):
        await super().__aenter__()
        self.window = Window(GATEWAY_ID, FINGERPRINT, clock=self.clock)
        return self

    def applicant(self, code, *, nonce=None, fingerprint=FINGERPRINT, gateway=GATEWAY_ID):
        nonce = nonce or self.window.nonce
        return pairing.Applicant(pairing.read_code(code), gateway, nonce, fingerprint, os.urandom(32))

    async def admit(self, body):
        return (await self.window.admit(body, self.clients, IDENTITY.verifier, "Parcel room")).answer

    async def refused(self, body):
        """Refused, and no client was made; a second passes."""
        with pytest.raises(Violation):
            await self.admit(body)
        assert self.clients.registry.clients == ()
        self.clock.advance(1)


@pytest.fixture
async def room(tmp_path):
    async with Room(tmp_path / "journal.db") as room:
        yield room


async def test_who_knows_the_code_is_paired(room):
    code = room.window.open(replaces=False, trusts=False)
    assert room.window.seconds_left == OPEN_FOR
    applicant = room.applicant(code)
    admission = applicant.second(await room.admit(applicant.first("Home Assistant")))
    assert room.clients.registry.holder(admission.token).name == "Home Assistant"
    assert (admission.name, admission.gateway_key) == ("Parcel room", IDENTITY.verifier)
    assert room.window.paired.id == admission.client_id


async def test_nobody_is_paired_without_a_window(room):
    assert (room.window.nonce, room.window.seconds_left) == (None, None)
    with pytest.raises(NoWindow):
        await room.admit(b"")


async def test_one_success_closes_the_window(room):
    code = room.window.open(replaces=False, trusts=False)
    one, other = room.applicant(code), room.applicant(code)
    await room.admit(one.first("One"))
    assert room.window.nonce is None
    room.clock.advance(1)
    with pytest.raises(NoWindow):
        await room.admit(other.first("Other"))
    assert len(room.clients.registry.clients) == 1


async def test_also_while_the_first_one_is_still_written(room):
    code = room.window.open(replaces=False, trusts=False)
    one, other = room.applicant(code), room.applicant(code)
    disk = Disk(room.journal)
    disk.stall()
    pairing_one = asyncio.create_task(room.admit(one.first("One")))
    await asyncio.sleep(0)
    room.clock.advance(1)
    with pytest.raises(NoWindow):
        await room.admit(other.first("Other"))
    disk.go_on()
    await pairing_one


async def test_it_closes_by_itself_after_ten_minutes_of_boot_time(room):
    code = room.window.open(replaces=False, trusts=False)
    first = room.applicant(code).first("Late")
    room.clock.set_wall(by=-3600)
    room.clock.advance(OPEN_FOR - 1)
    assert room.window.seconds_left == 1
    room.clock.advance(1)
    assert room.window.nonce is None
    with pytest.raises(NoWindow):
        await room.admit(first)


async def test_it_can_be_closed(room):
    room.window.open(replaces=False, trusts=False)
    room.window.close()
    assert room.window.nonce is None
    room.window.close()


async def test_one_attempt_a_second_whoever_makes_it(room):
    code = room.window.open(replaces=False, trusts=False)
    with pytest.raises(Violation):
        await room.admit(bytes(100))
    right = room.applicant(code)
    first = right.first("Home Assistant")
    room.clock.advance(0.9)
    with pytest.raises(TooSoon):
        await room.admit(first)
    room.clock.advance(0.1)
    assert right.second(await room.admit(first)).name == "Parcel room"


async def test_a_wrong_code_leaves_the_window_open(room):
    code = room.window.open(replaces=False, trusts=False)
    for _ in range(20):
        await room.refused(room.applicant("0" * 20).first("Home Assistant"))
    right = room.applicant(code)
    assert right.second(await room.admit(right.first("Home Assistant"))).token


async def test_what_is_no_first_message_is_refused(room):
    code = room.window.open(replaces=False, trusts=False)
    good = room.applicant(code).first("Home Assistant")
    for body in (b"", bytes(32), bytes(48), good[:-1], good + b"x", good[:40] + bytes([good[40] ^ 1]) + good[41:]):
        await room.refused(body)
    await room.refused(bytes(2000))
    await room.refused(room.applicant(code).first("Two\nlines"))
    await room.refused(room.applicant(code).first(""))
    await room.refused(room.applicant(code).first("x" * 65))


async def test_another_window_has_another_code_and_another_nonce(room):
    first_code = room.window.open(replaces=False, trusts=False)
    first_nonce = room.window.nonce
    again = room.window.open(replaces=False, trusts=False)
    assert again != first_code
    assert room.window.nonce != first_nonce
    await room.refused(room.applicant(first_code).first("Home Assistant"))
    await room.refused(room.applicant(again, nonce=first_nonce).first("Home Assistant"))


async def test_who_opened_the_window_says_whether_others_are_replaced_and_whether_it_trusts(room):
    for replaces, trusts, trusted, left in [
        (False, False, False, ["One"]),
        (False, True, True, ["One", "Two"]),
        (True, False, False, ["Three"]),
    ]:
        code = room.window.open(replaces=replaces, trusts=trusts)
        applicant = room.applicant(code)
        admission = applicant.second(await room.admit(applicant.first(left[-1])))
        assert admission.trusted is trusted
        assert sorted(client.name for client in room.clients.registry.clients) == sorted(left)
        room.clock.advance(1)


async def test_a_journal_that_fails_pairs_nobody_and_the_code_is_used_up(room):
    code = room.window.open(replaces=False, trusts=False)
    Disk(room.journal).fails = True
    with pytest.raises(StoreFailed):
        await room.admit(room.applicant(code).first("Home Assistant"))
    assert room.clients.registry.clients == ()
    assert (room.window.nonce, room.window.paired) == (None, None)


async def test_when_there_are_too_many_nobody_is_paired(room, monkeypatch):
    monkeypatch.setattr("gateway.clients.MAX_CLIENTS", 1)
    await room.pair()
    code = room.window.open(replaces=False, trusts=False)
    with pytest.raises(TooManyClients):
        await room.admit(room.applicant(code).first("One more"))
    assert len(room.clients.registry.clients) == 1
