"""Limits stop a training, keep its state, and let it go on with others."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bridge_jax.errors import UserError
from bridge_jax.training.recorder import Guard, GuardMonitor
from tests.training import test_toy_objective as toy

LEAST = Guard("right", "x.least_right", 0.5, "it forgets", steps=3, is_least=True)
MOST = Guard("taken", "x.most_taken", 6.0, "enough")


def watched(values, *guards):
    monitor = GuardMonitor(guards)
    for value in values:
        monitor.add({"right": value})
    return monitor


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ((0.1, 0.2), None),  # Too few steps to say.
        ((0.5, 0.5, 0.5), None),
        ((0.9, 0.4, 0.1), 0.467),
        ((0.1, 0.1, 0.9, 0.4, 0.3), None),  # The last three count: 0.53.
    ],
)
def test_the_mean_of_the_last_steps_counts(values, mean):
    fault = watched(values, LEAST).violation
    if mean is None:
        assert fault == ""
    else:
        assert fault == (
            f"over the last 3 steps right is {mean}, less than x.least_right=0.5: it forgets"
        )


def test_a_limit_of_one_step_and_the_first_that_is_broken():
    monitor = GuardMonitor((LEAST, MOST))
    monitor.add({"taken": 6.0})
    assert monitor.violation == ""
    monitor.add({"taken": 6.5, "other": 1.0})
    assert monitor.violation == "taken is 6.5, more than x.most_taken=6: enough"
    for _ in range(3):
        monitor.add({"right": 0.0})
    assert monitor.violation.startswith("over the last 3 steps right is 0")


def test_a_state_is_a_json_value_and_knows_what_came_before():
    before = watched((0.4, 0.3), LEAST)
    after = GuardMonitor((LEAST, MOST))
    after.set_state(json.loads(json.dumps(before.get_state())))
    assert after.violation == ""
    after.add({"right": 0.2})
    assert "right is 0.3," in after.violation
    other = GuardMonitor((MOST,))  # The guard was taken away.
    other.set_state(before.get_state())
    assert other.get_state() == {"taken": []}


def train(out, model, mesh, *guards):
    return toy.train(out, model, mesh, toy.Batches(), guards=guards)


@pytest.mark.parametrize("last", [6, 11])
def test_a_training_stops_keeps_its_state_and_goes_on_with_another_limit(
    tmp_path, tiny_model, one_device, last
):
    expected = train(tmp_path / "whole", tiny_model, one_device)
    limit, out = dataclasses.replace(MOST, bound=float(last)), tmp_path / "stopped"
    # The numbers of a step are known while the next one runs, so that one is done too.
    done = min(last + 2, 12)
    for _ in range(2):  # The same command does not go on by a step each time.
        with pytest.raises(UserError, match=rf"^toy: stopped after {done} steps \(state saved\)"):
            train(out, tiny_model, one_device, limit)
        assert [row["taken"] for row in toy.logged(out)] == [*range(1, done + 1)]
    found = train(out, tiny_model, one_device, dataclasses.replace(MOST, bound=99.0))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    losses = [[row["loss"] for row in toy.logged(tmp_path / name)] for name in ("whole", "stopped")]
    assert losses[0] == losses[1]


def test_an_interruption_does_not_move_the_step_at_which_it_stops(tmp_path, tiny_model, one_device):
    class Killed(toy.Batches):
        def next_batch(self, params):
            if self.taken == 5:
                raise KeyboardInterrupt
            return super().next_batch(params)

    limit = dataclasses.replace(MOST, bound=3.4, steps=6)  # 1 to 6 have the mean 3.5.
    with pytest.raises(KeyboardInterrupt):  # After the state of step 4 was saved.
        toy.train(tmp_path, tiny_model, one_device, Killed(), guards=(limit,))
    # The mean is 4.5 after step 7 and 5.5 after step 8, whose state is saved, so that it is known.
    for bound, done in ((3.4, 7), (4.4, 7), (4.6, 8)):
        with pytest.raises(UserError, match=f"stopped after {done} steps"):
            train(tmp_path, tiny_model, one_device, dataclasses.replace(limit, bound=bound))
