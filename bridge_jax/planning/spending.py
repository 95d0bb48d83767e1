"""Estimates the cost of a run's teacher."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridge_jax.errors import UserError
from bridge_jax.ledger.prices import in_usd
from bridge_jax.methods import teacher
from bridge_jax.methods.teacher import Asking
from bridge_jax.pipeline.stages import Stage
from bridge_jax.planning.workload import SAMPLE, Lengths


class Spending(NamedTuple):
    """The expected cost of the teacher, and its bounds.

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


def expected(stages: Sequence[Stage], lengths: Lengths) -> Spending:
    """Returns the expected cost of the stages that ask a teacher.

    Args:
      stages: of a run.
      lengths: of its sequences.
    """
    found = [
        _of(stage.params, lengths.examples(stage.load) * stage.load.samples, lengths)
        for stage in stages
        if stage.artifact.work == "ask" and stage.load
    ]
    if not found:
        return Spending(0, 0, 0, 0.0, 0.0, 0.0)
    return Spending(*(sum(column) for column in zip(*found)))


def _of(params: Asking, queries: int, lengths: Lengths) -> Spending:
    """Returns the expected cost of the first answers to a number of queries, and its bounds."""
    prices = teacher.prices_of(params.teacher)
    batch = params.teacher.batch and teacher.is_paid(params.teacher)
    most, longest = params.teacher.max_output_tokens, lengths.config.max_prompt_tokens
    if not lengths.pool:
        usd = in_usd(queries * prices.cost(longest, most, batch))
        tokens = queries * longest, queries * most
        return Spending(queries, *tokens, usd, 0.0, _with_retries(params, queries, usd))
    sample, count = lengths.pool[:SAMPLE], lengths.inputs.count
    asked, pairs = teacher.make_teacher(params, sample, count), []
    with asyncio.Runner() as loop:
        for example in sample:
            request = teacher.make_request(params, example)
            said = sum(count(message.content) for message in request.messages)
            written = most
            if not teacher.is_paid(params.teacher):
                said = asked.estimate_input_tokens(request)
                with contextlib.suppress(UserError):  # None is recorded, or a longer one.
                    written = loop.run(asked.ask(request)).output_tokens
            pairs.append((said, written))
    costs = sorted(prices.cost(said, written, batch) for said, written in pairs)
    few = min(queries, len(costs))
    low, high = (sum(part) * queries / few for part in (costs[:few], costs[-few:]))
    inputs, outputs = (round(float(np.mean(column)) * queries) for column in zip(*pairs))
    usd = in_usd(round(float(np.mean(costs)) * queries))
    most_usd = _with_retries(params, queries, in_usd(round(high)))
    return Spending(queries, inputs, outputs, usd, in_usd(round(low)), most_usd)


def _with_retries(params: Asking, queries: int, usd: float) -> float:
    """Returns the cost of the first answers and of all retries that the budget leaves room for."""
    config, budget = params.teacher, params.budget
    rounds = min(1 + config.retries / config.samples, budget.queries / queries)
    return max(usd, min(usd * rounds, budget.usd))
