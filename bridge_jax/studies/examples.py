"""A few questions with what each model wrote, for reading side by side."""

import itertools
from typing import Any

from bridge_jax.studies.workdir import Row, Run

TEST_QUESTIONS = 4
QUESTIONS = 6
LONGEST = 1200  # characters of one text; a looping model fills pages

WRITERS = ("teacher", "assistant", "student", "student_direct")


def choose(run: Run) -> list[dict[str, Any]]:
    """Returns up to six questions: test questions first, then ones the teacher was asked.

    Test questions alternate between right and wrong answers of the student (of the assistant, if
    no student was tested) and go round the domains, each in the order of the file: nothing is
    picked for being flattering.

    Returns:
      Per question `id`, `split` ("test" or "pool"), `question`, `gold` and `texts`, a list of
      `{"role", "verdict", "answer", "text"}` with the verdict "right", "shown" (right,
      by an assistant that was given the answer), "wrong" or "no answer".
    """
    tested = {
        role: {row["id"]: row for row in run.predictions[role]}
        for role in WRITERS
        if role in run.predictions
    }
    judged = next(
        (role for role in ("student", "student_direct", "assistant") if role in tested), None
    )
    test = _alternate(list(tested[judged].values()))[:TEST_QUESTIONS] if judged else []
    chosen = [
        _example("test", row, [(role, rows.get(row["id"])) for role, rows in tested.items()])
        for row in test
    ]
    written = {row["id"]: row for row in run.rationales}
    # First those for which there is an assistant's text to compare with.
    asked = sorted(run.annotations, key=lambda row: row["id"] not in written)
    chosen += [
        _example("pool", row, [("teacher", row), ("assistant", written.get(row["id"]))])
        for row in asked[: QUESTIONS - len(chosen)]
    ]
    return chosen


def _alternate(rows: list[Row]) -> list[Row]:
    groups: dict[tuple[bool, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((not row["correct"], row.get("domain", "")), []).append(row)
    right, wrong = (
        _round_robin([groups[key] for key in sorted(groups) if key[0] is side])
        for side in (False, True)
    )
    # Domains shifted by one between the sides, so that neighbours differ in domain too.
    return _round_robin([right, wrong[1:] + wrong[:1]])


def _round_robin(lists: list[list[Row]]) -> list[Row]:
    return [row for turn in itertools.zip_longest(*lists) for row in turn if row is not None]


def _example(split: str, row: Row, texts: list[tuple[str, Row | None]]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "split": split,
        "question": row["question"],
        "gold": row["gold"],
        "texts": [_text(role, text) for role, text in texts if text is not None],
    }


def _text(role: str, row: Row) -> dict[str, Any]:
    correct = row.get("correct", row["answer"] == row["gold"])
    right = "shown" if row.get("shown_gold") else "right"
    text = (row.get("completion") or row.get("rationale") or "").strip()
    return {
        "role": role,
        "verdict": "no answer" if row["answer"] is None else right if correct else "wrong",
        "answer": row["answer"],
        "text": text if len(text) <= LONGEST else text[:LONGEST].rstrip() + " …",
    }
