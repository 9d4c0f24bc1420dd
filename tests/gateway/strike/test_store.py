"""What survives: torn, failing and unreadable disks, and a label that is made once."""

from __future__ import annotations

import errno
import os

import pytest

from gateway.strike.label import find_label, printed, read_label
from gateway.strike.store import Store, StoreFailed, StoreInUse
from vestibule_core.doorstrike.memory import Part
from vestibule_core.doorstrike.pairing import Label


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "state")
    yield store
    store.close()


def test_nothing_is_there_at_the_first_start(store):
    assert store.load() == {}


def test_a_piece_is_there_as_it_was_kept(store):
    store.keep(Part.LOG, b"one")
    store.keep(Part.LOG, b"two")
    store.keep(Part.SLOTS, b"three")
    assert store.load() == {Part.LOG: b"two", Part.SLOTS: b"three"}


def test_a_process_that_was_killed_while_writing_leaves_the_old_piece(store):
    store.keep(Part.LOG, b"old")
    (store.folder / "log.new").write_bytes(b"ne")
    assert store.load() == {Part.LOG: b"old"}
    store.keep(Part.LOG, b"new")
    assert store.load() == {Part.LOG: b"new"}


def test_a_write_that_the_disk_does_not_confirm_is_not_kept(store, monkeypatch):
    store.keep(Part.LOG, b"old")

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreFailed, match="Input/output error"):
            store.keep(Part.LOG, b"new")
    assert store.load() == {Part.LOG: b"old"}


def test_a_log_that_cannot_be_read_is_a_lost_one_and_slots_are_not_given_up(store):
    (store.folder / "log").mkdir()
    assert store.load() == {Part.LOG: b""}, "the protocol's machine locks out"
    (store.folder / "slots").mkdir()
    with pytest.raises(StoreFailed):
        store.load()


def test_one_folder_is_one_strike(store):
    with pytest.raises(StoreInUse, match="in use by another process"):
        Store.open(store.folder)
    store.keep(Part.LOG, b"still mine")


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreFailed):
        Store.open(tmp_path / "state")


# ---- the label ----


def test_the_label_is_made_once(store):
    label, new = find_label(store)
    assert new
    assert find_label(store) == (label, False)
    assert read_label(store.folder) == label
    assert (store.folder / "label").stat().st_mode & 0o777 == 0o600


def test_no_label_is_like_another(tmp_path):
    labels = []
    for number in range(3):
        store = Store.open(tmp_path / str(number))
        labels.append(find_label(store)[0])
        store.close()
    assert len({label.strike_id for label in labels}) == len({label.code for label in labels}) == 3


def test_a_strike_that_has_lost_its_label_does_not_make_another_one(store):
    store.keep(Part.SLOTS, b"somebody's")
    with pytest.raises(StoreFailed, match="restore the file"):
        find_label(store)
    assert not (store.folder / "label").exists()


def test_a_damaged_label_is_said_and_stays(store):
    label, _ = find_label(store)
    (store.folder / "label").write_text(label.qr[:-1])
    with pytest.raises(StoreFailed, match="damaged"):
        find_label(store)
    assert (store.folder / "label").read_text() == label.qr[:-1]


def test_what_is_printed_can_be_scanned_and_typed(store):
    label, _ = find_label(store)
    text = printed(label, "Gate")
    assert label.strike_id.hex() in text
    code = next(line for line in text.splitlines() if line.startswith("code")).split()[1]
    assert Label.typed(label.strike_id, code) == label
    assert text.count("█") > 200, "a picture"
