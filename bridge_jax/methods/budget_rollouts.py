"""Feeds reinforcement learning with the model's own replies at stated budgets, in groups.

A group holds the replies to one question at one budget. If all of them get the same reward, nothing
can be learned from the group, and another question is asked instead.

The reward combines accuracy with fidelity to the budget. The paper (BARD, 2511.01470) multiplies
the two. The shape of the fidelity is our choice: 1 between half the budget and all of it, falling
to 0 at a quarter above the budget, and to 0.7 for a reply without thinking.
"""

import collections
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from bridge_jax.config import GenerationConfig, ReinforcementConfig, Reward
from bridge_jax.data.answers import is_correct
from bridge_jax.data.example import Example
from bridge_jax.evaluation.metrics import spread_of_thinking
from bridge_jax.generation import budgets
from bridge_jax.generation.engine import Completion, Engine, Request
from bridge_jax.methods import rollouts
from bridge_jax.methods.fitting import TrainSpec
from bridge_jax.methods.rollouts import Record
from bridge_jax.parallel import hosts
from bridge_jax.parallel.hosts import fetch
from bridge_jax.parallel.sharding import shard_batch
from bridge_jax.pipeline.models import Model
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import packing, prompts
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.thinking import Form, Thinking
from bridge_jax.training.objectives.policy import PolicyTargets, reference_logprobs

_ABOVE = 0.25  # Overrun, as a share of the budget, at which the fidelity is 0.
_BELOW = 0.3  # Fidelity that a reply without thinking loses.

_log = logging.getLogger(__name__)


class Rollout(TypedDict):
    """A reply that the model has learned from.

    Attributes:
      step: training step, from 0.
      budget: in tokens.
      thinking: number of thinking tokens.
      reward, advantage: the reward, and the reward minus the mean of the group.
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


@dataclasses.dataclass(frozen=True)
class Reinforcing:
    """Parameters of the reinforcement learning.

    Attributes:
      how: the training settings and the objective.
      replies: how replies are sampled and rewarded; its `levels` are the budgets to train at.
      form: how replies are divided into thinking and answer.
      answer_tokens: tokens reserved for the answer.
      generation: the settings of generation.
    """

    how: TrainSpec
    replies: ReinforcementConfig
    form: Form
    answer_tokens: int
    generation: GenerationConfig


def fidelity(thinking: int, budget: int, floor: bool = True) -> float:
    """Returns how well `thinking` tokens keep to a budget, in [0, 1].

    Args:
      thinking: number of thinking tokens.
      budget: in tokens, at least 1.
      floor: whether using less than half of the budget also lowers the result.
    """
    above = max(0, thinking - budget) / (_ABOVE * budget)
    below = max(0.0, 0.5 * budget - thinking) / (0.5 * budget) if floor else 0.0
    return min(1.0, max(0.0, 1 - above - _BELOW * below))


def reward(kind: Reward, right: bool, ended: bool, thinking: int, budget: int) -> float:
    """Returns the reward of a reply, in [0, 1].

    Args:
      kind: `multiplied`, accuracy times fidelity; `ceiling`, the same, but short thinking costs
        nothing; `added`, the mean of both, which also rewards a wrong reply within the budget.
      right: whether the answer is right; a reply without an answer is not.
      ended: whether the model ended the reply itself; otherwise the reward is 0.
      thinking: number of thinking tokens.
      budget: in tokens.
    """
    if not ended:
        return 0.0
    kept = fidelity(thinking, budget, floor=kind != "ceiling")
    return (right + kept) / 2 if kind == "added" else right * kept


def advantages(rewards: Sequence[float]) -> list[float]:
    """Returns each reward of a group minus their mean, not divided by their standard deviation.

    Dividing would weight questions by how unlikely their rarer outcome is (Dr. GRPO, 2503.20783).
    """
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def teaches(kind: Reward, rewards: Sequence[float], right: Sequence[bool]) -> bool:
    """Returns whether a group has a learning signal: its rewards differ.

    With `added`, groups whose replies are all right or all wrong are left out too. All-wrong ones
    differ only in length and would teach short wrong answers; the other kinds of reward are 0 for
    them, so a comparison of the kinds would be confounded.
    """
    if kind == "added" and len(set(right)) == 1:
        return False
    return max(rewards) - min(rewards) > 1e-9


class Group(NamedTuple):
    """The replies to one question at one budget."""

    example: Example
    prompt: list[int]
    written: list[Completion]
    replies: list[budgets.Reply]
    right: list[bool]
    rewards: list[float]


class Rollouts:
    """Feeds a training with the model's own replies, in groups (`methods.rollouts`).

    Groups are numbered. The position counts all groups so far, learned from or left out.
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
        """Takes the questions, the model, the rendering of its prompts, and its engine.

        Replies are written to `out`, if given. The KL is measured to `reference`, if given.
        """
        self._params, self._pool, self._model, self._reading = params, pool, model, reading
        self._thinking, self._engine, self._record = thinking, engine, Record(out)
        self._reference = reference
        self._group = self._step = 0

    def get_state(self) -> Any:
        """Returns the number of groups and of steps so far."""
        return {"group": self._group, "step": self._step}

    def set_state(self, state: Any) -> None:
        """Moves to a position that `get_state` has returned."""
        self._group, self._step = state["group"], state["step"]

    def next_batch(self, params: Any) -> tuple[Any, Mapping[str, float]]:
        """Returns packed rows of replies sampled with `params`, and the figures to log."""
        self._engine.update(params)
        how = self._params.replies
        kept: list[Group] = []
        asked: list[Group] = []
        most = how.tries * how.groups
        while len(kept) < how.groups and len(asked) < most:
            found = self._ask(min(how.groups - len(kept), most - len(asked)))
            asked += found
            kept += [g for g in found if teaches(how.reward, g.rewards, g.right)]
        sequences = [sequence for group in kept for sequence in self._sequences(group)]
        if not kept:
            _log.warning(
                "step %d: for each of %d questions all replies got the same reward, so this step "
                "learns nothing; the task may be too hard or too easy, or "
                "thinking.answer_tokens=%d too few for an answer",
                self._step,
                len(asked),
                self._params.answer_tokens,
            )
        self._record.add(self._step, [reply for group in kept for reply in _reply_rows(group)])
        self._step += 1
        return self._compared(self._rows(sequences)), self._figures(asked, kept)

    def _ask(self, count: int) -> list[Group]:
        """Returns the next `count` groups, sampled and rewarded."""
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
        written = self._engine.complete_all(requests)
        self._group += count
        examples = [example for example, _ in chosen for _ in range(how.samples)]
        replies = [
            budgets.read(self._model.tokenizer, self._thinking, each.ids, example)
            for each, example in zip(written, examples)
        ]
        # Comparing mathematics has a time limit, so the results of hosts could differ.
        right = hosts.broadcast(
            [is_correct(reply.answer, example) for reply, example in zip(replies, examples)]
        )
        groups = []
        for n, (example, prompt) in enumerate(chosen):
            of = slice(n * how.samples, (n + 1) * how.samples)
            groups.append(self._judged(example, prompt, written[of], replies[of], right[of]))
        return groups

    def _judged(
        self,
        example: Example,
        prompt: list[int],
        written: list[Completion],
        replies: list[budgets.Reply],
        right: list[bool],
    ) -> Group:
        found = [
            reward(self._params.replies.reward, ok, each.ended, reply.thinking, example.budget)
            for ok, each, reply in zip(right, written, replies)
        ]
        return Group(example, prompt, written, replies, right, found)

    def _sequences(self, group: Group) -> list[prompts.TrainingSequence]:
        """Returns the training sequences of a group, one for each reply."""
        found = []
        for each, gain in zip(group.written, advantages(group.rewards)):
            ids = rollouts.drawn_tokens(each)
            ones = np.ones(len(ids), np.float32)
            logprobs = np.asarray(each.sampled_logprobs, np.float32)
            extra_targets = PolicyTargets(gain * ones, logprobs, 0 * ones, ones)
            found.append(prompts.TrainingSequence(group.prompt, ids, [], extra_targets))
        return found

    def _rows(self, sequences: list[prompts.TrainingSequence]) -> packing.Rows:
        """Returns packed rows; without sequences, a batch that has no token to learn from."""
        pad_id = self._model.tokenizer.pad_id
        none = prompts.TrainingSequence(
            [pad_id], [pad_id], [], PolicyTargets(*np.zeros((4, 1), np.float32))
        )
        return rollouts.packed_rows(self._params.how, sequences or [none], pad_id)

    def _compared(self, found: packing.Rows) -> packing.Rows:
        """Returns the rows with the log-probabilities of the reference model, if there is one."""
        if not self._reference:
            return found
        config, params, mesh = self._reference.config, self._reference.params, self._model.mesh
        with jax.set_mesh(mesh):
            placed = shard_batch(found, mesh)
            logprobs = reference_logprobs(config, params, placed, self._params.replies.temperature)
            told = fetch(logprobs)[: len(found.tokens)]
        return found._replace(extra_targets=found.extra_targets._replace(reference=told))

    def _figures(self, asked: Sequence[Group], kept: Sequence[Group]) -> dict[str, float]:
        """Returns the figures to log for a step, over all groups that were asked."""
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


def _reply_rows(group: Group) -> list[dict[str, Any]]:
    """Returns a row for each reply of a group, without the step."""
    gains = advantages(group.rewards)
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
    """Returns the token limit of a reply: thinking may exceed its budget by a quarter.

    Beyond that its fidelity is 0.
    """
    around = len(thinking.opening) + len(thinking.closing) + len(thinking.answering) + 1
    return budget + budget // 4 + around + answer_tokens
