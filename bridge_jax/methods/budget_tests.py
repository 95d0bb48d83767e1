"""Tests a student at stated budgets, and compares ways to keep to them (`generation.budgets`)."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from bridge_jax.config import GenerationConfig, RunConfig
from bridge_jax.data.answers import is_correct
from bridge_jax.data.example import Example
from bridge_jax.generation import budgets
from bridge_jax.generation.budgets import Cap
from bridge_jax.generation.engine import Completion, Engine, Request
from bridge_jax.methods import held_out, inputs
from bridge_jax.methods.inputs import Examples
from bridge_jax.pipeline.artifacts import Artifact, rows
from bridge_jax.pipeline.models import RoleModel, write_completions
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.thinking import Form, Thinking, thinking_of

TESTED = "replies.jsonl"


class Tested(TypedDict):
    """A reply to a test question at a budget.

    Attributes:
      repeat: index of the reply among those to the same question whose accuracy is averaged.
      sample: index of the reply among samples whose commonest answer counts.
      thinking: number of thinking tokens, including those given in the prompt.
      tokens: number of tokens decoded for the reply.
    """

    id: str
    domain: str
    budget: int
    repeat: int
    sample: int
    completion: str
    answer: str | None
    gold: str
    correct: bool
    thinking: int
    tokens: int


# The name of each control in reports; "before" is the student before it learned budgets.
TITLES: dict[str, str] = {
    "stated": "Trained, told the budget",
    "reinforced": "After reinforcement learning, told the budget",
    "capped": "Trained, told the budget and cut off",
    "truncated": "Before, cut off",
    "forced": "Before, extended and cut off",
    "triggered": "Before, begun with given words and cut off",
    "sampled": "Before, the commonest of several answers",
}
OF_CONTROL: dict[str, Artifact] = {
    control: Artifact(
        f"evaluation/{control}",
        f"Testing at budgets: {title.lower()}",
        "evaluate",
        "student",
        (rows(TESTED, Tested),),
    )
    for control, title in TITLES.items()
}
_UNCUT = ("stated", "reinforced")  # The student keeps to the budget by itself.
_TRAINED = (*_UNCUT, "capped")  # The others test the student before.


@dataclasses.dataclass(frozen=True)
class BudgetTesting:
    """Parameters of a test at budgets.

    Attributes:
      control: how budgets are kept: one of `ThinkingConfig.controls`, or `reinforced`.
      levels: the budgets, in tokens.
      form: how replies are divided into thinking and answer.
      generation: the settings of generation; a reply that is not cut off at its budget is limited
        to `max_new_tokens`, or to its budget and an answer if that is more.
      seed: seeds the sampling.
      answer_tokens: tokens reserved for the answer.
      closing: the text that ends thinking that is cut off.
      words: the text that extends the thinking (`forced`) or begins it (`triggered`).
      times: the most extensions (`forced`), or the number of samples (`sampled`).
      repeats: the number of replies to each question (or of votes) whose accuracy is averaged.
    """

    control: str
    levels: tuple[int, ...]
    form: Form
    generation: GenerationConfig
    seed: int
    answer_tokens: int
    closing: str = ""
    words: str = ""
    times: int = 0
    repeats: int = 1


class Asked(NamedTuple):
    """A request of a test.

    Attributes:
      example: the question, with its budget.
      repeat, sample: as in `Tested`.
      begun: number of thinking tokens given in the prompt.
      request: the request to the engine.
    """

    example: Example
    repeat: int
    sample: int
    begun: int
    request: Request


def run_test(
    params: BudgetTesting,
    out: Folder,
    test: Examples,
    model: RoleModel,
    reading: Rendering,
    made: Folder | None = None,
    bought: Folder | None = None,
) -> None:
    """Writes the model's replies to the test questions at each budget.

    Args:
      params: the control, the budgets and the settings of generation.
      out: the folder of the stage.
      test: the questions.
      model: the student.
      reading: renders its prompts.
      made: the folder of the stage that trained it; None uses its checkpoint.
      bought: the folder of the teacher's answers to questions without a gold answer.

    Raises:
      UserError: a prompt and its reply exceed the model's context, or the engine cannot force so
        many tokens.
    """
    loaded = model.load(made)
    tokenizer = loaded.tokenizer
    thinking = thinking_of(tokenizer, params.form, reading.checkpoint)
    measured_on = held_out.with_answers(test, bought)
    asked = list(requests(params, measured_on, reading, thinking))
    engine = loaded.engine(params.generation, params.seed)
    replies = written(params, out, engine, asked, tokenizer.encode(params.words), thinking)
    found = []
    for each, (ids, tokens) in zip(asked, replies):
        example = each.example
        reply = budgets.read(tokenizer, thinking, ids, example)
        found.append(
            {
                "id": example.id,
                "domain": example.domain,
                "budget": example.budget,
                "repeat": each.repeat,
                "sample": each.sample,
                "completion": reply.text,
                "answer": reply.answer,
                "gold": example.gold,
                "correct": is_correct(reply.answer, example),
                "thinking": reply.thinking + each.begun,
                "tokens": tokens,
            }
        )
    out.write_rows(TESTED, found)


def requests(
    params: BudgetTesting, test: Sequence[Example], reading: Rendering, thinking: Thinking
) -> Iterator[Asked]:
    """Yields the requests of a test: budget by budget, question by question."""
    control, encode = params.control, reading.tokenizer.encode
    samples = params.times if control == "sampled" else 1
    leading = encode(params.words) if control == "triggered" else []
    closing = encode(params.closing)
    around = len(thinking.opening) + len(thinking.closing) + 1  # and the end token
    for level in params.levels:
        for example in test:
            told = level if control in _TRAINED else 0
            prompt = reading.prompt(dataclasses.replace(example, budget=told), "reason")
            if control in _UNCUT:
                # Nothing cuts the reply off at its budget, so it may exceed it.
                enough = level + around + params.answer_tokens
                request = Request(prompt, max(params.generation.max_new_tokens, enough))
            elif leading:
                # The prompt contains the opening and the first words of the thinking.
                begun = thinking._replace(opening=())
                cap = Cap(level - len(leading), begun, params.answer_tokens, closing)
                request = budgets.capped([*prompt, *thinking.opening, *leading], cap)
            else:
                cap = Cap(level // samples, thinking, params.answer_tokens, closing)
                request = budgets.capped(prompt, cap)
            example = dataclasses.replace(example, budget=level)
            for repeat in range(params.repeats):
                for sample in range(samples):
                    yield Asked(example, repeat, sample, len(leading), request)


def written(
    params: BudgetTesting,
    out: Folder,
    engine: Engine,
    asked: Sequence[Asked],
    waiting: Sequence[int],
    thinking: Thinking,
) -> list[tuple[list[int], int]]:
    """Returns the ids of each reply, and the number of tokens decoded for it.

    With `forced`, each further round extends the replies whose thinking ended too early. The rows
    of every round are kept, so that an interrupted test resumes.
    """

    def to_row(_: Example, completion: Completion) -> dict[str, Any]:
        return {"ids": completion.ids, "tokens": budgets.spent(completion)}

    rounds = 1 + (params.times if params.control == "forced" else 0)
    current = {n: each.request for n, each in enumerate(asked)}
    ids: list[list[int]] = [[] for _ in asked]
    tokens = [0] * len(asked)
    for number in range(rounds):
        file, name = f"round_{number}.jsonl", f"test: {params.control}"
        order = sorted(current)
        # The random numbers of a reply depend on no other reply.
        prompts = [current[n]._replace(stream=n) for n in order]
        examples = [asked[n].example for n in order]
        found = write_completions(out, file, name, engine, examples, prompts, to_row)
        following = {}
        for n, row in zip(order, found):
            before = ids[n]
            ids[n] = [*before, *row["ids"]]
            tokens[n] += row["tokens"]
            if number + 1 == rounds:
                continue
            longer = budgets.extended(current[n], row["ids"], thinking, waiting)
            if longer is not None:
                following[n] = longer
                added = len(longer.prompt) - len(current[n].prompt)
                ids[n] = [*before, *longer.prompt[-added:]]
        current = following
    return list(zip(ids, tokens))


def stage(config: RunConfig, control: str, trained_by: str, before: Mapping[str, str]) -> Stage:
    """Returns the stage that tests a control at every budget.

    Args:
      control: how budgets are kept.
      trained_by: the name of the stage that trains at budgets.
      before: argument -> stage of the student before; {} is its checkpoint.
    """
    how = config.thinking
    trained = control in _TRAINED
    generation, times, words = config.generation, 0, ""
    if control == "forced":
        times, words = how.extensions, how.waiting
    elif control == "triggered":
        words = how.leading
    elif control == "sampled":
        times = how.samples
        generation = dataclasses.replace(generation, temperature=how.temperature)
    params = BudgetTesting(
        control=control,
        levels=how.levels,
        # A student trained before by another method writes plain replies.
        form=how.form if trained or not how.after else "plain",
        generation=generation,
        seed=config.seed,
        answer_tokens=how.answer_tokens,
        closing="" if control in _UNCUT else how.closing,
        words=words,
        times=times,
        repeats=how.repeats,
    )
    reads = {"test": inputs.TEST, "model": inputs.STUDENT, "reading": inputs.TO_STUDENT}
    reads |= held_out.bought(config)
    reads |= {"made": trained_by} if trained else before
    each = (times if control == "sampled" else 1) * how.repeats
    workload = Workload("test", samples=len(how.levels) * each)
    return Stage(OF_CONTROL[control], run_test, params, reads, workload)
