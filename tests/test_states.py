"""The states of a Kaniko Job: each has its place, and the way is forward, but for a claim that is given back."""

import pytest

from kanikojobs.states import ACTIVE, FINISHED, HAS_A_UID, TRANSITIONS, UNFINISHED, State

ORDER = [State.QUEUED, State.CREATING, State.CREATED, State.RUNNING]


def test_every_state_is_either_finished_or_unfinished() -> None:
    assert sorted([*FINISHED, *UNFINISHED]) == sorted(State)


def test_every_state_says_where_it_may_go() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", FINISHED)
def test_a_finished_state_goes_nowhere(state: State) -> None:
    assert TRANSITIONS[state] == ()


@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_state_may_end_in_every_way(state: State) -> None:
    assert set(FINISHED) <= set(TRANSITIONS[state])


@pytest.mark.parametrize("state", UNFINISHED)
def test_an_unfinished_state_may_jump_forward_because_a_watcher_can_miss_one(state: State) -> None:
    later = ORDER[ORDER.index(state) + 1 :]

    assert set(later) <= set(TRANSITIONS[state])


def test_the_only_way_back_is_from_a_claim_to_the_queue() -> None:
    back = {
        (old, new)
        for old, targets in TRANSITIONS.items()
        for new in targets
        if new in ORDER and ORDER.index(new) <= ORDER.index(old)
    }

    assert back == {(State.CREATING, State.QUEUED)}


def test_what_counts_against_a_cap_is_all_that_may_be_in_the_cluster() -> None:
    assert set(ACTIVE) == set(UNFINISHED) - {State.QUEUED}


def test_what_the_api_server_has_confirmed_has_a_uid() -> None:
    # One that failed or was cancelled may never have been created.
    assert set(HAS_A_UID) == {State.CREATED, State.RUNNING, State.SUCCEEDED}
