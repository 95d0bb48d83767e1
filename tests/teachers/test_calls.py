import datetime
import email.utils
import types

import pytest

from bridge_jax.errors import UserError
from bridge_jax.teachers.calls import broken, most_input_tokens, refused
from bridge_jax.teachers.protocol import Message, Request
from bridge_jax.teachers.secret import Secret


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-1234567")
    return Secret(["OTHER_KEY", "SOME_KEY"], True, "a test")


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
def test_what_a_status_means(secret, status, error, trouble):
    assert refused("t", secret, status, {}, {"error": error}).trouble == trouble
    assert refused("t", secret, status, {}, error).trouble == trouble


def test_the_message_has_the_reason_and_not_the_key(secret):
    error = refused("gpt", secret, 401, {}, {"error": {"message": "bad key sk-1234567."}})
    assert str(error) == (
        "gpt answers HTTP 401: bad key [SOME_KEY].; give SOME_KEY a key that it accepts"
    )
    assert "1234567" not in repr(secret)


@pytest.mark.parametrize("key", ["sk-123\n", " sk-123", "sk-1 23", "sk-12\u00a03", "sk-\x7f123"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(UserError, match="the key in SOME_KEY has a blank") as caught:
        Secret(["OTHER_KEY", "SOME_KEY"], False, "a test")
    assert "123" not in str(caught.value)


def test_a_blank_key_is_none(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "")
    monkeypatch.setenv("SOME_KEY", "sk-1234567")
    assert Secret(["OTHER_KEY", "SOME_KEY"], True, "a test").variable == "SOME_KEY"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("httpx", "LocalProtocolError"),
        ("httpx2", "LocalProtocolError"),
        ("requests.exceptions", "InvalidHeader"),
    ],
)
def test_what_a_library_refuses_to_send_was_never_sent(secret, module, name):
    error = getattr(pytest.importorskip(module), name)("Illegal header value 'sk-1234567'")
    found = broken("t", secret, error)
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
def test_what_aiohttp_raises_is_taken_by_its_own_word(secret, name, trouble):
    error = of_aiohttp(name)
    assert broken("t", secret, error).trouble == trouble
    # The transport between httpx and aiohttp has this name for whatever else may happen.
    wrapped = pytest.importorskip("httpx2").ConnectTimeout("")
    wrapped.__cause__ = error
    assert broken("t", secret, wrapped).trouble == trouble


def test_when_to_come_back(secret):
    def wait(headers=None, error=None):
        return refused("t", secret, 429, headers or {}, {"error": error or {}}).retry_after

    assert wait() == 0
    assert wait({"retry-after": "2.5"}) == 2.5
    assert wait({"Retry-After": "soon"}) == 0
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    assert 25 < wait({"retry-after": email.utils.format_datetime(date, usegmt=True)}) <= 30
    assert wait(error={"details": [{"reason": "x"}, {"retryDelay": "34.5s"}]}) == 34.5


def test_errors_that_are_not_of_the_connection_are_left(secret):
    assert broken("t", secret, TypeError("bug")) is None
    assert broken("t", secret, ConnectionResetError("by peer")).trouble == "unknown"
    assert broken("t", secret, TimeoutError()).trouble == "unknown"
    assert broken("t", secret, ConnectionRefusedError()).trouble == "transient"


def test_the_bound_of_the_input_is_one_token_a_byte():
    words = "Ⅷ und 8"
    request = Request("e", "m", (Message("user", words),), 10)
    assert most_input_tokens(request) - most_input_tokens(
        Request("e", "m", (Message("user", ""),), 10)
    ) == len(words.encode())
