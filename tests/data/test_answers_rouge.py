"""Free texts: scored by ROUGE-L, right from a threshold on."""

import json
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_jax.config import DataConfig
from bridge_jax.data import answers, sources
from bridge_jax.data.answers import answer_of, format_completion, is_correct, parse_answer
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.teachers import prompts

needs_library = pytest.mark.usefixtures("library")


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("tensorflow_text")


@needs_library
@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        # Three words in common, in this order: precision 3/4, recall 3/6.
        (
            "the cat was here",
            "the black cat was not there",
            2 * (3 / 4) * (3 / 6) / (3 / 4 + 3 / 6),
        ),
        ("sat cat the", "the cat sat", 1 / 3),  # the order counts
        ("The CAT, sat!", "the cat sat", 1.0),
        ("1 200 mg", "1,200 mg", 1.0),
        ("dog", "the cat sat", 0.0),
        ("", "the cat sat", 0.0),
        ("...", "the cat sat", 0.0),
    ],
)
def test_rouge_l_by_hand(hypothesis, reference, expected):
    assert answers.rouge_l(hypothesis, reference) == pytest.approx(expected)


@needs_library
def test_only_the_first_words_of_huge_texts_are_compared():
    """Two thousand words of each; what comes after them is not found, so the score is lower."""
    words = [f"w{i}" for i in range(2500)]
    assert answers.rouge_l(" ".join(words), " ".join(words)) == pytest.approx(2000 / 2500)
    assert answers.rouge_l(" ".join(words[:2000]), " ".join(words[:2000])) == pytest.approx(1.0)
    book = "filler " * 150_000
    assert answers.rouge_l(f"the cat sat {book}", "the cat sat") == pytest.approx(6 / 150_006)
    assert answers.rouge_l(book, book) == pytest.approx(2000 / 150_000)


def longest(a, b):
    """Returns the length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row
        row = [0]
        for j, y in enumerate(b):
            row.append(before[j] + 1 if x == y else max(row[-1], before[j + 1]))
    return row[-1]


@needs_library
@settings(deadline=None, max_examples=50)
@given(*[st.lists(st.sampled_from("abcd"), min_size=1, max_size=12) for _ in range(2)])
def test_rouge_l_is_of_the_longest_common_subsequence(a, b):
    common = longest(a, b)
    expected = 2 * common / (len(a) + len(b))  # the harmonic mean of common / a and common / b
    assert answers.rouge_l(" ".join(a), " ".join(b)) == pytest.approx(expected, abs=1e-6)


@needs_library
def test_a_free_text_is_right_from_the_threshold_on():
    example = Example("e", "Why?", "it rained all day", "text", min_rouge=0.6)
    assert parse_answer("  It rained\n all  day ", example) == "It rained all day"
    assert answer_of("So it is.\nAnswer: it rained", example) == "it rained"
    assert parse_answer("  ", example) is None
    # Two of four words: 2 * 1 * 0.5 / 1.5.
    assert is_correct("it rained", example)
    assert not is_correct("it shone", example)
    assert not is_correct(None, example)
    strict = Example("e", "Why?", "it rained all day", "text", min_rouge=0.7)
    assert not is_correct("it rained", strict)


@needs_library
def test_a_file_of_free_texts(tmp_path):
    path = tmp_path / "open.jsonl"
    rows = [
        {"id": str(i), "question": f"Why {i}?", "answer": "It\nrained.", "split": split}
        for i, split in enumerate(("train", "test"))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(source="jsonl", path=str(path), kind="text", min_rouge=0.3)
    (example,) = sources.load(config, 0).pool
    assert (example.answer, example.kind, example.min_rouge) == ("It rained.", "text", 0.3)
    assert answer_of("".join(format_completion("Thus.", example.answer)), example) == "It rained."
    said = prompts.messages(example, False, False)[0].content
    assert "The answer is a short text on one line." in said


def test_without_the_library_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(UserError, match=re.escape("pip install 'bridge-jax[tf-text]'")):
        answers.load_tensorflow_text()
