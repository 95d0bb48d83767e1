import math

import pytest

from bridge_jax.teachers import wire
from bridge_jax.teachers.wire import Unreadable, objects, parsed


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "\xff\xfe"}', {"a": "\ufffd\ufffd"}),
        ('{"a": "[[[["}', {"a": "[[[["}),
        ("[" * 100 + "]" * 100, None),
        ('"' + "[" * 1000 + '\\""', "[" * 1000 + '"'),
    ],
)
def test_json_is_read(body, value):
    found = parsed(body)
    assert value is None or found == value


@pytest.mark.parametrize(
    "body",
    [
        "[" * 101 + "]" * 101,
        "[" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        "",
        '{"a',
        b"\xff",
        '{"a": 1} {"b": 2}',
    ],
)
def test_what_is_no_json_or_too_deep_is_unreadable(body):
    with pytest.raises(Unreadable):
        parsed(body)


@pytest.mark.parametrize(
    "body",
    [
        '"' * 1_000_000,
        '\\"' * 500_000,
        '"' + '\\"' * 500_000,
        "[" * 1_000_000,
        "[]" * 500_000,
        '{"' * 500_000,
        "data:" * 200_000,
        "data:\n" * 160_000,
    ],
)
def test_a_megabyte_of_nonsense_takes_linear_time(body):
    with pytest.raises(Unreadable):
        objects(body)


def test_a_number_of_five_thousand_digits_is_no_traceback():
    assert parsed('{"a": ' + "1" * 5000 + "}") == {"a": math.inf}
    assert parsed("-" + "1" * 5000) == -math.inf
    assert parsed("12345678901234567890") == 12345678901234567890


def test_the_objects_of_a_list_and_of_an_event_stream():
    assert objects('{"a": 1}') == [{"a": 1}]
    assert objects('[{"a": 1}, 5, null, {"b": 2}]') == [{"a": 1}, {"b": 2}]
    stream = ': hello\r\n\r\nevent: x\r\ndata: {"a": 1}\r\n\r\ndata:{"b": 2}\n\ndata: [DONE]\n\n'
    assert objects(stream) == [{"a": 1}, {"b": 2}]
    for nothing in ("5", "null", "[]", '"data"', "data: [DONE]", 'data: {"a'):
        with pytest.raises(Unreadable):
            objects(nothing)


@pytest.mark.parametrize("count", [0, 1, wire.MOST_TOKENS])
def test_a_count_of_tokens(count):
    assert wire.tokens(count) == count


@pytest.mark.parametrize(
    "value",
    [-1, 1.5, 12.0, 10**30, math.inf, math.nan, "12", True, None, [1], {}, wire.MOST_TOKENS + 1],
)
def test_what_is_no_count_of_tokens(value):
    assert wire.tokens(value) is None
