"""Expressions are compared by value; hostile ones cost a bounded time, in any thread."""

import importlib.util
import json
import threading

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data import mathematics, sources
from bridge_jax.data.answers import answer_in_recorded_text, answer_of, is_correct, parse_answer
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError


def example(gold):
    return Example("m", "Which?", gold, "math")


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac12", "1/2", True),
        (r"2\sqrt{3}", r"$\sqrt{12}$.", True),
        ("x^2+1", "1 + x^2", True),
        (r"\{1,2\}", r"\{2, 1\}", True),
        ("(1,2)", "(2,1)", False),
        (r"[0,1)", r"\left[0,1\right)", True),
        (r"[0,1)", r"(0,1)", False),
        (r"(-\infty,1)\cup(2,3)", r"(2,3)\cup(-\infty,1)", True),
        (r"\frac{\pi}{4}", r"\boxed{\frac{\pi}{4}}", True),
        ("7", "8", False),
        ("7", "I do not know it", None),
        ("7", "", None),
        ("7", "9" * 501, None),
        ("7", "__import__('os').system('echo 7')", None),
    ],
)
def test_answers_are_compared_by_value(gold, answer, right):
    found = parse_answer(answer, example(gold))
    assert (found is None) == (right is None)
    if found is not None:
        assert parse_answer(found, example(gold)) == found
        assert is_correct(found, example(gold)) is right


def test_the_answer_of_a_completion():
    asked = example(r"\frac{3}{4}")
    assert answer_of("So it is three quarters.\nAnswer: $0.75$", asked) == "0.75"
    recorded = "It is three quarters.\nTherefore we have $\\boxed{\\frac{3}{4}}$."
    assert answer_in_recorded_text(recorded, asked)[1] == r"\frac{3}{4}"


def test_what_never_ends_is_no_answer_in_another_thread_too():
    found = []

    def parse():
        for text in ("9^{9^{9^9}}!", "12"):  # The next one is read by a new process.
            found.append(parse_answer(text, example("12")))

    thread = threading.Thread(target=parse)
    thread.start()
    thread.join()
    assert found[1] == "12" and not (found[0] and is_correct(found[0], example("12")))


def test_a_gold_answer_that_is_no_expression_is_a_bad_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"question": f"Which? {s}", "answer": r"$\frac{1}{3}$", "split": s}
        for s in ("train", "test")
    ]
    config = DataConfig("jsonl", str(path), kind="math")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (one,) = sources.load(config, 0).pool
    assert (one.kind, one.answer, one.choices) == ("math", r"\frac{1}{3}", ())
    path.write_text(path.read_text() + json.dumps(rows[0] | {"answer": "nobody ever knew that"}))
    with pytest.raises(UserError, match="is not an expression in TeX"):
        sources.load(config, 0)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'bridge-jax\[math\]'"):
        mathematics.check_installed()
