"""Times of a stage, and its compilations."""

import types

import jax
import pytest

from bridge_jax import timing
from bridge_jax.timing import Spans


def test_compilations_are_counted_once_and_inside_the_block_alone():
    spans = Spans()
    for number in (1.5, 2.5):
        with spans.compilations():
            jax.jit(lambda x, n=number: x * n).lower(1.0).compile()
        jax.jit(lambda x, n=number: x - n).lower(1.0).compile()
        taken = spans.take()
        assert taken["compilations"] == 1
        assert taken["spans"]["compile"] > 0
    assert spans.take() == {"compilations": 0, "spans": {}}


def test_a_compilation_in_a_span_is_counted_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    spans = Spans()
    with spans.compilations(), spans.span("dev"):
        jax.jit(lambda x: x / 3.5).lower(1.0).compile()
        now[0] += 500.0
    seconds = spans.take()["spans"]
    assert 0 < seconds["compile"] < 500
    assert seconds["dev"] == pytest.approx(500 - seconds["compile"])
