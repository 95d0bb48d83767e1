"""Confidence of a model in its rationale: the log-probabilities of the steps."""

import bisect
import itertools
import re

from bridge_jax.generation.engine import Completion
from bridge_jax.text.tokenizer import Tokenizer

# After the full stop of a sentence, and before a line break that follows none.
_STEP_END = re.compile(r"[.!?](?=\s)|(?<=[^.!?\s])(?=\n)")


def step_logprobs(completion: Completion, tokenizer: Tokenizer) -> list[float]:
    """Returns the mean log-probability of each step, in nats a token.

    A step is a sentence or a line. The answer line is the last one, and the end token, if it was
    written, is part of it. A token that reaches over the end of a step is part of that step.
    """
    ids, logprobs = completion.ids, completion.logprobs

    def characters(count: int) -> int:
        return len(tokenizer.decode(ids[:count]))

    ends = [match.end() for match in _STEP_END.finditer(tokenizer.decode(ids))]
    cuts = [bisect.bisect_left(range(len(ids)), end, key=characters) for end in ends]
    steps = [logprobs[a:b] for a, b in itertools.pairwise([0, *cuts, len(logprobs)])]
    return [sum(step) / len(step) for step in steps if step]
