"""BARD (2511.01470), its first phase: a student learns to think for at most so many tokens.

Long reasoning, of the teacher or of an assistant that it taught, is rewritten to several budgets,
and checked. The student learns the *same question at several budgets*, each stated in its prompt,
so that it ties the number to the length. What it can do is compared with ways to keep a budget
that need no training (`generation.budgets`).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from bridge_jax.config import CONTROLS, Control, GenerationConfig, RunConfig
from bridge_jax.data.answers import is_correct
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError, require
from bridge_jax.generation import budgets
from bridge_jax.generation.budgets import Cap
from bridge_jax.generation.engine import Completion, Engine, Request
from bridge_jax.methods import baselines, bridge, evaluation, inputs, shortening, tutoring
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.fitting import Fit, dev_of, fit, fit_of
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.methods.rationales import RATIONALES
from bridge_jax.methods.sft_targets import SFTTargets
from bridge_jax.methods.shortening import ASKED, CHAINS, WRITTEN, Shortening, long_reasoning
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, rows
from bridge_jax.pipeline.models import RoleModel, write_completions
from bridge_jax.pipeline.stages import Load, Method, Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Sequence as Tokens
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.thinking import Form, Thinking, thinking_of

TESTED = "replies.jsonl"
BEFORE = {"bridge": bridge.METHOD, "direct": baselines.DIRECT, "self": baselines.SELF_TRAINING}


class Tested(TypedDict):
    """A reply to a test question at a budget.

    Attributes:
      number: of the reply, where there are several to a question.
      thinking: tokens of its thinking.
      tokens: that were decoded for it.
    """

    id: str
    domain: str
    budget: int
    number: int
    completion: str
    answer: str | None
    gold: str
    correct: bool
    thinking: int
    tokens: int


BUDGETED = Artifact(
    "budgets/student", "Training at budgets", "train", "student", TRAINED, is_last=True
)
STUDENT_BEFORE = evaluation.measured(
    "student_before", "student", "Student before", "before it learned budgets, and without one"
)
# What each control is called in reports.
TITLES: dict[str, str] = {
    "stated": "Trained, told its budget",
    "capped": "Trained, told and cut off at it",
    "truncated": "Before, cut off",
    "forced": "Before, made to think on and cut off",
    "triggered": "Before, started by other words and cut off",
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
_TRAINED = ("stated", "capped")  # Of the trained student; other controls are of the one before.


@dataclasses.dataclass(frozen=True)
class Training:
    """Parameters of the training at budgets.

    Attributes:
      how: is it trained.
      targets: of the student before, which are taught without a budget too (`unstated`).
      form: of the replies.
    """

    how: Fit
    targets: SFTTargets
    unstated: bool
    form: Form


def teach(
    params: Training,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    chains: Folder,
    made: Folder | None = None,
    annotated: Folder | None = None,
    judged: Folder | None = None,
    dev: Examples | None = None,
) -> None:
    """Trains the student on reasoning at each budget, stated in the prompt.

    Raises:
      UserError: no reasoning was kept.
    """
    kept = [row for row in chains.rows(CHAINS) if row["kept"]]
    if not kept:
        raise UserError(
            f"{chains.path / CHAINS}: no reasoning is kept at any budget; its reasons are in the "
            "file: thinking.levels nearer to the lengths of the reasoning, or other limits "
            "(thinking.least, thinking.most), may keep some"
        )
    items = [
        (pool.by_id[row["id"]], row["budget"], row["rationale"], row["answer"]) for row in kept
    ]
    if params.unstated:
        long = long_reasoning(params.targets, pool, judged, annotated)
        items += [(pool.by_id[each.example.id], 0, each.rationale, each.answer) for each in long]
    form = thinking_of(reading.tokenizer, params.form, reading.checkpoint)
    fit(
        out,
        "at budgets",
        student.trainable(made),
        sequences(items, reading, form),
        params.how,
        reading,
        dev,
    )


def sequences(
    items: Sequence[tuple[Example, int, str, str]], reading: Rendering, thinking: Thinking
) -> list[Tokens]:
    """Returns the training sequence of each (example, budget, rationale, answer)."""
    found = []
    for example, budget, rationale, answer in items:
        prompt = reading.prompt(dataclasses.replace(example, budget=budget), "reason")
        found.append(thinking.sequence(reading.tokenizer, prompt, rationale, answer))
        reading.check_ids(f"example {example.id!r}", [*found[-1].rationale, *found[-1].answer])
    return found


@dataclasses.dataclass(frozen=True)
class Testing:
    """Parameters of a test at budgets.

    Attributes:
      control: how budgets are kept.
      levels: budgets, tokens.
      form: of the replies.
      generation: how the model writes; where nothing cuts a reply off, it has `max_new_tokens` at
        most, or its budget and an answer, if that is more.
      seed: of sampling.
      answer_tokens: after the thinking, at most.
      closing: said where the thinking is cut off.
      words: that make the model think on, or that start its thinking.
      times: extensions, or samples.
      repeats: answers to each question, of each of which the mean counts.
    """

    control: Control
    levels: tuple[int, ...]
    form: Form
    generation: GenerationConfig
    seed: int
    answer_tokens: int
    closing: str = ""
    words: str = ""
    times: int = 0
    repeats: int = 1


def test(
    params: Testing,
    out: Folder,
    test: Examples,
    model: RoleModel,
    reading: Rendering,
    made: Folder | None = None,
) -> None:
    """Writes the model's replies to the test questions at each budget."""
    loaded = model.load(made)
    tokenizer = loaded.tokenizer
    thinking = thinking_of(tokenizer, params.form, reading.checkpoint)
    asked = list(_requests(params, test, reading, thinking))
    engine = loaded.engine(params.generation, params.seed)
    written = _written(params, out, engine, asked, tokenizer.encode(params.words), thinking)
    found = []
    for (example, number, _), (ids, tokens) in zip(asked, written):
        reply = budgets.read(tokenizer, thinking, ids, example)
        found.append(
            {
                "id": example.id,
                "domain": example.domain,
                "budget": example.budget,
                "number": number,
                "completion": reply.text,
                "answer": reply.answer,
                "gold": example.answer,
                "correct": is_correct(reply.answer, example),
                "thinking": reply.thinking,
                "tokens": tokens,
            }
        )
    out.write_rows(TESTED, found)


def _requests(
    params: Testing, test: Examples, reading: Rendering, thinking: Thinking
) -> Iterator[tuple[Example, int, Request]]:
    """Yields the requests of a test: budget by budget, question by question."""
    control, encode = params.control, reading.tokenizer.encode
    each = params.times if control == "sampled" else 1
    leading = encode(params.words) if control == "triggered" else []
    for level in params.levels:
        for example in test:
            example = dataclasses.replace(example, budget=level)
            told = level if control in _TRAINED else 0
            prompt = reading.prompt(dataclasses.replace(example, budget=told), "reason")
            if leading:
                prompt = [*prompt, *thinking.opening, *leading]
            # Nothing cuts it off at its budget, which it may exceed.
            most = max(params.generation.max_new_tokens, level + params.answer_tokens)
            request = Request(prompt, most)
            if control != "stated":
                share, closing = max(1, level // each), encode(params.closing)
                cap = Cap(share, thinking, closing, params.answer_tokens)
                request = budgets.capped(prompt, cap)
            for number in range(each * params.repeats):
                yield example, number, request


def _written(
    params: Testing,
    out: Folder,
    engine: Engine,
    asked: Sequence[tuple[Example, int, Request]],
    waiting: Sequence[int],
    thinking: Thinking,
) -> list[tuple[list[int], int]]:
    """Returns the ids of each reply, and how many tokens were decoded for it.

    Each round of a budget that is forced goes on where replies have ended too early; its rows are
    kept, so that an interrupted test goes on.
    """

    def to_row(_: Example, completion: Completion) -> dict[str, Any]:
        return {"ids": completion.ids, "tokens": budgets.spent(completion)}

    rounds = 1 + (params.times if params.control == "forced" else 0)
    current: dict[int, Request] = {n: request for n, (_, _, request) in enumerate(asked)}
    ids: list[list[int]] = [[] for _ in asked]
    tokens = [0] * len(asked)
    for number in range(rounds):
        file, name = f"round_{number}.jsonl", f"test: {params.control}"
        order = sorted(current)
        # Random numbers of a reply depend on no other.
        requests = [current[n]._replace(stream=n) for n in order]
        examples = [asked[n][0] for n in order]
        write_completions(out, file, name, engine, examples, requests, to_row)
        following = {}
        for n, row in zip(order, out.rows(file)):
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


def stages(config: RunConfig) -> list[Stage]:
    """Returns the steps: the student before, reasoning at budgets, training, tests."""
    how = config.thinking
    plan, reads = _before(config)
    targets = SFTTargets.of(config) if how.after in ("bridge", "self") else _of_teacher(config)
    limits = targets, how.levels, how.least, how.most, how.tries
    which: Any = "pool" if how.after in ("bridge", "self") else "selected"
    count = 0 if which == "pool" else selected_count(config)
    chains = shortening.stage(
        config, Shortening(*limits), reads, Load(which, count, samples=len(how.levels))
    )
    fitted = fit_of(config, "thinking.train", "reason")
    made = _student_before(config)
    long = reads if how.unstated else {}
    to_student = inputs.POOL_TO_STUDENT | {"chains": chains.name} | long | made | dev_of(fitted)
    times = len(how.levels) + how.unstated
    load = Load(which, count, samples=times)
    training = Training(fitted, targets, how.unstated, how.form)
    plan += [chains, Stage(BUDGETED, teach, training, to_student, load)]
    tests = [_test(config, control, made) for control in CONTROLS if control in how.controls]
    before = evaluation.test_of(config, STUDENT_BEFORE, None)
    before = dataclasses.replace(before, reads={**before.reads, **made})
    return [*plan, before, evaluation.test_of(config, evaluation.STUDENT, BUDGETED), *tests]


def _of_teacher(config: RunConfig) -> SFTTargets:
    return SFTTargets("chain", config.data.labelled)


def _before(config: RunConfig) -> tuple[list[Stage], dict[str, str]]:
    """Returns the stages up to the student before, and what its long reasoning is read from."""
    after = config.thinking.after
    if after:
        earlier = BEFORE[after].stages(config)
        plan = [stage for stage in earlier if stage.artifact.work != "evaluate"]
        kept = () if after != "bridge" else config.compare
        others = {"direct": tutoring.DIRECT.name, "labels": tutoring.LABELS.name}
        plan = [stage for stage in plan if stage.name not in {others[name] for name in kept}]
    else:
        plan = baselines.up_to_answers(config)
    names = {stage.name for stage in plan}
    reads = {"annotated": ANNOTATIONS.name, "judged": RATIONALES.name}
    return plan, {argument: name for argument, name in reads.items() if name in names}


def _student_before(config: RunConfig) -> dict[str, str]:
    """Returns argument -> stage that trained the student before; {} is its checkpoint."""
    if config.thinking.after:
        return {"made": tutoring.STUDENT.name}
    return {"made": tutoring.INSTRUCT.name} if config.instruct.examples else {}


def _test(config: RunConfig, control: Control, made: Mapping[str, str]) -> Stage:
    """Returns the test of a control at every budget."""
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
    params = Testing(
        control,
        how.levels,
        # A student that one of our methods trained writes plain replies.
        how.form if trained or not how.after else "plain",
        generation,
        config.seed,
        how.answer_tokens,
        "" if control == "stated" else how.closing,
        words,
        times,
        how.repeats,
    )
    reads = {"test": inputs.TEST, "model": inputs.STUDENT, "reading": inputs.TO_STUDENT}
    reads |= {"made": BUDGETED.name} if trained else made
    each = (times if control == "sampled" else 1) * how.repeats
    load = Load("test", samples=len(how.levels) * each)
    return Stage(OF_CONTROL[control], test, params, reads, load)


def check(config: RunConfig, inputs: Inputs) -> None:
    """Checks prompts and tokenizer, before anything is trained or paid.

    Raises:
      UserError: a prompt that states the longest budget exceeds max_prompt_tokens; the tokenizer
        lacks the tokens of `thinking.form`; or what is said at a cut is too long.
    """
    reading, how = inputs.rendering("student"), config.thinking
    form = thinking_of(reading.tokenizer, how.form, reading.checkpoint)
    closing = reading.tokenizer.encode(how.closing)
    budgets.capped([0], Cap(how.levels[-1], form, closing, how.answer_tokens))
    longest = max(how.levels, key=lambda level: len(str(level)))
    for examples in inputs.pool, inputs.test:
        told = [dataclasses.replace(example, budget=longest) for example in examples]
        reading.prompts(told, "", "reason")


def _check(config: RunConfig) -> None:
    """Raises a `UserError` for settings that cannot work, before anything is trained or paid."""
    how, teacher = config.thinking, config.teacher
    require(bool(how.levels), "thinking.levels is empty: name a budget, in tokens")
    require(
        list(how.levels) == sorted(how.levels),
        f"thinking.levels={','.join(map(str, how.levels))}: name them from small to large",
    )
    require(
        how.least < how.most,
        f"thinking.least={how.least} is not below thinking.most={how.most}",
    )
    require(
        config.form == "chain",
        f"form={config.form}: method=budgeted needs rationale and answer in one; use chain",
    )
    require(
        bool(how.controls),
        f"thinking.controls is empty: name some of {', '.join(CONTROLS)}",
    )
    require(
        how.repeats == 1 or config.generation.temperature > 0,
        f"thinking.repeats={how.repeats} with generation.temperature=0 says the same each time; "
        "raise the temperature",
    )
    require(
        "sampled" not in how.controls or how.levels[0] >= how.samples,
        f"thinking.samples={how.samples}: the smallest budget, {how.levels[0]} tokens, leaves none "
        "for each",
    )
    if how.after in BEFORE:
        BEFORE[how.after].check(config)
    if how.shortened_by == "teacher" and how.after != "self":
        require(
            config.selection.size > 0,
            "selection.size=0 spends all of budget.queries on long reasoning, and leaves nothing "
            "for shortening it; name how many questions to ask, or thinking.shortened_by=assistant",
        )
        texts = config.data.pool if how.after == "bridge" else selected_count(config)
        needed = selected_count(config) * teacher.samples + texts * len(how.levels)
        require(
            needed <= config.budget.queries,
            f"budget.queries={config.budget.queries} does not pay for {selected_count(config):,} "
            f"questions and for shortening up to {texts:,} texts to {len(how.levels)} budgets, "
            f"{needed:,} in all; raise it, or use thinking.shortened_by=assistant",
        )


METHOD = Method(
    "budgeted",
    "training at stated budgets (BARD, arXiv 2511.01470)",
    (
        *bridge.UP_TO_STUDENT,
        ASKED,
        WRITTEN,
        BUDGETED,
        STUDENT_BEFORE,
        evaluation.STUDENT,
        *OF_CONTROL.values(),
    ),
    stages,
    {"student": "after it learned budgets, and without one"},
    _check,
)
