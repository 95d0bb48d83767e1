"""BARD (2511.01470), its second phase: reinforcement learning at stated budgets.

Each step asks the student some questions, each at one budget and several times. A reply's reward is
its accuracy times its fidelity to the budget (`evaluation.rewards`), and what it gets above its
group's mean is its advantage (`training.objectives.policy`). Replies are always the model's own
(`methods.rollouts`).
"""

import collections
import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from bridge_jax.config import GenerationConfig, ReinforcementConfig, RunConfig
from bridge_jax.data.answers import is_correct
from bridge_jax.data.example import Example
from bridge_jax.errors import require
from bridge_jax.evaluation import rewards
from bridge_jax.evaluation.metrics import spread_of_thinking
from bridge_jax.generation import budgets
from bridge_jax.generation.engine import Completion, Engine, Request
from bridge_jax.methods import budget_tests, budgeted, evaluation, inputs, rollouts
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.budgeted import BUDGETED
from bridge_jax.methods.fitting import Fit, fit_from
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.methods.rollouts import ROLLOUTS, Record
from bridge_jax.methods.teacher import selected_count
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, rows
from bridge_jax.pipeline.models import Model, RoleModel
from bridge_jax.pipeline.stages import Load, Method, OwnReplies, Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import packing, prompts
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.thinking import Form, Thinking, thinking_of
from bridge_jax.training.limits import Limit
from bridge_jax.training.objectives.policy import Policy, PolicyTargets, reference_logprobs

_log = logging.getLogger(__name__)
_MARKER_TOKENS = 32  # That open and close the thinking; an estimate for plans.


class Rollout(TypedDict):
    """Holds a reply that was learned from.

    Attributes:
      step: of the training, from 0.
      budget: tokens.
      thinking: tokens of the thinking.
      reward, advantage: of the reply, and above the mean of its group.
    """

    step: int
    id: str
    question: str
    budget: int
    completion: str
    answer: str | None
    correct: bool
    thinking: int
    reward: float
    advantage: float


REINFORCED = Artifact(
    "budgets/reinforced",
    "Reinforcement learning at budgets",
    "train",
    "student",
    (*TRAINED, rows(ROLLOUTS, Rollout, is_result=False)),
    is_last=True,
)


@dataclasses.dataclass(frozen=True)
class Reinforcing:
    """Parameters of the training.

    Attributes:
      how: the training settings and the objective.
      replies: how they are sampled and rewarded; its `levels` are those that are asked.
      form: of the replies.
      answer_tokens: reserved for the answer.
      generation: how the model writes.
    """

    how: Fit
    replies: ReinforcementConfig
    form: Form
    answer_tokens: int
    generation: GenerationConfig


class Group(NamedTuple):
    """Holds the replies to one question at one budget."""

    example: Example
    prompt: list[int]
    written: list[Completion]
    replies: list[budgets.Reply]
    right: list[bool]
    rewards: list[float]


class Rollouts:
    """Feeds a training with the model's own replies, in groups (`methods.rollouts`).

    Groups are numbered. The position is that of the groups that were learned from or left out.
    """

    def __init__(
        self,
        params: Reinforcing,
        pool: Sequence[Example],
        model: Model,
        reading: Rendering,
        thinking: Thinking,
        engine: Engine,
        out: Folder | None = None,
        reference: Model | None = None,
    ):
        """Takes the questions, the model's tokenizer and prompts, and the engine that writes.

        Replies are written to `out`, if there is one. The KL is that to `reference`.
        """
        self._params, self._pool, self._model, self._reading = params, pool, model, reading
        self._thinking, self._engine, self._record = thinking, engine, Record(out)
        self._reference = reference
        self._group = self._step = 0

    def get_state(self) -> Any:
        """Returns the numbers of groups and steps so far."""
        return {"group": self._group, "step": self._step}

    def set_state(self, state: Any) -> None:
        """Goes to a position."""
        self._group, self._step = state["group"], state["step"]

    def take(self, params: Any) -> tuple[Any, Mapping[str, float]]:
        """Returns rows of replies by the model with these parameters, and their figures."""
        self._engine.update(params)
        how = self._params.replies
        kept: list[Group] = []
        asked: list[Group] = []
        most = how.tries * how.groups
        while len(kept) < how.groups and len(asked) < most:
            found = self._ask(min(how.groups - len(kept), most - len(asked)))
            asked += found
            kept += [g for g in found if rewards.teaches(how.reward, g.rewards, g.right)]
        sequences = [sequence for group in kept for sequence in self._sequences(group)]
        if not kept:
            _log.warning(
                "step %d: the replies to each of %d questions have one reward, so nothing is "
                "learned; the task may be too hard or too easy, or thinking.answer_tokens=%d too "
                "few for an answer",
                self._step,
                len(asked),
                self._params.answer_tokens,
            )
        self._record.add(self._step, [reply for group in kept for reply in _told(group)])
        self._step += 1
        return self._compared(self._rows(sequences)), self._figures(asked, kept)

    def _ask(self, count: int) -> list[Group]:
        """Returns the next groups."""
        how, seed = self._params.replies, self._params.how.seed
        levels = how.levels
        chosen, requests = [], []
        for number in range(self._group, self._group + count):
            asked, level = divmod(number, len(levels))
            example = rollouts.question(self._pool, seed, asked)
            example = dataclasses.replace(example, budget=levels[level])
            prompt = self._reading.prompt(example, "reason")
            chosen.append((example, prompt))
            limit = longest(example.budget, self._thinking, self._params.answer_tokens)
            for sample in range(how.samples):
                stream = number * how.samples + sample
                requests.append(Request(prompt, limit, how.temperature, 1.0, stream))
        written = rollouts.complete(self._engine, requests)
        self._group += count
        size = how.samples
        return [
            self._judge(example, prompt, written[n * size : (n + 1) * size])
            for n, (example, prompt) in enumerate(chosen)
        ]

    def _judge(self, example: Example, prompt: list[int], written: list[Completion]) -> Group:
        replies = [
            budgets.read(self._model.tokenizer, self._thinking, each.ids, example)
            for each in written
        ]
        right = [is_correct(reply.answer, example) for reply in replies]
        found = [
            rewards.reward(
                self._params.replies.reward, ok, each.ended, reply.thinking, example.budget
            )
            for ok, each, reply in zip(right, written, replies)
        ]
        return Group(example, prompt, written, replies, right, found)

    def _sequences(self, group: Group) -> list[prompts.Sequence]:
        """Returns the training sequences of a group."""
        found = []
        for each, gain in zip(group.written, rewards.advantages(group.rewards)):
            ids = rollouts.drawn_tokens(each)
            ones = np.ones(len(ids), np.float32)
            logprobs = np.asarray(each.sampled_logprobs, np.float32)
            beside = PolicyTargets(gain * ones, logprobs, 0 * ones, ones)
            found.append(prompts.Sequence(group.prompt, ids, [], beside))
        return found

    def _rows(self, sequences: list[prompts.Sequence]) -> packing.Rows:
        """Returns packed rows; without sequences, a batch without a token to learn from."""
        pad_id = self._model.tokenizer.pad_id
        none = prompts.Sequence(
            [pad_id], [pad_id], [], PolicyTargets(*np.zeros((4, 1), np.float32))
        )
        return rollouts.packed_rows(self._params.how, sequences or [none], pad_id)

    def _compared(self, found: packing.Rows) -> packing.Rows:
        """Returns the rows with the log-probabilities of the reference, if there is one."""
        if not self._reference:
            return found
        config, params, mesh = self._reference.config, self._reference.params, self._model.mesh
        with jax.set_mesh(mesh):
            placed = shard_batch(found, mesh)
            logprobs = reference_logprobs(config, params, placed, self._params.replies.temperature)
            told = fetch(logprobs)[: len(found.tokens)]
        return found._replace(beside=found.beside._replace(reference=told))

    def _figures(self, asked: Sequence[Group], kept: Sequence[Group]) -> dict[str, float]:
        """Returns what is logged of a step: of all groups that were asked."""
        by_level: dict[int, list[int]] = collections.defaultdict(list)
        for group in asked:
            by_level[group.example.budget] += [reply.thinking for reply in group.replies]
        means = {level: sum(found) / len(found) for level, found in sorted(by_level.items())}
        lengths = [(n, level) for level, found in by_level.items() for n in found]
        right = [ok for group in asked for ok in group.right]
        answered = [reply.answer is not None for group in asked for reply in group.replies]
        found = [reward for group in asked for reward in group.rewards]
        logprobs = [p for group in asked for each in group.written for p in each.sampled_logprobs]
        figures = {
            "reward": sum(found) / len(found),
            "accuracy": sum(right) / len(right),
            "compliance": sum(answered) / len(answered),
            "over_budget": sum(n > level for n, level in lengths) / len(lengths),
            "entropy": -float(np.mean(logprobs)),
            "groups": len(kept),
            "groups_asked": len(asked),
        } | {f"thinking_{level}": mean for level, mean in means.items()}
        levels = self._params.replies.levels
        if len(levels) > 1 and {levels[0], levels[-1]} <= means.keys():
            figures["spread"] = spread_of_thinking(
                {n: {"thinking": mean} for n, mean in means.items()}
            )
        return figures


def _told(group: Group) -> list[dict[str, Any]]:
    """Returns the rows of a group's replies, without their step."""
    gains = rewards.advantages(group.rewards)
    return [
        {
            "id": group.example.id,
            "question": group.example.question,
            "budget": group.example.budget,
            "completion": reply.text,
            "answer": reply.answer,
            "correct": right,
            "thinking": reply.thinking,
            "reward": reward,
            "advantage": gain,
        }
        for reply, right, reward, gain in zip(group.replies, group.right, group.rewards, gains)
    ]


def longest(budget: int, thinking: Thinking, answer_tokens: int) -> int:
    """Returns the most tokens of a reply: beyond a quarter above the budget there is no reward."""
    around = len(thinking.opening) + len(thinking.closing) + len(thinking.answering) + 1
    return budget + budget // 4 + around + answer_tokens


def check(config: RunConfig, given: Inputs) -> None:
    """Checks that the longest reply fits, before anything is trained or paid.

    Raises:
      UserError: it exceeds a row or the model's context, or too few questions were not selected.
    """
    reading, think, how = given.rendering("student"), config.thinking, config.reinforcement
    largest = asked_levels(config)[-1]
    if how.questions == "unselected":
        left = len(given.pool) - selected_count(config)
        needed = math.ceil(how.tries * how.groups / len(asked_levels(config)))
        require(
            left >= needed,
            f"reinforcement.questions=unselected: {max(left, 0):,} of the pool's "
            f"{len(given.pool):,} questions are not selected for the teacher, and a step may ask "
            f"{needed:,}; select fewer (selection.size), raise data.pool, lower "
            "reinforcement.groups, or ask all of the pool (reinforcement.questions=pool)",
        )
    form = thinking_of(reading.tokenizer, think.form, reading.checkpoint)
    told = [dataclasses.replace(example, budget=largest) for example in given.pool]
    prompt = int(reading.prompts(told, "", "reason").lengths.max(initial=0))
    needed = prompt + longest(largest, form, think.answer_tokens)
    row, context = config.reinforcement.train.row_tokens, given.model("student").config
    require(
        needed <= row,
        f"reinforcement.train.row_tokens={row} is too short for the longest prompt, {prompt} "
        f"tokens, and a reply of a quarter above the largest budget, {needed:,} in all; raise it, "
        "or leave the largest out (reinforcement.levels)",
    )
    require(
        needed <= context.max_positions,
        f"thinking.levels: a reply of a quarter above the largest budget, {largest}, and "
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
      student: the model.
      reading: renders its prompts.
      made: the stage that has trained it so far; None is its checkpoint.
      chosen: the selection, whose questions are left out; None leaves out none.

    Raises:
      UserError: a loss is not finite, or a limit of `ReinforcementConfig` is broken.
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
    """Returns whether the student as it was before is kept, for the KL to it."""
    return how.kl > 0 or how.most_kl > 0


def asked_levels(config: RunConfig) -> tuple[int, ...]:
    """Returns the budgets that are asked, from small to large."""
    return config.reinforcement.levels or config.thinking.levels


def limits_of(how: ReinforcementConfig) -> tuple[Limit, ...]:
    """Returns the limits that are set on what is logged."""
    known = (
        Limit(
            "drift",
            "most_drift",
            how.most_drift,
            "the log-probabilities of what was written differ from those of the training; give "
            "both one dtype (student.matmul, generation.cache=compute)",
        ),
        Limit(
            "kl_loss",
            "most_kl",
            how.most_kl,
            "the student has become too different from what it was before; a lower "
            "reinforcement.train.learning_rate or a higher reinforcement.kl keeps it nearer",
            how.limit_steps,
        ),
        Limit(
            "entropy",
            "least_entropy",
            how.least_entropy,
            "nearly all replies to a question are the same, so that little more can be learned; a "
            "lower reinforcement.train.learning_rate or fewer steps keep them apart",
            how.limit_steps,
            is_least=True,
        ),
        Limit(
            "compliance",
            "least_compliance",
            how.least_compliance,
            "most replies have no answer; teach the budgets for longer before (thinking.train), or "
            "lower reinforcement.train.learning_rate",
            how.limit_steps,
            is_least=True,
        ),
        Limit(
            "spread",
            "least_spread",
            how.least_spread,
            "the student thinks for as long whatever its budget; teach the budgets for longer "
            "before (thinking.train), or lower reinforcement.train.learning_rate",
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
    """Returns the stages of training at budgets, and what follows them."""
    how, think = config.reinforcement, config.thinking
    tests = evaluation.of_trained(config, REINFORCED, "reason")
    own = {test.name for test in tests}
    plan = [stage for stage in budgeted.stages(config) if stage.name not in own]
    start = {"made": BUDGETED.name}
    if how.questions == "unselected":
        start |= {"chosen": SELECTION.name}
    objective = Policy(how.temperature, how.clip_low, how.clip_high, how.kl, has_reference(how))
    fit = Fit(
        how.train,
        config.seed,
        objective,
        setting="reinforcement.train",
        curves=config.curves,
        limits=limits_of(how),
    )
    params = Reinforcing(
        how=fit,
        replies=dataclasses.replace(how, levels=asked_levels(config)),
        form=think.form,
        answer_tokens=think.answer_tokens,
        generation=config.generation,
    )
    load = Load("pool", samples=how.samples, replies=_replies(config))
    reads = inputs.POOL_TO_STUDENT | start
    last = Stage(REINFORCED, reinforce, params, reads, load, check=check)
    return [
        *plan,
        last,
        *tests,
        budget_tests.stage(config, "reinforced", REINFORCED.name, {}),
    ]


def _replies(config: RunConfig) -> OwnReplies:
    """Returns what is written before each step, every reply at its longest."""
    how, think = config.reinforcement, config.thinking
    # The tokens that open and close the thinking are not known without a tokenizer.
    budget = max(asked_levels(config), default=0)
    new = budget + budget // 4 + _MARKER_TOKENS + think.answer_tokens
    generation = dataclasses.replace(config.generation, max_new_tokens=new)
    reader = "student" if has_reference(how) else None
    return OwnReplies(how.groups * how.samples, generation, reader)


def _check(config: RunConfig) -> None:
    """Raises a `UserError` for settings that cannot work, before anything is trained or paid."""
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
        "taught and tested; name some of these, or add it there",
    )
    require(list(levels) == sorted(set(levels)), f"{said}: name each once, from small to large")
    require(
        len(levels) == 1 or how.least_spread * levels[0] < levels[-1],
        f"reinforcement.least_spread={how.least_spread:g} is more than replies that keep to the "
        f"budgets {levels[0]} to {levels[-1]} have; lower it, or set 0",
    )
    require(
        how.questions == "pool" or config.thinking.after != "self",
        "reinforcement.questions=unselected: with thinking.after=self there is no teacher, and no "
        "question is selected for one; use reinforcement.questions=pool",
    )
    require(
        how.train.steps > 0,
        "reinforcement.train.steps=0: say how many steps there are; there are no epochs",
    )


METHOD = Method(
    "bard",
    "training and reinforcement learning at stated budgets (BARD, arXiv 2511.01470)",
    (*budgeted.METHOD.artifacts, REINFORCED, budget_tests.OF_CONTROL["reinforced"]),
    stages,
    {"student": "after reinforcement learning at budgets, asked without one"},
    _check,
)
