"""Shortens long reasoning to token budgets, and checks the results.

It is rewritten by the teacher, paid through the ledger, or by the assistant as downloaded, at no
cost. A rewriting is kept if it has the same answer, and if its length in the student's tokens is
within the limits of its budget.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from bridge_jax.config import API_TEACHERS, GenerationConfig, RunConfig
from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion, Request
from bridge_jax.ledger.requests import Failure, TeacherReply
from bridge_jax.methods import inputs
from bridge_jax.methods import teacher as paid
from bridge_jax.methods.annotations import Bill
from bridge_jax.methods.filtering import SFTTargets
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.teacher import Asking, CountTokens, Question
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline.artifacts import Artifact, record, rows
from bridge_jax.pipeline.models import RoleModel, write_completions
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.teachers import prompts as teacher_prompts
from bridge_jax.teachers import recorded
from bridge_jax.teachers.replies import Rules, annotation, is_good

CHAINS, SPEND = "chains.jsonl", "spend.json"


class Chain(TypedDict):
    """The reasoning about a question at one budget, and why it is kept or not.

    Attributes:
      budget: the budget, in tokens.
      tokens: the length of the rationale.
      asked: number of rewritings; 0 if the long reasoning itself is within the limits.
    """

    id: str
    budget: int
    question: str
    rationale: str
    answer: str | None
    gold: str
    correct: bool
    tokens: int
    asked: int
    kept: bool
    reason: str | None


ASKED = Artifact(
    "budgets/asked",
    "Paying for shorter reasoning",
    "ask",
    None,
    (rows(CHAINS, Chain), record(SPEND, Bill, is_result=False)),
)
WRITTEN = Artifact(
    "budgets/written", "Shortening the reasoning", "generate", "assistant", (rows(CHAINS, Chain),)
)


def limits(level: int, least: float, most: float) -> tuple[int, int]:
    """Returns the fewest and the most tokens of reasoning at a budget, from their shares of it."""
    # 0.55 x 100 is a little above 55 in floating point.
    return math.ceil(round(least * level, 9)), math.floor(round(most * level, 9))


class LongReasoning(NamedTuple):
    """Holds a question, reasoning about it, and the resulting answer, which counts as gold."""

    example: Example
    rationale: str
    answer: str


def long_reasoning(
    targets: SFTTargets, pool: Examples, judged: Folder | None, annotated: Folder | None
) -> list[LongReasoning]:
    """Returns the reasoning that the student would learn without budgets, its answer as gold."""
    return [
        LongReasoning(dataclasses.replace(example, answer=answer), rationale, answer)
        for example, rationale, answer in targets.of_pool(pool, judged, annotated)
        if rationale
    ]


@dataclasses.dataclass(frozen=True)
class Shortening:
    """Parameters of the shorter reasoning.

    Attributes:
      targets: the targets of the student before budgets, which are the long reasoning.
      levels: the budgets, in tokens.
      least, most: the limits of a text's length, as shares of its budget.
      tries: the most rewritings of a text to a budget.
    """

    targets: SFTTargets
    levels: tuple[int, ...]
    least: float
    most: float
    tries: int

    def rules(self, level: int, count: CountTokens) -> Rules:
        """Returns the rules for keeping reasoning at a budget."""
        names = "thinking.least x budget", "thinking.most x budget"
        return Rules(count, False, *limits(level, self.least, self.most), limits=names)

    def questions(
        self, long: Sequence[LongReasoning], count: CountTokens
    ) -> tuple[list[dict[str, Any]], list[tuple[LongReasoning, int, Rules]]]:
        """Returns rows of reasoning that already fits, and (reasoning, budget, rules) to rewrite.

        Reasoning that is too short for a budget is in neither: rewriting does not make it longer.
        """
        whole, asked = [], []
        for each in long:
            tokens = count(each.rationale)
            for level in self.levels:
                rules = self.rules(level, count)
                if tokens > rules.max_tokens:
                    asked.append((each, level, rules))
                elif tokens >= rules.min_tokens:
                    whole.append(_row(each, level, [_as_reply(each)], rules, count) | {"asked": 0})
        return whole, asked


@dataclasses.dataclass(frozen=True)
class Paying(Asking):
    """Parameters of the shorter reasoning that the teacher writes."""

    how: Shortening


@dataclasses.dataclass(frozen=True)
class Rewriting:
    """Parameters of the shorter reasoning that the assistant writes.

    Attributes:
      how: the budgets, the limits and the number of tries.
      generation: the settings of generation.
      seed: the seed of sampling.
    """

    how: Shortening
    generation: GenerationConfig
    seed: int


def _as_reply(long: LongReasoning) -> TeacherReply:
    text = f"{long.rationale}\n{teacher_prompts.ANSWER_MARK} {long.answer}"
    return TeacherReply(text, 0, 0)


def _row(
    long: LongReasoning,
    level: int,
    outcomes: Sequence[TeacherReply | Failure],
    rules: Rules,
    count: CountTokens,
) -> dict[str, Any]:
    """Returns the row of `chains.jsonl` for a question at a budget."""
    found = annotation(long.example, outcomes, rules)
    return found | {"budget": level, "tokens": count(found["rationale"])}


def _words(long: LongReasoning, level: int, rules: Rules) -> int:
    """Returns the number of words to ask for, since a model cannot count another's tokens."""
    words, tokens = len(long.rationale.split()), rules.count_tokens(long.rationale)
    return max(1, math.floor(min(level, rules.max_tokens) * words / tokens))


def pay(
    params: Paying,
    out: Folder,
    pool: Examples,
    count: CountTokens,
    workdir: Path,
    annotated: Folder | None = None,
    judged: Folder | None = None,
) -> None:
    """Asks the teacher to shorten the reasoning to each budget, through the ledger.

    Args:
      params: the budgets, the teacher and what it may cost.
      out: the folder of the stage.
      pool: the questions.
      count: counts the tokens of a text with the student's tokenizer.
      workdir: the workdir, from whose ledger the teacher is paid.
      annotated, judged: the folders of the stages that have the long reasoning.

    Raises:
      UserError: the teacher or the ledger fails; the answers so far are kept.
    """
    if not hosts.is_first():  # One process asks; the others read its rows in the next stage.
        return
    long = long_reasoning(params.how.targets, pool, judged, annotated)
    whole, asked = params.how.questions(long, count)
    questions = [_question(params, each, level, rules) for each, level, rules in asked]
    teacher = _teacher(params, questions, count)
    with preemption.immediately():
        # A recorded teacher always gives the same reply.
        more = params.how.tries - 1 if params.teacher.kind in API_TEACHERS else 0
        alone = [question for question, _ in questions]
        outcomes, spend = paid.ask_questions(params, alone, teacher, more, workdir)
    again = [
        _row(each, level, said, rules, count) for (each, level, rules), said in zip(asked, outcomes)
    ]
    out.write_rows(CHAINS, _in_order(pool, [*whole, *again]))
    paid.write_bill(out, SPEND, spend, params.teacher)


def _question(
    params: Asking, long: LongReasoning, level: int, rules: Rules
) -> tuple[Question, str]:
    """Returns the question that asks to shorten reasoning to a budget, and the recorded reply.

    A recorded teacher replies with the longest recorded variant within the largest length, or with
    the shortest one if all are longer. For an API teacher, the recorded reply is "".
    """
    config, example = params.teacher, long.example
    is_api = config.kind in API_TEACHERS
    words = _words(long, level, rules)
    structured = config.structured and is_api
    messages = teacher_prompts.shorten(example, long.rationale, long.answer, words, structured)
    model, said = config.model, ""
    if not is_api:
        model, said = f"{config.model}/shorter", _variant(params, long, rules)
    asked = paid.request_of(params, f"{example.id}@{level}", model, messages, said)
    return Question(example, asked, rules), said


def _variant(params: Asking, long: LongReasoning, rules: Rules) -> str:
    """Returns the recorded variant for a budget, or the long reasoning; each with its answer."""
    texts = sorted(long.example.rationales.values(), key=rules.count_tokens)
    fitting = [text for text in texts if rules.count_tokens(text) <= rules.max_tokens]
    if fitting:
        text = fitting[-1]
    else:
        text = texts[0] if texts else long.rationale
    return recorded.reply_of(params.teacher.kind, long.example, text)


def _teacher(params: Asking, questions: Sequence[tuple[Question, str]], count: CountTokens) -> Any:
    """Returns the teacher; a recorded one holds its answer to each question."""
    config = params.teacher
    if config.kind in API_TEACHERS or config.replay_from:
        return paid.make_teacher(params, (), count)
    texts = {question.request.example_id: said for question, said in questions}
    return recorded.of_texts(f"{config.kind}/shorter", texts, count)


def _in_order(pool: Examples, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows in the order of the pool, and by budget for each question."""
    place = {example.id: number for number, example in enumerate(pool)}
    return sorted(found, key=lambda row: (place[row["id"]], row["budget"]))


def rewrite(
    params: Rewriting,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    count: CountTokens,
    annotated: Folder | None = None,
    judged: Folder | None = None,
) -> None:
    """Shortens the reasoning to each budget with the assistant as downloaded.

    Args:
      params: the budgets and the settings of generation.
      out: the folder of the stage.
      pool: the questions.
      count: counts the tokens of a text with the student's tokenizer.
      annotated, judged: the folders of the stages that have the long reasoning.

    Raises:
      UserError: a request and its reply exceed the assistant's context.
    """

    def to_row(_: Example, completion: Completion) -> dict[str, Any]:
        finish = "stop" if completion.ended else "length"
        return {"text": tokenizer.decode(completion.ids), "finish": finish}

    long = long_reasoning(params.how.targets, pool, judged, annotated)
    found, questions = params.how.questions(long, count)
    longest = f"{params.generation.max_new_tokens} tokens"
    asked = [
        (each, level, dataclasses.replace(rules, longest=longest))
        for each, level, rules in questions
    ]
    model = assistant.load()
    tokenizer, engine = model.tokenizer, model.engine(params.generation, params.seed)
    outcomes: list[list[TeacherReply | Failure]] = [[] for _ in asked]
    for attempt in range(params.how.tries):
        rejected = [
            n
            for n, (each, _, rules) in enumerate(asked)
            if not is_good(each.example, outcomes[n], rules)
        ]
        requests = []
        for n in rejected:
            each, level, rules = asked[n]
            words = _words(each, level, rules)
            chat = teacher_prompts.shorten(each.example, each.rationale, each.answer, words, False)
            messages = [{"role": m.role, "content": m.content} for m in chat]
            stream = n * params.how.tries + attempt
            requests.append(Request(tokenizer.render_chat(messages), stream=stream))
        file = f"attempt_{attempt}.jsonl"
        examples = [asked[n][0].example for n in rejected]
        name = "shorter reasoning"
        written = write_completions(out, file, name, engine, examples, requests, to_row)
        for n, row in zip(rejected, written):
            outcomes[n].append(TeacherReply(row["text"], 0, 0, row["finish"]))
    for (each, level, rules), said in zip(asked, outcomes):
        found.append(_row(each, level, said, rules, count))
    out.write_rows(CHAINS, _in_order(pool, found))


def stage(config: RunConfig, how: Shortening, long: Mapping[str, str], workload: Workload) -> Stage:
    """Returns the stage that shortens the reasoning.

    Args:
      how: the budgets, the limits and the number of tries.
      long: argument -> stage that has the long reasoning.
      workload: all of the long reasoning at all budgets.
    """
    reads = {"pool": inputs.POOL, "count": inputs.COUNT, **long}
    if config.thinking.shortened_by == "assistant":
        # Sampled, so that each try gives another text; with room for the largest budget.
        room = config.thinking.levels[-1] + config.thinking.answer_tokens
        generation = dataclasses.replace(
            config.generation,
            temperature=config.thinking.temperature,
            max_new_tokens=max(config.generation.max_new_tokens, room),
        )
        params = Rewriting(how, generation, config.seed)
        return Stage(WRITTEN, rewrite, params, reads | {"assistant": inputs.ASSISTANT}, workload)
    asking = paid.asking(config)
    given = {field.name: getattr(asking, field.name) for field in dataclasses.fields(asking)}
    keyed = []
    if config.teacher.kind not in API_TEACHERS:
        keyed.append(inputs.RECORDED)
    if config.teacher.replay_from:
        keyed.append(inputs.REPLAY)
    params = Paying(**given, how=how)
    reads |= {"workdir": inputs.WORKDIR}
    return Stage(ASKED, pay, params, reads, workload, keyed_by=tuple(keyed))
