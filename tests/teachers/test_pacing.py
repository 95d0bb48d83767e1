import pytest

from bridge_jax.teachers.pacing import Pace


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_no_limit_never_waits(clock):
    pace = Pace(clock=clock)
    assert [pace.take(10**9) for _ in range(5)] == [0] * 5


def test_no_minute_has_more_requests_than_its_share(clock):
    pace = Pace(requests_per_minute=30, clock=clock)
    assert [pace.take(5) for _ in range(4)] == [0, 2, 4, 6]
    clock.now += 100  # idle time is not saved up
    assert [pace.take(5) for _ in range(2)] == [0, 2]


def test_tokens_are_paced_by_what_was_taken_before(clock):
    pace = Pace(tokens_per_minute=600, clock=clock)
    assert [pace.take(n) for n in (50, 20, 10)] == [0, 5, 7]


def test_the_slower_limit_counts(clock):
    pace = Pace(requests_per_minute=60, tokens_per_minute=600, clock=clock)
    assert [pace.take(n) for n in (5, 30, 1)] == [0, 1, 4]


def test_what_was_not_used_is_given_back(clock):
    pace = Pace(requests_per_minute=60, tokens_per_minute=600, clock=clock)
    pace.take(100)
    pace.give_back(60)
    assert pace.take(100) == 4
    pace.give_back(100, requests=1)
    assert pace.take(1) == 4
