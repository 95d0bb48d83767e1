import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vendors import ask

from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.teachers import http
from bridge_jax.teachers.gemini_teacher import merged, read
from bridge_jax.teachers.http import HttpErrors
from bridge_jax.teachers.secret import Secret

WORST = (500, 90)
KEYLESS = Secret(["NO_SUCH_KEY"], False, "a test")
USAGE = {"promptTokenCount": 12, "totalTokenCount": 19}


def response(parts, reason="STOP"):
    return {"candidates": [{"content": {"parts": parts}, "finishReason": reason}]}


def reply(answer, usage=USAGE):
    return read(ask(1), answer | ({"usageMetadata": usage} if usage is not None else {}), WORST)


@pytest.mark.parametrize(
    ("answer", "text", "finish"),
    [
        (response([{"text": "Answer: "}, {"text": "4"}]), "Answer: 4", "stop"),
        (response([{"text": "hm", "thought": True}, {"text": "4"}]), "4", "stop"),
        (response(["4"]), "4", "stop"),
        (response("4"), "4", "stop"),
        (response({"text": "4"}), "4", "stop"),
        (response([None, 5, [], {"text": 5}, {"text": None}, {"text": "4"}]), "4", "stop"),
        (response(None), "", "empty"),
        (response([{"functionCall": {"name": "f"}}]), "", "empty"),
        (response([{"text": "4"}], None), "4", "stop"),
        (response([{"text": "4"}], 1), "4", "malformed"),
        (response([{"text": "4"}], ["STOP"]), "4", "malformed"),
        (response([{"text": "4"}], "MAX_TOKENS"), "4", "length"),
        (response([], "SAFETY"), "", "refused"),
        ({}, "", "malformed"),
        ({"candidates": None}, "", "malformed"),
        ({"candidates": []}, "", "malformed"),
        ({"candidates": [None]}, "", "malformed"),
        ({"candidates": "words"}, "", "malformed"),
        ({"candidates": [{}]}, "", "malformed"),
        ({"candidates": [{"content": None, "finishReason": "STOP"}]}, "", "empty"),
        ({"candidates": [{"content": "4"}]}, "4", "stop"),
        ({"promptFeedback": {"blockReason": "OTHER"}}, "", "refused"),
        ({"promptFeedback": "words"}, "", "malformed"),
        ({"error": {"message": "late"}}, "{'message': 'late'}", "malformed"),
    ],
)
def test_what_bills_is_a_reply_whatever_its_shape(answer, text, finish):
    assert reply(answer) == TeacherReply(text, 12, 7, finish)


@pytest.mark.parametrize("usage", [None, {}, [], "x", {"promptTokenCount": 0}])
@pytest.mark.parametrize(
    "answer",
    [{}, {"candidates": [None]}, {"candidates": [{}]}, response(["x"]) | {"error": {"code": 400}}],
)
def test_without_usage_an_error_and_nothing_at_all_are_no_replies(answer, usage):
    assert reply(answer, usage) is None


def test_a_prompt_that_is_blocked_is_a_refusal_at_its_worst_case():
    assert reply({"promptFeedback": {"blockReason": "SAFETY"}}, None) == TeacherReply(
        "", *WORST, "refused"
    )


@pytest.mark.parametrize(
    "usage",
    [
        *(None, {}, [], "many", 5),
        *[
            {"promptTokenCount": 12, "totalTokenCount": bad}
            for bad in (-1, 19.5, 10**30, "19", True, None, [], float("nan"), 11)
        ],
        *[
            {"promptTokenCount": bad, "totalTokenCount": 19}
            for bad in (-12, 12.0, 10**30, "12", True, None, 0, float("inf"))
        ],
    ],
)
def test_usage_that_cannot_be_is_the_worst_case_and_loses_nothing(usage):
    assert reply(response([{"text": "4"}]), usage) == TeacherReply("4", *WORST)


def test_a_stream_is_summed_up():
    chunks = [
        response([{"text": "Answer"}], None),
        response([{"text": ": 4"}], "MAX_TOKENS"),
        {"usageMetadata": USAGE},
    ]
    assert reply(dict(merged(chunks)), None) == TeacherReply("Answer: 4", 12, 7, "length")
    assert merged(chunks[:1]) is chunks[0]


NAMES = st.sampled_from(
    [
        "candidates",
        "usageMetadata",
        "error",
        "content",
        "parts",
        "text",
        "finishReason",
        "thought",
        "promptTokenCount",
        "totalTokenCount",
        "promptFeedback",
        "blockReason",
    ]
)
ODD = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.just(10**30)),
    *(st.sampled_from(["", "words", "\ud83d", "STOP", "stop", "length", "text", "thinking"]),),
)
ANSWERS = st.dictionaries(
    NAMES,
    st.recursive(ODD, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v), max_leaves=9),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=3))
def test_no_answer_is_an_exception_and_no_bill_is_lost(answers):
    answer = merged(answers)
    found = read(ask(1, structured=True), answer, WORST)
    if found is None:
        assert HttpErrors("t", KEYLESS).no_reply(answer).trouble in (
            "fatal",
            "rejected",
            "transient",
            "unknown",
        )
        return
    found.text.encode()
    assert (found.input_tokens, found.output_tokens) == WORST or (
        http.tokens(found.input_tokens) and http.tokens(found.output_tokens) is not None
    )
