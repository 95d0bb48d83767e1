"""The plan of batches: every sequence once, few shapes, little padding, filled as planned."""

from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_jax.parallel.sharding import make_mesh
from bridge_jax.selection import batches
from bridge_jax.selection.batches import PlannedBatch, Shape
from bridge_jax.text.prompts import TrainingSequence

ONE = make_mesh(devices=jax.devices()[:1])


def planned(lengths, targets, batch_tokens, mesh=ONE):
    return batches.plan(lengths, targets, batch_tokens, mesh)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 20)), min_size=1, max_size=60),
    st.sampled_from([1, 256, 1024, 5000]),
    st.booleans(),
)
def test_every_sequence_is_read_once_in_a_batch_that_holds_it(sizes, batch_tokens, many):
    lengths, targets = [p + a for p, a in sizes], [a for _, a in sizes]
    mesh = make_mesh() if many else ONE
    found = planned(lengths, targets, batch_tokens, mesh)
    read = [i for batch in found for part in batch.members for i in part]
    assert sorted(read) == list(range(len(sizes)))
    for shape, parts in found:
        assert shape.parts == len(parts) == mesh.size
        # A batch has a row of each device, however few tokens it may have.
        assert shape.tokens <= batch_tokens or shape.rows == 1
        for part in parts:
            assert len(part) <= shape.rows
            assert all(sum(lengths[i] for i in row) <= shape.width for row in part)
            assert sum(targets[i] for row in part for i in row) <= shape.targets
            assert sum(map(len, part)) <= shape.sequences
    assert found == planned(lengths, targets, batch_tokens, mesh)
    assert len({batch.shape for batch in found}) == len({batch.shape.width for batch in found})


def ragged(count, prompts, answers, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, answers + 1, count).tolist()
    return [int(n) + t for n, t in zip(rng.integers(*prompts, count), targets)], targets


@pytest.mark.parametrize(
    ("lengths", "targets", "batch_tokens", "most"),
    [
        (*ragged(5000, (10, 1501), 60), 4096, 1.12),
        (*ragged(5000, (10, 1501), 60), 16384, 1.12),
        (*ragged(64, (32, 513), 32), 2048, 1.16),
        ([264] * 100, [10] * 100, 2048, 1.1),
        ([66] * 100, [6] * 100, 2048, 1.22),
        ([20] * 1000, [3] * 1000, 2048, 1.08),
    ],
)
def test_few_shapes_hold_the_pool_with_little_padding(lengths, targets, batch_tokens, most):
    shapes = [batch.shape for batch in planned(lengths, targets, batch_tokens)]
    assert len(set(shapes)) <= 6
    assert sum(shape.tokens for shape in shapes) <= most * sum(lengths)
    assert sum(shape.targets for shape in shapes) <= 1.25 * sum(targets)


def test_short_rows_for_short_sequences():
    # A row of 2,048 tokens would hold them too, with four times the attention.
    found = planned([2000, 2000, *[100] * 300], [1] * 302, 4096)
    widths = Counter(batch.shape.width for batch in found)
    assert max(widths) == 2016 and min(widths) <= 512
    assert widths[2016] == 1


def test_a_tpu_has_rows_of_whole_blocks():
    topologies = pytest.importorskip("jax.experimental.topologies")
    pytest.importorskip("libtpu")
    devices = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices
    found = planned(*ragged(2000, (10, 1501), 60), 16384, make_mesh(devices=devices))
    widths = {batch.shape.width for batch in found}
    assert len(widths) <= 6
    assert all(width % (256 if width > 1024 else 128) == 0 for width in widths)


def test_a_batch_by_hand():
    sequences = [
        TrainingSequence([5, 6], [], [7]),
        TrainingSequence([8], [9], [1, 2]),
        TrainingSequence([4], [], [3]),
    ]
    shape = Shape(parts=2, rows=1, width=8, targets=4, sequences=3)
    batch = batches.fill(PlannedBatch(shape, [[[1, 0]], [[2]]]), sequences, pad_id=0)
    np.testing.assert_array_equal(batch.tokens, [[8, 9, 1, 2, 5, 6, 7, 0], [4, 3, *[0] * 6]])
    np.testing.assert_array_equal(batch.positions, [[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, *[0] * 6]])
    np.testing.assert_array_equal(batch.segments, [[1, 1, 1, 1, 2, 2, 2, 0], [1, 1, *[0] * 6]])
    np.testing.assert_array_equal(batch.target_at, [[1, 2, 5, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.target, [[1, 2, 7, 0], [3, 0, 0, 0]])
    np.testing.assert_array_equal(batch.target_of, [[1, 1, 2, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.prompt_length, [[0, 1, 2, 0], [0, 1, 0, 0]])
    assert PlannedBatch(shape, [[[1, 0]], [[2]]]).members == [[1, 0], [2]]


def test_the_second_row_of_a_part_counts_from_the_end_of_the_first():
    sequences = [TrainingSequence([5, 6], [], [7]), TrainingSequence([8], [], [9])]
    shape = Shape(parts=1, rows=2, width=4, targets=3, sequences=2)
    batch = batches.fill(PlannedBatch(shape, [[[0], [1]]]), sequences, pad_id=0)
    np.testing.assert_array_equal(batch.target_at, [[1, 4, 0]])
    np.testing.assert_array_equal(batch.segments, [[1, 1, 1, 0], [2, 2, 0, 0]])
