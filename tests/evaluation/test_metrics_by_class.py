"""Counts by class, by hand and as scikit-learn has them."""

import numpy as np
import pytest

from bridge_jax.evaluation import metrics

# gold, answer: three classes of 5, 3 and 2 questions.
PAIRS = [
    *[("a", "a")] * 3, ("a", "b"), ("a", None),
    ("b", "b"), ("b", "a"), ("b", "a"),
    ("c", "a"), ("c", "else"),
]  # fmt: skip


def rows_of(pairs):
    return [
        {"id": str(i), "gold": gold, "answer": answer, "correct": gold == answer}
        for i, (gold, answer) in enumerate(pairs)
    ]


def test_counts_by_hand():
    found = metrics.count_by_class(rows_of(PAIRS))
    assert found["matrix"] == [[3, 1, 0, 0, 1], [2, 1, 0, 0, 0], [1, 0, 0, 1, 0]]
    a, b, c = found["classes"]
    assert a == {
        "name": "a",
        "n": 5,
        "right": 3,
        "given": 6,
        "precision": 0.5,
        "recall": 0.6,
        "answered": 0.8,
        "confusion": ["b", 1],  # No answer is as often, and comes last.
    }
    assert (b["precision"], b["recall"], b["confusion"]) == (0.5, pytest.approx(1 / 3), ["a", 2])
    assert (c["precision"], c["recall"], c["given"], c["confusion"]) == (None, 0.0, 0, ["a", 1])


def test_counts_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    names = [f"label {i}" for i in range(7)]
    gold = rng.choice(names, 300).tolist()
    said = np.where(rng.random(300) < 0.6, gold, rng.choice(names, 300)).tolist()
    found = metrics.count_by_class(rows_of(list(zip(gold, said))))
    order = [row["name"] for row in found["classes"]]
    precision, recall, _, n = theirs.precision_recall_fscore_support(gold, said, labels=order)
    assert [row["precision"] for row in found["classes"]] == pytest.approx(precision)
    assert [row["recall"] for row in found["classes"]] == pytest.approx(recall)
    assert [row["n"] for row in found["classes"]] == n.tolist()
    matrix = np.array(found["matrix"])
    assert (matrix[:, :-2] == theirs.confusion_matrix(gold, said, labels=order)).all()
    assert not matrix[:, -2:].any()


def test_a_right_answer_counts_as_its_class_however_it_is_written():
    rows = [{"id": "1", "gold": "7", "answer": "7.0", "correct": True}]
    assert metrics.count_by_class(rows)["classes"][0]["recall"] == 1.0


@pytest.mark.parametrize(
    ("answers", "kind", "closed"),
    [
        (["a", "b"], "label", True),
        (["a", "a"], "label", False),  # A constant answer would always be right.
        (["1", "2"] * 4, "numeric", False),
        (["1", "2"] * 5, "numeric", True),
        ([str(i % 21) for i in range(210)], "numeric", False),
        ([str(i % 20) for i in range(210)], "numeric", True),
        (["yes", "no"] * 9, "text", False),
        ([], "label", False),
    ],
)
def test_which_answers_are_classes(answers, kind, closed):
    rows = rows_of([(answer, answer) for answer in answers])
    assert metrics.are_classes(rows, kind) == closed


def test_more_classes_than_a_matrix_has():
    found = metrics.count_by_class(rows_of([(f"{i}", f"{i}") for i in range(21)]))
    assert len(found["classes"]) == 21 and "matrix" not in found


def test_the_commonest_answer():
    assert metrics.commonest(["b", "a", None, "", "b", "a"]) == ("a", 2)
    assert metrics.commonest([None, ""]) is None
    rows = metrics.always_answering("a", rows_of(PAIRS))
    assert sum(row["correct"] for row in rows) == 5
