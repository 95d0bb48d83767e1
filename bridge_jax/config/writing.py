"""How models write, what is kept of it, and what is measured."""

import dataclasses
from typing import Annotated, Literal

from bridge_jax.config.fields import Count, LogProbability, NotNegative, Range, Share, Size


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How models write.

    Attributes:
      max_new_tokens: completion length at most.
      batch_size: prompts decoded together, at most.
      temperature: 0 is greedy.
      top_p: nucleus sampling, with temperature > 0.
    """

    max_new_tokens: Size = 96
    batch_size: Size = 64
    temperature: NotNegative = 0.0
    top_p: Annotated[float, Range(above=0, most=1)] = 1.0


@dataclasses.dataclass(frozen=True)
class RationalesConfig:
    """How the assistant's rationales are asked for, and which the student learns from.

    Attributes:
      filter: `gold` keeps a rationale whose answer is gold; where one is rejected, the student
        learns the gold answer alone. The others compare with none: the student learns the answer as
        written, and nothing where a rationale is rejected. `none` keeps all that end in an
        answer; `confidence` those that the assistant was sure of; `consistency` those of them that
        the student's own samples agree with (`methods.rationales.sample`).
      show_gold: where the pool has labels, show them to an assistant that a teacher taught, under
        any filter: it explains the gold answer. That is the rationalization of STaR (2203.14465),
        where only what a model got wrong is explained; to explain all is our choice. For it the
        assistant learns each of the teacher's answers in both modes, to reason and to explain.
        Without, it has to find the answers of the pool itself, as it does when it is tested; an
        epoch of its training is then half as long.
      min_mean_logprob: of the tokens of a completion, in nats, for `confidence` and `consistency`.
        Our default.
      min_step_logprob: mean over the tokens of the least sure sentence or line, likewise.
      samples: answers of the student to each question, for `consistency`.
      temperature: with which it samples them.
      min_agreement: share of the samples that give the rationale's answer, at least. Our default.
      noise: share of the rationales that an error is put into before the filter sees them, to study
        what hallucination does to the student.
      noise_kind: `wrong_answer`, another answer of the task, which `gold` finds; or
        `wrong_reasoning`, that of another example before the same answer, which it cannot.
    """

    filter: Literal["gold", "none", "confidence", "consistency"] = "gold"
    show_gold: bool = True
    min_mean_logprob: LogProbability = -0.5
    min_step_logprob: LogProbability = -1.0
    samples: Size = 4
    temperature: NotNegative = 0.7
    min_agreement: Share = 0.25
    noise: Share = 0.0
    noise_kind: Literal["wrong_answer", "wrong_reasoning"] = "wrong_answer"


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What the report measures.

    Attributes:
      assistant_examples: test examples put to the assistant, which is slower than the student;
        0 is all.
    """

    assistant_examples: Count = 0
