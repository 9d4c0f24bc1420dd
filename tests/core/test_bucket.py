"""Token buckets: how often something may happen, by whoever's clock, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.bucket import Bucket, Buckets


def buckets(per_second=1.0, burst=3.0, most=100):
    return Buckets(per_second=per_second, burst=burst, most=most)


def test_a_bucket_gives_as_much_as_it_holds_and_then_what_it_gains():
    bucket = Bucket(per_second=0.5, burst=2, level=2, at=100.0)
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]
    assert not bucket.take(101.9)
    assert bucket.take(102.0)
    assert not bucket.take(102.0)


def test_a_bucket_never_holds_more_than_its_burst():
    bucket = Bucket(per_second=1, burst=2, level=0, at=0.0)
    assert bucket.left(1_000_000.0) == 2


def test_who_is_refused_loses_nothing():
    bucket = Bucket(per_second=1, burst=1, level=0, at=0.0)
    for tenth in range(1, 10):
        assert not bucket.take(tenth / 10)
    assert bucket.take(1.01)


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing():
    bucket = Bucket(per_second=1, burst=2, level=1, at=100.0)
    assert bucket.left(50.0) == 1
    assert bucket.take(50.0)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0.1, 5), st.integers(1, 10))
def test_no_bucket_gives_more_than_its_burst_and_its_rate(pauses, per_second, burst):
    bucket, now, taken = Bucket(per_second, burst, burst, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
        assert taken <= burst + per_second * now + 1e-6


# ---- by key ----


def test_each_key_has_a_bucket_of_its_own():
    by_key = buckets()
    assert [by_key.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert by_key.take("b", 0.0)


def test_keys_that_are_to_be_forgotten_are_as_if_they_had_never_been():
    by_key = buckets()
    for key in ("anna 1", "anna 2", "bert 1"):
        assert [by_key.take(key, 0.0) for _ in range(4)] == [True, True, True, False]
    by_key.forget(lambda key: key.startswith("anna"))
    assert len(by_key) == 1
    assert [by_key.has(key, 0.0) for key in ("anna 1", "anna 2", "bert 1")] == [True, True, False]


@pytest.mark.parametrize("taken, has", [(0, True), (2, True), (3, False)])
def test_to_ask_takes_nothing(taken, has):
    by_key = buckets()
    for _ in range(taken):
        by_key.take("a", 0.0)
    assert [by_key.has("a", 0.0) for _ in range(5)] == [has] * 5
    assert by_key.has("a", 1.0), "it gains while nobody asks"


def test_what_is_given_back_can_be_taken_again():
    by_key = buckets()
    for _ in range(3):
        by_key.take("a", 0.0)
    by_key.give_back("a")
    assert [by_key.take("a", 0.0) for _ in range(2)] == [True, False]


def test_nobody_saves_up_by_giving_back():
    by_key = buckets()
    by_key.take("a", 0.0)
    for _ in range(9):
        by_key.give_back("a")
    assert [by_key.take("a", 0.0) for _ in range(4)] == [True, True, True, False]


def test_to_give_back_for_a_key_that_is_forgotten_is_nothing():
    by_key = buckets()
    by_key.give_back("a")
    assert len(by_key) == 0


def test_the_key_that_was_used_longest_ago_is_forgotten_first():
    by_key = buckets(most=2)
    for key in ("a", "b", "a", "c"):
        by_key.take(key, 0.0)
    assert len(by_key) == 2
    assert [by_key.take("a", 0.0) for _ in range(2)] == [True, False], "used three times now: it was remembered"
    assert [by_key.take("b", 0.0) for _ in range(4)] == [True, True, True, False], "as if it were full again"


def test_any_number_of_keys_takes_bounded_memory():
    by_key = buckets(most=10)
    for key in range(1000):
        by_key.take(str(key), 0.0)
    assert len(by_key) == 10
