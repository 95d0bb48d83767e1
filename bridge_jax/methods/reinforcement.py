"""The second phase of BARD (2511.01470): reinforcement learning at stated budgets.

Each step asks the student some questions, each at one budget, and samples several replies to each.
By default a reply's reward is its accuracy times its fidelity to the budget
(`budget_rollouts.reward`). Its advantage is its reward minus the mean reward of its group
(`training.objectives.policy`). Replies are always sampled with the current parameters
(`methods.budget_rollouts`).
"""

import dataclasses
import math

from bridge_jax.config import ReinforcementConfig, RunConfig
from bridge_jax.errors import require
from bridge_jax.methods import budget_tests, budgeted, evaluation, inputs
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.budget_rollouts import Reinforcing, Rollout, Rollouts, longest
from bridge_jax.methods.budgeted import BUDGETED
from bridge_jax.methods.fitting import TrainSpec, fit_from
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.methods.rollouts import ROLLOUTS
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, rows
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Method, OwnReplies, Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.thinking import thinking_of
from bridge_jax.training.objectives.policy import Policy
from bridge_jax.training.recorder import Guard

_MARKER_TOKENS = 32  # Tokens that open and close the thinking; an estimate for the planner.

REINFORCED = Artifact(
    "budgets/reinforced",
    "Reinforcement learning at budgets",
    "train",
    "student",
    (*TRAINED, rows(ROLLOUTS, Rollout, is_result=False)),
    is_last=True,
)


def check(config: RunConfig, given: Inputs) -> None:
    """Checks the longest reply and the number of questions, before anything is trained or paid for.

    Raises:
      UserError: the longest reply and its prompt exceed a row or the model's context, or too few
        questions are left that are not selected for the teacher.
    """
    reading, think, how = given.rendering("student"), config.thinking, config.reinforcement
    largest = asked_levels(config)[-1]
    if how.questions == "unselected":
        left = len(given.pool) - selected_count(config)
        needed = math.ceil(how.tries * how.groups / len(asked_levels(config)))
        require(
            left >= needed,
            f"reinforcement.questions=unselected: {max(left, 0):,} of the pool's "
            f"{len(given.pool):,} questions are not selected for the teacher, but a step may need "
            f"{needed:,}; select fewer (selection.size), raise data.pool, lower "
            "reinforcement.groups, or use the whole pool (reinforcement.questions=pool)",
        )
    form = thinking_of(reading.tokenizer, think.form, reading.checkpoint)
    told = [dataclasses.replace(example, budget=largest) for example in given.pool]
    prompt = int(reading.prompts(told, "", "reason").lengths.max(initial=0))
    needed = prompt + longest(largest, form, think.answer_tokens)
    row, context = config.reinforcement.train.row_tokens, given.model("student").config
    require(
        needed <= row,
        f"reinforcement.train.row_tokens={row} is too short for the longest prompt, {prompt} "
        f"tokens, and a reply 25% over the largest budget, {needed:,} in all; raise it, "
        "or leave out the largest budget (reinforcement.levels)",
    )
    require(
        needed <= context.max_positions,
        f"thinking.levels: a reply 25% over the largest budget, {largest}, and "
        f"its prompt have {needed:,} tokens, more than the student's context of "
        f"{context.max_positions:,}; lower the budget or thinking.answer_tokens",
    )


def reinforce(
    params: Reinforcing,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    made: Folder | None = None,
    chosen: Folder | None = None,
) -> None:
    """Trains the student on its own replies at each budget.

    Args:
      params: the rollouts and the training.
      out: the folder of the stage.
      pool: the questions, with their gold answers.
      reading: renders the student's prompts.
      made: the stage that has trained the student so far; None starts from its checkpoint.
      chosen: the selection, whose questions are left out; None leaves out none.

    Raises:
      UserError: a loss is not finite, or a limit of `ReinforcementConfig` is violated.
    """
    left_out = set(chosen.record("selection.json")["ids"]) if chosen else set()
    asked = [example for example in pool if example.id not in left_out]
    model = student.trainable(made)
    thinking = thinking_of(reading.tokenizer, params.form, reading.checkpoint)

    def feed() -> tuple[Rollouts, int, int]:
        engine = model.engine(params.generation, params.how.seed)
        reference = student.load(made) if has_reference(params.replies) else None
        found = Rollouts(params, asked, model, reading, thinking, engine, out, reference)
        return found, params.how.train.steps, params.how.train.row_tokens

    fit_from(out, "reinforcement", model, feed, params.how)


def has_reference(how: ReinforcementConfig) -> bool:
    """Returns whether the student from before this training is kept as the reference of the KL."""
    return how.kl > 0 or how.most_kl > 0


def asked_levels(config: RunConfig) -> tuple[int, ...]:
    """Returns the budgets at which questions are asked, from small to large."""
    return config.reinforcement.levels or config.thinking.levels


def guards_of(how: ReinforcementConfig) -> tuple[Guard, ...]:
    """Returns the guards on logged metrics, for the limits that are set."""
    known = (
        Guard(
            "drift",
            "most_drift",
            how.most_drift,
            "the log-probabilities in generation differ from those in training; use the same "
            "dtype for both (student.matmul, generation.cache=compute)",
        ),
        Guard(
            "kl_loss",
            "most_kl",
            how.most_kl,
            "the student has moved too far from the model it started from; a lower "
            "reinforcement.train.learning_rate or a higher reinforcement.kl keeps it closer",
            how.limit_steps,
        ),
        Guard(
            "entropy",
            "least_entropy",
            how.least_entropy,
            "nearly all replies to a question are the same, so little more can be learned; a "
            "lower reinforcement.train.learning_rate or fewer steps keep them varied",
            how.limit_steps,
            is_least=True,
        ),
        Guard(
            "compliance",
            "least_compliance",
            how.least_compliance,
            "most replies have no answer; train longer at budgets first (thinking.train), or "
            "lower reinforcement.train.learning_rate",
            how.limit_steps,
            is_least=True,
        ),
        Guard(
            "spread",
            "least_spread",
            how.least_spread,
            "the student thinks equally long at every budget; train longer at budgets first "
            "(thinking.train), or lower reinforcement.train.learning_rate",
            how.limit_steps,
            is_least=True,
        ),
    )
    return tuple(
        dataclasses.replace(each, setting=f"reinforcement.{each.setting}")
        for each in known
        if each.bound
    )


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of training at budgets, then reinforcement learning and its tests."""
    how, think = config.reinforcement, config.thinking
    tests = evaluation.trained_test_stages(config, REINFORCED, "reason")
    own = {test.name for test in tests}
    plan = [stage for stage in budgeted.stages(config) if stage.name not in own]
    start = {"made": BUDGETED.name}
    if how.questions == "unselected":
        start |= {"chosen": SELECTION.name}
    objective = Policy(how.temperature, how.clip_low, how.clip_high, how.kl, has_reference(how))
    spec = TrainSpec(
        how.train,
        config.seed,
        objective,
        setting="reinforcement.train",
        curves=config.curves,
        guards=guards_of(how),
    )
    params = Reinforcing(
        how=spec,
        replies=dataclasses.replace(how, levels=asked_levels(config)),
        form=think.form,
        answer_tokens=think.answer_tokens,
        generation=config.generation,
    )
    workload = Workload("pool", samples=how.samples, replies=_replies(config))
    reads = inputs.POOL_TO_STUDENT | start
    last = Stage(REINFORCED, reinforce, params, reads, workload, check=check)
    return [
        *plan,
        last,
        *tests,
        budget_tests.stage(config, "reinforced", REINFORCED.name, {}),
    ]


def _replies(config: RunConfig) -> OwnReplies:
    """Returns the replies of a step as the planner counts them, each at its maximum length."""
    how, think = config.reinforcement, config.thinking
    # Without a tokenizer, the number of tokens that open and close the thinking is an estimate.
    budget = max(asked_levels(config), default=0)
    new = budget + budget // 4 + _MARKER_TOKENS + think.answer_tokens
    generation = dataclasses.replace(config.generation, max_new_tokens=new)
    reader = "student" if has_reference(how) else None
    return OwnReplies(how.groups * how.samples, generation, reader)


def _check(config: RunConfig) -> None:
    """Raises a `UserError` for settings that cannot work, before any data is read."""
    how = config.reinforcement
    budgeted.METHOD.check(config)
    require(
        config.data.labelled,
        "method=bard rewards right answers: it needs data.labelled=true",
    )
    levels = asked_levels(config)
    said = f"reinforcement.levels={','.join(map(str, levels))}"
    require(
        set(levels) <= set(config.thinking.levels),
        f"{said}: only budgets of thinking.levels={','.join(map(str, config.thinking.levels))} are "
        "taught and tested; choose from these, or add it there",
    )
    require(list(levels) == sorted(set(levels)), f"{said}: list each once, from small to large")
    require(
        len(levels) == 1 or how.least_spread * levels[0] < levels[-1],
        f"reinforcement.least_spread={how.least_spread:g} is more than replies within the "
        f"budgets {levels[0]} to {levels[-1]} can have; lower it, or set it to 0",
    )
    require(
        how.questions == "pool" or config.thinking.after != "self",
        "reinforcement.questions=unselected: with thinking.after=self there is no teacher, and no "
        "question is selected for one; use reinforcement.questions=pool",
    )
    require(
        how.train.steps > 0,
        "reinforcement.train.steps=0: set the number of steps; this training has no epochs",
    )


METHOD = Method(
    "bard",
    "training and reinforcement learning at stated budgets (BARD, arXiv 2511.01470)",
    (*budgeted.METHOD.artifacts, REINFORCED, budget_tests.OF_CONTROL["reinforced"]),
    stages,
    {"student": "after reinforcement learning at budgets, asked without one"},
    _check,
)
