"""What was accepted before, as far as decisions need it: bounded, and counted by the hour of boot time."""

from tests.simulated import some_doors
from vestibule_core import history as history_module
from vestibule_core.history import HOUR, RECENT, RECENT_TEXTS, History
from vestibule_core.model import issuer

DOOR, OTHER_DOOR = (door.id for door in some_doors(2))
A, B = issuer("https://a.example"), issuer("https://b.example")


def counted(*times, who=A, door=DOOR):
    history = History()
    for at in times:
        history.count(who, door, at)
    return history


def test_a_spend_is_remembered_with_its_text_or_without():
    history = History()
    history.remember((A, "one"))
    history.remember((A, "two"), "text of two")
    history.texts.add("text of one")
    assert list(history.spent) == [(A, "one"), (A, "two")]
    assert len(history.texts) == 2
    assert "text of two" in history.texts
    assert "text of one" in history.texts
    assert "text of three" not in history.texts


def test_no_text_is_kept_and_two_of_one_hash_are_told_apart(monkeypatch):
    """Texts say who was there. Python's own hash finds one quickly; it may be another's."""
    monkeypatch.setattr(history_module, "hash", lambda _: 7, raising=False)
    history = History()
    history.texts.add("a token with a driver in it")
    assert "a token with a driver in it" in history.texts
    assert "another" not in history.texts
    assert "driver" not in repr(vars(history.texts))


def test_memories_are_bounded_and_forget_the_oldest(monkeypatch):
    history = History()
    for number in range(RECENT + 10):
        history.remember((A, str(number)), f"text {number}")
    assert (len(history.spent), len(history.texts)) == (RECENT, RECENT_TEXTS)
    assert next(iter(history.spent)) == (A, "10")
    oldest = RECENT + 10 - RECENT_TEXTS
    assert f"text {oldest}" in history.texts
    assert f"text {oldest - 1}" not in history.texts


def test_what_is_remembered_twice_takes_one_place(monkeypatch):
    monkeypatch.setattr(history_module, "RECENT", 2)
    history = History()
    for name in ("one", "two", "two", "two"):
        history.remember((A, name))
    assert list(history.spent) == [(A, "one"), (A, "two")]


def test_nothing_was_accepted_of_whom_nothing_is_known():
    assert History().accepted(A, DOOR, 0.0) == 0


def test_what_was_accepted_is_counted_by_issuer_and_door():
    history = counted(100.0, 200.0)
    history.count(B, DOOR, 200.0)
    history.count(A, OTHER_DOOR, 200.0)
    assert history.accepted(A, DOOR, 300.0) == 2
    assert history.accepted(B, DOOR, 300.0) == 1
    assert history.accepted(B, OTHER_DOOR, 300.0) == 0


def test_an_hour_is_an_hour():
    history = counted(1000.0)
    assert history.accepted(A, DOOR, 1000.0) == 1
    assert history.accepted(A, DOOR, 1000.0 + HOUR - 0.001) == 1
    assert history.accepted(A, DOOR, 1000.0 + HOUR) == 0


def test_what_is_older_than_an_hour_is_forgotten():
    history = counted(*(60.0 * minute for minute in range(1000)))
    assert history.accepted(A, DOOR, 60.0 * 999) == 60
    assert len(history._accepted[A, DOOR]) == 60


def test_what_was_accepted_before_the_machine_started_counts_too():
    """At a start the journal tells what was accepted within the hour: before boot time zero."""
    history = counted(-1800.0, -3700.0, 5.0)
    assert history.accepted(A, DOOR, 10.0) == 2
