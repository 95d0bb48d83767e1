"""Rows that nobody has labelled: where they are good, where bad, and what is read of them."""

import json

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data import sources
from bridge_jax.data.answers import is_correct, parse_answer, verdict
from bridge_jax.errors import UserError
from bridge_jax.text import prompts

NO_ANSWER = ({}, {"answer": None}, {"answer": ""}, {"answer": "  \n"}, {"answer": float("nan")})


def row(number, split="train", **more):
    return {"question": f"Where is order {number}?", "split": split, **more}


def load(tmp_path, rows, folder=None, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    defaults = {"kind": "label", "choices": ("late", "lost"), "labelled": False, "pool": 0}
    config = DataConfig("jsonl", str(path), **{**defaults, **settings})
    return sources.load_cached(config, 0, folder, "content" if folder else "")


@pytest.mark.parametrize("kind", ["label", "numeric", "text"])
@pytest.mark.parametrize("absent", NO_ANSWER)
def test_no_answer_is_none_and_not_an_empty_one(tmp_path, absent, kind):
    rows = [row(1, **absent), row(2, "dev", **absent), row(3, "test", **absent)]
    choices = {} if kind == "label" else {"choices": ()}
    found = load(tmp_path, rows, kind=kind, **choices)
    for example in (*found.pool, *found.dev, *found.test):
        assert example.answer is None
        with pytest.raises(ValueError, match="has no gold answer"):
            _ = example.gold
        with pytest.raises(ValueError, match="has no gold answer"):
            is_correct(None, example)
        assert verdict("late", example) is None
        with pytest.raises(ValueError, match="has no gold answer"):
            prompts.messages(example, "explain")
        assert "None" not in str(prompts.messages(example, "reason"))
    assert not found.bad.rows


def test_answers_that_are_there_are_read_beside(tmp_path):
    found = load(tmp_path, [row(1, answer="lost"), row(2), row(3, "test", answer="late")])
    assert [example.answer for example in found.pool] == ["lost", None]
    assert found.test[0].gold == "late"
    assert verdict(parse_answer("Late", found.test[0]), found.test[0]) is True
    with pytest.raises(UserError, match="answer='gone' is none of the choices late, lost"):
        load(tmp_path, [row(1, answer="gone"), row(2, "test")])


def test_ids_and_digests_tell_no_answer_from_one(tmp_path):
    bare = load(tmp_path, [row(1), row(2, "test")], kind="text", choices=())
    said = load(tmp_path, [row(1, answer="None"), row(2, "test")], kind="text", choices=())
    assert bare.pool[0].id != said.pool[0].id
    assert sources.digests(bare)["pool"] != sources.digests(said)["pool"]
    assert sources.digests(bare)["test"] == sources.digests(said)["test"]


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize(
    ("absent", "reason"),
    [
        ({}, "has no key 'answer'"),
        ({"answer": None}, "answer has no value"),
        ({"answer": " "}, "answer is empty"),
        ({"answer": float("nan")}, "answer is NaN"),
    ],
)
def test_a_labelled_pool_has_answers_and_the_way_out_is_named(tmp_path, split, absent, reason):
    rows = [row(n, split, **absent) for n in range(3)] + [row(8, answer="late"), row(9, "test")]
    with pytest.raises(UserError, match=reason) as error:
        load(tmp_path, rows, labelled=True)
    assert "3 of 5 rows fail the same way" in str(error.value)
    assert "if nobody has labelled these questions, set data.labelled=false" in str(error.value)
    kept = load(tmp_path, rows, labelled=True, on_bad_row="skip")
    assert (len(kept.pool), len(kept.bad.rows)) == (1, 3)
    # The test may have none, and says so when the run is checked.
    assert kept.test[0].answer is None


def test_an_answer_column_that_the_config_names_must_be_there(tmp_path):
    rows = [row(1), row(2, "test")]
    with pytest.raises(UserError, match=r"data\.columns=answer:team maps columns that no row has"):
        load(tmp_path, rows, columns={"answer": "team"})
    rows[0]["team"] = "late"
    assert load(tmp_path, rows, columns={"answer": "team"}).pool[0].answer == "late"


def test_without_answers_the_choices_have_to_be_given(tmp_path):
    with pytest.raises(UserError, match=r"has no choices: set data\.choices"):
        load(tmp_path, [row(1), row(2, "test")], choices=())


def test_a_cache_of_unlabelled_rows_is_not_that_of_labelled_ones(tmp_path):
    rows = [row(1), row(2, "test")]
    for _ in range(2):
        assert load(tmp_path, rows, tmp_path / "cache").pool[0].answer is None
    with pytest.raises(UserError, match="no key 'answer'"):
        load(tmp_path, rows, tmp_path / "cache", labelled=True)
