"""The folder of a study as its runs would leave it, without a model in it."""

import dataclasses

import fake_run
import numpy as np

from bridge_jax import methods
from bridge_jax.config import RunConfig
from bridge_jax.config.io import override, to_json
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import Prices
from bridge_jax.ledger.requests import Message, TeacherReply, TeacherRequest
from bridge_jax.methods.annotations import ANNOTATIONS, Annotation, Answered, Bill
from bridge_jax.methods.apprenticeship import WARMUP
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.filtering import RATIONALES, Judged, WrittenRationale
from bridge_jax.methods.rationales import COMPLETIONS
from bridge_jax.methods.teacher import selected_count
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline import files, storage
from bridge_jax.study import LEDGER, RUNS, RUNS_FILE
from bridge_jax.study import study as studies
from bridge_jax.study.study import Study, StudyRun

USD, TOKENS_IN, TOKENS_OUT = 0.001, 120, 85  # of a query: 120 x 1.25 + 85 x 10 millionths


def run(variant, seed, x=None, queries=10):
    """A run whose config no other run has."""
    changes = [f"seed={seed}", f"budget.queries={queries}", f"data.rationale={variant}"]
    return StudyRun(variant, override(RunConfig(), changes), x)


def study(runs, reference, axis=""):
    return Study("fake", "Does it work?", tuple(runs), reference, axis)


def write(root, made, right, shared=()):
    """Writes the folder of a study.

    Args:
      root: the folder.
      made: the study; of its runs, those that `right` knows are done.
      right: (variant, x, seed) -> {role: [whether it is right, by test question]}.
      shared: stages that all runs of a seed have in common.
    """
    made = studies.in_folder(made, root)
    root.mkdir(parents=True, exist_ok=True)
    files.write_json(root / RUNS_FILE, made.to_json())
    for one in made.runs:
        key = (one.variant, one.x, one.config.seed)
        if key in right:
            run = root / RUNS / one.folder
            write_run(run, one, right[key], shared, root / storage.STAGES)
    write_ledger(root / LEDGER, max(selected_count(c.config) for c in made.runs))
    return made


def write_run(run, one, by_role, shared, store):
    run.mkdir(parents=True, exist_ok=True)
    files.write_json(run / "config.json", to_json(one.config))
    seed, queries = one.config.seed, selected_count(one.config)

    def stage(artifact, seconds, left):
        if artifact.name not in methods.table(one.config.method):
            return
        key = f"seed{seed}" if artifact.name in shared else one.folder
        fake_run.finish(run, artifact, left, store, key, seconds=seconds)

    steps = [fake_run.step(s, 1.0, 2.0, 500.0) for s in range(3)]
    stage(WARMUP, 20.0, fake_run.trained([]))
    asked = [fake_run.annotation(f"p{i}", f"Pool {seed} {i}?", True) for i in range(queries)]
    paid = Bill(**part(queries // 2), prices=fake_run.PRICES)
    paid["of_others"] = part(queries - queries // 2)
    stage(ANNOTATIONS, 1.0, {Annotation: asked, Bill: paid, Answered: Answered(keys=[])})
    written = [fake_run.rationale(f"p{i}", "fees", kept=True, tokens=20) for i in range(10)]
    completed = [
        {k: v for k, v in row.items() if k in WrittenRationale.__annotations__} for row in written
    ]
    stage(COMPLETIONS, 0.0, {WrittenRationale: completed})
    stage(RATIONALES, 30.0, {Judged: written})
    stage(STUDENT, 40.0, fake_run.trained(steps))
    for role, said in by_role.items():
        answers = [prediction(seed, i, ok) for i, ok in enumerate(said)]
        stage(fake_run.evaluation_of(role, one.config.method), 5.0, {Prediction: answers})
    (run / "report.html").touch()


def part(queries):
    """Returns the bill of some queries."""
    tokens_in, tokens_out = TOKENS_IN * queries, TOKENS_OUT * queries
    return {"queries": queries, "usd": USD * queries, "input_tokens": tokens_in,
            "output_tokens": tokens_out}  # fmt: skip


def prediction(seed, i, ok):
    """Returns an answer to a test question; `ok` is None where there is none."""
    return Prediction(
        id=f"t{i}",
        domain="fees",
        question=f"Question {seed} {i}?",
        completion="x",
        answer=None if ok is None else str(i % 9 + (not ok)),
        gold=str(i % 9),
        correct=bool(ok),
        tokens=9,
    )


def write_ledger(path, queries):
    with Ledger(path, 1000, 10.0, Prices(1.25, 10.0), "one") as ledger:
        for i in range(queries):
            request = TeacherRequest(f"p{i}", "oracle", (Message("user", f"{i}?"),), 512)
            if ledger.reserve(request, TOKENS_IN) is None:
                ledger.settle(request, TeacherReply("x", TOKENS_IN, TOKENS_OUT, "stop"))


def scaling(root, questions=150, seeds=3, variants=("random", "difficulty", "coverage")):
    """A realistic budget study: three strategies, five budgets, accuracies with noise."""
    budgets = {0.1: 1, 1.0: 3, 5.0: 16, 10.0: 32, 20.0: 64}
    gain = {"random": 0.0, "difficulty": -0.03, "coverage": 0.05}
    runs = [run(v, seed, x, n) for seed in range(seeds) for x, n in budgets.items()
             for v in variants]  # fmt: skip
    right = {}
    for one in runs:
        seed, n = one.config.seed, selected_count(one.config)
        rng = np.random.default_rng([seed, n])
        level = 0.62 - 0.42 * (n + 1) ** -0.45 + gain.get(one.variant, 0.02) * min(1, n / 10)
        hard = np.random.default_rng([seed, 9]).normal(0, 0.1, questions)
        noise = np.random.default_rng([seed, n, len(one.variant)]).normal(0, 0.02)
        by_role = {
            role: (rng.random(questions) < level + shift + hard + noise).tolist()
            for role, shift in {"student": 0, "assistant": 0.12, "student_base": -0.5}.items()
        }
        if one.variant == "difficulty" and n < 4:
            by_role["student"][::5] = [None] * len(by_role["student"][::5])
        right[(one.variant, one.x, seed)] = by_role
    made = study(runs, "random", "teacher queries, % of the pool")
    made = dataclasses.replace(
        made, name="budget_scaling", question="Does choosing what to ask beat asking at random?"
    )
    return write(root, made, right, ("apprenticeship/warmup", "evaluation/student_base"))
