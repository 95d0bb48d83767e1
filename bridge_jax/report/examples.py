"""A few questions with what each model wrote, for reading side by side."""

import itertools
from typing import Any

from bridge_jax import methods
from bridge_jax.methods.annotations import Annotation
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.rationales import Judged
from bridge_jax.report.workdir import Run

TEST_QUESTIONS = 4
QUESTIONS = 6
LONGEST = 1200  # characters of one text; a looping model fills pages


def choose(run: Run) -> list[dict[str, Any]]:
    """Returns up to six questions: test questions first, then ones the teacher was asked.

    Test questions alternate between right and wrong answers of the student (if it was not tested,
    of the last model before it that was) and go round the domains, each in the order of the file:
    nothing is picked for being flattering.

    Returns:
      Per question `id`, `split` ("test" or "pool"), `question`, `gold` and `texts`, a list of
      `{"role", "verdict", "answer", "text"}` with the verdict "right", "shown" (right,
      by an assistant that was given the answer), "wrong" or "no answer".
    """
    tested = {
        role: {row["id"]: row for row in run.predictions[role]}
        for role, model in methods.measured(run.method).items()
        if role in run.predictions and not model.is_before
    }
    judged = "student" if "student" in tested else next(reversed(tested), None)
    test = _alternate(list(tested[judged].values()))[:TEST_QUESTIONS] if judged else []
    chosen = [
        _example(
            "test",
            row,
            [
                _text(role, rows[row["id"]], rows[row["id"]]["completion"])
                for role, rows in tested.items()
                if row["id"] in rows
            ],
        )
        for row in test
    ]
    written = {row["id"]: row for row in run.rationales}
    # First those for which there is an assistant's text to compare with.
    asked = sorted(run.annotations, key=lambda row: row["id"] not in written)
    for row in asked[: QUESTIONS - len(chosen)]:
        texts = [_text("teacher", row, row["rationale"])]
        if its := written.get(row["id"]):
            texts.append(_text("assistant", its, its["completion"], its["shown_gold"]))
        chosen.append(_example("pool", row, texts))
    return chosen


def _alternate(rows: list[Prediction]) -> list[Prediction]:
    groups: dict[tuple[bool, str], list[Prediction]] = {}
    for row in rows:
        groups.setdefault((not row["correct"], row["domain"]), []).append(row)
    right, wrong = (
        _round_robin([groups[key] for key in sorted(groups) if key[0] is side])
        for side in (False, True)
    )
    # Domains shifted by one between the sides, so that neighbours differ in domain too.
    return _round_robin([right, wrong[1:] + wrong[:1]])


def _round_robin(lists: list[list[Prediction]]) -> list[Prediction]:
    return [row for turn in itertools.zip_longest(*lists) for row in turn if row is not None]


def _example(
    split: str, row: Prediction | Annotation, texts: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": row["id"],
        "split": split,
        "question": row["question"],
        "gold": row["gold"],
        "texts": texts,
    }


def _text(
    role: str, row: Prediction | Annotation | Judged, text: str, shown: bool = False
) -> dict[str, Any]:
    right, text = "shown" if shown else "right", text.strip()
    return {
        "role": role,
        "verdict": "no answer" if row["answer"] is None else right if row["correct"] else "wrong",
        "answer": row["answer"],
        "text": text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …",
    }
