"""Times of a stage, and its compilations."""

import jax

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
