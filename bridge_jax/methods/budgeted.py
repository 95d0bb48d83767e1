"""The first phase of BARD (2511.01470): a student learns to think within a budget of tokens.

Long reasoning, by the teacher or by an assistant, is rewritten to several budgets and checked. The
student learns the *same question at several budgets*, each stated in the prompt, so that it
associates the number with the length. The result is compared with ways to keep to a budget that
need no training (`generation.budgets`).
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from bridge_jax.config import API_TEACHERS, CONTROLS, RunConfig
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError, require
from bridge_jax.generation import budgets
from bridge_jax.generation.budgets import Cap
from bridge_jax.generation.engine import check_context
from bridge_jax.methods import (
    baselines,
    bridge,
    budget_tests,
    evaluation,
    inputs,
    shortening,
    tutoring,
)
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.budget_tests import OF_CONTROL
from bridge_jax.methods.filtering import RATIONALES, SFTTargets
from bridge_jax.methods.fitting import TrainSpec, dev_reads, fit, train_spec
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.methods.shortening import ASKED, CHAINS, WRITTEN, Shortening, long_reasoning
from bridge_jax.methods.teacher import held_out_count, selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Method, Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import TrainingSequence
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.thinking import Form, Thinking, thinking_of

BEFORE = {
    "bridge": bridge.METHOD,
    "direct": baselines.DIRECT_METHOD,
    "self": baselines.SELF_TRAINING_METHOD,
}

_log = logging.getLogger(__name__)

BUDGETED = Artifact(
    "budgets/student", "Training at budgets", "train", "student", TRAINED, is_last=True
)
UNBUDGETED = evaluation.measured(
    "student_unbudgeted", "student", "Student before budgets", "before its training at budgets"
)


@dataclasses.dataclass(frozen=True)
class Training:
    """Parameters of the training at budgets.

    Attributes:
      how: the training settings.
      targets: the targets of the student before, which contain the long reasoning.
      unstated: whether the long reasoning is taught too, with no budget in the prompt.
      form: how replies are divided into thinking and answer.
    """

    how: TrainSpec
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
    """Trains the student on reasoning at each budget, which the prompt states.

    Raises:
      UserError: no reasoning was kept, the tokenizer has no tokens for the tags, or a text has a
        token outside the model's embedding table.
    """
    kept = [row for row in chains.rows(CHAINS) if row["kept"]]
    if not kept:
        raise UserError(
            f"{chains.path / CHAINS}: no reasoning was kept at any budget, for the reasons in "
            "the file; move thinking.levels closer to the lengths of the reasoning, or relax the "
            "limits (thinking.least, thinking.most), to keep some"
        )
    items = [
        (pool.by_id[row["id"]], row["budget"], row["rationale"], row["answer"]) for row in kept
    ]
    if params.unstated:
        long = long_reasoning(params.targets, pool, judged, annotated)
        items += [(pool.by_id[each.example.id], 0, each.rationale, each.answer) for each in long]
    form = thinking_of(reading.tokenizer, params.form, reading.checkpoint)
    found, most = sequences(items, reading, form), params.how.train.row_tokens
    fitting = [sequence for sequence in found if sequence.length <= most]
    if len(fitting) < len(found):
        _log.warning(
            "%d texts are left out: they are longer than thinking.train.row_tokens=%d",
            len(found) - len(fitting),
            most,
        )
    fit(out, "at budgets", student.trainable(made), fitting, params.how, reading, dev)


def sequences(
    items: Sequence[tuple[Example, int, str, str]], reading: Rendering, thinking: Thinking
) -> list[TrainingSequence]:
    """Returns the training sequence of each (example, budget, rationale, answer)."""
    found = []
    for example, budget, rationale, answer in items:
        prompt = reading.prompt(dataclasses.replace(example, budget=budget), "reason")
        found.append(thinking.sequence(reading.tokenizer, prompt, rationale, answer))
        reading.check_ids(f"example {example.id!r}", [*found[-1].rationale, *found[-1].answer])
    return found


def stages(config: RunConfig) -> list[Stage]:
    """Returns all stages: those up to the student before, shortening, training, and tests."""
    how = config.thinking
    plan, reads = _before(config)
    targets = SFTTargets.of(config) if how.after in ("bridge", "self") else _of_teacher(config)
    how_short = Shortening(targets, how.levels, how.least, how.most, how.tries)
    which: Any = "pool" if how.after in ("bridge", "self") else "selected"
    count = 0 if which == "pool" else selected_count(config)
    chains = shortening.stage(
        config, how_short, reads, Workload(which, count, samples=len(how.levels))
    )
    spec = train_spec(config, "thinking.train", "reason")
    made = _student_before(config)
    long = reads if how.unstated else {}
    to_student = inputs.POOL_TO_STUDENT | {"chains": chains.name} | long | made | dev_reads(spec)
    times = len(how.levels) + how.unstated
    workload = Workload(which, count, samples=times)
    training = Training(spec, targets, how.unstated, how.form)
    plan += [chains, Stage(BUDGETED, teach, training, to_student, workload, check=check)]
    tests = [
        budget_tests.stage(config, control, BUDGETED.name, made)
        for control in CONTROLS
        if control in how.controls
    ]
    before = evaluation.test_stage(config, UNBUDGETED, None)
    before = dataclasses.replace(before, reads={**before.reads, **made})
    return [*plan, before, *evaluation.trained_test_stages(config, BUDGETED, "reason"), *tests]


def _of_teacher(config: RunConfig) -> SFTTargets:
    return SFTTargets("chain", config.data.labelled)


def _before(config: RunConfig) -> tuple[list[Stage], dict[str, str]]:
    """Returns the stages up to the student before, and argument -> stage of the long reasoning."""
    after = config.thinking.after
    if after:
        earlier = BEFORE[after].stages(config)
        plan = [stage for stage in earlier if stage.artifact.work != "evaluate"]
        kept = () if after != "bridge" else config.compare
        others = {"direct": tutoring.DIRECT.name, "labels": baselines.LABELS.name}
        plan = [stage for stage in plan if stage.name not in {others[name] for name in kept}]
    else:
        plan = baselines.up_to_answers(config)
    names = {stage.name for stage in plan}
    reads = {"annotated": ANNOTATIONS.name, "judged": RATIONALES.name}
    return plan, {argument: name for argument, name in reads.items() if name in names}


def _student_before(config: RunConfig) -> dict[str, str]:
    """Returns argument -> stage that trained the student before; {} stands for its checkpoint."""
    if config.thinking.after:
        return {"made": tutoring.STUDENT.name}
    return {"made": tutoring.INSTRUCT.name} if config.instruct.examples else {}


def check(config: RunConfig, inputs: Inputs) -> None:
    """Checks prompts, tokenizer and the size of the pool, before anything is trained or paid for.

    Raises:
      UserError: a prompt that states the largest budget exceeds max_prompt_tokens or, with its
        reply, the model's context; the tokenizer lacks the tokens of `thinking.form`, or the chat
        template already writes them; `thinking.closing` or `thinking.leading` is too long; or
        `budget.queries` does not pay for the shortening.
    """
    _check_queries(config, len(inputs.pool))
    reading, how = inputs.rendering("student"), config.thinking
    form = thinking_of(reading.tokenizer, how.form, reading.checkpoint)
    closing = reading.tokenizer.encode(how.closing)
    smallest, largest = how.levels[0], how.levels[-1]
    share = smallest // how.samples if "sampled" in how.controls else smallest
    require(
        len(closing) < share,
        f"thinking.closing has {len(closing)} tokens, and the smallest budget is {share}; "
        "shorten it or leave it empty",
    )
    leading = len(reading.tokenizer.encode(how.leading)) if "triggered" in how.controls else 0
    require(
        leading + len(closing) < smallest,
        f"thinking.leading and thinking.closing have {leading + len(closing)} tokens, and the "
        f"smallest budget is {smallest}; shorten them",
    )
    cut = budgets.capped([0], Cap(largest, form, how.answer_tokens, closing))
    longest = 0
    for examples in inputs.pool, inputs.test:
        told = [dataclasses.replace(example, budget=largest) for example in examples]
        prompts = reading.prompts(told, "", "reason")
        longest = max(longest, int(prompts.lengths.max(initial=0)))
        if form.opening and any(form.closing[0] in prompts[n][-8:] for n in range(len(prompts))):
            raise UserError(
                f"thinking.form=tags: the chat template of {reading.checkpoint} opens the thinking "
                "itself; use thinking.form=plain, or a template that leaves it to the model"
            )
    new = max(config.generation.max_new_tokens, (cut.limit or 0) + 1)
    check_context(longest, new, inputs.model("student").config.max_positions)


def _check(config: RunConfig) -> None:
    """Raises a `UserError` for settings that cannot work, before training or paying."""
    how, teacher = config.thinking, config.teacher
    require(bool(how.levels), "thinking.levels is empty: list at least one budget, in tokens")
    require(
        list(how.levels) == sorted(how.levels),
        f"thinking.levels={','.join(map(str, how.levels))}: list them from small to large",
    )
    require(
        how.least < how.most,
        f"thinking.least={how.least} is not below thinking.most={how.most}",
    )
    require(
        config.form == "chain",
        f"form={config.form}: method={config.method} requires rationale and answer in one reply; "
        "use chain",
    )
    for control, name in (("forced", "waiting"), ("triggered", "leading")):
        require(
            control not in how.controls or bool(getattr(how, name).strip()),
            f"thinking.{name} is empty, but thinking.controls={control} requires it",
        )
    require(
        bool(how.controls),
        f"thinking.controls is empty: choose one or more of {', '.join(CONTROLS)}",
    )
    require(
        how.repeats == 1 or config.generation.temperature > 0,
        f"thinking.repeats={how.repeats}: with generation.temperature=0 every repeat would be "
        "identical; raise the temperature",
    )
    require(
        "sampled" not in how.controls or how.levels[0] >= how.samples,
        f"thinking.samples={how.samples}: the smallest budget, {how.levels[0]} tokens, is less "
        "than one token for each; lower it",
    )
    if how.after in BEFORE:
        BEFORE[how.after].check(config)
    # Texts that are too long for a row are left out later.
    least, _ = shortening.limits(how.levels[-1], how.least, how.most)
    needed = config.max_prompt_tokens + least + how.answer_tokens
    require(
        needed <= how.train.row_tokens,
        f"thinking.train.row_tokens={how.train.row_tokens} is too short for a prompt of "
        f"max_prompt_tokens={config.max_prompt_tokens}, the shortest reasoning at the largest "
        f"budget and its answer, {needed:,} tokens in all; raise it",
    )
    require(
        shortening.limits(how.levels[0], how.least, how.most)[1] >= 1,
        f"thinking.most={how.most} allows no reasoning at the smallest budget, {how.levels[0]} "
        "tokens",
    )
    require(
        how.after != "self" or how.shortened_by == "assistant",
        "thinking.after=self has no teacher; use thinking.shortened_by=assistant",
    )
    require(
        how.tries == 1
        or how.shortened_by == "assistant"
        or teacher.kind not in API_TEACHERS
        or teacher.temperature != 0,
        f"thinking.tries={how.tries} with teacher.temperature=0 pays for the same text again; "
        "raise the temperature, or set thinking.tries=1",
    )
    if how.shortened_by == "teacher":
        require(
            config.selection.size > 0,
            "selection.size=0 spends all of budget.queries on long reasoning, and leaves nothing "
            "for shortening it; set how many questions to ask, or use "
            "thinking.shortened_by=assistant",
        )
        _check_queries(config, config.data.pool)


def _check_queries(config: RunConfig, pool: int) -> None:
    """Raises a `UserError` if `budget.queries` does not pay for shortening, given the pool size."""
    how, asked = config.thinking, selected_count(config)
    if how.shortened_by != "teacher":
        return
    texts = pool if how.after == "bridge" else asked
    held_out = held_out_count(config)
    needed = asked * config.teacher.samples + held_out + texts * len(how.levels)
    also = f", {held_out:,} of test and dev (evaluation)" if held_out else ""
    require(
        needed <= config.budget.queries,
        f"budget.queries={config.budget.queries} does not cover {asked:,} questions{also} and "
        f"shortening up to {texts:,} texts to {len(how.levels)} budgets, {needed:,} requests in "
        "all; raise it, or use thinking.shortened_by=assistant",
    )


METHOD = Method(
    "budgeted",
    "training at stated budgets (BARD, arXiv 2511.01470)",
    (
        *bridge.UP_TO_STUDENT,
        ASKED,
        WRITTEN,
        BUDGETED,
        UNBUDGETED,
        evaluation.STUDENT,
        evaluation.STUDENT_DEV,
        *(OF_CONTROL[control] for control in CONTROLS),
    ),
    stages,
    {"student": "trained at budgets, asked without one"},
    _check,
)
