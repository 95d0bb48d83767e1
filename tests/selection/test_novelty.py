"""Texts are selected by what they say that is new."""

import itertools

import numpy as np
import pytest

from bridge_jax.selection.novelty import most_novel, ngrams


def test_ngrams():
    assert ngrams([1, 2, 3, 1, 2, 3], 3) == {(1, 2, 3), (2, 3, 1), (3, 1, 2)}
    assert ngrams([1, 2], 3) == {(1, 2)}
    assert ngrams([], 3) == set()


def test_what_many_say_comes_first_and_nothing_twice():
    texts = [
        [1, 2, 3],  # said by 0, 1 and 4
        [1, 2, 3, 9],  # 1 2 3 and, alone, 2 3 9
        [5, 6, 7, 8],  # known
        [7, 7, 7],
        [4, 1, 2, 3],  # 1 2 3 and, alone, 4 1 2
    ]
    known = [[0, 5, 6, 7, 8]]
    # 1: weight 3 + 1; then 3 and 4, each with one n-gram of weight 1; 0 and 2 add nothing.
    assert most_novel(texts, known, 5) == [1, 3, 4, 0, 2]
    assert most_novel(texts, known, 2) == [1, 3]
    assert most_novel(texts, [*known, [1, 2, 3]], 3) == [1, 3, 4]
    assert most_novel([], known, 3) == []


def test_the_greedy_choice_is_that_of_trying_each():
    rng = np.random.default_rng(0)
    for _ in range(20):
        texts = [rng.integers(0, 4, rng.integers(0, 12)).tolist() for _ in range(30)]
        known = [rng.integers(0, 4, 8).tolist()]
        said = set(itertools.chain.from_iterable(map(ngrams, known)))
        sets = [ngrams(text) for text in texts]
        weights = {g: sum(g in s for s in sets) for g in set().union(*sets)}
        expected = []
        for _ in range(10):
            left = [i for i in range(30) if i not in expected]
            best = max(left, key=lambda i: (sum(weights[g] for g in sets[i] - said), -i))
            expected.append(best)
            said |= sets[best]
        assert most_novel(texts, known, 10) == expected


@pytest.mark.parametrize("count", [0, 1, 7])
def test_no_more_than_there_are(count):
    assert len(most_novel([[1, 2, 3], [2, 3, 4], [3, 4, 5]], [], count)) == min(count, 3)
