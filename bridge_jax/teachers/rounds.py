"""Several replies to one question: samples, and further attempts where none of them was good."""

import dataclasses
from collections.abc import Callable, Sequence

from bridge_jax.teachers.protocol import Request
from bridge_jax.teachers.verification import Outcome

Ask = Callable[[Sequence[Request], bool], Sequence[Outcome]]


def ask_in_rounds(
    requests: Sequence[Request],
    samples: int,
    retries: int,
    is_good: Callable[[int, Sequence[Outcome]], bool],
    ask: Ask,
) -> list[list[Outcome]]:
    """Returns the outcomes of each request: those of its samples, then of its retries.

    Which questions are asked again follows from the replies alone, so a run that is interrupted and
    repeated asks the same, and finds it on the ledger.

    Args:
      requests: one a question.
      samples: replies to each question.
      retries: further ones at most, one after the other, while none is good.
      is_good: from the index of a request and its outcomes so far.
      ask: from requests and whether they may be left out where a cap leaves no room.
    """
    first = [dataclasses.replace(r, sample=i) for r in requests for i in range(samples)]
    outcomes = ask(first, False)
    found = [list(outcomes[n * samples : (n + 1) * samples]) for n in range(len(requests))]
    for sample in range(samples, samples + retries):
        again = [n for n, outcomes in enumerate(found) if not is_good(n, outcomes)]
        if not again:
            break
        further = ask([dataclasses.replace(requests[n], sample=sample) for n in again], True)
        for n, outcome in zip(again, further):
            found[n].append(outcome)
    return found
