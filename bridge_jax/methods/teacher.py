"""Builds the teacher's client, its requests, and the rules for keeping replies."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from bridge_jax.config import API_TEACHERS, BudgetConfig, RunConfig, TeacherConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger.accounts import open_ledger
from bridge_jax.ledger.prices import Prices
from bridge_jax.ledger.tally import Tally
from bridge_jax.progress import Advance, track
from bridge_jax.teachers import prompts as teacher_prompts
from bridge_jax.teachers import recorded
from bridge_jax.teachers.annotate import RateLimits, annotate
from bridge_jax.teachers.batch import annotate_in_batches, collect_left_open
from bridge_jax.teachers.gemini_batch import GeminiBatches
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.http import server_of, vendor_of
from bridge_jax.teachers.openai_batch import OpenAIBatches
from bridge_jax.teachers.openai_teacher import OpenAITeacher
from bridge_jax.teachers.protocol import Failure, Message, Reply, Request, Role, Teacher
from bridge_jax.teachers.replies import Ask, Rules, is_good, resample
from bridge_jax.text import prompts

_log = logging.getLogger(__name__)


Count = Callable[[str], int]  # of a text: its tokens, as the student reads it


@dataclasses.dataclass(frozen=True)
class Asking:
    """Parameters of the annotations.

    Attributes:
      teacher: who is asked, and how.
      server: that answers; "" is the vendor's own.
      variant: which recorded rationale a recorded teacher says.
      budget: the caps, and whose ledger. What was paid stays paid: they are in no key.
    """

    teacher: TeacherConfig
    server: str
    variant: str
    budget: Annotated[BudgetConfig, UNKEYED]


def asking(config: RunConfig) -> Asking:
    """Returns the parameters of a config."""
    return Asking(config.teacher, server_of(config.teacher), config.data.rationale, config.budget)


def selected_count(config: RunConfig) -> int:
    """Returns the number of examples to ask the teacher about."""
    return config.selection.size or config.budget.queries // config.teacher.samples


def make_teacher(params: Asking, examples: Sequence[Example], count: Count) -> Teacher:
    """Returns the teacher; a recorded one knows `examples`."""
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
    """Finds a missing key or SDK before the stages that come before the teacher are run.

    Raises:
      UserError: there is none.
    """
    if is_paid(config):
        _api_teacher(config).check()


def prices_of(config: TeacherConfig) -> Prices:
    """Returns the price list."""
    return Prices(config.usd_per_million_input, config.usd_per_million_output, config.batch_share)


def make_request(params: Asking, example: Example) -> Request:
    """Returns what the teacher is sent about an example."""
    config = params.teacher
    if config.kind in API_TEACHERS:
        request = Request(
            example.id,
            config.model,
            teacher_prompts.messages(example, config.show_gold, config.structured),
            config.max_output_tokens,
            None if config.temperature < 0 else config.temperature,
            structured=config.structured,
            server=params.server,
        )
    else:
        chat = prompts.messages(example, "reason")
        # A recorded teacher has several variants, and each is another model to the ledger; so is
        # one that explains, of whom the same is asked as of one that answers.
        explains = "/text" if example.kind == "text" else ""
        model = f"{config.model}/{params.variant}{explains}"
        words = tuple(Message(cast(Role, m["role"]), m["content"]) for m in chat)
        said = example.rationales.get(params.variant)
        request = Request(
            example.id,
            model,
            words,
            config.max_output_tokens,
            recorded="" if said is None else hashlib.sha256(said.encode()).hexdigest(),
        )
    if not config.replay_from:
        return request
    model = recorded.recorded_model(Path(config.replay_from), request.model)
    return dataclasses.replace(request, model=model)


def rules_of(config: TeacherConfig, count: Count) -> Rules:
    """Returns what is asked of the teacher's rationales."""
    return Rules(
        count,
        config.keep_wrong,
        config.min_rationale_tokens,
        config.max_rationale_tokens,
        config.samples,
        config.min_agreement,
    )


def ask(
    params: Asking, examples: Sequence[Example], count: Count, workdir: Path
) -> tuple[list[list[Reply | Failure]], dict[str, Any]]:
    """Asks about the examples, every request through the ledger of a workdir.

    Returns:
      The outcomes per example, and the bill.
    """
    config = params.teacher
    teacher = make_teacher(params, examples, count)
    limits = RateLimits(config.requests_per_minute, config.tokens_per_minute)
    prices = prices_of(config)
    with open_ledger(workdir, params.budget, prices, not is_paid(config)) as ledger:
        if is_paid(config) and not config.batch:
            collect_left_open(_batch_teacher(config), ledger, config.batch_poll_seconds)

        def ask_all(requests: Sequence[Request], optional: bool) -> list[Reply | Failure]:
            what = "teacher, again" if optional else "teacher"
            tally = Tally()
            with track(what, len(requests), "requests") as advance:
                show = _steps(advance, tally)
                if is_paid(config) and config.batch:
                    found = annotate_in_batches(
                        _batch_teacher(config),
                        ledger,
                        requests,
                        config.batch_poll_seconds,
                        show,
                        config.attempts,
                        optional,
                        tally,
                    )
                else:
                    found = annotate(
                        teacher,
                        ledger,
                        requests,
                        config.concurrency,
                        show,
                        config.attempts,
                        limits,
                        optional,
                        tally,
                    )
            _say_what_failed(teacher.name, tally, optional)
            return found

        return in_rounds(params, examples, count, ask_all), ledger.bill()


def in_rounds(
    params: Asking, examples: Sequence[Example], count: Count, ask_all: Ask
) -> list[list[Reply | Failure]]:
    """Returns the outcomes per example: those of its samples, then of its retries."""
    config, rules = params.teacher, rules_of(params.teacher, count)
    return resample(
        [make_request(params, example) for example in examples],
        config.samples,
        config.retries,
        lambda n, said: is_good(examples[n], said, rules),
        ask_all,
    )


def _api_teacher(config: TeacherConfig) -> OpenAITeacher | GeminiTeacher:
    if config.kind == "openai":
        return OpenAITeacher(config.model, config.base_url, config.timeout, config.allow_http)
    return GeminiTeacher(
        config.model, config.base_url, config.timeout, config.backend, config.allow_http
    )


def _batch_teacher(config: TeacherConfig) -> OpenAIBatches | GeminiBatches:
    make = OpenAIBatches if config.kind == "openai" else GeminiBatches
    teacher = make(config.model, config.base_url, config.timeout, allow_http=config.allow_http)
    teacher.vendor = vendor_of(config)
    return teacher


def _say_what_failed(name: str, tally: Tally, optional: bool) -> None:
    """Says how many requests have no answer, and why most of them.

    Raises:
      UserError: none has a reply, and the run cannot do without.
    """
    failures = tally.failures()
    if failures and not tally.replies and not optional:
        raise UserError(f"teacher {name}: no request is answered: {failures}")
    if failures:
        _log.warning("teacher %s: %d answered, %s", name, tally.counts["answered"], failures)


def _steps(advance: Advance, tally: Tally) -> Callable[[int, int], None]:
    """Returns `advance` for the totals that `annotate` reports, with the counts of `tally`."""
    shown = 0

    def show(done: int, _: int) -> None:
        nonlocal shown
        advance(done - shown, **tally.info())
        shown = done

    return show
