"""The folder of a study as its runs would leave it, without a model in it."""

import dataclasses
import json

import numpy as np

from bridge_jax.config import RunConfig
from bridge_jax.config_io import override, to_json
from bridge_jax.studies import study as studies
from bridge_jax.studies.study import Cell, Study
from bridge_jax.teachers.ledger import Ledger
from bridge_jax.teachers.prices import Prices
from bridge_jax.teachers.protocol import Message, Reply, Request

USD, TOKENS_IN, TOKENS_OUT = 0.001, 120, 85  # of a query: 120 x 1.25 + 85 x 10 millionths


def cell(variant, seed, x=None, queries=10):
    """A cell whose config no other cell has."""
    changes = [f"seed={seed}", f"budget.queries={queries}", f"data.rationale={variant}"]
    return Cell(variant, override(RunConfig(), changes), x)


def study(cells, reference, axis=""):
    return Study("fake", "Does it work?", tuple(cells), reference, axis)


def write(root, made, right, shared=()):
    """Writes the folder of a study.

    Args:
      root: the folder.
      made: the study; of its cells, those that `right` knows are done.
      right: (variant, x, seed) -> {role: [whether it is right, by test question]}.
      shared: stages that all runs of a seed have in common.
    """
    made = studies.in_folder(made, root)
    root.mkdir(parents=True, exist_ok=True)
    (root / studies.CELLS).write_text(json.dumps(made.to_json()))
    for one in made.cells:
        key = (one.variant, one.x, one.config.seed)
        if key in right:
            write_run(root / studies.RUNS / one.folder, one, right[key], shared)
    write_ledger(root / studies.LEDGER, max(c.config.selected for c in made.cells))
    return made


def write_run(run, one, by_role, shared):
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(to_json(one.config)))
    prints = {}

    def stage(name, seconds):
        folder = run / name
        folder.mkdir(parents=True, exist_ok=True)
        prints[name] = f"{name} {one.config.seed if name in shared else one.folder}"
        manifest = {"stage": name, "fingerprint": prints[name], "seconds": seconds}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    queries, seed = one.config.selected, one.config.seed
    stage("apprenticeship/warmup", 20.0)
    annotations = stage("apprenticeship/annotations", 1.0)
    paid = {"queries": queries // 2, "usd": USD * (queries // 2)}
    rest = queries - queries // 2
    others = {"queries": rest, "usd": USD * rest}
    for part in (paid, others):
        part["input_tokens"] = TOKENS_IN * part["queries"]
        part["output_tokens"] = TOKENS_OUT * part["queries"]
    (annotations / "spend.json").write_text(json.dumps(paid | {"of_others": others}))
    rows(annotations / "annotations.jsonl", [
        {"id": f"p{i}", "question": f"Pool {seed} {i}?", "answer": "1", "gold": "1", "kept": True,
         "rationale": "So."} for i in range(queries)
    ])  # fmt: skip
    rows(stage("tutoring/rationales", 30.0) / "rationales.jsonl", [
        {"id": f"p{i}", "domain": "fees", "kept": True, "tokens": 20} for i in range(10)
    ])  # fmt: skip
    rows(stage("tutoring/student", 40.0) / "metrics.jsonl", [
        {"step": s, "loss": 1.0, "step_seconds": 2.0, "tokens_per_second": 500.0} for s in range(3)
    ])  # fmt: skip
    for role, said in by_role.items():
        rows(stage(f"evaluation/{role}", 5.0) / "predictions.jsonl", [
            {"id": f"t{i}", "domain": "fees", "question": f"Question {seed} {i}?",
             "gold": str(i % 9), "completion": "x",
             "answer": None if ok is None else str(i % 9 + (not ok)),
             "correct": bool(ok), "tokens": 9}
            for i, ok in enumerate(said)
        ])  # fmt: skip
    (run / "stages.json").write_text(json.dumps(prints))
    (run / "report.html").touch()


def rows(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def write_ledger(path, queries):
    with Ledger(path, 1000, 10.0, Prices(1.25, 10.0), "one") as ledger:
        for i in range(queries):
            request = Request(f"p{i}", "oracle", (Message("user", f"{i}?"),), 512)
            if ledger.reserve(request, TOKENS_IN) is None:
                ledger.settle(request, Reply("x", TOKENS_IN, TOKENS_OUT, "stop"))


def scaling(root, questions=150, seeds=3, variants=("random", "difficulty", "coverage")):
    """A realistic budget study: three strategies, five budgets, accuracies with noise."""
    budgets = {0.1: 1, 1.0: 3, 5.0: 16, 10.0: 32, 20.0: 64}
    gain = {"random": 0.0, "difficulty": -0.03, "coverage": 0.05}
    cells = [cell(v, seed, x, n) for seed in range(seeds) for x, n in budgets.items()
             for v in variants]  # fmt: skip
    right = {}
    for one in cells:
        seed, n = one.config.seed, one.config.selected
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
    made = study(cells, "random", "teacher queries, % of the pool")
    made = dataclasses.replace(
        made, name="budget_scaling", question="Does choosing what to ask beat asking at random?"
    )
    return write(root, made, right, ("apprenticeship/warmup", "evaluation/student_base"))
