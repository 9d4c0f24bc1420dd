"""Whether a link works: timetables of tries, and what a building manager hears of each, minute by minute."""

from dataclasses import dataclass

import pytest

from vestibule_core.link import client, standing
from vestibule_core.link.standing import STOOD, TELL_AFTER, LinkState, has_stood

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
CERTIFICATE, NO_CLOUD, NOT_READY = LinkState.CERTIFICATE, LinkState.NO_CLOUD, LinkState.NOT_READY
CUT, UNSTABLE = LinkState.UNREACHABLE, LinkState.UNSTABLE


class Building:
    """A link whose tries follow one another, and somebody who looks at its repairs every minute."""

    def __init__(self) -> None:
        self.now = 0.0
        self.trouble: standing.Trouble | None = None
        self.stood: float | None = None
        self.seen: list[tuple[float, LinkState | None]] = []

    def look(self) -> LinkState | None:
        return standing.told(self.trouble, self.stood, self.now)

    def wait(self, seconds: float, *, is_heard: bool = False) -> None:
        """Let time go by, in which the cloud of a link is heard, or not."""
        until = self.now + seconds
        while self.now < until:
            step = min(until, self.now - self.now % MINUTE + MINUTE) - self.now
            self.now += step
            if is_heard:
                self.stood = (self.stood or 0.0) + step
            if self.now % MINUTE == 0:
                self.seen.append((self.now, self.look()))

    def end(self, state: LinkState) -> None:
        self.trouble = standing.after(self.trouble, state, self.stood, self.now)

    def turned_down(self, state: LinkState, pause: float = 150) -> None:
        """Try once, without a connection."""
        self.stood = None
        self.end(state)
        self.wait(pause)

    def linked(self, seconds: float, state: LinkState = CUT, pause: float = 150) -> None:
        """Be accepted, and cut off after some seconds. 0: cut off before it was accepted."""
        self.stood = 0.0
        self.wait(seconds, is_heard=True)
        self.end(state)
        self.wait(pause)

    @property
    def told(self) -> set[LinkState | None]:
        return {what for _, what in self.seen}


@dataclass
class Row:
    """Ways to end a link a few seconds after its hello, and what is told of that."""

    event: str
    ends: list[LinkState]
    told: LinkState


@pytest.mark.parametrize(
    "row",
    [
        Row("whatever cuts it says nothing", [CUT], UNSTABLE),
        Row("the cloud says what is not understood, or says that we did", [NO_CLOUD], NO_CLOUD),
        Row("the cloud asks to come back, each time", [NOT_READY], NOT_READY),
        Row("a fault of this program ends it", [LinkState.CONNECTING], UNSTABLE),
        Row("now so, now so", [NO_CLOUD, NOT_READY, CUT], UNSTABLE),
    ],
    ids=lambda row: row.event,
)
@pytest.mark.parametrize("seconds", [0, 3, 59])
def test_a_link_that_ends_seconds_after_each_hello_is_told_of_after_a_quarter_of_an_hour_and_without_a_break(
    row, seconds
):
    building = Building()
    building.linked(5 * HOUR, pause=10)
    began = building.now
    for number in range(40):
        building.linked(seconds, row.ends[number % len(row.ends)])
    first = began + seconds + TELL_AFTER
    assert {what for at, what in building.seen if at < first} == {None}
    assert {what for at, what in building.seen if at >= first} == {row.told}


def test_it_is_no_longer_told_once_a_link_has_stood_for_a_minute_and_not_before():
    building = Building()
    for _ in range(10):
        building.linked(5)
    assert building.look() is UNSTABLE
    building.stood = 0.0
    building.wait(STOOD - 1, is_heard=True)
    assert building.look() is UNSTABLE
    building.wait(1, is_heard=True)
    assert building.look() is None
    building.end(CUT)
    assert building.look() is None
    building.linked(5)
    assert building.look() is None


def test_a_cloud_that_accepts_and_is_never_heard_again_is_told_of():
    """A proxy whose far end is gone: it is let go of only after client.SILENCE, which is longer than a minute."""
    assert client.SILENCE > STOOD
    building = Building()
    for _ in range(10):
        building.stood = 0.0
        building.wait(client.SILENCE)
        building.end(CUT)
        building.wait(150)
    assert building.look() is UNSTABLE


@pytest.mark.parametrize("state", [CERTIFICATE, NO_CLOUD, NOT_READY])
def test_what_keeps_it_from_being_accepted_is_told_in_its_own_words(state):
    building = Building()
    for _ in range(40):
        building.turned_down(state)
    assert [what for at, what in building.seen if at >= TELL_AFTER] == [state] * (len(building.seen) - 14)
    assert {what for at, what in building.seen if at < TELL_AFTER} == {None}


def test_what_has_become_clear_later_is_told_as_soon_as_it_was_that_alone_for_a_quarter_of_an_hour():
    """A cloud restarts, and comes back as one that this version does not understand."""
    building = Building()
    building.turned_down(NOT_READY)
    building.turned_down(NOT_READY)
    changed = building.now
    for _ in range(20):
        building.turned_down(NO_CLOUD)
    assert building.look() is NO_CLOUD
    assert {what for at, what in building.seen if TELL_AFTER <= at < changed + TELL_AFTER} == {UNSTABLE}
    assert {what for at, what in building.seen if at >= changed + TELL_AFTER} == {NO_CLOUD}


def test_that_nobody_answers_for_a_moment_takes_nothing_back():
    building = Building()
    for _ in range(20):
        building.turned_down(NO_CLOUD)
        building.turned_down(CUT)
    assert {what for at, what in building.seen if at >= TELL_AFTER} == {NO_CLOUD}


def test_that_nobody_answers_any_more_is_the_network_and_takes_it_back():
    building = Building()
    for _ in range(10):
        building.turned_down(NO_CLOUD)
    answered = building.now - 150
    for _ in range(40):
        building.turned_down(CUT)
    assert {what for at, what in building.seen if at >= answered + TELL_AFTER} == {None}
    building.linked(5)
    assert building.look() is None, "what was before is over, and counts no more"


@pytest.mark.parametrize("state", sorted(set(LinkState) - {CERTIFICATE, NO_CLOUD, NOT_READY, UNSTABLE}))
def test_whatever_else_keeps_it_from_being_accepted_is_none_of_this(state):
    """Nobody answers; or it is said once, and told at once."""
    building = Building()
    for _ in range(40):
        building.turned_down(state)
    assert building.told == {None}


@pytest.mark.parametrize(
    "state", [LinkState.NOT_ENROLLED, LinkState.WRONG_ISSUER, LinkState.TAKEN_OVER, LinkState.CODE_UNUSABLE]
)
def test_what_the_cloud_says_and_means_ends_the_guessing(state):
    building = Building()
    for _ in range(10):
        building.linked(5)
    building.linked(5, state)
    assert building.look() is None


# ---- ordinary reasons ----


def test_a_cloud_that_is_restarted_every_day_raises_nothing():
    building = Building()
    for _ in range(30):
        building.linked(DAY, NOT_READY, pause=10)
        for _ in range(6):
            building.turned_down(CUT, pause=60)  # its proxy says 502
        building.linked(20, NOT_READY, pause=30)  # the replica that it comes to is next
    building.linked(DAY)
    assert building.told == {None}


@pytest.mark.parametrize("every", [STOOD, 5 * MINUTE, HOUR])
def test_a_proxy_that_cuts_each_link_when_it_is_so_old_raises_nothing(every):
    building = Building()
    while building.now < 3 * DAY:
        building.linked(every, pause=10)
    assert building.told == {None}


def test_a_building_whose_internet_is_away_every_night_raises_nothing():
    building = Building()
    for _ in range(10):
        building.linked(12 * HOUR, pause=10)
        building.linked(20, pause=10)  # it flickers first
        for _ in range(100):
            building.turned_down(CUT, pause=300)
        building.linked(20, pause=10)
    assert building.told == {None}


def test_tries_come_often_enough_for_a_silence_to_be_one():
    """Else each answer would count as the first."""
    longest = client.PAUSES[1] + 4 * client.DEADLINE + STOOD + client.SILENCE
    assert longest < TELL_AFTER


@pytest.mark.parametrize("stood, has", [(None, False), (0.0, False), (59.9, False), (60.0, True)])
def test_a_minute_makes_a_link(stood, has):
    assert has_stood(stood) is has
