"""Selects the texts with the most new token n-grams, by weighted maximum coverage."""

import collections
import heapq
import itertools
from collections.abc import Iterable, Sequence

NGRAM_TOKENS = 3  # Our default.

Ngram = tuple[int, ...]


def ngrams(text: Sequence[int], size: int = NGRAM_TOKENS) -> set[Ngram]:
    """Returns the distinct n-grams of `size` tokens; a shorter text counts as one n-gram."""
    count = max(1, len(text) - size + 1)
    return {tuple(text[i : i + size]) for i in range(count)} if text else set()


def most_novel(
    texts: Sequence[Sequence[int]], known: Iterable[Sequence[int]], count: int
) -> list[int]:
    """Returns the indices of `count` texts, in the order of selection.

    Each step takes the text whose new n-grams have the largest total weight. An n-gram is new if it
    is in no known text and in no text taken before. Its weight is the number of texts that contain
    it, so n-grams shared by many texts come first. This is weighted maximum coverage, for which the
    greedy choice reaches at least 1 - 1/e of the optimum (Nemhauser, Wolsey and Fisher 1978). The
    weight that a text adds can only shrink, so it is recomputed only for the text that currently
    seems best (Minoux 1978).

    Args:
      texts: the token ids of each text.
      known: the token ids of each text that is there already.
      count: the number of texts to take; all of them if there are fewer. Ties go to the first text.
    """
    said = set(itertools.chain.from_iterable(ngrams(text) for text in known))
    new = [ngrams(text) - said for text in texts]
    weights = collections.Counter(itertools.chain.from_iterable(new))

    def gain(index: int) -> int:
        new[index] -= said
        return sum(weights[ngram] for ngram in new[index])

    best = [(-gain(index), index) for index in range(len(texts))]
    heapq.heapify(best)
    chosen: list[int] = []
    while best and len(chosen) < count:
        _, index = heapq.heappop(best)
        again = (-gain(index), index)
        if best and again > best[0]:
            heapq.heappush(best, again)
            continue
        chosen.append(index)
        said |= new[index]
    return chosen
