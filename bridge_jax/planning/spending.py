"""What a run will pay its teacher."""

import asyncio
import contextlib
from typing import NamedTuple

import numpy as np

from bridge_jax.config import RunConfig
from bridge_jax.errors import UserError
from bridge_jax.phases import teacher
from bridge_jax.phases.context import Run
from bridge_jax.planning.lengths import SAMPLE, Lengths
from bridge_jax.teachers.prices import in_usd


class Spending(NamedTuple):
    """What the teacher is expected to cost, and between which bounds.

    Attributes:
      queries: requests.
      input_tokens, output_tokens, usd: expected.
      usd_low, usd_high: the cheapest selection, and the dearest with every retry that the budget
        leaves room for.
    """

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float
    usd_low: float
    usd_high: float


def expected(run: Run) -> Spending:
    """Returns what the teacher of a run is expected to cost."""
    config, lengths = run.config, Lengths(run)
    if not config.asks_teacher:
        return Spending(0, 0, 0, 0.0, 0.0, 0.0)
    prices = teacher.prices_of(config.teacher)
    batch = config.teacher.batch and teacher.is_paid(config.teacher)
    queries = config.selected * config.teacher.samples
    most = config.teacher.max_output_tokens
    if not lengths.pool:
        cost = queries * prices.cost(config.max_prompt_tokens, most, batch)
        tokens = queries * config.max_prompt_tokens, queries * most
        return Spending(queries, *tokens, in_usd(cost), 0.0, _with_retries(config, in_usd(cost)))
    sample = lengths.pool[:SAMPLE]
    asked, pairs = teacher.make_teacher(run, sample), []
    count = run.tokenizer("student").encode
    with asyncio.Runner() as loop:
        for example in sample:
            request = teacher.make_request(run, example)
            said = sum(len(count(message.content)) for message in request.messages)
            written = most
            if not teacher.is_paid(config.teacher):
                said = asked.estimate_input_tokens(request)
                with contextlib.suppress(UserError):  # None is recorded, or a longer one.
                    written = loop.run(asked.ask(request)).output_tokens
            pairs.append((said, written))
    costs = sorted(prices.cost(said, written, batch) for said, written in pairs)
    few = min(queries, len(costs))
    low, high = (sum(part) * queries / few for part in (costs[:few], costs[-few:]))
    inputs, outputs = (round(float(np.mean(column)) * queries) for column in zip(*pairs))
    usd = in_usd(round(float(np.mean(costs)) * queries))
    most_usd = _with_retries(config, in_usd(round(high)))
    return Spending(queries, inputs, outputs, usd, in_usd(round(low)), most_usd)


def _with_retries(config: RunConfig, usd: float) -> float:
    """Returns the cost of the first answers and of all retries that the budget leaves room for."""
    asked = config.selected * config.teacher.samples
    with_retries = min(
        usd
        * min(1 + config.teacher.retries / config.teacher.samples, config.budget.queries / asked),
        config.budget.usd,
    )
    return max(usd, with_retries)
