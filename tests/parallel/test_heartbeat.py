import time

import pytest

from bridge_jax.parallel import hosts


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Returns (watches of two processes, what they said at their end, a clock to set)."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    ends = []
    watches = [
        hosts.Heartbeat(tmp_path, "7", i, 2, 10.0, lambda *said: ends.append(said))
        for i in range(2)
    ]
    return watches, ends, clock


def test_who_beats_is_alive(two):
    (first, second), ends, clock = two
    for _ in range(5):
        clock[0] += 9
        second.beat()
        first.check()
    assert ends == []


def test_silence_is_noticed_and_named(two):
    (first, second), ends, clock = two
    second.beat()
    first.check()
    clock[0] += 10
    first.check()
    assert ends == []
    clock[0] += 1
    first.check()
    assert ends[0][0].startswith("process 1 of 2 sent no heartbeat for 10 s (--lost_timeout)")


def test_a_process_that_never_beats_is_lost(two):
    (first, _), ends, clock = two
    clock[0] += 11
    first.check()
    assert "process 1 of 2" in ends[0][0]


def test_who_is_done_may_be_silent_and_who_failed_ends_all(two):
    (first, second), ends, clock = two
    second.say(hosts.DONE)
    for _ in range(3):
        clock[0] += 11
        first.check()
    assert ends == []
    second.say(hosts.FAILED)
    first.check()
    assert ends == [("process 1 of 2 has failed; its output says why",)]


def test_who_was_told_to_stop_takes_the_others_along_in_the_end(two):
    (first, second), ends, clock = two
    second.say(hosts.STOPPED)
    first.check()
    clock[0] += 29  # Those who stop together may need a while to save.
    first.check()
    assert ends == []
    clock[0] += 2
    first.check()
    ((message, code),) = ends
    assert message.startswith("process 1 of 2 was asked to stop") and code == 75


def test_files_of_an_earlier_run_say_nothing(two, tmp_path):
    (first, _), ends, clock = two
    (tmp_path / "1").write_text("6 failed")
    first.check()
    assert ends == []
    clock[0] += 11
    first.check()
    assert "sent no heartbeat" in ends[0][0]
