"""Defines the settings of reasoning at stated budgets (BARD, 2511.01470)."""

import dataclasses
import typing
from typing import Annotated, Literal

from bridge_jax.config.fields import UNKEYED, NotNegative, Positive, Range, Share, Size
from bridge_jax.config.training import TrainConfig

Control = Literal["stated", "capped", "truncated", "forced", "triggered", "sampled"]
Reward = Literal["multiplied", "ceiling", "added"]
CONTROLS: tuple[Control, ...] = typing.get_args(Control)
Extensions = Annotated[int, Range(least=1, most=4)]
Tries = Annotated[int, Range(least=1, most=8)]


@dataclasses.dataclass(frozen=True)
class ThinkingConfig:
    """Settings of the training and the tests at stated budgets.

    Budgets are of the thinking alone, in the student's tokens.

    Attributes:
      levels: the budgets that are taught and tested, from small to large.
      after: the method that trains the student first: `bridge`, `direct` or `self`. Its stages are
        taken from the workdir if they are finished there. Empty: the training begins with the
        student's checkpoint, and with the teacher's reasoning.
      shortened_by: who rewrites long reasoning to the budgets: the `teacher`, who is paid for each
        text, or the `assistant` as downloaded. A recorded teacher takes the recorded variants.
      least, most: the limits of a shortened text's length, as shares of its budget. Our default:
        nothing above a budget is taught.
      tries: the most rewritings of a text to a budget; if none is within the limits, it is dropped.
      unstated: also teach the long reasoning without a budget, to keep what the student can do
        without one.
      form: where the thinking ends: at the answer's line (`plain`), or at the model's own </think>
        after <think> (`tags`).
      train: the training on the shortened reasoning.
      controls: the ways to keep a budget that are tested (`generation.budgets`). The trained
        student is told the budget (`stated`), and also cut off at it (`capped`). The student before
        is cut off (`truncated`), also extended where it ends early (`forced`), begun with given
        words (`triggered`), or asked several times for a share of the budget each (`sampled`).
      closing: the text that ends thinking that is cut off.
      waiting: the text that extends thinking (`forced`), as in s1 (2501.19393).
      extensions: the most extensions of a reply.
      leading: the text that begins the thinking of `triggered` (Mid-Think, 2601.07036).
      samples: the number of replies of `sampled`, of which the commonest answer counts.
      temperature: of these, and of rewritings by the assistant.
      answer_tokens: reserved for the answer; a reply that closes its thinking early may also use
        the rest of its budget.
      repeats: replies to each test question, whose mean accuracy counts (avg@k); above 1 they are
        sampled with `generation.temperature`.
    """

    levels: tuple[Size, ...] = (32, 64, 128, 256, 512)
    after: Literal["", "bridge", "direct", "self"] = ""
    shortened_by: Literal["teacher", "assistant"] = "teacher"
    least: Share = 0.5
    most: Annotated[float, Range(above=0, most=2)] = 1.0
    tries: Tries = 3
    unstated: bool = True
    form: Literal["plain", "tags"] = "plain"
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    controls: tuple[Control, ...] = ("stated", "capped", "truncated", "forced")
    closing: str = ""
    waiting: str = " Wait,"
    extensions: Extensions = 1
    leading: str = "Briefly:"
    samples: Annotated[int, Range(least=2, most=64)] = 4
    temperature: Positive = 0.7
    answer_tokens: Size = 16
    repeats: Size = 1


@dataclasses.dataclass(frozen=True)
class ReinforcementConfig:
    """Settings of reinforcement learning at the budgets of `thinking` (`method=bard`).

    The limits (`most_...`, `least_...`) stop a training that is ruined, and keep its state: with
    another limit it goes on from there. 0 sets none. Their values are our defaults, and each is
    compared with what is logged under the name after it.

    Attributes:
      levels: the budgets that are asked; empty is all of `thinking.levels`. A student that is weak
        at only some of them needs no others, and short replies cost little.
      questions: those that are asked: all of the `pool`, or only those that were not selected for
        the teacher (`unselected`). A student that has learned the explanation of a question
        mostly gives the same reply to it, and replies with equal rewards teach nothing.
      groups: questions of a step, each at one budget. Those whose replies all get the same reward
        teach nothing, and others are asked instead.
      tries: a step asks at most so many times `groups` questions; where fewer than `groups` of them
        teach, it learns from fewer.
      samples: replies to each, whose mean reward is what an advantage is above.
      reward: accuracy times fidelity to the budget (`multiplied`); the same where brevity costs
        nothing (`ceiling`); or the mean of both (`added`), to see what that does
        (`methods.budget_rollouts`).
      temperature: of sampling; nothing is cut off.
      clip_low, clip_high: the ratio of a token's probabilities is clipped to
        [1 - clip_low, 1 + clip_high].
      kl: weight of the KL to the student as it was before.
      most_drift: mean |log-probability while learning - while writing| of a step (`drift`), in nats
        a token: the two are of the same parameters, and should be equal up to rounding.
      most_kl: KL to the student as it was before this training, in nats a token (`kl_loss`); 0 sets
        no limit. With 0 here and in `kl` that student is not kept in memory, and the KL is not
        logged.
      least_entropy: of the replies (`entropy`), in nats a token; near 0 all replies to a
        question are the same.
      least_compliance: share of the replies that have an answer (`compliance`).
      least_spread: the longest mean thinking at a budget, divided by the shortest (`spread`); 1
        where the model ignores the budget. It is logged by steps that ask the smallest and the
        largest budget.
      limit_steps: the last four limits apply to the mean over so many steps, and not before there
        are so many.
      train: `steps` are how many there are, and `batch_rows` a divisor of the rows of each.
    """

    levels: tuple[Size, ...] = ()
    questions: Literal["pool", "unselected"] = "pool"
    groups: Annotated[int, Range(least=1, most=4096)] = 8
    tries: Tries = 4
    samples: Annotated[int, Range(least=2, most=256)] = 8
    reward: Reward = "multiplied"
    temperature: Positive = 1.0
    clip_low: Annotated[float, Range(above=0, most=1)] = 0.2
    clip_high: Positive = 0.28
    kl: NotNegative = 0.0
    most_drift: Annotated[NotNegative, UNKEYED] = 0.05
    most_kl: Annotated[NotNegative, UNKEYED] = 0.0
    least_entropy: Annotated[NotNegative, UNKEYED] = 1e-4
    least_compliance: Annotated[Share, UNKEYED] = 0.1
    least_spread: Annotated[NotNegative, UNKEYED] = 1.05
    limit_steps: Annotated[Size, UNKEYED] = 8
    train: TrainConfig = dataclasses.field(
        default_factory=lambda: TrainConfig(steps=100, learning_rate=1e-5)
    )
