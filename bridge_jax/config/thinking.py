"""Defines the settings of reasoning at stated budgets (BARD, 2511.01470)."""

import dataclasses
import typing
from typing import Annotated, Literal

from bridge_jax.config.fields import Positive, Range, Share, Size
from bridge_jax.config.training import TrainConfig

Control = Literal["stated", "capped", "truncated", "forced", "triggered", "sampled"]
CONTROLS: tuple[Control, ...] = typing.get_args(Control)
Extensions = Annotated[int, Range(least=0, most=4)]
Tries = Annotated[int, Range(least=1, most=8)]


@dataclasses.dataclass(frozen=True)
class ThinkingConfig:
    """How a student learns to think for at most a stated number of tokens, and how it is tested.

    Budgets are of the thinking alone, in the student's tokens.

    Attributes:
      levels: the budgets that are taught and tested.
      after: the method that trains the student first: `bridge`, `direct` or `self`. Its stages are
        taken from the workdir if they are finished there. Empty: the student's checkpoint goes on
        at once, with the teacher's reasoning.
      shortened_by: who rewrites long reasoning to the budgets: the `teacher`, who is paid for each,
        or the `assistant` as downloaded. A recorded teacher takes the recorded variants.
      least, most: share of its budget that shortened reasoning has, or it is dropped. Ours: a
        budget is an upper bound, so nothing above it is taught.
      tries: rewritings of one text to one budget at most, until one is kept.
      unstated: also teach the long reasoning without a budget, so that the student can still think
        for as long as it would.
      form: where the thinking ends: at the line of the answer (`plain`), or at the model's own
        </think> after <think> (`tags`).
      train: the training on the shortened reasoning.
      controls: the ways to keep a budget that are tested (`generation.budgets`): the trained
        student is told it (`stated`), and cut off at it too (`capped`); the student before is cut
        off (`truncated`), made to think on as well (`forced`), started by other words
        (`triggered`), or asked several times for a share of it each (`sampled`).
      closing: said where thinking is cut off, before the answer.
      waiting: what makes a model think on (`forced`), as in s1 (2501.19393).
      extensions: how often, at most.
      leading: the words that start the thinking of `triggered` (Mid-Think, 2601.07036).
      samples: answers of `sampled`, of which the commonest counts; each has that part of the
        budget.
      temperature: of these.
      answer_tokens: of the answer after the thinking, at most.
      repeats: answers to each test question, whose mean accuracy counts (avg@k); above 1 they are
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
