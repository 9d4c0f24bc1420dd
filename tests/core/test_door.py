"""Every transition of a door. The tables are the specification: one sentence per row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestibule_core.door import (
    SECURE_AGAIN,
    DoorState,
    Effect,
    Elapsed,
    Grant,
    LeftOpen,
    Lock,
    NotReleased,
    NotSecured,
    Observed,
    Released,
    Secured,
    Timing,
    Unresolved,
    advance,
)
from vestibule_core.strike import Capabilities, Reading

NOW = 1000.0
ACCESS = 5.0
OVER = NOW + ACCESS
PAST, FUTURE = NOW - 1, NOW + 1


def strike(*, device_timed, feedback):
    return Timing(ACCESS, Capabilities(device_timed=device_timed, feedback=feedback))


DEVICE = strike(device_timed=True, feedback=True)
BLIND_DEVICE = strike(device_timed=True, feedback=False)
OURS = strike(device_timed=False, feedback=True)
BLIND_OURS = strike(device_timed=False, feedback=False)
TIMINGS = [DEVICE, BLIND_DEVICE, OURS, BLIND_OURS]

LOCKED, ACCESSED, UNKNOWN = Lock
S = DoorState

TABLE = [
    # timing, state, input, next state, effects, sentence
    (DEVICE, S(), Grant("Parcels"), S(releasing=True, told_at=NOW, granted_to="Parcels"), [Effect.RELEASE],
     "a grant tells the strike to release"),
    (DEVICE, S(LOCKED, by="Ann"), Grant("Bob"),
     S(LOCKED, releasing=True, told_at=NOW, granted_to="Bob", by="Ann"), [Effect.RELEASE],
     "who was let in last is who was, until the strike has answered"),
    (DEVICE, S(LOCKED, releasing=True, granted_to=None, by="Ann"), Released(), S(ACCESSED, deadline=OVER), [],
     "who is let in now replaces who was let in last, an automation without a name too"),
    (DEVICE, S(LOCKED, releasing=True, granted_to="Bob", by="Ann"), NotReleased(), S(LOCKED, by="Ann"), [],
     "who was not let in does not"),
    (DEVICE, S(LOCKED, releasing=True, granted_to="Bob", by="Ann"), Unresolved(),
     S(UNKNOWN, deadline=OVER, unanswered=True, by="Bob"), [],
     "who may have been let in does"),
    (DEVICE, S(LOCKED, by="Ann"), Observed(Reading.RELEASED), S(ACCESSED), [],
     "nobody is named for what something else released"),
    (DEVICE, S(LOCKED, releasing=True, granted_to="Bob", by="Ann"), Observed(Reading.RELEASED),
     S(ACCESSED, releasing=True, granted_to="Bob", by="Ann"), [],
     "a strike that moves while it is told to was not moved by something else"),
    (DEVICE, S(UNKNOWN, deadline=FUTURE, by="Bob"), Observed(Reading.RELEASED),
     S(ACCESSED, deadline=FUTURE, by="Bob"), [],
     "a late report within the access time belongs to the access"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True, by="Ann"), Grant("Bob"),
     S(ACCESSED, releasing=True, deadline=FUTURE, securing=True, told_at=NOW, granted_to="Bob", by="Ann"),
     [Effect.RELEASE],
     "a grant during a release releases again, and what has to be ended stays to be ended"),
    (DEVICE, S(LOCKED, releasing=True), Released(), S(ACCESSED, deadline=OVER), [],
     "a confirmed release is an access until the device's time is over"),
    (OURS, S(LOCKED, releasing=True), Released(), S(ACCESSED, deadline=OVER, securing=True), [],
     "a confirmed release without a timer of its own is ours to end"),
    (DEVICE, S(ACCESSED, releasing=True, deadline=FUTURE), Released(), S(ACCESSED, deadline=OVER), [],
     "a second release restarts the time"),
    (DEVICE, S(LOCKED, releasing=True), NotReleased(), S(LOCKED), [],
     "a strike that did not move leaves the lock as it was"),
    (OURS, S(LOCKED, releasing=True), NotReleased(), S(LOCKED, securing=True), [Effect.SECURE],
     "one that is ours to end is secured all the same: what drives it may have moved before it failed"),
    (OURS, S(ACCESSED, releasing=True, deadline=FUTURE, securing=True), NotReleased(),
     S(ACCESSED, deadline=FUTURE, securing=True), [],
     "a second release that fails leaves the first one running and ours to end"),
    (DEVICE, S(LOCKED, releasing=True), Unresolved(), S(UNKNOWN, deadline=OVER, unanswered=True), [],
     "without an answer nobody knows, and it is looked at again when it would be over"),
    (OURS, S(LOCKED, releasing=True), Unresolved(), S(UNKNOWN, deadline=OVER, securing=True, unanswered=True), [],
     "a release that may have happened is ours to end"),
    (OURS, S(LOCKED, releasing=True, told_at=NOW - 2), Unresolved(),
     S(UNKNOWN, deadline=OVER - 2, securing=True, unanswered=True), [],
     "its time counts from when the strike was told, not from when it was given up"),
    (OURS, S(LOCKED, releasing=True, told_at=NOW - 9), Unresolved(),
     S(UNKNOWN, deadline=NOW, securing=True, unanswered=True), [],
     "and is over at once if that was long ago"),
    (OURS, S(LOCKED, unanswered=True), Observed(Reading.RELEASED), S(ACCESSED, securing=True), [Effect.SECURE],
     "a command that arrives after it was given up is ended, since nobody else would"),
    (DEVICE, S(LOCKED, unanswered=True), Observed(Reading.RELEASED), S(ACCESSED, unanswered=True), [],
     "a device that times itself ends it by itself"),
    (OURS, S(UNKNOWN, releasing=True, unanswered=True), Released(), S(ACCESSED, deadline=OVER, securing=True), [],
     "a release that is answered makes up for one that was not"),

    (DEVICE, S(ACCESSED, deadline=FUTURE), Elapsed(), S(ACCESSED, deadline=FUTURE), [],
     "a timer that rings early rings for nothing"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True), Elapsed(), S(ACCESSED, deadline=FUTURE, securing=True), [],
     "nor is a release ended early"),
    (OURS, S(ACCESSED, deadline=NOW, securing=True), Elapsed(), S(ACCESSED, securing=True), [Effect.SECURE],
     "when the access time is over the strike is put back"),
    (OURS, S(LOCKED, deadline=PAST, securing=True), Elapsed(), S(LOCKED, securing=True), [Effect.SECURE],
     "also when it already reads secured: a reading can lag behind the command"),
    (BLIND_OURS, S(UNKNOWN, deadline=PAST, securing=True), Elapsed(), S(UNKNOWN, securing=True), [Effect.SECURE],
     "also when nobody knows whether it moved"),
    (DEVICE, S(ACCESSED, deadline=PAST), Elapsed(), S(ACCESSED), [Effect.OBSERVE],
     "a device with feedback is asked where it is, and not believed to be back"),
    (DEVICE, S(UNKNOWN, deadline=PAST), Elapsed(), S(UNKNOWN), [Effect.OBSERVE],
     "after a release without an answer too"),
    (BLIND_DEVICE, S(ACCESSED, deadline=PAST), Elapsed(), S(LOCKED), [],
     "a device without feedback that confirmed the release is back when its own timer is over"),
    (BLIND_DEVICE, S(UNKNOWN, deadline=PAST), Elapsed(), S(UNKNOWN), [],
     "one that did not confirm stays unknown"),
    (DEVICE, S(ACCESSED), Elapsed(), S(ACCESSED), [],
     "without a deadline nothing elapses: a door that somebody else released stays so"),

    (OURS, S(), LeftOpen(), S(securing=True), [Effect.SECURE],
     "a release that outlived the last run of the program is ended at start"),
    (DEVICE, S(), LeftOpen(), S(securing=True), [Effect.SECURE],
     "also if the strike is now said to time itself: that release was ours to end"),
    (OURS, S(ACCESSED, securing=True), Secured(), S(LOCKED), [],
     "confirmed back is locked"),
    (BLIND_OURS, S(UNKNOWN, securing=True), Secured(), S(LOCKED), [],
     "confirmed back is locked, also without feedback"),
    (OURS, S(ACCESSED, securing=True), NotSecured(), S(UNKNOWN, deadline=NOW + SECURE_AGAIN, securing=True), [],
     "a strike that cannot be put back is unknown, and tried again"),

    (DEVICE, S(), Observed(Reading.SECURED), S(LOCKED), [],
     "a strike that reads secured is locked"),
    (DEVICE, S(ACCESSED, deadline=FUTURE), Observed(Reading.SECURED), S(LOCKED), [],
     "an access ends as soon as the device says so"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True), Observed(Reading.SECURED),
     S(LOCKED, deadline=FUTURE, securing=True), [],
     "one that reads secured early is put back all the same"),
    (DEVICE, S(LOCKED), Observed(Reading.RELEASED), S(ACCESSED), [],
     "somebody else released it"),
    (OURS, S(LOCKED), Observed(Reading.RELEASED), S(ACCESSED), [],
     "what somebody else released is not ours to end"),
    (DEVICE, S(LOCKED), Observed(Reading.UNKNOWN), S(UNKNOWN), [],
     "a strike that stops telling is not locked"),
    (OURS, S(ACCESSED, deadline=FUTURE, securing=True), Observed(Reading.UNKNOWN),
     S(UNKNOWN, deadline=FUTURE, securing=True), [],
     "what is ours to end stays so, however little is known"),
    (BLIND_DEVICE, S(ACCESSED, deadline=FUTURE), Observed(Reading.UNKNOWN), S(ACCESSED, deadline=FUTURE), [],
     "a strike without feedback says nothing by saying unknown"),
]  # fmt: skip


@pytest.mark.parametrize("timing, state, event, after, effects, sentence", TABLE, ids=[row[-1] for row in TABLE])
def test_transition(timing, state, event, after, effects, sentence):
    assert advance(state, event, NOW, timing) == (after, tuple(effects))


IMPOSSIBLE = [
    (S(LOCKED), Released(), "nothing was to be released"),
    (S(LOCKED), NotReleased(), "nothing was to be released"),
    (S(LOCKED), Unresolved(), "nothing was to be released"),
    (S(ACCESSED, deadline=FUTURE), Released(), "the release has been answered before"),
    (S(ACCESSED), Secured(), "nothing was to be put back"),
    (S(UNKNOWN), Secured(), "nothing was to be put back"),
    (S(LOCKED), NotSecured(), "nothing was to be put back"),
]


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("state, event, why", IMPOSSIBLE)
def test_an_impossible_input_changes_nothing(timing, state, event, why):
    assert advance(state, event, NOW, timing) == (state, ())


def test_a_door_that_has_not_been_heard_of_is_unknown():
    assert S().lock is UNKNOWN


# ---- whatever happens, in whatever order ----

STATES = st.builds(
    S,
    st.sampled_from(Lock),
    st.booleans(),
    st.none() | st.floats(0, 2000),
    st.booleans(),
    st.none() | st.just("Parcels"),
)
INPUTS = st.one_of(
    st.builds(Grant, st.none() | st.just("Ann")),
    st.sampled_from(
        [Released(), NotReleased(), Unresolved(), Secured(), NotSecured(), Elapsed(), LeftOpen()]
        + [Observed(reading) for reading in Reading]
    ),
)
STEPS = st.lists(st.tuples(INPUTS, st.floats(0, 10)), max_size=30)


@given(STATES, INPUTS, st.floats(0, 2000), st.sampled_from(TIMINGS))
def test_only_a_grant_releases(state, event, now, timing):
    _, effects = advance(state, event, now, timing)
    assert effects.count(Effect.RELEASE) == isinstance(event, Grant)


@given(STATES, INPUTS, st.floats(0, 2000), st.sampled_from(TIMINGS))
def test_locked_is_what_was_confirmed_and_never_what_was_hoped_for(state, event, now, timing):
    """Locked comes from the bolt's own word, from a confirmed command, or from the timer of a confirmed release."""
    after, _ = advance(state, event, now, timing)
    if after.lock is LOCKED and state.lock is not LOCKED:
        assert (
            event == Observed(Reading.SECURED)
            or (event == Secured() and state.securing)
            or (event == Elapsed() and state.lock is ACCESSED and timing == BLIND_DEVICE)
        )


@given(STEPS, st.sampled_from(TIMINGS))
def test_nothing_confirmed_never_makes_a_door_locked(steps, timing):
    state, now = S(), 0.0
    for event, seconds in steps:
        now += seconds
        if event in (Observed(Reading.SECURED), Secured(), Released(), Observed(Reading.RELEASED)):
            continue
        state, _ = advance(state, event, now, timing)
        assert state.lock is UNKNOWN


@given(STEPS, st.sampled_from([OURS, BLIND_OURS]))
def test_a_release_that_we_time_always_ends_in_an_attempt_to_secure(steps, timing):
    """However it is disturbed: while it is ours to end, there is a deadline, and at the deadline it is secured."""
    state, now = S(), 0.0
    for event, seconds in [(Grant("Ann"), 0.0), (Released(), 0.0), *steps]:
        now += seconds
        state, effects = advance(state, event, now, timing)
        if Effect.SECURE in effects:
            # The task performs it before anything else happens, and it works or it does not.
            state, _ = advance(state, NotSecured(), now, timing)
        assert not state.securing or state.deadline is not None
    if state.securing:
        _, effects = advance(state, Elapsed(), state.deadline, timing)
        assert effects == (Effect.SECURE,)


@given(STEPS, st.sampled_from([OURS, BLIND_OURS]))
def test_only_a_confirmed_securing_relieves_us_of_a_release(steps, timing):
    state, now = S(), 0.0
    for event, seconds in [(Grant("Ann"), 0.0), (Unresolved(), 0.0), *steps]:
        now += seconds
        before = state
        state, _ = advance(state, event, now, timing)
        assert state.securing or not before.securing or event == Secured()


@given(STEPS, st.sampled_from([DEVICE, BLIND_DEVICE]))
def test_a_device_that_times_itself_is_never_told_to_secure(steps, timing):
    state, now = S(), 0.0
    for event, seconds in steps:
        now += seconds
        if event == LeftOpen():  # of another time, when the strike was said not to
            continue
        state, effects = advance(state, event, now, timing)
        assert not state.securing
        assert Effect.SECURE not in effects
