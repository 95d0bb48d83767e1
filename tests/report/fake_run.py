"""A small workdir of a run that can be counted by hand."""

import numpy as np

from bridge_jax import methods
from bridge_jax.config import BudgetConfig, RunConfig
from bridge_jax.config.io import to_json
from bridge_jax.methods.annotations import ANNOTATIONS, Annotation, Answered, Bill
from bridge_jax.methods.apprenticeship import SCORES, SELECTION, WARMUP, Score, SelectionRecord
from bridge_jax.methods.evaluation import STUDENT_DEV, Prediction
from bridge_jax.methods.filtering import RATIONALES, Judged
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline import files, storage
from bridge_jax.pipeline.artifacts import Sizes, Step, Values
from bridge_jax.pipeline.content import Hashes

NASTY = "<script>alert('x')</script> & $\\frac{1}{2}$?"
# Per role: right, wrong, no answer, of ten test questions.
OUTCOMES = {
    "assistant_base": "rrwwwwwwnn",
    "assistant": "rrrrrrwwww",
    "student_base": "nnnnnnnnnn",
    "student_instruct": "rwwwwwwwwn",
    "student": "rrrrrwwwww",
    "student_direct": "rrwwwwwwww",
}
MADE_WITH = {"jax": "0.9.1", "numpy": "2.3.0", "backend": "cpu", "devices": "8 cpu"}
PRICES = {"usd_per_million_input": 1.25, "usd_per_million_output": 10.0}
ASKED = ["p1", "p5", "p13", "p19"]


def finish(workdir, artifact, left, store=None, key="key", **known):
    """Writes a finished stage.

    Args:
      workdir: of the run.
      artifact: the stage's row of the table.
      left: the row type of each file, np.ndarray of an array -> what is in it.
      store: where stages lie, by default in the workdir.
      key: of the stage.
      known: what the manifest says, where it is not nothing.
    """
    place = (store or workdir / storage.STAGES) / artifact.name / key
    storage.clear(place)
    folder = storage.Folder(place, artifact)
    for file in artifact.files:
        if file.kind != "params":
            _write(folder, file, left[np.ndarray if file.kind == "array" else file.row])
    manifest = {
        "stage": artifact.name,
        "key": key,
        "shallow": key,
        "seconds": 0.0,
        "restarts": 0,
        "compilations": 0,
        "spans": {},
        "made_with": MADE_WITH,
    }
    storage.commit(folder, manifest | known, Hashes())
    storage.link(workdir, artifact.name, place)
    plan(workdir, storage.current(workdir) | {artifact.name: key})


def plan(workdir, keys):
    """Writes which stages the config of a workdir has."""
    files.write_json(workdir / storage.CURRENT, keys)


def remove(workdir, name):
    """Removes a stage, which is to be run yet."""
    (workdir / name).unlink()


def read(workdir, artifact, row):
    """Returns the rows, or the record, of a type that a stage has left."""
    folder = storage.Folder(workdir / artifact.name, artifact)
    file = _file(artifact, row)
    return folder.rows(file.name) if file.kind == "rows" else folder.record(file.name)


def change(workdir, artifact, row, value):
    """Writes a file of a finished stage again, as if that was what the stage had left."""
    folder = storage.Folder(workdir / artifact.name, artifact)
    _write(folder, _file(artifact, row), value)
    storage.commit(folder, folder.record(storage.MANIFEST), Hashes())


def _file(artifact, row):
    return next(file for file in artifact.files if file.row is row)


def _write(folder, file, value):
    write = {"rows": folder.write_rows, "record": folder.write_record, "array": folder.write_array}
    write[file.kind](file.name, value)


def write(root):
    """Twenty pool questions, twelve on fees and eight on samples; four asked, three kept."""
    root.mkdir(parents=True)
    config = RunConfig(name="tiny", seed=7, budget=BudgetConfig(queries=4, usd=0.5))
    files.write_json(root / "config.json", to_json(config))
    splits = {"pool": 20, "dev": 0, "test": 10}
    write_data(
        root,
        splits={name: {"used": size, "there": size} for name, size in splits.items()},
        domains={"fees": 12, "samples": 8},
    )
    pool = [
        Score(id=f"p{i}", domain="fees" if i < 12 else "samples", nll=i / 10, entropy=1.0, margin=0)
        for i in range(20)
    ]
    embeddings = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    finish(root, SCORES, {Score: pool, np.ndarray: embeddings})
    chosen = SelectionRecord(strategy="coverage", size=4, ids=ASKED, clusters=None, set_aside=[])
    finish(root, SELECTION, {SelectionRecord: chosen})
    finish(
        root,
        ANNOTATIONS,
        {
            Annotation: [annotation(key, NASTY, correct=key != "p19") for key in ASKED],
            Bill: Bill(queries=4, input_tokens=800, output_tokens=200, usd=0.003, prices=PRICES),
            Answered: Answered(keys=ASKED),
        },
    )
    judged = [rationale(row["id"], row["domain"], kept=i % 2 == 0) for i, row in enumerate(pool)]
    finish(root, RATIONALES, {Judged: judged})
    for role, outcomes in OUTCOMES.items():
        write_predictions(root, role, outcomes)
    train(root, WARMUP, 2.5)
    train(root, STUDENT, 61.0, restarts=1)


def annotation(key, question, correct):
    """Returns what the teacher said, which is kept if it is correct."""
    return Annotation(
        id=key,
        question=question,
        rationale="Because.",
        answer="7" if correct else "8",
        gold="7",
        correct=correct,
        kept=correct,
        reason=None if correct else "the answer '8' is not the gold one",
        asked=1,
    )


def rationale(key, domain, kept, tokens=9):
    """Returns what the assistant wrote."""
    return Judged(
        id=key,
        domain=domain,
        question="How much?",
        completion="Thus.\nAnswer: 7",
        rationale="Thus.",
        answer="7",
        ended=True,
        mean_logprob=-0.2,
        min_step_logprob=-0.5,
        tokens=tokens,
        shown_gold=False,
        corruption=None,
        gold="7",
        correct=True,
        kept=kept,
        reason=None if kept else "mean_logprob below -0.1",
    )


def train(workdir, artifact, seconds, **known):
    """Writes a training of three steps."""
    steps = [step(s - 1, 2 / s, 0.5 * s, 1000.0 * s) | {"mfu": 0.2 * s} for s in (1, 2, 3)]
    spans = {"compile": seconds / 5, "dev": seconds / 20, "checkpoint": seconds / 10}
    known = {"seconds": seconds, "compilations": 3, "spans": spans} | known
    finish(workdir, artifact, trained(steps), **known)


def step(number, loss, seconds, tokens_per_second):
    """Returns a step of training, on a chip whose peak is not known."""
    return Step(
        step=number,
        loss=loss,
        rationale_loss=loss / 2,
        answer_loss=loss / 2,
        grad_norm=1.0,
        step_seconds=seconds,
        tokens_per_second=tokens_per_second,
        learning_rate=1e-3,
    )


def trained(steps):
    """Returns what a training has left, but for the parameters."""
    sizes = Sizes(trained={"parameters": 1000, "bytes": 4000}, frozen={"parameters": 0, "bytes": 0})
    return {Step: steps, Sizes: sizes, Values: Values(sha256="0")}


def write_predictions(workdir, role, outcomes, method=None):
    rows = [
        Prediction(
            id=f"t{i}",
            domain="fees",
            question=f"Question {i}?",
            completion=f"{role} writes",
            answer={"r": "7", "w": "8", "n": None}[letter],
            gold="7",
            correct=letter == "r",
            tokens=12,
        )
        for i, letter in enumerate(outcomes)
    ]
    finish(workdir, evaluation_of(role, method), {Prediction: rows})


def evaluation_of(role, method=None):
    """Returns the row of the table for the test of a measured model."""
    rows = methods.table(method).values()
    tests = (row for row in rows if row.work == "evaluate" and row.measured)
    return next(row for row in tests if row.measured.name == role)


def write_answers(workdir, role, gold, said, method=None, sure=()):
    """Writes the test of a model: the gold answers, and what it answered (None is no answer).

    With `sure`, each answer has its confidence, and the answers may be to the dev split.
    """
    rows = [
        Prediction(
            id=f"t{i}",
            domain="",
            question=f"Question {i}?",
            completion=f"Answer: {answer}",
            answer=answer,
            gold=right,
            correct=answer is not None and answer == right,
            tokens=12,
        )
        for i, (right, answer) in enumerate(zip(gold, said, strict=True))
    ]
    for row, confidence in zip(rows, sure):
        row["confidence"] = confidence
    dev = role == STUDENT_DEV.name
    finish(workdir, STUDENT_DEV if dev else evaluation_of(role, method), {Prediction: rows})


def write_data(workdir, **known):
    """Writes what a run has counted of its data: 400 of 1,000 examples, nothing bad, or `known`."""
    splits = {
        "pool": {"used": 400, "there": 1000},
        "dev": {"used": 0, "there": 0},
        "test": {"used": 100, "there": 100},
    }
    nothing = {"rows": 0, "bad": {}, "replaced": 0, "cut": {}, "instructions_left_out": 0}
    facts = {"sha256": "ab" * 32, "splits": splits, **nothing, "commonest": None}
    facts |= {"domains": {"fees": 240, "samples": 160}} | known
    files.write_json(workdir / "data.json", facts)
