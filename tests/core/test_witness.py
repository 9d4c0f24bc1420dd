"""A witness holds on to what it has seen: what it is shown next goes on from that, or is not cosigned."""

import asyncio
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import IDENTITY, open_journal, some_doors
from vestibule_core import receipts, witness
from vestibule_core.cosignature import cosign
from vestibule_core.epoch import Epoch, Head, read_head
from vestibule_core.errors import Refused
from vestibule_core.evidence import RUN
from vestibule_core.merkle import Tree
from vestibule_core.model import AccessEvent, Code, EventName
from vestibule_core.note import Checkpoint, NoteError, SignerKey
from vestibule_core.proof import EntryProof
from vestibule_core.witness import Finding, Grown, Look, look
from vestibule_core.writer import SPARSE

KEY = IDENTITY.verifier
DOOR = some_doors(1)[0].id


class Log:
    """A journal that can be set back and written on otherwise."""

    def __init__(self, path):
        self.path = path
        self.journal = None

    async def __aenter__(self):
        self.journal = await asyncio.to_thread(open_journal, self.path)
        self.journal.start(lambda _: None)
        return self

    async def __aexit__(self, *_):
        await asyncio.to_thread(self.journal.close)

    async def add(self, count=1, at=1.8e9):
        for number in range(count):
            await self.journal.append(AccessEvent(outcome=EventName.DOOR_OPENED, door=DOOR, at=at + number))

    async def head(self):
        return await receipts.newest_head(self.journal)

    async def grown(self, old=0):
        return await receipts.grown_since(self.journal, old)

    async def begin_epoch(self, *seen):
        event = AccessEvent(outcome=EventName.EPOCH_BEGUN, door=None, at=1.8e9)
        return await self.journal.begin_epoch(event, None, {}, list(seen))

    async def epoch_proof(self):
        return await receipts.first_of_epoch(self.journal)


@pytest.fixture
async def log(tmp_path):
    async with Log(tmp_path / "journal.db") as log:
        yield log


@pytest.fixture
async def other(tmp_path):
    """The same journal as it would have been if something else had happened from the beginning."""
    async with Log(tmp_path / "other.db") as log:
        yield log


async def finding(held, log, old=None, keys=(KEY,)):
    grown = await log.grown(held.size if old is None else old) or await log.grown()
    return look(held, grown, keys, await log.epoch_proof()).finding


# ---- what goes on ----


async def test_what_is_seen_first_is_held(log):
    await log.add(3)
    assert look(None, await log.grown(), (KEY,)) == Look(Finding.GROWN, await log.head())


@pytest.mark.parametrize("more", [0, 1, 2, 3, 7, 20])
async def test_a_journal_that_has_grown_goes_on(log, more):
    await log.add(5)
    held = await log.head()
    await log.add(more)
    assert await finding(held, log) is Finding.GROWN


async def test_growth_is_proved_from_any_size(log):
    heads = []
    for _ in range(9):
        await log.add()
        heads.append(await log.head())
    for held in heads:
        assert await finding(held, log) is Finding.GROWN


async def test_a_long_journal_is_proved_from_its_anchor_and_from_before_it(log):
    async def several(count):
        await asyncio.gather(*(log.add() for _ in range(count)))

    await log.add(7)
    first = await log.head()
    await several(2 * SPARSE)
    middle = await log.head()
    await several(SPARSE + RUN)
    assert (await log.journal.anchor()).size > first.size
    for held in (first, middle):
        assert await finding(held, log) is Finding.GROWN


async def test_a_proof_about_another_size_says_nothing(log):
    await log.add(4)
    held = await log.head()
    await log.add(4)
    assert await finding(held, log, old=3) is Finding.ASK_AGAIN


async def test_there_is_no_growth_of_nothing_nor_from_more_than_there_is(log):
    assert await log.grown() is None
    assert await log.head() is None
    assert await log.epoch_proof() is None
    await log.add(2)
    assert await log.grown(3) is None


# ---- what does not ----


async def test_row_68_a_checkpoint_with_a_lower_size_is_not_cosigned(log, other):
    await log.add(5)
    held = await log.head()
    await other.add(4)
    assert await finding(held, other) is Finding.BEHIND


async def test_row_68_the_same_size_and_another_root_is_not_cosigned(log, other):
    await log.add(5)
    held = await log.head()
    await other.add(5, at=1.7e9)
    assert await finding(held, other) is Finding.FORKED


@pytest.mark.parametrize("size", [6, 8, 9])
async def test_row_68_a_longer_journal_with_another_beginning_is_not_cosigned(log, other, size):
    await log.add(5)
    held = await log.head()
    await other.add(size, at=1.7e9)
    assert await finding(held, other) is Finding.FORKED


async def test_a_proof_with_a_changed_hash_is_none(log):
    await log.add(5)
    held = await log.head()
    await log.add(6)
    grown = await log.grown(held.size)
    for place in range(len(grown.path)):
        path = list(grown.path)
        path[place] = bytes(32)
        assert look(held, replace(grown, path=tuple(path)), (KEY,)).finding is Finding.FORKED


async def test_what_is_not_signed_is_nobodys_word(log):
    await log.add(2)
    grown = await log.grown()
    forged = grown.note.replace("\n2\n", "\n3\n", 1)
    with pytest.raises(NoteError):
        look(await log.head(), replace(grown, note=forged), (KEY,))


# ---- epochs ----


async def test_a_confirmed_rollback_is_a_new_epoch_whose_first_entry_names_what_was_known(log, other):
    await log.add(5)
    lost = await log.head()
    await other.add(3, at=1.7e9)
    begun = await other.begin_epoch(lost.note)
    assert begun.sequence == 4
    head = await other.head()
    assert head.epoch == Epoch(1, 4)
    entry, _ = (await other.epoch_proof()).check([replace(KEY, name=head.checkpoint.origin)])
    assert entry.leaf.heads[-1] == lost.words
    assert len(entry.leaf.heads) == 2, "and its own end"
    await other.add(20)
    assert await finding(lost, other) is Finding.NEW_EPOCH
    assert await finding(head, other) is Finding.GROWN


async def test_a_new_epoch_that_names_somebody_elses_end_does_not_go_on(log, other):
    await log.add(5)
    held = await log.head()
    await other.add(3, at=1.7e9)
    await other.begin_epoch()
    assert await finding(held, other) is Finding.FORKED


async def test_a_new_epoch_without_its_proof_does_not_go_on(log, other):
    await log.add(5)
    held = await log.head()
    await other.add(3, at=1.7e9)
    await other.begin_epoch(held.note)
    grown = await other.grown()
    assert look(held, grown, (KEY,)).finding is Finding.FORKED
    wrong = replace(await other.epoch_proof(), path=())
    assert look(held, grown, (KEY,), wrong).finding is Finding.FORKED
    assert look(held, grown, (KEY,), await proof_of(other, 2)).finding is Finding.FORKED


async def proof_of(log, sequence) -> EntryProof:
    header = await log.journal.header()
    from vestibule_core.proof import prove

    return await asyncio.to_thread(prove, header, log.journal.runs(header), sequence, person=False)


async def test_a_new_epoch_that_lost_nothing_goes_on_by_its_proof(log):
    """Another witness has lost something; this one has not."""
    await log.add(5)
    held = await log.head()
    await log.add(1)
    await log.begin_epoch()
    assert await finding(held, log) is Finding.NEW_EPOCH


async def test_an_epoch_that_is_over_does_not_come_back(log, other):
    await other.add(3)
    await other.begin_epoch()
    held = await other.head()
    await log.add(9)
    assert await finding(held, log) is Finding.BEHIND


async def test_an_epoch_goes_on_after_a_restart(tmp_path):
    async with Log(tmp_path / "journal.db") as log:
        await log.add(2)
        await log.begin_epoch()
        head = await log.head()
    async with Log(tmp_path / "journal.db") as log:
        assert await log.head() == head
        await log.add(2)
        assert (await log.head()).epoch == Epoch(1, 3)
        await log.begin_epoch()
        assert (await log.head()).epoch == Epoch(2, 6)
        assert await finding(head, log) is Finding.NEW_EPOCH


async def test_the_epoch_that_is_begun_is_later_than_any_that_was_seen(log, other):
    """Set back to before an epoch began, a journal must not begin one of the same name."""
    await other.add(1)
    await other.begin_epoch()
    await other.begin_epoch()
    lost = await other.head()
    await log.add(3)
    await log.begin_epoch(lost.note)
    assert (await log.head()).epoch.number == 3


async def test_an_entry_that_is_refused_in_the_same_commit_leaves_no_epoch(log):
    """What a savepoint takes back is the name, too: else the next checkpoint would not be known again."""
    await log.add(1)
    with pytest.raises(NoteError):
        await log.begin_epoch("not a checkpoint")
    await log.add(1)
    assert (await log.head()).epoch == Epoch()

    def work(writer):
        writer.begin_epoch(AccessEvent(outcome=EventName.EPOCH_BEGUN, door=None, at=1.8e9), None, {}, ())
        raise Refused(Code.STOPPING)

    with pytest.raises(Refused):
        await log.journal._submit(work)
    await log.add(1)
    assert (await log.head()).epoch == Epoch()


# ---- receipts: what a witness shows the controller ----


async def test_row_68_a_larger_receipt_disputes_the_journal_and_a_forged_one_does_not(log, other):
    await log.add(3)
    await other.add(3)
    assert await receipts.disputed_by(log.journal, (await log.head()).note) is None
    await other.add(2)
    larger = (await other.head()).note
    assert await receipts.disputed_by(log.journal, larger) is not None
    with pytest.raises(NoteError):
        await receipts.disputed_by(log.journal, larger.replace("\n5\n", "\n9\n", 1))


async def test_a_receipt_is_the_same_one_whatever_was_written_under_it(log, other):
    """Else whoever holds one could bring it in so many spellings that no other one is taken note of."""
    await log.add(1)
    await other.add(2)
    bare = (await other.head()).note
    strangers = bare
    for number in range(1, 16):
        stranger = SignerKey(f"{number}\N{GRINNING FACE}", Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
        strangers = cosign(stranger, strangers, number)
    assert await receipts.disputed_by(log.journal, strangers) == bare


async def test_what_a_controller_shows_after_a_start_has_no_lines_of_its_witnesses(log, tmp_path):
    """Its file has them. Cosigned whole at each of sixteen starts, the note would be full."""
    house = SignerKey("vestibule/house", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
    await log.add(3)
    bare = log.journal.checkpoint
    for start in range(20):
        shown = await log.grown()
        assert shown.note == bare
        await log.journal.cosigned(cosign(house, shown.note, start))
        await asyncio.to_thread(log.journal.close)
        await log.__aenter__()
        assert log.journal.checkpoint == cosign(house, bare, start)


async def test_a_receipt_of_another_history_disputes_the_journal(log, other):
    await log.add(5)
    await other.add(3, at=1.7e9)
    assert await receipts.disputed_by(log.journal, (await other.head()).note) is not None


async def test_any_receipt_disputes_an_empty_journal_but_an_empty_one(log, other):
    await other.add(1)
    with pytest.raises(NoteError):  # it has signed nothing: so far nobody can say who it is
        await receipts.disputed_by(log.journal, "nothing")
    assert await receipts.disputed_by(log.journal, (await other.head()).note) is not None


async def test_what_was_lost_before_the_epoch_is_not_disputed_again(log, other):
    await other.add(9, at=1.7e9)
    lost = (await other.head()).note
    await log.add(3)
    assert await receipts.disputed_by(log.journal, lost) is not None
    await log.begin_epoch(lost)
    assert await receipts.disputed_by(log.journal, lost) is None


async def test_a_receipt_of_a_later_epoch_disputes_the_journal(log, other):
    await log.add(9)
    await other.add(1)
    await other.begin_epoch()
    assert await receipts.disputed_by(log.journal, (await other.head()).note) is not None


# ---- the text ----


async def test_growth_is_written_as_others_read_it(log):
    """c2sp.org/tlog-witness, the body of add-checkpoint."""
    await log.add(2)
    await log.add(4)
    grown = await log.grown(2)
    first, *path, blank, origin, size, _, blank_2, signature, end = str(grown).split("\n")
    assert (first, blank, origin, size, blank_2, end) == ("old 2", "", "vestibule/test", "6", "", "")
    assert len(path) == len(grown.path) > 0
    assert signature.startswith("— vestibule/test ")
    assert Grown.parse(str(grown)) == grown


@given(
    st.integers(0, 2**62), st.lists(st.binary(min_size=1, max_size=40), max_size=63), st.text("a—\n =+/", max_size=50)
)
def test_whatever_is_written_is_read_again(old, path, note):
    grown = Grown(old, tuple(path), note)
    assert Grown.parse(str(grown)) == grown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 1",
        "old 01\n\nnote",
        "old -1\n\nnote",
        "new 1\n\nnote",
        "old 1\n?\n\nnote",
        "old 1\n" + "AAAA\n" * 64 + "\nnote",
        "old 1\n\n" + "n" * witness.MAX_GROWN,
    ],
)
def test_what_is_no_growth_is_refused(text):
    with pytest.raises(NoteError):
        Grown.parse(text)


def test_a_proof_that_would_need_entries_which_are_gone_is_refused():
    head = Head("", Checkpoint("x", 9, bytes(32)), Epoch())

    class Header:
        base = Tree().extend([b"1", b"2", b"3"])

    with pytest.raises(NoteError, match="no proof"):
        witness.prove_growth(Header, [], 2, head)
    with pytest.raises(NoteError, match="no proof"):
        witness.prove_growth(Header, [], 5, head)
    nothing = Head("", Checkpoint("x", 0, bytes(32)), Epoch())
    assert witness.continues(Header, [], nothing, head)
    assert not witness.continues(Header, [], head, nothing)


# ---- what a witness adds ----


async def test_a_checkpoint_that_was_cosigned_is_kept_so_and_the_journal_still_holds(log, tmp_path):
    from vestibule_core import audit
    from vestibule_core.cosignature import cosign, cosigned_at
    from vestibule_core.evidence import read_header, read_runs
    from vestibule_core.note import SignerKey
    from vestibule_core.schema import look as look_at

    house = SignerKey("vestibule/house", IDENTITY.renamed("x")._private)
    await log.add(3)
    cosigned = cosign(house, (await log.head()).note, 1_800_000_000)
    await log.journal.cosigned(cosigned)
    await asyncio.gather(*(log.add() for _ in range(3 * SPARSE)))
    other_size = IDENTITY.sign(Checkpoint("vestibule/test", 3, bytes(32)).text)
    for wrong in (other_size, IDENTITY.sign(Checkpoint("vestibule/test", 10**6, bytes(32)).text), "nothing"):
        with pytest.raises(NoteError):
            await log.journal.cosigned(wrong)
    await asyncio.to_thread(log.journal.close)
    with look_at(log.path) as db:
        (kept,) = db.execute("SELECT note FROM checkpoint WHERE size = 3").fetchone()
        header = read_header(db)
        verdict = audit.verify(header, read_runs(db, header), keys=[KEY])
    assert cosigned_at(kept, house.verifier) == 1_800_000_000
    assert verdict.holds


async def test_an_auditor_who_knows_the_first_name_of_a_key_knows_its_epochs(log):
    from vestibule_core import audit
    from vestibule_core.evidence import read_header, read_runs
    from vestibule_core.schema import look as look_at

    await log.add(3)
    await log.begin_epoch()
    await log.add(3)
    await asyncio.to_thread(log.journal.close)
    with look_at(log.path) as db:
        header = read_header(db)
        verdict = audit.verify(header, read_runs(db, header), keys=[KEY])
    assert verdict.holds, verdict.failure
    assert read_head(verdict.newest, [KEY]).epoch == Epoch(1, 4)
