"""Buys the teacher's answers to test and dev questions without a gold answer, to measure with.

If a test split is unlabelled, the teacher's answers to a few of its questions serve as gold answers
for every model of the run. They are paid for through the ledger like all others, and before those
about the pool. The accuracy is then agreement with the teacher, and the report says so.
"""

import collections
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from bridge_jax.config import API_TEACHERS, RunConfig
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Failure, TeacherReply
from bridge_jax.methods import inputs, teacher
from bridge_jax.methods.annotations import Bill
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.methods.teacher import Asking, CountTokens, Question
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline.artifacts import Artifact, record, rows
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.teachers.replies import Rules, read

FILE, _SPEND = "answers.jsonl", "spend.json"

_log = logging.getLogger(__name__)


class HeldOutAnswer(TypedDict):
    """The teacher's answer to a held-out question, or the reason why there is none."""

    id: str
    question: str
    rationale: str
    answer: str | None
    reason: str | None


_FILES = (rows(FILE, HeldOutAnswer), record(_SPEND, Bill, is_result=False))
HELD_OUT = Artifact(
    "apprenticeship/held_out", "Asking the teacher the test questions", "ask", None, _FILES
)
HELD_OUT_DEV = Artifact(
    "apprenticeship/held_out_dev", "Asking the teacher the dev questions", "ask", None, _FILES
)
ALL = (HELD_OUT, HELD_OUT_DEV)
Split = Literal["test", "dev"]


@dataclasses.dataclass(frozen=True)
class HeldOut(Asking):
    """Parameters of bought answers: `count` questions, drawn by `seed`, one request for each."""

    count: int
    seed: int


def drawn(params: HeldOut, split: Sequence[Example]) -> list[Example]:
    """Draws the questions to ask from those without a gold answer; keeps the order of the split.

    A larger draw contains every smaller one.
    """
    bare = [example for example in split if example.answer is None]
    order = np.random.default_rng(params.seed).permutation(len(bare))[: params.count]
    return [bare[int(i)] for i in sorted(order)]


def ask(params: HeldOut, out: Folder, split: Examples, count: CountTokens, workdir: Path) -> None:
    """Asks the teacher; writes a row for each question, and the bill."""
    if not hosts.is_first():  # One process asks; the others read its rows later.
        return
    examples = drawn(params, split)
    # Only the answer is compared, so a reply without a rationale will do.
    rules = Rules(count, keep_wrong=True)
    questions = [Question(e, teacher.make_request(params, e), rules) for e in examples]
    asker = teacher.make_teacher(params, examples, count)
    with preemption.immediately():
        outcomes, spend = teacher.ask_questions(params, questions, asker, 0, workdir)
    found = [_row(example, outcome, rules) for example, (outcome,) in zip(examples, outcomes)]
    if lost := sum(row["answer"] is None for row in found):
        _log.warning(
            "%s: %d of %d have no answer from the teacher and are left out: %s",
            *(out.artifact.title, lost, len(found), _reasons(found)),
        )
    out.write_rows(FILE, found)
    teacher.write_bill(out, _SPEND, spend, params.teacher)


def _row(example: Example, outcome: TeacherReply | Failure, rules: Rules) -> dict[str, Any]:
    said = read(example, outcome, rules)
    return {
        "id": example.id,
        "question": example.question,
        "rationale": said.rationale,
        "answer": said.answer,
        # A reply that cannot be learned from may still have an answer.
        "reason": None if said.answer is not None else said.reason or "no answer that parses",
    }


def with_answers(split: Sequence[Example], bought: Folder | None) -> list[Example]:
    """Returns the questions that models are measured on, each with a gold answer.

    Args:
      split: all questions of test or dev.
      bought: the folder of the teacher's answers, which replace missing gold answers; None if none
        were bought. Questions that have neither are left out.

    Raises:
      UserError: answers were bought, and still no question has one.
    """
    written = bought.rows(FILE) if bought else []
    said = {row["id"]: row["answer"] for row in written}
    found = []
    for example in split:
        answer = said.get(example.id) if example.answer is None else example.answer
        if answer is not None:
            found.append(dataclasses.replace(example, answer=answer))
    if not found and bought:
        raise UserError(
            f"there is nothing to measure with: none of the teacher's {len(written):,} replies to "
            f"held-out questions has an answer ({_reasons(written)}). They are in "
            f"{bought.path / FILE}, and their cost is already spent; make data.instruction more "
            "explicit, or add gold answers to the questions"
        )
    return found


def _reasons(found: Sequence[dict[str, Any]]) -> str:
    reasons = collections.Counter(row["reason"] for row in found if row["answer"] is None)
    return "; ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stages that buy answers for test and for dev, if the config asks for them."""
    of_test, of_dev = config.evaluation.teacher_test, config.evaluation.teacher_dev
    found = [_stage(config, "test", HELD_OUT, of_test)] if of_test else []
    return [*found, _stage(config, "dev", HELD_OUT_DEV, of_dev)] if of_dev else found


def _stage(config: RunConfig, split: Split, artifact: Artifact, count: int) -> Stage:
    params = _params(config, count)
    reads = {"split": f"data/{split}", "count": inputs.COUNT, "workdir": inputs.WORKDIR}
    recorded = []  # The inputs with recorded answers: the questions, or a file.
    if params.teacher.kind not in API_TEACHERS:
        recorded.append(f"data/{split}_recorded")
    if params.teacher.replay_from:
        recorded.append(inputs.REPLAY)
    workload, check = Workload(split, count), _check_test if split == "test" else _check_dev
    return Stage(artifact, ask, params, reads, workload, keyed_by=tuple(recorded), check=check)


def _params(config: RunConfig, count: int) -> HeldOut:
    found = teacher.asking(config)
    # Reset, as they concern gold answers or rationales to learn from, and change no request here.
    asked = dataclasses.replace(
        config.teacher,
        show_gold=False,
        samples=1,
        retries=0,
        keep_wrong=True,
        min_agreement=0.0,
        min_rationale_tokens=0,
        max_rationale_tokens=0,
    )
    return HeldOut(asked, found.server, found.variant, found.budget, count, config.seed)


def _check_test(config: RunConfig, given: Inputs) -> None:
    _check_recorded(_params(config, config.evaluation.teacher_test), "test", given.test)


def _check_dev(config: RunConfig, given: Inputs) -> None:
    _check_recorded(_params(config, config.evaluation.teacher_dev), "dev", given.dev)


def _check_recorded(params: HeldOut, split: str, examples: Examples) -> None:
    """Raises a `UserError` if a recorded teacher has no answer to any of the questions to ask."""
    replay, kind = params.teacher.replay_from, params.teacher.kind
    if kind in API_TEACHERS or replay:
        return
    asked = drawn(params, examples)
    if not any(params.variant in example.rationales for example in asked):
        raise UserError(
            f"evaluation.teacher_{split}={params.count}: teacher.kind={kind} has no recorded "
            f"rationale {params.variant!r} for any {split} question without an answer; use another "
            "teacher, or give them answers"
        )


def check_gold(config: RunConfig, test: Examples) -> None:
    """Raises a `UserError` unless every model can be measured on the test split."""
    without = [example.id for example in test if example.answer is None]
    bare, bought = len(without), config.evaluation.teacher_test
    setting = f"evaluation.teacher_test={bought}"
    if bare and not bought:
        raise UserError(
            f"{bare:,} of {len(test):,} test questions have no answer to measure with (the first "
            f"is {without[0]!r}): give them answers, in the file or in another (data.test_path), "
            "or ask the teacher some of them and use its answers as the gold ones "
            f"(evaluation.teacher_test={bare})"
        )
    if bought and not bare:
        raise UserError(
            f"{setting}: all {len(test):,} test questions have an answer already; set it to 0"
        )
    if bought > bare:
        raise UserError(
            f"{setting} exceeds the {bare:,} test questions without an answer; lower it, or raise "
            "data.test"
        )


def bought(config: RunConfig, split: Split = "test") -> dict[str, str]:
    """Returns argument -> stage of the bought answers of a split; {} if none are bought."""
    how = config.evaluation
    name, count = HELD_OUT.name, how.teacher_test
    if split == "dev":
        name, count = HELD_OUT_DEV.name, how.teacher_dev
    return {"bought": name} if count else {}
