"""Limits: who counts as one, whom we believe about an address, and that nobody uses up what another one has."""

import pytest

from carrier import limits
from carrier.limits import Rates, address_of

from .served import HOST, ORIGIN, Served


@pytest.mark.parametrize(
    "peer, forwarded, counted",
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("8.8.8.8", ["198.51.100.1"], "8.8.8.8"),  # whoever asks us directly says nothing about itself
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),  # our proxy does
        ("::1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # what came before it was written by the caller
        ("10.0.0.2", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),  # also in a line of its own
        ("10.0.0.2", ["6.6.6.6, 7.7.7.7", "8.8.8.8, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["6.6.6.6", ""], ""),
        ("127.0.0.1", ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        ("127.0.0.1", ["2001:db8:1:2:aaaa::1"], "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", [], "203.0.113.7"),
        ("127.0.0.1", ["nonsense"], ""),
        ("127.0.0.1", [], "127.0.0.1"),
        (None, ["198.51.100.1"], ""),
    ],
)
def test_an_address_is_what_our_own_proxy_says_or_what_we_see(peer, forwarded, counted):
    assert address_of(peer, forwarded) == counted


async def test_a_line_of_the_callers_own_before_our_proxys_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "STRANGER_BURST", 4.0)
    monkeypatch.setattr(limits, "STRANGER_PER_SECOND", 0.0)
    async with Served(tmp_path) as served:
        answers = []
        for number in range(6):
            lines = [("X-Forwarded-For", f"6.6.6.{number}"), ("X-Forwarded-For", "198.51.100.1")]
            headers = [("Host", HOST), ("Origin", ORIGIN), *lines]
            async with served.http.post("/driver/sign-in", headers=headers) as answer:
                answers.append(answer.status)
        assert answers == [200] * 4 + [429] * 2


@pytest.mark.parametrize(
    "may, burst, per_second",
    [
        (Rates.stranger_may, limits.STRANGER_BURST, limits.STRANGER_PER_SECOND),
        (Rates.device_may, limits.DEVICE_BURST, limits.DEVICE_PER_SECOND),
        (Rates.may_wish, limits.WISH_BURST, limits.WISH_PER_SECOND),
        (Rates.key_may, limits.KEY_BURST, limits.KEY_PER_SECOND),
    ],
)
def test_each_has_its_own_and_gets_more_with_time(may, burst, per_second):
    rates = Rates()
    assert all(may(rates, "one", 0.0) for _ in range(int(burst)))
    assert not may(rates, "one", 0.0)
    assert may(rates, "another", 0.0)
    assert may(rates, "one", 1.01 / per_second)
    assert not may(rates, "one", 1.01 / per_second)
