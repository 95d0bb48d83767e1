import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vendors import ask

from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.teachers import http
from bridge_jax.teachers.http import HttpErrors
from bridge_jax.teachers.openai_teacher import Dialect, merged, read
from bridge_jax.teachers.secret import Secret

REQUEST = ask(1, temperature=0.0, structured=True)
OF_OPENAI = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
}


def refused(refusal, limit="max_tokens", status=400):
    """Returns the fields of the body after a refusal, and whether it is worth sending."""
    dialect = Dialect("t", limit)
    again = dialect.learn(dialect.body(REQUEST), status, refusal)
    return dialect.body(REQUEST).keys() - {"model", "messages"}, again


@pytest.mark.parametrize(
    ("limit", "refusal", "expected"),
    [
        ("max_tokens", OF_OPENAI, "max_completion_tokens"),
        (
            "max_completion_tokens",
            {"error": "Unrecognized request argument supplied: max_completion_tokens"},
            "max_tokens",
        ),
        (
            "max_completion_tokens",
            {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "max_completion_tokens"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
            "max_tokens",
        ),
        ("max_tokens", "max_tokens is not supported", "max_completion_tokens"),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_the_limit_is_sent_by_its_other_name(limit, refusal, expected, status):
    fields, again = refused(refusal, limit, status)
    assert fields == {expected, "temperature", "response_format"}
    assert again


@pytest.mark.parametrize(
    ("refusal", "without"),
    [
        (
            {
                "error": {
                    "message": "Unsupported value: 'temperature' does not support 0.0 with this "
                    "model. Only the default (1) value is supported.",
                    "param": "temperature",
                    "code": "unsupported_value",
                }
            },
            "temperature",
        ),
        ({"message": "temperature is deprecated for this model"}, "temperature"),
        (
            {
                "error": {
                    "message": "Invalid parameter: 'response_format' of type 'json_schema' is not "
                    "supported with this model.",
                    "param": "response_format.type",
                }
            },
            "response_format",
        ),
        ({"error": {"message": "json_schema is unsupported by this backend"}}, "response_format"),
    ],
)
def test_what_is_refused_is_left_out(refusal, without):
    fields, again = refused(refusal)
    assert fields == {"max_tokens", "temperature", "response_format"} - {without}
    assert again


@pytest.mark.parametrize(
    "refusal",
    [
        *(None, [], 5, "", {}, {"error": None}, {"error": {"param": ["x"], "message": []}}),
        {"error": {"message": "max_tokens is too large: 90. This model supports at most 50."}},
        {"error": {"message": "Unsupported value: max_tokens=90 exceeds the maximum"}},
        {"error": {"message": "max_tokens must be above 0"}},
        {"error": {"message": "temperature must be at most 2"}},
        {"error": {"message": "This model does not support tools."}},
        {"error": {"message": "The prompt is too long."}},
    ],
)
def test_other_refusals_change_nothing(refusal):
    """A limit whose value is refused must not be sent under a name that the server may ignore."""
    fields, again = refused(refusal)
    assert fields == {"max_tokens", "temperature", "response_format"}
    assert not again


@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_other_statuses_change_nothing(status):
    assert refused(OF_OPENAI, status=status)[1] is False


def test_a_server_that_refuses_both_names_is_not_asked_for_ever():
    dialect, sent = Dialect("t", "max_tokens"), []
    for _ in range(10):
        body = dialect.body(REQUEST)
        (name,) = body.keys() & {"max_tokens", "max_completion_tokens"}
        sent.append(name)
        if not dialect.learn(body, 400, f"{name} is not supported"):
            break
    assert sent == ["max_tokens", "max_completion_tokens", "max_tokens"]


def test_a_call_that_was_on_its_way_is_sent_again_though_nothing_is_new():
    dialect = Dialect("t", "max_tokens")
    first, second = dialect.body(REQUEST), dialect.body(REQUEST)
    assert dialect.learn(first, 400, OF_OPENAI)
    assert dialect.learn(second, 400, OF_OPENAI)
    assert not dialect.learn(dialect.body(REQUEST), 400, OF_OPENAI)


WORST = (500, 90)
KEYLESS = Secret(["NO_SUCH_KEY"], False, "a test")
USAGE = {"prompt_tokens": 12, "completion_tokens": 7}


def completion(content, **message):
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": "stop"}]}


def reply(answer, usage=USAGE, **settings):
    answer = answer | ({"usage": usage} if usage is not None else {})
    return read(ask(1, **settings), answer, WORST)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Answer: 4", "Answer: 4"),
        ([{"type": "text", "text": "Two and "}, {"type": "text", "text": "two."}], "Two and two."),
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm, 5?"}]},
                {"type": "text", "text": "Answer: 4"},
            ],
            "Answer: 4",
        ),
        ([{"type": "reasoning", "text": "hm, 5?"}, {"type": "text", "text": "4"}], "4"),
        ([{"type": "text", "text": "hm", "thought": True}, {"type": "text", "text": "4"}], "4"),
        ([{"type": "output_text", "text": {"value": "4", "annotations": []}}], "4"),
        ([{"text": "4"}], "4"),
        (["Answer: ", "4"], "Answer: 4"),
        ([None, 5, [], {"type": "text", "text": 5}, {"type": []}, "4"], "4"),
        ({"type": "text", "text": "4"}, "4"),
        ({"rationale": "a", "answer": "ü"}, '{"rationale": "a", "answer": "ü"}'),
    ],
)
def test_text_parts_are_joined_and_thoughts_dropped(content, text):
    assert reply(completion(content)) == TeacherReply(text, 12, 7)


def test_the_object_that_was_asked_for_may_come_unquoted():
    found = reply(completion({"rationale": "a", "answer": "b"}), structured=True)
    assert found and found.finish == "stop"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": [{"type": "refusal", "refusal": "I cannot."}]}, "I cannot."),
        ({"content": None, "refusal": ["no"]}, "['no']"),
    ],
)
def test_a_refusal_is_one_wherever_it_stands(message, said):
    answer = {"choices": [{"message": message, "finish_reason": "stop"}]}
    assert reply(answer) == TeacherReply(said, 12, 7, "refused")


@pytest.mark.parametrize(
    ("answer", "text", "finish"),
    [
        ({}, "", "malformed"),
        ({"choices": None}, "", "malformed"),
        ({"choices": []}, "", "malformed"),
        ({"choices": [None]}, "", "malformed"),
        ({"choices": "words"}, "", "malformed"),
        ({"choices": [{}]}, "", "malformed"),
        ({"choices": [{"message": None}]}, "", "malformed"),
        ({"choices": [{"message": None, "finish_reason": "stop"}]}, "", "empty"),
        ({"choices": [{"message": "Answer: 4"}]}, "Answer: 4", "stop"),
        ({"choices": {"message": {"content": "4"}}}, "4", "stop"),
        ({"choices": [{"text": "Answer: 4", "finish_reason": "stop"}]}, "Answer: 4", "stop"),
        ({"choices": [{"text": "Answer", "finish_reason": "max_tokens"}]}, "Answer", "length"),
        ({"choices": [{"message": {"content": ""}}, {"message": {"content": "4"}}]}, "4", "stop"),
        ({"choices": [{"message": {"content": "3"}}, {"message": {"content": "4"}}]}, "3", "stop"),
        (completion(5), "5", "malformed"),
        (completion(True), "true", "malformed"),
        (completion([]), "", "empty"),
        ({"choices": [{"message": {"content": "4"}, "finish_reason": ["x"]}]}, "4", "stop"),
        ({"choices": [{"message": {"content": "4"}, "finish_reason": "error"}]}, "4", "malformed"),
        ({"error": {"message": "late"}}, "{'message': 'late'}", "malformed"),
        (completion("half") | {"error": "late"}, "half", "malformed"),
    ],
)
def test_what_bills_is_a_reply_whatever_its_shape(answer, text, finish):
    assert reply(answer) == TeacherReply(text, 12, 7, finish)


@pytest.mark.parametrize("usage", [None, {}, [], "x", {"prompt_tokens": 0, "completion_tokens": 0}])
@pytest.mark.parametrize(
    "answer",
    [
        *({}, {"choices": []}, {"choices": [None]}, {"error": {"code": 400, "message": "no"}}),
        completion("x") | {"error": "no"},
    ],
)
def test_without_usage_an_error_and_nothing_at_all_are_no_replies(answer, usage):
    assert reply(answer, usage) is None


@pytest.mark.parametrize(
    "usage",
    [
        *(None, {}, [], "many", 5),
        {"prompt_tokens": 12},
        {"completion_tokens": 7},
        *[
            {"prompt_tokens": 12, "completion_tokens": bad}
            for bad in (-7, 7.5, 7.0, 10**30, "7", True, None, [], float("nan"), float("inf"))
        ],
        *[
            {"prompt_tokens": bad, "completion_tokens": 7}
            for bad in (-12, 12.5, 10**30, "12", True, 0, float("inf"))
        ],
    ],
)
def test_usage_that_cannot_be_is_the_worst_case_and_loses_nothing(usage):
    assert reply(completion("Answer: 4"), usage) == TeacherReply("Answer: 4", *WORST)


def test_usage_by_its_newer_names():
    usage = {"input_tokens": 12, "output_tokens": 7}
    assert reply(completion("4"), usage) == TeacherReply("4", 12, 7)


def test_an_event_stream_that_nobody_asked_for_is_summed_up():
    chunks = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "Answer"}}]},
        {"choices": [{"delta": {"content": ": 4"}}], "usage": None},
        {"choices": [{"delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": USAGE},
    ]
    assert reply(dict(merged(chunks)), None) == TeacherReply("Answer: 4", 12, 7, "length")
    assert merged(chunks[:1]) is chunks[0]
    broken = [chunks[1], {"error": {"code": 429, "message": "slow"}}]
    assert reply(dict(merged(broken)), None) is None
    assert merged(broken)["error"]["code"] == 429


NAMES = st.sampled_from(
    [
        "choices",
        "usage",
        "error",
        "message",
        "content",
        "text",
        "refusal",
        "delta",
        "finish_reason",
        "type",
        "prompt_tokens",
        "completion_tokens",
        "thought",
        "value",
        "object",
        "detail",
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
