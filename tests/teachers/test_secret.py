import base64
import logging
import traceback

import pytest

from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.teachers.secret import Secret, causes

KEY = "sk-proj-a/b+c=d&e'f\"g\\h-0123456789abcdef"


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    return Secret(["SOME_KEY"], True, "a test")


def secret_of(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    return Secret(["SOME_KEY"], True, "a test")


def test_the_key_is_hidden_as_it_is_written_in_urls_json_html_and_reprs(secret):
    for written in (
        KEY,
        "sk-proj-a%2Fb%2Bc%3Dd%26e%27f%22g%5Ch-0123456789abcdef",
        r"sk-proj-a/b+c=d&e'f\"g\\h-0123456789abcdef",
        "sk-proj-a/b+c=d&amp;e&#x27;f&quot;g\\h-0123456789abcdef",
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
    ):
        assert secret.redact(f"<{written}>") == "<[SOME_KEY]>"


@pytest.mark.parametrize("before", ["", ":", "u:", "user:", "Bearer ", "Bearer: "])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_key_is_hidden_in_base64_wherever_it_begins(secret, before, after, encode):
    text = encode(f"{before}{KEY}{after}".encode()).decode()
    hidden = secret.redact(text)
    assert "[SOME_KEY]" in hidden
    # Nothing is left but what its neighbors are part of.
    assert len(hidden) - len("[SOME_KEY]") <= len(before) * 4 / 3 + len(after) * 4 / 3 + 8


@pytest.mark.parametrize("length", [16, 20, 30, len(KEY) - 1])
def test_a_key_that_is_cut_off_is_hidden(secret, length):
    assert secret.redact(f"debug: {KEY[:length]}... and {KEY}") == (
        "debug: [SOME_KEY]... and [SOME_KEY]"
    )


def test_less_of_it_is_known_behind_bearer(secret):
    assert secret.redact("Bearer sk-proj-a/") == "Bearer [SOME_KEY]"
    assert secret.redact("bearer  sk-p") == "bearer  [SOME_KEY]"
    assert secret.redact("Bearer authentication fails") == "Bearer authentication fails"
    # What all keys of the vendor have in common is no secret.
    assert secret.redact("keys begin with sk-proj-") == "keys begin with sk-proj-"


def test_a_key_as_short_as_a_word_is_left_in_replies(monkeypatch):
    short = secret_of(monkeypatch, "EMPTY")
    reply = TeacherReply("The EMPTY set is empty.\nAnswer: EMPTY", 5, 6)
    assert short.reply(reply) == reply
    assert short.redact("bad key EMPTY") == "bad key [SOME_KEY]"


def test_a_reply_is_returned_without_the_key(secret):
    reply = TeacherReply(f"Your key is {KEY}.\nAnswer: 4", 5, 6, "length")
    assert secret.reply(reply) == TeacherReply("Your key is [SOME_KEY].\nAnswer: 4", 5, 6, "length")


def test_a_megabyte_of_keys_and_beginnings_takes_linear_time(secret):
    assert secret.redact(KEY[:16] * 20_000) == "[SOME_KEY]" * 20_000
    assert secret.redact("Bearer " * 150_000).count("Bearer") == 150_000
    assert "sk-proj-a/b" not in secret.redact(KEY * 25_000)


def raised(secret, error, cause=None, note=""):
    with pytest.raises(Exception) as caught, secret.redact_errors():
        try:
            raise KeyError(f"inner {KEY}")
        except KeyError as inner:
            if note:
                error.add_note(note)
            raise error from (cause or inner)
    return caught.value


def test_words_notes_causes_and_contexts_of_what_is_raised_are_hidden(secret):
    found = raised(secret, ValueError(f"outer {KEY}"), OSError(f"cause {KEY}"), f"note {KEY}")
    assert isinstance(found, ValueError)
    shown = "".join(traceback.format_exception(found))
    assert "0123456789abcdef" not in shown
    assert shown.count("[SOME_KEY]") == 3
    assert all("0123456789" not in str(inner) for inner in causes(found))


def test_what_an_error_came_from_is_dropped_where_it_is_not_shown(secret):
    with pytest.raises(TeacherError) as caught, secret.redact_errors():
        try:
            raise KeyError(KEY)
        except KeyError:
            raise TeacherError(f"401 {KEY}", "rejected", 2.0) from None
    assert str(caught.value) == "401 [SOME_KEY]"
    assert (caught.value.trouble, caught.value.retry_after) == ("rejected", 2.0)
    assert caught.value.__context__ is None


def test_an_error_that_builds_its_words_itself_is_replaced(secret):
    class Stubborn(Exception):
        def __str__(self):
            return f"I say {KEY}"

    found = raised(secret, Stubborn())
    assert type(found) is RuntimeError
    assert str(found) == "Stubborn: I say [SOME_KEY]"
    group = ExceptionGroup("all", [ValueError(KEY)])
    assert "0123456789abcdef" not in "".join(traceback.format_exception(raised(secret, group)))


def test_log_records_of_any_logger_do_not_hold_it(secret, caplog):
    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("some.sdk.transport")
    log.debug("headers: %s", {"authorization": f"Bearer {KEY}"})
    log.info("sent %s to %d", KEY, 5)
    try:
        raise ValueError(KEY)
    except ValueError:
        log.exception("failed")
    log.info("nothing in %s", "here")
    assert "0123456789abcdef" not in caplog.text
    assert "sent [SOME_KEY] to 5" in caplog.text
    assert "ValueError: [SOME_KEY]" in caplog.text
    assert caplog.records[-1].args == ("here",)


def test_a_record_that_cannot_be_formatted_is_left_to_logging(secret):
    record = logging.getLogRecordFactory()("n", 20, "f", 1, "%d", ("no number",), None)
    assert record.args == ("no number",)


@pytest.mark.parametrize("key", ["sk-123\n", " sk-123", "sk-1 23", "sk-12\u00a03", "sk-\x7f123"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("SOME_KEY", key)
    with pytest.raises(UserError, match="the key in SOME_KEY contains a space") as caught:
        Secret(["OTHER_KEY", "SOME_KEY"], False, "a test")
    assert "123" not in str(caught.value)


def test_a_blank_key_is_none(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", "")
    monkeypatch.setenv("SOME_KEY", "sk-1234567")
    assert Secret(["OTHER_KEY", "SOME_KEY"], True, "a test").variable == "SOME_KEY"
    assert "1234567" not in repr(Secret(["SOME_KEY"], True, "a test"))
