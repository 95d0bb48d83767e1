"""Selects texts with the most new n-grams of tokens, by weighted maximum coverage."""

import collections
import heapq
import itertools
from collections.abc import Iterable, Sequence

NGRAM_TOKENS = 3  # Our default.

Ngram = tuple[int, ...]


def ngrams(text: Sequence[int], size: int = NGRAM_TOKENS) -> set[Ngram]:
    """Returns the different sequences of `size` tokens; of a shorter text, the text."""
    count = max(1, len(text) - size + 1)
    return {tuple(text[i : i + size]) for i in range(count)} if text else set()


def most_novel(
    texts: Sequence[Sequence[int]], known: Iterable[Sequence[int]], count: int
) -> list[int]:
    """Returns the indices of `count` texts, in the order of selection.

    Each time the text is taken whose new n-grams weigh most. New are those that are in no known
    text, and in none that was taken before. The weight of an n-gram is the number of texts with it,
    so what many say comes first. This is weighted maximum coverage, where the greedy choice reaches
    1 - 1/e of the best (Nemhauser, Wolsey and Fisher 1978). The weight of what a text adds can only
    shrink, so it is computed again only for the text that seems best (Minoux 1978).

    Args:
      texts: token ids of each.
      known: token ids of texts that are there already.
      count: how many are wanted; all, where there are fewer. Of equal ones, the first.
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
