"""Asks the teacher: its client, its requests, the rules for keeping replies, and the budget."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

from bridge_jax.config import API_TEACHERS, BudgetConfig, RunConfig, TeacherConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger import accounts, prices
from bridge_jax.ledger.accounts import AccountState, open_ledger
from bridge_jax.ledger.consent import Quote
from bridge_jax.ledger.prices import Prices, cap_in_nanodollars, in_usd
from bridge_jax.ledger.requests import (
    Failure,
    Message,
    MessageRole,
    Tally,
    TeacherReply,
    TeacherRequest,
)
from bridge_jax.pipeline.storage import Folder
from bridge_jax.progress import Advance, track
from bridge_jax.teachers import prompts as teacher_prompts
from bridge_jax.teachers import recorded
from bridge_jax.teachers.annotate import RateLimits, annotate
from bridge_jax.teachers.api import server_of
from bridge_jax.teachers.batch import annotate_in_batches, collect_left_open
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.openai_teacher import OpenAITeacher
from bridge_jax.teachers.protocol import Teacher
from bridge_jax.teachers.replies import Ask, Rules, is_good, resample
from bridge_jax.text import prompts

_log = logging.getLogger(__name__)


CountTokens = Callable[[str], int]  # With the student's tokenizer.


@dataclasses.dataclass(frozen=True)
class Asking:
    """Parameters of a stage that asks the teacher.

    Attributes:
      teacher: the teacher, and how it is asked.
      server: the server that answers; "" is the vendor's own.
      variant: which recorded rationale a recorded teacher replies with.
      budget: the caps and the ledger; in no key, since they do not change the replies.
    """

    teacher: TeacherConfig
    server: str
    variant: str
    budget: Annotated[BudgetConfig, UNKEYED]


def asking(config: RunConfig) -> Asking:
    """Returns the `Asking` parameters of a config."""
    return Asking(config.teacher, server_of(config.teacher), config.data.rationale, config.budget)


def selected_count(config: RunConfig) -> int:
    """Returns the number of examples to ask the teacher about."""
    left = config.budget.queries - held_out_count(config)
    return config.selection.size or left // config.teacher.samples


def held_out_count(config: RunConfig) -> int:
    """Returns the number of test and dev questions to ask the teacher."""
    return config.evaluation.teacher_test + config.evaluation.teacher_dev


def make_teacher(params: Asking, examples: Sequence[Example], count: CountTokens) -> Teacher:
    """Returns the teacher; a recorded one answers from `examples`, or from `replay_from`."""
    config = params.teacher
    if config.replay_from:
        return recorded.open_replay(Path(config.replay_from), count)
    if config.kind in API_TEACHERS:
        return _api_teacher(config)
    return recorded.from_examples(config.kind, examples, params.variant, count)


def is_paid(config: TeacherConfig) -> bool:
    """Returns whether requests cost money; recorded teachers are free."""
    return config.kind in API_TEACHERS and not config.replay_from


def check_key(config: TeacherConfig) -> None:
    """Checks that the key and the SDK of a paid teacher are available.

    Raises:
      UserError: one is missing.
    """
    if is_paid(config):
        _api_teacher(config).check()


def prices_of(config: TeacherConfig) -> Prices:
    """Returns the price list."""
    return Prices(config.usd_per_million_input, config.usd_per_million_output, config.batch_share)


def make_request(params: Asking, example: Example) -> TeacherRequest:
    """Returns the request to the teacher about an example."""
    config = params.teacher
    if config.kind in API_TEACHERS:
        messages = teacher_prompts.messages(
            example, config.show_gold, config.structured, config.reasoning == "long"
        )
        return request_of(params, example.id, config.model, messages)
    chat = prompts.messages(example, "reason")
    # The ledger identifies a request by its model and messages. The messages are the same for all
    # variants of a recorded teacher, and for questions that ask for an explanation (kind `text`).
    # So the model's name tells them apart.
    explains = "/text" if example.kind == "text" else ""
    words = tuple(Message(cast(MessageRole, m["role"]), m["content"]) for m in chat)
    said = example.rationales.get(params.variant)
    return request_of(params, example.id, f"{config.model}/{params.variant}{explains}", words, said)


def request_of(
    params: Asking,
    example_id: str,
    model: str,
    messages: tuple[Message, ...],
    said: str | None = None,
) -> TeacherRequest:
    """Returns a request to the teacher.

    Args:
      params: the parameters of the stage.
      example_id: the example that it asks about.
      model: the teacher's name.
      messages: the chat.
      said: the reply of a recorded teacher, if it is known.
    """
    config = params.teacher
    if config.kind in API_TEACHERS:
        request = TeacherRequest(
            example_id,
            model,
            messages,
            config.max_output_tokens,
            None if config.temperature < 0 else config.temperature,
            structured=config.structured,
            server=params.server,
        )
    else:
        content = "" if said is None else hashlib.sha256(said.encode()).hexdigest()
        most = config.max_output_tokens
        request = TeacherRequest(example_id, model, messages, most, recorded=content)
    if not config.replay_from:
        return request
    model = recorded.recorded_model(Path(config.replay_from), request.model)
    return dataclasses.replace(request, model=model)


def rules_of(config: TeacherConfig, count: CountTokens) -> Rules:
    """Returns the rules for keeping the teacher's rationales."""
    return Rules(
        count,
        config.keep_wrong,
        config.min_rationale_tokens,
        config.max_rationale_tokens,
        config.samples,
        config.min_agreement,
    )


class Question(NamedTuple):
    """A question to the teacher: its first request, and the rules for keeping replies."""

    example: Example
    request: TeacherRequest
    rules: Rules


def ask(
    params: Asking, examples: Sequence[Example], count: CountTokens, workdir: Path
) -> tuple[list[list[TeacherReply | Failure]], dict[str, Any]]:
    """Asks about the examples; every request goes through the ledger of a workdir.

    Returns:
      The outcomes per example, and the bill.
    """
    asker = make_teacher(params, examples, count)
    asked = _questions(params, examples, count)
    return ask_questions(params, asked, asker, params.teacher.retries, workdir)


def ask_questions(
    params: Asking, questions: Sequence[Question], teacher: Teacher, retries: int, workdir: Path
) -> tuple[list[list[TeacherReply | Failure]], dict[str, Any]]:
    """Asks questions; every request goes through the ledger of a workdir.

    Args:
      params: the parameters of the stage.
      questions: all with the same `rules.samples`.
      teacher: the teacher of `params`; a recorded one has answers to these questions.
      retries: the most further replies to a question, while none is good.

    Returns:
      The outcomes per question, and the bill.
    """
    config = params.teacher
    limits = RateLimits(config.requests_per_minute, config.tokens_per_minute)
    with open_ledger(workdir, params.budget, prices_of(config), not is_paid(config)) as ledger:
        if is_paid(config) and not config.batch:
            # Only this backend has batch jobs.
            with_jobs = dataclasses.replace(config, backend="google-genai")
            collect_left_open(_api_teacher(with_jobs), ledger, config.batch_poll_seconds)

        def ask_all(
            requests: Sequence[TeacherRequest], optional: bool
        ) -> list[TeacherReply | Failure]:
            what = "teacher, again" if optional else "teacher"
            tally = Tally()
            more: dict[str, Any] = {"attempts": config.attempts, "optional": optional}
            with track(what, len(requests), "requests") as advance:
                more |= {"on_reply": _steps(advance, tally), "tally": tally}
                if is_paid(config) and config.batch:
                    asker, seconds = _api_teacher(config), config.batch_poll_seconds
                    found = annotate_in_batches(asker, ledger, requests, seconds, **more)
                else:
                    threads = config.concurrency
                    found = annotate(teacher, ledger, requests, threads, limits=limits, **more)
            _say_what_failed(teacher.name, tally, optional)
            return found

        return _in_rounds(questions, retries, ask_all), ledger.bill()


def in_rounds(
    params: Asking, examples: Sequence[Example], count: CountTokens, ask_all: Ask
) -> list[list[TeacherReply | Failure]]:
    """Returns the outcomes per example: those of its samples, then of its retries."""
    return _in_rounds(_questions(params, examples, count), params.teacher.retries, ask_all)


def _questions(params: Asking, examples: Sequence[Example], count: CountTokens) -> list[Question]:
    rules = rules_of(params.teacher, count)
    return [Question(example, make_request(params, example), rules) for example in examples]


def _in_rounds(
    questions: Sequence[Question], retries: int, ask_all: Ask
) -> list[list[TeacherReply | Failure]]:
    def good(number: int, said: Sequence[TeacherReply | Failure]) -> bool:
        return is_good(questions[number].example, said, questions[number].rules)

    samples = questions[0].rules.samples if questions else 1
    return resample([q.request for q in questions], samples, retries, good, ask_all)


def write_bill(out: Folder, file: str, spend: dict[str, Any], config: TeacherConfig) -> None:
    """Writes the bill of a stage, with the price list used to settle it."""
    names = ("usd_per_million_input", "usd_per_million_output")
    out.write_record(file, spend | {"prices": {name: getattr(config, name) for name in names}})


class PlannedRequests(NamedTuple):
    """A plan to ask about `count` of `examples`; which of them may not be known yet."""

    params: Asking
    count: int
    examples: Sequence[Example]


def check_budget(plans: Sequence[PlannedRequests], count: CountTokens, workdir: Path) -> str:
    """Checks that the caps can pay for the planned requests, before anything is trained.

    Every request counts at its highest possible cost, which is reserved for it. Requests with an
    answer on the ledger are free.

    Args:
      plans: one for each stage that asks; at least one. All have one teacher and one budget.
      count: counts the tokens of a text.
      workdir: the workdir, from whose ledger the teacher is paid.

    Returns:
      A note if the caps may not pay for all requests; "" if they will.

    Raises:
      UserError: the ledger has none of the answers, and the caps cannot pay for a single request.
    """
    budget, settings = plans[0].params.budget, plans[0].params.teacher
    account = accounts.account_state(workdir, budget)
    known = account.answered
    asked = requests = dearest_of_all = 0
    new: list[TeacherRequest] = []
    costs: list[int] = []
    for params, wanted, examples in plans:
        all_of_plan = [make_request(params, example) for example in examples]
        asked += len(all_of_plan)
        # Keys are computed only if needed: that takes longer than making the requests.
        left_over = [r for r in all_of_plan if r.key not in known] if known else all_of_plan
        asker = make_teacher(params, examples, count)
        found = _costs(params.teacher, asker, left_over, account)
        planned, samples = min(wanted, len(left_over)), params.teacher.samples
        requests += planned * samples
        dearest_of_all += samples * sum(sorted(found)[len(found) - planned :])
        new, costs = new + left_over, costs + found
    if not new:
        return ""
    room = cap_in_nanodollars(budget.usd) - account.nanodollars
    left = max(0, budget.queries - account.queries)
    spent = (
        f" ({in_usd(account.nanodollars):.6f} of it already spent)" if account.nanodollars else ""
    )
    longest = f"a reply of teacher.max_output_tokens={settings.max_output_tokens}"
    if len(new) == asked and min(costs) > room:
        cheapest = new[costs.index(min(costs))]
        why = prices.overrun_in_words(cheapest.model, account.permille.get(cheapest.model, 0))
        raise UserError(
            f"budget.usd={budget.usd}{spent} cannot pay for one request to the teacher: the "
            f"cheapest, about example {cheapest.example_id!r}, may cost up to "
            f"{in_usd(min(costs)):.6f} US dollars with {longest}{why}; raise budget.usd, or lower "
            "teacher.max_output_tokens"
        )
    if len(new) == asked and left < 1:
        raise UserError(
            f"budget.queries={budget.queries} is used up by other requests of this run; raise it, "
            "or use a new workdir"
        )
    if dearest_of_all > room:
        covered = min(requests - 1, max(0, room // max(costs)))
        return (
            f"budget.usd={budget.usd}{spent} guarantees only {covered:,} of {requests:,} "
            f"requests to the teacher: one may cost up to {in_usd(max(costs)):.6f} US dollars "
            f"with {longest}. Shorter replies leave room for more; the run stops where the next "
            "request does not fit"
        )
    if requests > left:
        return (
            f"budget.queries={budget.queries} leaves room for {left:,} of up to {requests:,} "
            "requests to the teacher; the run stops there"
        )
    return ""


def quote(
    config: RunConfig,
    plans: Sequence[PlannedRequests],
    count: CountTokens,
    workdir: Path,
) -> Quote | None:
    """Returns the most requests that a run may send and their highest cost, with every retry.

    If one plan has all requests, each counts at its highest possible cost. Otherwise only the caps
    of the budget are known. Requests with an answer on the ledger count too, so that a resumed run
    has the same quote as before.

    Args:
      config: the config of the run.
      plans: the plans of all stages that ask; empty if not all are known, since a stage asks about
        what an earlier one writes.
      count: counts the tokens of a text.
      workdir: the workdir, from whose ledger the teacher is paid.

    Returns:
      None if nobody is paid: the teacher is free, or the ledger has every answer.
    """
    budget = config.budget
    if not is_paid(config.teacher) or config.teacher.free:
        return None
    cap = cap_in_nanodollars(budget.usd)
    if len(plans) != 1:
        return Quote(config.teacher.model, budget.queries, cap)
    ((params, planned, examples),) = plans
    settings = params.teacher
    account = accounts.account_state(workdir, budget)
    requests = [make_request(params, example) for example in examples]
    if account.answered and all(request.key in account.answered for request in requests):
        return None
    costs = _costs(settings, make_teacher(params, examples, count), requests, account)
    rounds = settings.samples + settings.retries
    queries = min(budget.queries, rounds * min(planned, len(requests)))
    # An example is asked about at most once in each round.
    dearest = sorted(costs, reverse=True)[:planned]
    whole, rest = divmod(queries, rounds)
    most = rounds * sum(dearest[:whole]) + rest * (dearest[whole] if rest else 0)
    return Quote(settings.model, queries, min(cap, most))


def _costs(
    config: TeacherConfig, asker: Teacher, requests: Sequence[TeacherRequest], account: AccountState
) -> list[int]:
    """Returns the highest possible cost of each request, in nanodollars."""
    price_list, in_batch = prices_of(config), config.batch and is_paid(config)

    def cost(request: TeacherRequest) -> int:
        inputs = asker.estimate_input_tokens(request)
        listed = price_list.cost(inputs, request.max_output_tokens, in_batch)
        return prices.worst_case(listed, account.permille.get(request.model, prices.PERMILLE))

    return [cost(request) for request in requests]


def _api_teacher(config: TeacherConfig) -> OpenAITeacher | GeminiTeacher:
    return OpenAITeacher(config) if config.kind == "openai" else GeminiTeacher(config)


def _say_what_failed(name: str, tally: Tally, optional: bool) -> None:
    """Logs how many requests have no answer, and the most common reason.

    Raises:
      UserError: no request has a reply, and the requests are not optional.
    """
    failures = tally.failures()
    if failures and not tally.replies and not optional:
        raise UserError(f"teacher {name}: no request was answered: {failures}")
    if failures:
        _log.warning("teacher %s: %d answered, %s", name, tally.counts["answered"], failures)


def _steps(advance: Advance, tally: Tally) -> Callable[[int, int], None]:
    """Returns an `on_reply` callback: it advances the progress bar, with the counts of `tally`."""
    shown = 0

    def show(done: int, _: int) -> None:
        nonlocal shown
        advance(done - shown, **tally.info())
        shown = done

    return show
