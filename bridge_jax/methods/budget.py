"""Checks that the caps can pay for the planned requests, before anything is trained."""

from collections.abc import Sequence
from pathlib import Path

from bridge_jax.config import TeacherConfig
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger import accounts, prices
from bridge_jax.ledger.accounts import Standing
from bridge_jax.ledger.prices import cap_in_nanodollars, in_usd
from bridge_jax.ledger.requests import Request
from bridge_jax.methods import teacher
from bridge_jax.methods.teacher import Asking, Count
from bridge_jax.teachers.protocol import Teacher


def check(
    params: Asking, selected: int, pool: Sequence[Example], count: Count, workdir: Path
) -> str:
    """Returns a note where the caps may not hold for all that is planned; "" where they will.

    Every request counts at its highest possible cost, as it is reserved. Which examples will be
    selected is not known yet: any of the pool may be. What the ledger has answered is free.

    Raises:
      UserError: the caps cannot pay for the cheapest request, and no answer is there already.
    """
    budget, settings = params.budget, params.teacher
    account = accounts.standing(workdir, budget)
    asked = [teacher.make_request(params, example) for example in pool]
    known = account.answered  # To tell a request's key takes longer than to make it.
    new = [request for request in asked if request.key not in known] if known else asked
    if not new:
        return ""
    asker = teacher.make_teacher(params, pool, count)
    costs = _costs(params.teacher, asker, new, account)
    room = cap_in_nanodollars(budget.usd) - account.nanodollars
    left = max(0, budget.queries - account.queries)
    spent = f", {in_usd(account.nanodollars):.6f} of it spent before" if account.nanodollars else ""
    longest = f"a reply of teacher.max_output_tokens={settings.max_output_tokens}"
    if len(new) == len(asked) and min(costs) > room:
        cheapest = new[costs.index(min(costs))]
        why = prices.overrun_in_words(cheapest.model, account.permille.get(cheapest.model, 0))
        raise UserError(
            f"budget.usd={budget.usd}{spent}, cannot pay for one request to the teacher: the "
            f"cheapest, about example {cheapest.example_id!r}, may cost up to "
            f"{in_usd(min(costs)):.6f} US dollars with {longest}{why}; raise budget.usd, or lower "
            "teacher.max_output_tokens"
        )
    if len(new) == len(asked) and left < 1:
        raise UserError(
            f"budget.queries={budget.queries} is used up by other requests of this run; raise it, "
            "or use a new workdir"
        )
    planned = min(selected, len(new))
    requests, dearest = planned * settings.samples, sorted(costs)[-planned:]
    if settings.samples * sum(dearest) > room:
        covered = min(requests - 1, max(0, room // dearest[-1]))
        return (
            f"budget.usd={budget.usd}{spent}, is sure to pay for {covered:,} of {requests:,} "
            f"requests to the teacher: one may cost up to {in_usd(dearest[-1]):.6f} US dollars "
            f"with {longest}. Shorter replies leave room for more; the run stops where the next "
            "request does not fit"
        )
    if requests > left:
        return (
            f"budget.queries={budget.queries} leaves {left:,} of up to {requests:,} requests to "
            "the teacher; the run stops there"
        )
    return ""


def _costs(
    config: TeacherConfig, asker: Teacher, requests: Sequence[Request], account: Standing
) -> list[int]:
    """Returns the highest possible cost of each request, nanodollars."""
    price_list, in_batch = teacher.prices_of(config), config.batch and teacher.is_paid(config)

    def cost(request: Request) -> int:
        inputs = asker.estimate_input_tokens(request)
        listed = price_list.cost(inputs, request.max_output_tokens, in_batch)
        return prices.worst_case(listed, account.permille.get(request.model, prices.ONE))

    return [cost(request) for request in requests]
