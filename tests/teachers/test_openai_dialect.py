import pytest
from vendors import ask

from bridge_jax.teachers.openai_dialect import Dialect

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
    assert dialect.copy().body(REQUEST) == dialect.body(REQUEST)
