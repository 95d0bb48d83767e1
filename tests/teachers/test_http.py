import dataclasses
import datetime
import email.utils
import math
import re
import types

import pytest

from bridge_jax.config import TeacherConfig
from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Message, TeacherRequest
from bridge_jax.teachers import http
from bridge_jax.teachers.api import may_send_key, server_of, vendor_of, worst_case
from bridge_jax.teachers.http import UNREADABLE, HttpErrors, Unreadable, objects, parsed
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.teachers.secret import Secret


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def of(kind, base_url, **settings):
    return server_of(TeacherConfig(kind=kind, model="m", base_url=base_url, **settings))


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        (
            "openai",
            [
                *("", "https://api.openai.com/v1", "https://api.openai.com/v1/"),
                *("HTTPS://API.OpenAI.com:443/v1/", "https://api.openai.com./v1"),
            ],
        ),
        ("gemini", ["", "https://generativelanguage.googleapis.com/"]),
    ],
)
def test_the_vendors_own_server_has_no_name(kind, spellings):
    assert {of(kind, spelling) for spelling in spellings} == {""}


@pytest.mark.parametrize(
    ("spelling", "server"),
    [
        ("http://Localhost:8000/v1/", "http://localhost:8000/v1"),
        ("http://localhost:80/v1", "http://localhost/v1"),
        ("https://localhost:80/v1", "https://localhost:80/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("https://api.openai.com/V1", "https://api.openai.com/V1"),
        ("http://api.openai.com/v1", "http://api.openai.com/v1"),
        # No secret is on the ledger.
        ("https://me:secret@proxy.example/v1?key=secret#x", "https://proxy.example/v1"),
        ("not a url/", "not a url"),
        ("http://host:port/v1", "http://host:port/v1"),
    ],
)
def test_another_server_is_spelled_in_one_way(spelling, server):
    assert of("openai", spelling) == server


def test_what_the_sdk_finds_in_the_environment_is_a_server_too(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1/")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://localhost:9000/")
    assert of("openai", "") == "http://localhost:8000/v1"
    assert of("openai", "https://api.openai.com/v1") == ""
    assert of("gemini", "") == "http://localhost:9000"
    assert of("gemini", "", backend="google-generativeai") == ""
    assert of("oracle", "") == ""


def test_requests_to_two_servers_are_two_and_old_keys_stay():
    request = TeacherRequest("a", "m", (Message("user", "1 + 1?"),), 64)
    keys = {
        dataclasses.replace(request, server=server).key
        for server in ("", "http://a/v1", "http://b/v1")
    }
    assert len(keys) == 3
    # As a ledger of before has it: nothing of the server is in it.
    assert "server" not in request.to_json()


def test_a_batch_job_is_of_the_server_that_has_it():
    assert vendor_of(TeacherConfig(kind="openai")) == "openai"
    one = TeacherConfig(kind="openai", base_url="http://a/v1")
    other = dataclasses.replace(one, base_url="http://b/v1")
    assert vendor_of(one) == "openai at http://a/v1" != vendor_of(other)


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


@pytest.mark.parametrize("count", [0, 1, http.MOST_TOKENS])
def test_a_count_of_tokens(count):
    assert http.tokens(count) == count


@pytest.mark.parametrize(
    "value",
    [-1, 1.5, 12.0, 10**30, math.inf, math.nan, "12", True, None, [1], {}, http.MOST_TOKENS + 1],
)
def test_what_is_no_count_of_tokens(value):
    assert http.tokens(value) is None


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-1234567")
    return Secret(["OTHER_KEY", "SOME_KEY"], True, "a test")


@pytest.fixture
def errors(secret):
    return HttpErrors("t", secret)


@pytest.mark.parametrize(
    ("status", "error", "trouble"),
    [
        (400, {"message": "too long"}, "rejected"),
        (400, {"message": "x", "details": [{"reason": "API_KEY_INVALID"}]}, "fatal"),
        (401, {}, "fatal"),
        (402, {}, "fatal"),
        (403, {"status": "PERMISSION_DENIED"}, "fatal"),
        (404, {"message": "no such model"}, "fatal"),
        (408, {}, "unknown"),
        (413, {}, "rejected"),
        (429, {"message": "slow down"}, "transient"),
        (429, {"code": "insufficient_quota"}, "fatal"),
        (500, "<html>Oops", "transient"),
        (502, "<html>Bad gateway", "unknown"),
        (503, None, "transient"),
        (504, {"message": "upstream"}, "unknown"),
        (520, None, "unknown"),
        (524, None, "unknown"),
        (529, None, "transient"),
    ],
)
def test_what_a_status_means(errors, status, error, trouble):
    assert errors.refused(status, {}, {"error": error}).trouble == trouble
    assert errors.refused(status, {}, error).trouble == trouble


def test_the_message_has_the_reason_and_not_the_key(errors, secret):
    error = errors.refused(401, {}, {"error": {"message": "bad key sk-1234567."}})
    assert str(error) == (
        "t answers HTTP 401: bad key [SOME_KEY].; set SOME_KEY to a key that it accepts"
    )
    assert "1234567" not in repr(secret)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("httpx", "LocalProtocolError"),
        ("httpx2", "LocalProtocolError"),
        ("requests.exceptions", "InvalidHeader"),
    ],
)
def test_what_a_library_refuses_to_send_was_never_sent(errors, module, name):
    error = getattr(pytest.importorskip(module), name)("Illegal header value 'sk-1234567'")
    found = errors.broken(error)
    assert found.trouble == "transient"
    assert "1234567" not in str(found)


def of_aiohttp(name):
    """Returns an error of aiohttp as its client raises it."""
    aiohttp = pytest.importorskip("aiohttp")
    address = types.SimpleNamespace(host="h", port=1, ssl=True, is_ssl=True)
    request = types.SimpleNamespace(real_url="http://proxy")
    refused = ConnectionRefusedError(111, "refused")
    what = {
        "ClientHttpProxyError": (request, ()),
        "ClientOSError": (104, "reset"),
        "ServerDisconnectedError": (),
    }
    for of_a_connection in ("ClientConnectorError", "ClientConnectorDNSError"):
        what[of_a_connection] = what["ClientProxyConnectionError"] = (address, refused)
    return getattr(aiohttp, name)(*what.get(name, ("it",)))


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("ClientConnectorError", "transient"),
        ("ClientConnectorDNSError", "transient"),
        ("ClientProxyConnectionError", "transient"),
        ("ClientHttpProxyError", "transient"),
        ("ConnectionTimeoutError", "transient"),
        ("InvalidUrlClientError", "transient"),
        ("SocketTimeoutError", "unknown"),
        ("ServerDisconnectedError", "unknown"),
        ("ClientOSError", "unknown"),
        ("ClientConnectionResetError", "unknown"),
        ("ClientPayloadError", "unknown"),
    ],
)
def test_what_aiohttp_raises_is_taken_by_its_own_word(errors, name, trouble):
    error = of_aiohttp(name)
    assert errors.broken(error).trouble == trouble
    # The transport between httpx and aiohttp has this name for whatever else may happen.
    wrapped = pytest.importorskip("httpx2").ConnectTimeout("")
    wrapped.__cause__ = error
    assert errors.broken(wrapped).trouble == trouble


def test_when_to_come_back(errors):
    def wait(headers=None, error=None):
        return errors.refused(429, headers or {}, {"error": error or {}}).retry_after

    assert wait() == 0
    assert wait({"retry-after": "2.5"}) == 2.5
    assert wait({"Retry-After": "soon"}) == 0
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert 25 < wait({"retry-after": email.utils.format_datetime(date, usegmt=True)}) <= 30
    assert wait(error={"details": [{"reason": "x"}, {"retryDelay": "34.5s"}]}) == 34.5
    # Without a zone it is UTC, wherever this machine stands.
    assert 25 < wait({"retry-after": date.strftime("%a, %d %b %Y %H:%M:%S -0000")}) <= 30


@pytest.mark.parametrize(
    "text",
    [
        *("inf", "-inf", "nan", "1e400", "-5", "1" * 5000, "٣s", "\ud83d", ""),
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "Mon, 99 Jan 2026 00:00:00 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Mon, 01 Jan 2026 00:00:00 +9999",
    ],
)
def test_a_time_to_come_back_that_is_none_is_none(errors, text):
    """Then the backoff says when."""
    of_google = {"error": {"details": [{"retryDelay": f"{text}s"}]}}
    for found in (
        errors.refused(429, {"retry-after": text}, None),
        errors.refused(429, {}, of_google),
    ):
        assert (found.retry_after, found.trouble) == (0.0, "transient")


@pytest.mark.parametrize(
    "body",
    [
        None,
        "words",
        5,
        [],
        [{"error": "words"}],
        {"error": None},
        {"error": []},
        {"error": ["words"]},
        {"error": 5},
        {"error": {"details": [{"reason": []}]}},
        {"error": {"details": {"reason": {}}}},
        {"error": {"details": [None, 5, [], {"retryDelay": {}}], "code": [], "status": {}}},
        {"error": {"message": {"a": ["b"]}}},
        {"detail": [{"msg": "Field required"}]},
    ],
)
@pytest.mark.parametrize(
    ("status", "trouble"),
    [(400, "rejected"), (401, "fatal"), (429, "transient"), (418, "rejected")],
)
def test_a_refusal_of_any_shape_is_taken_by_its_status(errors, body, status, trouble):
    found = errors.refused(status, {}, body)
    assert found.trouble == trouble
    assert str(found).startswith(f"t answers HTTP {status}: ")


def test_a_status_of_success_without_the_answer_is_unknown(errors):
    assert errors.refused(202, {}, "later").trouble == "unknown"


@pytest.mark.parametrize(
    ("location", "to"),
    [
        ("https://evil.example:8443/v1?x=1", "host evil.example;"),
        ("http://user:pw@evil.example/", "host evil.example;"),
        ("//evil.example/x", "host evil.example;"),
        ("/v2/chat", "another address of the same host;"),
        ("http://[::1", "another address of the same host;"),
        ("", "another address of the same host;"),
        ("https://sk-1234567.evil.example", r"host \[SOME_KEY\]\.evil\.example;"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_fatal_and_names_the_host_alone(errors, status, location, to):
    found = errors.refused(status, {"location": location}, {"error": "moved"})
    assert found.trouble == "fatal"
    assert re.search(f"t answers HTTP {status} and redirects to {to}", str(found))
    assert not re.search(r"pw|8443|x=1|1234567", str(found))


@pytest.mark.parametrize(
    ("answer", "trouble", "said"),
    [
        ({"error": {"code": 400, "message": "no tools"}}, "rejected", "error 400: no tools"),
        ({"error": {"code": "401", "message": "who"}}, "fatal", "error 401: who"),
        ({"error": {"status": "RESOURCE_EXHAUSTED", "message": "m"}}, "transient", "error 429: m"),
        ({"error": {"code": "insufficient_quota", "message": "m"}}, "fatal", "error 402: m"),
        ({"error": {"type": "overloaded_error", "message": "m"}}, "transient", "error 503: m"),
        ({"error": {"code": 504, "message": "m"}}, "unknown", "error 504: m"),
        ({"error": "words alone"}, "rejected", "error 400: words alone"),
        ({"error": ["words"]}, "rejected", "words"),
        ({"error": [{"error": {"code": 429}}]}, "transient", "error 429"),
        ({"error": {"code": 3, "message": "m"}}, "rejected", "error 400: m"),
        ({"errors": [{"message": "m"}]}, "rejected", "m"),
        ({"object": "error", "message": "m", "code": 429}, "transient", "error 429: m"),
        ({"choices": [{"error": {"code": 429, "message": "m"}}]}, "transient", "error 429: m"),
        ({"detail": "Not authenticated"}, "rejected", "Not authenticated"),
        ({}, "unknown", "is not a model reply"),
        ({"error": None, "choices": []}, "unknown", "is not a model reply"),
        ({"debug": "Bearer sk-1234567"}, "unknown", r"'debug': 'Bearer \[SOME_KEY\]'"),
    ],
)
def test_an_error_with_status_200_is_taken_by_its_own_code(errors, answer, trouble, said):
    found = errors.no_reply(answer)
    assert found.trouble == trouble
    assert re.search(said, str(found))


@pytest.mark.parametrize("url", ["http://api.example.com/v1", "http://10.0.0.5:8000"])
def test_a_key_over_plain_http_has_to_be_confirmed(secret, url, monkeypatch, caplog):
    with pytest.raises(UserError, match=r"SOME_KEY would go to .*teacher\.allow_http=true"):
        may_send_key("t", secret, url, False)
    may_send_key("t", secret, url, True)
    assert "SOME_KEY is sent to" in caplog.text
    for safe in ("https://api.example.com", "http://127.0.0.1:8000/v1", "http://[::1]/", ""):
        may_send_key("t", secret, safe, False)
    monkeypatch.delenv("SOME_KEY")
    may_send_key("t", Secret(["SOME_KEY"], False, "a test"), url, False)


def test_what_an_sdk_cannot_read_is_unknown_and_other_bugs_are_not_hidden(errors):
    def raising(error, *unreadable):
        with errors.boundary(lambda error: None, unreadable):
            raise error

    with pytest.raises(TeacherError, match=r"ValueError: got \[SOME_KEY\]") as caught:
        raising(ValueError("got sk-1234567"), *UNREADABLE)
    assert caught.value.trouble == "unknown"
    with pytest.raises(TeacherError, match="RecursionError"):
        raising(RecursionError(), *UNREADABLE)
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError(), *UNREADABLE)
    with pytest.raises(ValueError, match=r"bug \[SOME_KEY\]"):
        raising(ValueError("bug sk-1234567"))


def test_errors_that_are_not_of_the_connection_are_left(errors):
    assert errors.broken(TypeError("bug")) is None
    assert errors.broken(ConnectionResetError("by peer")).trouble == "unknown"
    assert errors.broken(TimeoutError()).trouble == "unknown"
    assert errors.broken(ConnectionRefusedError()).trouble == "transient"


def test_the_bound_of_the_input_is_one_token_a_byte():
    words = "Ⅷ und 8"
    request = TeacherRequest("e", "m", (Message("user", words),), 10)
    empty = TeacherRequest("e", "m", (Message("user", ""),), 10)
    assert worst_case(request)[0] - worst_case(empty)[0] == len(words.encode())
    assert worst_case(request)[1] == 10
