"""Computes a model's confidence in its answers, and the accuracy of its confident answers.

Selective prediction (Geifman and El-Yaniv, 1705.08500): answers below a confidence threshold are
not trusted. This lowers the share of questions that are answered (coverage) and, if the confidence
is informative, the share of wrong answers among them (risk).
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.data.answers import cut_completion
from bridge_jax.evaluation.intervals import wilson
from bridge_jax.generation.engine import Completion
from bridge_jax.text.tokenizer import Tokenizer

SHARES = (0.95, 0.9, 0.8, 0.7, 0.5)  # Coverage at the thresholds that are shown.


def of_answer(tokenizer: Tokenizer, completion: Completion, start: int = 0) -> float | None:
    """Returns exp of the mean log-probability of the answer's own tokens, to four decimals.

    Tokens of the frame ("Answer:", the end token) do not count.

    Args:
      completion: with log-probabilities under the model's own distribution.
      start: index of the first token after the thinking, if that was split off before.

    Returns:
      None if the completion has no answer, or its tokens are not found.
    """
    ids = completion.ids[start:]
    text = tokenizer.decode(ids)
    _, said, rest = cut_completion(text)
    if said is None and start:  # The end of the thinking was the answer's mark.
        said, _, rest = (part.strip() for part in text.strip().partition("\n"))
    if not said:
        return None
    end = len(text.rstrip()) - len(rest)
    begin = text.rfind(said, 0, end)
    if begin < 0:
        return None

    def length(count: int) -> int:
        return len(tokenizer.decode(ids[:count]))

    counts = range(len(ids) + 1)
    first = bisect.bisect_right(counts, begin, key=length) - 1
    last = bisect.bisect_left(counts, begin + len(said), key=length)
    own = completion.logprobs[start + first : start + last]
    return round(math.exp(sum(own) / len(own)), 4) if own else None


def is_trusted(row: Mapping[str, Any], least: float) -> bool:
    """Returns whether a row has an answer with a confidence of `least` or more.

    An answer of unknown confidence (None) is trusted only if `least` is 0.
    """
    return row["answer"] is not None and (row["confidence"] or 0.0) >= least


def trusted(rows: Sequence[Mapping[str, Any]], least: float) -> dict[str, Any]:
    """Counts the trusted answers, and the right ones among them.

    Args:
      rows: rows with `answer`, `confidence` and `correct`; at least one.
      least: the threshold.

    Returns:
      `n`, the number of rows; `trusted`, how many are trusted; `share`, their share of the rows;
      `right`, how many trusted ones are right; and `accuracy`, `low`, `high`: the share of right
      answers among the trusted ones (95%, Wilson), None if none is trusted.
    """
    taken = [row for row in rows if is_trusted(row, least)]
    right = sum(bool(row["correct"]) for row in taken)
    low, high = wilson(right, len(taken)) if taken else (None, None)
    return {
        "n": len(rows),
        "trusted": len(taken),
        "share": len(taken) / len(rows),
        "right": right,
        "accuracy": right / len(taken) if taken else None,
        "low": low,
        "high": high,
    }


def thresholds(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns 0 and the thresholds that trust about `SHARES` of the rows, from low to high.

    Rows of equal confidence are trusted together, so a threshold may trust more than its share, and
    several shares may have the same threshold.
    """
    known = sorted(row["confidence"] or 0.0 for row in rows if row["answer"] is not None)
    counts = (math.ceil(share * len(rows)) for share in SHARES)
    return sorted({0.0, *(known[-count] for count in counts if 0 < count <= len(known))})
