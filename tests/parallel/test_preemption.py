"""When a notice is heard."""

import signal

import jax
import pytest

from bridge_jax.config import MeshConfig
from bridge_jax.parallel import preemption
from bridge_jax.parallel.preemption import Preempted, deferred
from bridge_jax.parallel.sharding import make_mesh


def test_a_notice_in_the_last_step_stops_behind_what_is_saved_then():
    before, done = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Preempted), deferred():
        with deferred() as asked:
            assert not asked()
            signal.raise_signal(signal.SIGTERM)
            assert asked()
        done.append("saved")
    assert done == ["saved"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_notice_while_it_is_saved_waits_too():
    done = []
    with pytest.raises(Preempted), deferred():
        signal.raise_signal(signal.SIGTERM)
        done.append("saved")
    assert done == ["saved"]


def test_an_error_is_not_hidden_by_a_notice():
    with pytest.raises(ZeroDivisionError), deferred():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError


def test_without_a_notice_nothing_happens():
    with deferred() as asked:
        pass
    assert not asked()


def test_the_vote_of_several_processes_is_read_one_step_late(monkeypatch):
    notices = []
    monkeypatch.setattr(preemption, "_notices", notices)
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):  # that of the training
        asked = preemption._late_votes()
        assert [asked(), asked()] == [False, False]
        notices.append(signal.SIGTERM)
        assert [asked(), asked(), asked()] == [False, True, True]
