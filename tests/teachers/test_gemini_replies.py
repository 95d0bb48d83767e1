import pytest
from vendors import ask

from bridge_jax.teachers.gemini_replies import merged, read
from bridge_jax.teachers.protocol import Reply

WORST = (500, 90)
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
    assert reply(answer) == Reply(text, 12, 7, finish)


@pytest.mark.parametrize("usage", [None, {}, [], "x", {"promptTokenCount": 0}])
@pytest.mark.parametrize(
    "answer",
    [{}, {"candidates": [None]}, {"candidates": [{}]}, response(["x"]) | {"error": {"code": 400}}],
)
def test_without_usage_an_error_and_nothing_at_all_are_no_replies(answer, usage):
    assert reply(answer, usage) is None


def test_a_prompt_that_is_blocked_is_a_refusal_at_its_worst_case():
    assert reply({"promptFeedback": {"blockReason": "SAFETY"}}, None) == Reply(
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
    assert reply(response([{"text": "4"}]), usage) == Reply("4", *WORST)


def test_a_stream_is_summed_up():
    chunks = [
        response([{"text": "Answer"}], None),
        response([{"text": ": 4"}], "MAX_TOKENS"),
        {"usageMetadata": USAGE},
    ]
    assert reply(dict(merged(chunks)), None) == Reply("Answer: 4", 12, 7, "length")
    assert merged(chunks[:1]) is chunks[0]
