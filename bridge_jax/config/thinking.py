"""Defines the settings of reasoning within stated budgets (BARD, 2511.01470)."""

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
    """Settings of training and testing at stated budgets of thinking tokens.

    A budget limits the thinking alone, not the answer, and is counted in the student's tokens.

    Attributes:
      levels: the budgets to teach and test, in tokens, from small to large.
      after: the method that trains the student first: `bridge`, `direct` or `self`. Its stages are
        reused from the workdir if they are finished there. Empty: the training starts from the
        student's checkpoint (after instruction tuning, if `instruct.examples` is above 0), with the
        teacher's reasoning.
      shortened_by: who rewrites long reasoning to the budgets: the `teacher`, which is paid for
        each text, or the `assistant` as downloaded. A recorded teacher uses its recorded variants.
      least, most: the shortest and longest shortened text, as shares of its budget. Our default:
        nothing above a budget is taught.
      tries: the most rewritings of a text for a budget; if none is within the limits, the text is
        dropped.
      unstated: also teach the long reasoning without a stated budget, to keep what the student can
        do without one.
      form: where the thinking ends: at the answer line (`plain`), or at the model's own </think>
        after <think> (`tags`).
      train: the training on the shortened reasoning.
      controls: the ways of keeping to a budget that are tested (`generation.budgets`). The trained
        student is told the budget (`stated`), or told and also cut off at it (`capped`). The
        student before this training is cut off (`truncated`), also extended if it stops early
        (`forced`), started with given words (`triggered`), or asked several times with a share of
        the budget each (`sampled`).
      closing: the text that ends thinking that is cut off.
      waiting: the text that extends thinking (`forced`), as in s1 (2501.19393).
      extensions: the most extensions of a reply.
      leading: the text that begins the thinking with `triggered` (Mid-Think, 2601.07036).
      samples: number of replies to a question with `sampled`; their most common answer counts.
      temperature: sampling temperature with `sampled`, and of rewritings by the assistant.
      answer_tokens: tokens reserved for the answer; a reply that closes its thinking early may also
        use the rest of its budget.
      repeats: number of replies to each test question, whose mean accuracy counts (avg@k); if above
        1, they are sampled with `generation.temperature`.
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

    The limits (`most_...`, `least_...`) stop a training that has gone wrong and keep its state:
    with another limit it continues from there. 0 sets no limit. The values are our defaults. Each
    limit applies to the metric that its entry names in parentheses.

    Attributes:
      levels: the budgets to train at; empty is all of `thinking.levels`. A student that is weak at
        only some of them needs no others, and short replies cost little.
      questions: the questions to train on: all of the `pool`, or only those that were not selected
        for the teacher (`unselected`). A student that has learned the explanation of a question
        mostly gives the same reply to it, and replies with equal rewards teach nothing.
      groups: questions in a step, each at one budget. A question whose replies all get the same
        reward teaches nothing, and another one is asked instead.
      tries: a step asks at most `tries` times `groups` questions; if fewer than `groups` of them
        teach something, it learns from fewer.
      samples: replies to each question; the advantage of a reply is its reward less their mean.
      reward: accuracy times fidelity to the budget (`multiplied`); the same, but short thinking
        costs nothing (`ceiling`); or the mean of accuracy and fidelity (`added`), to see what that
        does (`methods.budget_rollouts`).
      temperature: sampling temperature; the distribution is not truncated.
      clip_low, clip_high: the probability ratio of a token is clipped to
        `[1 - clip_low, 1 + clip_high]`.
      kl: weight of the KL divergence to the student as it was before this training.
      most_drift: mean |log-probability while learning - while sampling| of the tokens of a step
        (`drift`), in nats a token. Both come from the same parameters, and should be equal up to
        rounding.
      most_kl: KL divergence to the student as it was before this training (`kl_loss`), in nats a
        token; 0 sets no limit. If `kl` is 0 too, that student is not kept in memory, and the KL is
        not logged.
      least_entropy: entropy of the replies (`entropy`), in nats a token; near 0, all replies to a
        question are the same.
      least_compliance: share of the replies that have an answer (`compliance`).
      least_spread: the longest mean thinking at a budget, divided by the shortest (`spread`); it is
        1 if the model ignores the budget. Only steps that ask both the smallest and the largest
        budget log it.
      limit_steps: all limits but `most_drift` apply to the mean over this many steps, and only once
        there are that many.
      train: the training settings: `steps` is the number of steps, and the rows of a step are
        padded to a multiple of `batch_rows`.
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
