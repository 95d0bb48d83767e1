"""On-policy distillation (GKD, 2306.13649): the assistant supervises the student's own replies.

It follows the tutoring of BRIDGE. In each step the student, with its current parameters, answers
some questions of the pool, and the assistant computes its distribution at each token of the
replies. The student learns these distributions. It is thus corrected on texts that it writes
itself, with mistakes that the assistant's texts do not contain. This needs no teacher and no
labels.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from bridge_jax.config import GenerationConfig, OnPolicyConfig, RunConfig
from bridge_jax.data.answers import answer_of, is_correct
from bridge_jax.data.example import Example
from bridge_jax.errors import require
from bridge_jax.generation.engine import Completion, Engine, Request
from bridge_jax.methods import (
    baselines,
    bridge,
    evaluation,
    inputs,
    logits,
    rollouts,
    rounds,
    tutoring,
)
from bridge_jax.methods.fitting import TrainSpec, fit_from
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.methods.rollouts import ROLLOUTS, Record
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, rows
from bridge_jax.pipeline.models import Model, RoleModel
from bridge_jax.pipeline.stages import Method, OwnReplies, Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.text.rendering import Rendering
from bridge_jax.training.objectives.distillation import ReverseKL, SoftTargets, predict


class StudentReply(TypedDict):
    """A reply that the student wrote and learned from.

    Attributes:
      step: the training step, from 0.
      tokens: the length of the completion, without the end token.
      ended: whether the student wrote the end token.
    """

    step: int
    id: str
    completion: str
    answer: str | None
    correct: bool
    tokens: int
    ended: bool


ON_POLICY = Artifact(
    "tutoring/on_policy",
    "On-policy distillation",
    "train",
    "student",
    (*TRAINED, rows(ROLLOUTS, StudentReply, is_result=False)),
    is_last=True,
)
TUTORED = evaluation.measured(
    "student_tutored", "student", "Student, tutored", "trained on the assistant's rationales"
)


@dataclasses.dataclass(frozen=True)
class Distilling:
    """Parameters of the training.

    Attributes:
      how: the training settings.
      replies: how many replies a step has, and how they are sampled.
      generation: the settings of generation.
    """

    how: TrainSpec
    replies: OnPolicyConfig
    generation: GenerationConfig


class Replies:
    """Feeds a training with the student's replies and the assistant's predictions for them.

    Its position is the number of replies so far (`methods.rollouts`).
    """

    def __init__(
        self,
        params: Distilling,
        pool: Sequence[Example],
        student: Model,
        reading: Rendering,
        engine: Engine,
        assistant: Model,
        out: Folder | None = None,
    ):
        """Takes the questions, the student and the engine that runs it, and the assistant.

        Replies are also written to `out`, if it is given.
        """
        self._params, self._pool, self._student, self._reading = params, pool, student, reading
        self._engine, self._assistant, self._record = engine, assistant, Record(out)
        self._reply = self._step = 0

    def get_state(self) -> Any:
        """Returns the numbers of replies and steps so far."""
        return {"reply": self._reply, "step": self._step}

    def set_state(self, state: Any) -> None:
        """Restores a position."""
        self._reply, self._step = state["reply"], state["step"]

    def next_batch(self, params: Any) -> tuple[Any, Mapping[str, float]]:
        """Returns packed rows of replies sampled with these parameters, and metrics of them."""
        self._engine.update(params)
        how, seed = self._params.replies, self._params.how.seed
        numbers = range(self._reply, self._reply + how.questions)
        examples = [rollouts.question(self._pool, seed, number) for number in numbers]
        asked = [self._reading.prompt(example, "reason") for example in examples]
        limit = self._params.generation.max_new_tokens
        written = self._engine.complete_all(
            [Request(p, limit, how.temperature, 1.0, n) for p, n in zip(asked, numbers)]
        )
        told = [self._reply_row(*pair) for pair in zip(examples, written)]
        self._record.add(self._step, told)
        self._reply, self._step = self._reply + how.questions, self._step + 1
        sequences = [
            prompts.TrainingSequence(prompt, rollouts.drawn_tokens(completion), [])
            for prompt, completion in zip(asked, written)
        ]
        pad_id = self._student.tokenizer.pad_id
        found = rollouts.packed_rows(self._params.how, self._with_soft(sequences), pad_id)
        return found, {
            "accuracy": sum(row["correct"] for row in told) / len(told),
            "ended": sum(row["ended"] for row in told) / len(told),
            "reply_tokens": sum(row["tokens"] for row in told) / len(told),
        }

    def _reply_row(self, example: Example, completion: Completion) -> dict[str, Any]:
        text = self._student.tokenizer.decode(completion.ids)
        answer = answer_of(text, example)
        return {
            "id": example.id,
            "completion": text,
            "answer": answer,
            "correct": is_correct(answer, example),
            "tokens": len(completion.ids),
            "ended": completion.ended,
        }

    def _with_soft(
        self, sequences: list[prompts.TrainingSequence]
    ) -> list[prompts.TrainingSequence]:
        """Returns the sequences with the assistant's predictions at each token of the replies."""
        train, assistant = self._params.how.train, self._assistant
        found = predict(
            assistant.config,
            assistant.params,
            sequences,
            self._params.replies.top_k,
            min(assistant.config.vocab_size, self._student.config.vocab_size),
            train.batch_rows,
            train.row_tokens,
            assistant.tokenizer.pad_id,
            assistant.mesh,
        )
        ends = np.cumsum([sequence.targets for sequence in sequences])
        return [
            sequence._replace(
                extra_targets=SoftTargets(*(part[end - sequence.targets : end] for part in found))
            )
            for sequence, end in zip(sequences, ends)
        ]


def distil(
    params: Distilling,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    assistant: RoleModel,
    made: Folder,
    by: Folder,
) -> None:
    """Trains the student to match the assistant's distribution on the student's own replies.

    Args:
      params: the replies and the training.
      out: the folder of the stage.
      pool: the questions.
      student: the student's model, which the stage `made` has trained.
      reading: renders the prompts, which are the same for both models.
      assistant: the assistant's model, which the stage `by` has trained.
      made, by: the folders of these stages.

    Raises:
      UserError: a loss is not finite, or a reply does not fit a row.
    """
    model = student.trainable(made)

    def feed() -> tuple[Replies, int, int]:
        engine = model.engine(params.generation, params.how.seed)
        found = Replies(params, pool, model, reading, engine, assistant.load(by), out)
        return found, params.how.train.steps, params.how.train.row_tokens

    fit_from(out, "on-policy distillation", model, feed, params.how)


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of BRIDGE, with distillation after the tutoring, and one more test.

    A student that learns only labels, for comparison, takes as many steps as both trainings
    together, unless its own number of steps or epochs is set.
    """
    how, mode = config.on_policy, "reason"
    setting = "on_policy.train"
    spec = TrainSpec(how.train, config.seed, ReverseKL(), setting=setting, curves=config.curves)
    reads = inputs.POOL_TO_STUDENT | {
        "assistant": inputs.ASSISTANT,
        "made": tutoring.STUDENT.name,
        "by": rounds.last(config).name,
    }
    params = Distilling(spec, how, config.generation)
    replies = OwnReplies(how.questions, config.generation, "assistant", how.top_k)
    workload = Workload("pool", soft=how.top_k, replies=replies)
    last = Stage(ON_POLICY, distil, params, reads, workload, check=check)
    tests = {
        evaluation.STUDENT.name: [
            evaluation.test_stage(config, TUTORED, tutoring.STUDENT, mode),
            *evaluation.trained_test_stages(config, ON_POLICY, mode),
        ],
        evaluation.STUDENT_DEV.name: [],
    }
    plan: list[Stage] = []
    for stage in bridge.stages(config):
        if stage.name == baselines.LABELS.name:
            tutored = next(each for each in plan if each.name == tutoring.STUDENT.name)
            plan.append(baselines.labels_stage(config, tutored, [last]))
            continue
        plan += tests.get(stage.name, [stage])
        if stage.name == tutoring.STUDENT.name:
            plan.append(last)
    return plan


def check(config: RunConfig, given: Inputs) -> None:
    """Checks, before anything is trained or paid for, that the assistant can read the replies.

    Raises:
      UserError: the models have different vocabularies or chat templates, or `on_policy.top_k`
        exceeds the vocabulary.
    """
    logits.check_shared(given, "method=on_policy", "on_policy.top_k", config.on_policy.top_k)


def _check(config: RunConfig) -> None:
    """Raises a `UserError` for settings that cannot work, before any data is read."""
    bridge.METHOD.check(config)
    require(
        config.form == "chain",
        f"form={config.form}: method=on_policy learns whole replies; set it to chain",
    )
    require(
        config.on_policy.train.steps > 0,
        "on_policy.train.steps=0: set the number of steps; this training has no epochs",
    )


METHOD = Method(
    "on_policy",
    "a BRIDGE distillation that continues on the student's own replies (2306.13649)",
    (*bridge.METHOD.artifacts, ON_POLICY, TUTORED),
    stages,
    {"student": "after on-policy distillation"},
    _check,
)
