"""Who may weaken a door by hand: every rule, every kind of actor, every wish, with and without a PIN."""

from dataclasses import replace
from itertools import product

import pytest

from tests.simulated import some_doors
from vestibule_core import manual
from vestibule_core.manual import PIN_AGAIN, PIN_TRIES, Wish, objection, objection_without_pin
from vestibule_core.model import Actor, Code, ManualRule, Means
from vestibule_core.pin import Pin

ADMIN = Actor("ann-1", "Ann", is_admin=True)
USER = Actor("bob-2", "Bob", is_admin=False)
AUTOMATION = Actor(None, None, is_admin=False)
EVERYONE, ADMINISTRATORS, NOBODY = ManualRule
OPEN, RELAX = Wish
(DOOR,) = some_doors(1)
PIN = Pin(bytes(16), bytes(32))
YES, NO, PIN_FIRST = None, Code.MANUAL_NOT_ALLOWED, Code.PIN_MISSING

TABLE = [
    # rule, actor, wish, where a PIN can be typed or none is set, where one is set and cannot be typed, sentence
    (EVERYONE, ADMIN, OPEN, YES, YES, "everyone: an administrator opens, and could change the PIN as well"),
    (EVERYONE, USER, OPEN, YES, PIN_FIRST, "everyone: a user opens, by a PIN where there is one"),
    (EVERYONE, AUTOMATION, OPEN, YES, YES, "everyone: an automation opens, made by an administrator"),
    (EVERYONE, ADMIN, RELAX, YES, YES, "everyone: an administrator takes back what was shut"),
    (EVERYONE, USER, RELAX, YES, PIN_FIRST, "everyone: so does a user, where no PIN says otherwise"),
    (EVERYONE, AUTOMATION, RELAX, YES, YES, "everyone: so does an automation"),
    (ADMINISTRATORS, ADMIN, OPEN, YES, YES, "administrators: they open"),
    (ADMINISTRATORS, USER, OPEN, NO, NO, "administrators: a user does not, PIN or not"),
    (ADMINISTRATORS, AUTOMATION, OPEN, YES, YES, "administrators: what they automated opens"),
    (ADMINISTRATORS, ADMIN, RELAX, YES, YES, "administrators: they take back what was shut"),
    (ADMINISTRATORS, USER, RELAX, NO, NO, "administrators: a user does not"),
    (ADMINISTRATORS, AUTOMATION, RELAX, YES, YES, "administrators: what they automated does"),
    (NOBODY, ADMIN, OPEN, NO, NO, "nobody: not even an administrator opens by hand"),
    (NOBODY, USER, OPEN, NO, NO, "nobody: a user does not"),
    (NOBODY, AUTOMATION, OPEN, NO, NO, "nobody: an automation does not"),
    (NOBODY, ADMIN, RELAX, YES, YES, "nobody: an administrator lifts a lockdown, else it would be for ever"),
    (NOBODY, USER, RELAX, NO, NO, "nobody: a user does not"),
    (NOBODY, AUTOMATION, RELAX, YES, YES, "nobody: an automation does"),
]  # fmt: skip


@pytest.mark.parametrize("rule, actor, wish, code, without_pin, sentence", TABLE, ids=[row[-1] for row in TABLE])
def test_who_may_do_what(rule, actor, wish, code, without_pin, sentence):
    free, locked = replace(DOOR, manual=rule), replace(DOOR, manual=rule, pin=PIN)
    assert objection(free, actor, wish) is objection_without_pin(free, actor, wish) is code
    assert objection(locked, actor, wish) is code, "the PIN is another question"
    assert objection_without_pin(locked, actor, wish) is without_pin


def test_no_row_has_been_forgotten():
    assert [row[:3] for row in TABLE] == [
        (rule, actor, wish) for rule, wish, actor in product(ManualRule, Wish, (ADMIN, USER, AUTOMATION))
    ]


@pytest.mark.parametrize(
    "actor, means, is_trusted",
    [(ADMIN, Means.MANUAL, True), (USER, Means.MANUAL, False), (AUTOMATION, Means.AUTOMATION, True)],
)
def test_a_call_that_names_no_person_is_an_automation_and_recorded_as_such(actor, means, is_trusted):
    assert (actor.means, actor.is_trusted) == (means, is_trusted)


def test_a_pin_may_be_tried_a_few_times_and_then_every_ten_minutes():
    tries, who = manual.pin_tries(), (DOOR.id, "bob-2")
    assert [tries.take(who, 0.0) for _ in range(PIN_TRIES + 1)] == [True] * PIN_TRIES + [False]
    assert not tries.take(who, PIN_AGAIN - 1)
    assert tries.take(who, PIN_AGAIN + 1)
    assert not tries.take(who, PIN_AGAIN + 1)
    assert tries.take((DOOR.id, "ann-1"), 0.0), "each person for themselves"
    assert tries.take(("another door", "bob-2"), 0.0), "and at each door"


def test_a_guesser_needs_weeks_for_four_digits():
    a_day = PIN_TRIES + 86400 / PIN_AGAIN
    assert 10_000 / a_day > 60
