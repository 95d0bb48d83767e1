import json

import pytest

from bridge_jax.teachers.structured import SCHEMA, is_malformed, read_json

PAIR = ("Two and two.", "4")


@pytest.mark.parametrize(
    "text",
    [
        '{"rationale": "Two and two.", "answer": "4"}',
        '{"answer": 4, "rationale": " Two and two. "}',
        'Here it is:\n```json\n{"rationale": "Two and two.", "answer": "4"}\n```\nGood luck {you}!',
        'Sure. {"rationale": "Two and two.", "answer": "4", "confidence": 1} That is all.',
    ],
)
def test_json_is_found_where_models_put_it(text):
    assert read_json(text) == PAIR
    assert not is_malformed(text)


def test_a_line_break_inside_a_string_is_read():
    assert read_json('{"rationale": "Two\nand two.", "answer": "4"}') == ("Two\nand two.", "4")


@pytest.mark.parametrize(
    "text",
    ["", "four", "{}", '{"answer": "4"}', '{"rationale": "x", "answer": null}', "[1, 2]",
     '{"rationale": "x", "answer": true}', '{"rationale": "cut o'],
)  # fmt: skip
def test_what_is_no_such_object(text):
    assert read_json(text) is None
    assert is_malformed(text)


def test_a_model_that_writes_an_answer_line_instead_is_understood():
    assert not is_malformed("Two and two.\nAnswer: 4")


def test_the_rationale_comes_before_the_answer():
    assert list(SCHEMA["properties"]) == ["rationale", "answer"]
    assert json.dumps(SCHEMA).index("rationale") < json.dumps(SCHEMA).index("answer")
