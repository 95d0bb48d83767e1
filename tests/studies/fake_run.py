"""A small workdir of a run that can be counted by hand."""

import json

import numpy as np

from bridge_jax.config import BudgetConfig, RunConfig
from bridge_jax.config_io import to_json

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


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write(root):
    """Twenty pool questions, twelve on fees and eight on dosing; four asked, three kept."""
    config = RunConfig(name="tiny", seed=7, budget=BudgetConfig(queries=4, usd=0.5))
    write_json(root / "config.json", to_json(config))
    pool = [
        {"id": f"p{i}", "domain": "fees" if i < 12 else "dosing", "nll": i / 10, "entropy": 1.0}
        for i in range(20)
    ]
    first = root / "apprenticeship"
    write_rows(first / "scores" / "scores.jsonl", pool)
    embeddings = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    np.save(first / "scores" / "embeddings.npy", embeddings)
    asked = ["p1", "p5", "p13", "p19"]
    write_json(
        first / "selection" / "selection.json",
        {"strategy": "coverage", "size": 4, "ids": asked, "clusters": None, "set_aside": []},
    )
    annotations = [
        {
            "id": key,
            "question": NASTY,
            "rationale": "Because.",
            "answer": "8" if key == "p19" else "7",
            "gold": "7",
            "kept": key != "p19",
        }
        for key in asked
    ]
    write_rows(first / "annotations" / "annotations.jsonl", annotations)
    write_json(
        first / "annotations" / "spend.json",
        {"queries": 4, "input_tokens": 800, "output_tokens": 200, "usd": 0.003},
    )
    rationales = [
        {
            "id": row["id"],
            "domain": row["domain"],
            "question": "How much?",
            "completion": "Thus.\nAnswer: 7",
            "rationale": "Thus.",
            "answer": "7",
            "gold": "7",
            "kept": i % 2 == 0,
            "mean_logprob": -0.2,
            "tokens": 9,
        }
        for i, row in enumerate(pool)
    ]
    write_rows(root / "tutoring" / "rationales" / "rationales.jsonl", rationales)
    for role, outcomes in OUTCOMES.items():
        write_predictions(root, role, outcomes)
    for stage, seconds, restarts in (
        ("apprenticeship/warmup", 2.5, 0),
        ("tutoring/student", 61.0, 1),
    ):
        losses = [
            {"step": s, "loss": 2 / s, "rationale_loss": None, "answer_loss": 1 / s}
            | {"step_seconds": 0.5 * s, "tokens_per_second": 1000.0 * s, "mfu": 0.2 * s}
            for s in (1, 2, 3)
        ]
        write_rows(root / stage / "metrics.jsonl", losses)
        manifest = {
            "stage": stage,
            "seconds": seconds,
            "restarts": restarts,
            "compilations": 3,
            "spans": {"compile": seconds / 5, "checkpoint": seconds / 10},
        }
        write_json(root / stage / "manifest.json", manifest)


def write_predictions(root, role, outcomes):
    rows = [
        {
            "id": f"t{i}",
            "question": f"Question {i}?",
            "gold": "7",
            "domain": "fees",
            "completion": f"{role} writes",
            "answer": {"r": "7", "w": "8", "n": None}[letter],
            "correct": letter == "r",
            "tokens": 12,
        }
        for i, letter in enumerate(outcomes)
    ]
    write_rows(root / "evaluation" / role / "predictions.jsonl", rows)
