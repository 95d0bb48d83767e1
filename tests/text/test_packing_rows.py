import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_jax.config import TrainConfig
from bridge_jax.errors import UserError
from bridge_jax.text.packing import best_fit, first_fit, pack
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.training.batches import Shuffled, steps_of

FIRST = TrainingSequence([11, 12, 13], [14, 15], [16])  # 6 tokens, 3 targets
SECOND = TrainingSequence([21, 22, 23, 24], [], [25, 26])  # 6, 2
THIRD = TrainingSequence([31], [32], [33])  # 3, 2


def test_rows_by_hand():
    rows = pack([FIRST, SECOND, THIRD], row_tokens=10, pad_id=9)
    # FIRST and THIRD share a row; SECOND does not fit beside FIRST.
    np.testing.assert_array_equal(
        rows.tokens,
        [[11, 12, 13, 14, 15, 16, 31, 32, 33, 9], [21, 22, 23, 24, 25, 26, 9, 9, 9, 9]],
    )
    np.testing.assert_array_equal(
        rows.positions, [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        rows.segments, [[1, 1, 1, 1, 1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]]
    )
    # The width is a multiple of 32, but no more than a row: 10.
    np.testing.assert_array_equal(
        rows.target_at, [[2, 3, 4, 6, 7, 0, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        rows.target, [[14, 15, 16, 32, 33, 0, 0, 0, 0, 0], [25, 26, 0, 0, 0, 0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(rows.rationale_weight, [[1, 1, 0, 1, 0, 0, 0, 0, 0, 0], [0] * 10])
    np.testing.assert_array_equal(
        rows.answer_weight, [[0, 0, 1, 0, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]
    )


def test_unpacked_rows():
    rows = pack([FIRST, THIRD], row_tokens=100, pad_id=0, packed=False)
    assert rows.tokens.shape == (2, 100) and rows.target.shape == (2, 32)
    np.testing.assert_array_equal((rows.segments > 0).sum(1), [6, 3])


def test_what_cannot_be_packed():
    with pytest.raises(UserError, match="has 6 tokens, but a row holds 5"):
        pack([FIRST], 5, 0)
    with pytest.raises(UserError, match="nothing to train on"):
        pack([], 5, 0)


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(20, 50))
def test_first_fit_places_each_once_and_never_overflows(lengths, capacity):
    rows = first_fit(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    for row in rows:
        assert row and sum(lengths[i] for i in row) <= capacity
    # No later row begins with what an earlier row had room for at that time.
    for number, row in enumerate(rows):
        for earlier in rows[:number]:
            before = sum(lengths[i] for i in earlier if i < row[0])
            assert before + lengths[row[0]] > capacity


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=12
    )
)
def test_every_target_is_the_token_after_its_position(shapes):
    counter = iter(range(1, 1000))
    sequences = [TrainingSequence(*([next(counter) for _ in range(n)] for n in s)) for s in shapes]
    rows = pack(sequences, 16, 0)
    used = (rows.rationale_weight + rows.answer_weight) > 0
    r, t = np.nonzero(used)
    np.testing.assert_array_equal(rows.target[r, t], rows.tokens[r, rows.target_at[r, t] + 1])
    taught = sorted(rows.target[used].tolist())
    assert taught == sorted(i for s in sequences for i in s.rationale + s.answer)
    by_part = [i for s in sequences for i in s.rationale]
    assert sorted(rows.target[rows.rationale_weight > 0].tolist()) == sorted(by_part)


def numbered(count):
    return pack([TrainingSequence([i], [], [i]) for i in range(1, count + 1)], 2, 0)


def test_an_epoch_has_every_row_once_and_fills_the_last_batch():
    rows = numbered(5)
    assert steps_of(rows, TrainConfig(epochs=2, batch_rows=2)) == 6
    assert steps_of(rows, TrainConfig(epochs=2, steps=5, batch_rows=2)) == 5
    feed = Shuffled(rows, 2, steps=5, seed=0)
    data = [feed.next_batch()[0] for _ in range(feed.steps)]
    assert len(data) == 6  # Whole epochs; the training takes as many as it has steps.
    for epoch in (range(3), range(3, 6)):
        seen = np.concatenate([data[step].tokens[:, 0] for step in epoch])
        assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    empty = np.concatenate([data[step].segments.sum(1) for step in range(3)]) == 0
    assert empty.sum() == 1


def test_order_depends_on_seed_and_epoch_only():
    def order(seed):
        data = Shuffled(numbered(32), 4, steps=16, seed=seed)
        return [data.next_batch()[0].tokens[:, 0].tolist() for _ in range(data.steps)]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0)[:8] != order(0)[8:]


def test_short_sequences_fill_the_rows_of_long_ones():
    # 9 leaves no room for 3 in a row of 10; 6 has a row of 10 too, with room for 4 or 3.
    lengths = [3, 9, 6, 4, 2]
    assert best_fit(lengths, [5, 10]) == {10: [[1], [2, 3]], 5: [[0, 4]]}


@given(st.lists(st.integers(1, 40), max_size=80), st.sets(st.integers(1, 40), max_size=3))
def test_no_two_rows_of_the_best_fit_could_be_one(lengths, widths):
    rows = best_fit(lengths, [*widths, 40])
    assert sorted(i for found in rows.values() for row in found for i in row) == [
        *range(len(lengths))
    ]
    filled = []
    for width, found in rows.items():
        for row in found:
            total = sum(lengths[i] for i in row)
            assert total <= width
            # It is the narrowest that holds the longest of them, which came first.
            assert width == min(w for w in [*widths, 40] if w >= lengths[row[0]])
            filled.append((width - total, total))
    for i, (room, _) in enumerate(filled):
        assert all(total > room for j, (_, total) in enumerate(filled) if i != j)
