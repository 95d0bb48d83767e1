"""Evaluates the models of a run on the test split."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from bridge_jax.config import GenerationConfig, RunConfig
from bridge_jax.data.answers import answer_of, is_correct, rouge_l
from bridge_jax.data.example import Example
from bridge_jax.errors import require
from bridge_jax.evaluation.confidence import of_answer
from bridge_jax.generation.engine import Completion
from bridge_jax.methods import held_out, inputs, tutoring
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.pipeline.artifacts import Artifact, MeasuredModel, Role, rows
from bridge_jax.pipeline.models import RoleModel, write_completions
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering

FILE = "predictions.jsonl"


class Prediction(TypedDict):
    """A model's answer to one test question.

    Attributes:
      confidence: confidence in the answer (`evaluation.confidence`); None if it is not known, and
        absent from the tests of earlier versions.
      score: the ROUGE-L of a free-text answer; absent for other kinds.
    """

    id: str
    domain: str
    question: str
    completion: str
    answer: str | None
    gold: str
    correct: bool
    tokens: int
    confidence: NotRequired[float | None]
    score: NotRequired[float]


def measured(name: str, role: Role, title: str, note: str, is_before: bool = False) -> Artifact:
    """Returns the artifact of a model's test."""
    return Artifact(
        f"evaluation/{name}",
        f"Testing: {title.lower()}",
        "evaluate",
        role,
        (rows(FILE, Prediction),),
        version=3,  # each row has its own random stream and a confidence, and rows are in order
        measured=MeasuredModel(name, title, note, is_before),
    )


# In the order of reports.
ASSISTANT_BASE = measured(
    "assistant_base", "assistant", "Assistant before", "as downloaded", is_before=True
)
ASSISTANT = measured("assistant", "assistant", "Assistant", "after its apprenticeship")
STUDENT_BASE = measured("student_base", "student", "Student before", "as cut", is_before=True)
STUDENT_INSTRUCT = measured(
    "student_instruct",
    "student",
    "Student, instructed",
    "after the instruction warm-up",
    is_before=True,
)
STUDENT_DIRECT = measured(
    "student_direct", "student", "Student, direct", "trained on the teacher's answers alone"
)
STUDENT_LABELS = measured(
    "student_labels", "student", "Student, labels", "trained on the labels of the pool alone"
)
STUDENT = measured("student", "student", "Student", "trained on the assistant's rationales")
STUDENT_DEV = Artifact(
    "evaluation/student_dev",
    "The student’s answers to the dev split",
    "evaluate",
    "student",
    (rows(FILE, Prediction),),
)
OF_ASSISTANT = (ASSISTANT_BASE, ASSISTANT)
OF_STUDENT = (STUDENT_BASE, STUDENT_INSTRUCT, STUDENT, STUDENT_DEV)


@dataclasses.dataclass(frozen=True)
class Testing:
    """Parameters of a test.

    Attributes:
      generation: the settings of generation.
      mode: the mode of the prompts.
      seed: seeds the sampling.
      most: the maximum number of questions; 0 is all.
    """

    generation: GenerationConfig
    mode: Mode
    seed: int
    most: int = 0


def evaluate(
    params: Testing,
    out: Folder,
    test: Examples,
    model: RoleModel,
    reading: Rendering,
    made: Folder | None = None,
    bought: Folder | None = None,
) -> None:
    """Writes the model's completions of the test questions, parsed and compared with gold.

    Questions with neither a gold nor a bought answer are left out. `test` may be the dev split.
    """
    measured_on = held_out.with_answers(test, bought)
    measured_on = measured_on[: params.most or None]
    place = {example.id: i for i, example in enumerate(test)}
    asked = reading.prompts(test, test.digest, params.mode)
    loaded = model.load(made)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        text = loaded.tokenizer.decode(completion.ids)
        answer = answer_of(text, example)
        row = {
            "id": example.id,
            "domain": example.domain,
            "question": example.question,
            "completion": text,
            "answer": answer,
            "gold": example.gold,
            "correct": is_correct(answer, example),
            "tokens": len(completion.ids),
            "confidence": None if answer is None else of_answer(loaded.tokenizer, completion),
        }
        if example.kind == "text":
            row["score"] = rouge_l(answer or "", example.gold)
        return row

    name = f"test: {out.artifact.name.rsplit('/')[-1].replace('_', ' ')}"
    engine = loaded.engine(params.generation, params.seed)
    prompts = [asked[place[example.id]] for example in measured_on]
    write_completions(out, FILE, name, engine, measured_on, prompts, to_row)


def test_stage(
    config: RunConfig, artifact: Artifact, made: Artifact | None, mode: Mode = "reason"
) -> Stage:
    """Returns the stage that tests a model.

    Args:
      artifact: the artifact of the test.
      made: the stage that trained the model; None is the checkpoint.
      mode: the mode of the prompts.
    """
    role = artifact.role
    assert role
    most = config.evaluation.assistant_examples if role == "assistant" else 0
    reads = {"test": inputs.TEST, "model": f"models/{role}", "reading": f"rendering/{role}"}
    reads |= held_out.bought(config)
    if made:
        reads["made"] = made.name
    params = Testing(config.generation, mode, config.seed, most)
    return Stage(artifact, evaluate, params, reads, Workload("test", most, modes=(mode,)))


def student_test_stages(config: RunConfig, mode: Mode, others: Sequence[Stage] = ()) -> list[Stage]:
    """Returns the tests of the student: as trained and, if the config asks for it, before.

    Args:
      mode: the mode of all prompts.
      others: the tests of other students, which precede that of the trained one.
    """
    tests = []
    if config.evaluation.student_before:
        tests.append(test_stage(config, STUDENT_BASE, None, mode))
        if config.instruct.examples:
            tests.append(test_stage(config, STUDENT_INSTRUCT, tutoring.INSTRUCT, mode))
    return [*tests, *others, *trained_test_stages(config, tutoring.STUDENT, mode)]


def trained_test_stages(config: RunConfig, made: Artifact, mode: Mode) -> list[Stage]:
    """Returns the test of the trained student and, if the config asks for it, its answers to dev.

    Args:
      made: the stage that trained it last.
      mode: the mode of the prompts.
    """
    test = test_stage(config, STUDENT, made, mode)
    if not config.evaluation.student_dev:
        return [test]
    reads = {name: read for name, read in test.reads.items() if name != "bought"}
    reads |= {"test": inputs.DEV} | held_out.bought(config, "dev")
    workload = Workload("dev", modes=(mode,))
    return [test, Stage(STUDENT_DEV, evaluate, test.params, reads, workload, check=_check_dev)]


def _check_dev(config: RunConfig, given: Inputs) -> None:
    """Raises a `UserError` unless dev questions have gold answers, or answers are bought."""
    dev = given.dev
    require(
        bool(config.evaluation.teacher_dev) or any(example.answer is not None for example in dev),
        f"evaluation.student_dev=true: none of the {len(dev):,} dev questions has an answer to "
        "choose a threshold with; raise data.dev, give them answers, or set it to false",
    )
