"""Servers that answer what nobody expects: the bill is right, the key stays here, the run ends."""

import asyncio
import contextlib
import json
import logging
import sqlite3
import traceback

import pytest
import tenacity
import vendors
from fake_batches import FakeBatches
from fake_vendor import KEY, FakeVendor, Response
from vendors import PRICES, ask, reply_of

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.requests import Failure, Tally, TeacherReply
from bridge_jax.teachers import annotate as annotate_module
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.batch import annotate_in_batches
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.teachers.secret import causes


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    vendors.set_keys(monkeypatch)
    monkeypatch.setattr(annotate_module, "BACKOFF", tenacity.wait_none())


@pytest.fixture
def vendor():
    with FakeVendor() as vendor:
        yield vendor


@pytest.fixture(params=vendors.KINDS)
def kind(request):
    return request.param


@pytest.fixture
def teacher(kind, vendor):
    return vendors.make(kind, vendor.url)


@pytest.fixture
def batch_teacher(kind, vendor):
    if kind == "google-generativeai":
        pytest.skip("it has no batch mode")
    return vendors.make(kind, vendor.url)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        yield ledger


def requests(count, **settings):
    return [ask(n, **settings) for n in range(count)]


def cost(bills):
    return sum(PRICES.cost(b.input_tokens, b.output_tokens, b.batch) for b in bills) / 1e9


def assert_billed(ledger, vendor, count):
    """Asserts that the ledger has `count` paid requests, at what the vendor has billed."""
    assert (ledger.spend().queries, len(vendor.bills)) == (count, count)
    assert ledger.spend().usd == pytest.approx(cost(vendor.bills), abs=1e-12)
    assert ledger.spend("unknown").queries == ledger.spend("reserved").queries == 0


def failures_of(teacher, count):
    """Asks `count` times on one connection; returns what is raised each time."""

    async def asking():
        found = []
        async with contextlib.aclosing(teacher):
            for _ in range(count):
                with pytest.raises(TeacherError) as caught:
                    await teacher.ask(ask(1))
                found.append(caught.value)
        return found

    return asyncio.run(asking())


def one_after_the_other(changes):
    """Returns what alters the first answer by the first change, the second by the second..."""
    left = list(changes)
    return lambda answer: left.pop(0)(answer)


def is_openai(answer):
    return "choices" in answer


def with_text(answer, value):
    """Returns an answer whose content, or list of parts, is `value`."""
    if is_openai(answer):
        answer["choices"][0]["message"]["content"] = value
    else:
        answer["candidates"][0]["content"]["parts"] = value
    return answer


def with_choices(answer, value):
    return answer | {"choices" if is_openai(answer) else "candidates": value}


def usage_alone(answer):
    return {name: part for name, part in answer.items() if name.startswith("usage")}


# Delivered and billed.


def parts_of_thoughts_and_text(answer):
    if is_openai(answer):
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "5?"}]}
        text = [{"type": "text", "text": part} for part in ("Two and two.\n", "Answer: 4")]
        return with_text(answer, [thinking, *text])
    thought = {"text": "5?", "thought": True}
    return with_text(answer, [thought, {"text": "Two and two.\n"}, {"text": "Answer: 4"}])


def test_parts_are_joined_and_paid_once(teacher, vendor, ledger):
    vendor.alter = parts_of_thoughts_and_text
    replies = annotate(teacher, ledger, requests(4), 2)
    assert [reply.text for reply in replies] == ["Two and two.\nAnswer: 4"] * 4
    assert [reply.finish for reply in replies] == ["stop"] * 4
    assert_billed(ledger, vendor, 4)


SHAPES = {
    "usage alone": usage_alone,
    "no choices": lambda answer: with_choices(answer, []),
    "null choices": lambda answer: with_choices(answer, None),
    "a null choice": lambda answer: with_choices(answer, [None]),
    "an empty choice": lambda answer: with_choices(answer, [{}]),
    "choices of words": lambda answer: with_choices(answer, "words"),
    "content of odd types": lambda answer: with_text(answer, [5, None, {"type": []}]),
    "an error, and usage": lambda answer: usage_alone(answer) | {"error": {"code": 500}},
    "an error of words, and usage": lambda answer: usage_alone(answer) | {"error": "late"},
    "a list": lambda answer: [with_choices(answer, [])],
    "a byte order mark": lambda answer: b"\xef\xbb\xbf" + json.dumps(usage_alone(answer)).encode(),
}


def test_an_answer_with_usage_is_settled_and_never_asked_again(teacher, vendor, ledger):
    vendor.alter = one_after_the_other(SHAPES.values())
    replies = annotate(teacher, ledger, requests(len(SHAPES)), 1)
    finishes = {name: reply.finish for name, reply in zip(SHAPES, replies)}
    assert finishes.pop("content of odd types") == "empty"
    assert set(finishes.values()) == {"malformed"}
    assert_billed(ledger, vendor, len(SHAPES))
    assert annotate(teacher, ledger, requests(len(SHAPES)), 2) == replies
    assert len(vendor.bills) == len(SHAPES)


def test_so_is_one_in_a_batch_job(batch_teacher, vendor, ledger, monkeypatch):
    FakeBatches(vendor)
    shapes = {name: SHAPES[name] for name in SHAPES if name not in ("a list", "a byte order mark")}
    alter, complete = one_after_the_other(shapes.values()), vendor.complete
    monkeypatch.setattr(vendor, "complete", lambda *what: alter(complete(*what)))
    replies = annotate_in_batches(batch_teacher, ledger, requests(len(shapes)), 0.01)
    finishes = {name: reply.finish for name, reply in zip(shapes, replies)}
    assert finishes.pop("content of odd types") == "empty"
    assert set(finishes.values()) == {"malformed"}
    assert_billed(ledger, vendor, len(shapes))


def streamed(answer):
    """Returns an answer as an event stream, a few letters an event."""
    (choices,) = (answer[name] for name in ("choices", "candidates") if name in answer)
    message = choices[0].get("message", choices[0].get("content"))
    text = message["content"] if is_openai(answer) else message["parts"][0]["text"]
    events = []
    for start in range(0, len(text), 9):
        piece = text[start : start + 9]
        part = {"delta": {"content": piece}} if is_openai(answer) else {"content": [piece]}
        events.append({"choices" if is_openai(answer) else "candidates": [part]})
    events.append(usage_alone(answer))
    lines = [f"data: {json.dumps(event)}\r\n\r\n" for event in events]
    return "".join([*lines, "data: [DONE]\r\n\r\n"]).encode()


def test_an_event_stream_that_nobody_asked_for_is_read(teacher, vendor, ledger):
    vendor.alter = streamed
    replies = annotate(teacher, ledger, requests(2), 2)
    assert replies[1].text == "One thing leads to another in 'question 1'.\nAnswer: 4"
    assert_billed(ledger, vendor, 2)


def test_the_older_completions_are_read(vendor, ledger):
    text = {"text": "Answer: 4", "finish_reason": "stop"}
    vendor.alter = lambda answer: answer | {"choices": [text]}
    (reply,) = annotate(vendors.make("openai", vendor.url), ledger, requests(1), 1)
    assert (reply.text, reply.finish) == ("Answer: 4", "stop")
    assert_billed(ledger, vendor, 1)


# Errors in an answer with HTTP status 200.


def answering(value):
    """Returns a route that answers everything with HTTP status 200, without a bill."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    calls = []

    def route(*_):
        calls.append(1)
        return Response(200, body)

    return route, calls


def test_an_error_in_an_answer_is_shown_and_asked_once(teacher, vendor, ledger):
    route, calls = answering({"error": {"code": 400, "message": "no such tool"}})
    vendor.more.append(route)
    outcomes = annotate(teacher, ledger, requests(4), 2)
    assert {(o.kind, o.reason) for o in outcomes} == {
        ("refused", f"{teacher.name} answers HTTP 200 with error 400: no such tool")
    }
    assert len(calls) == 4
    assert_billed(ledger, vendor, 0)


def test_an_error_in_an_answer_may_end_the_run_or_pass(teacher, vendor, ledger):
    for error, ends in [
        ({"code": 401, "message": "who are you"}, "error 401: who are you"),
        ({"code": "insufficient_quota", "message": "pay"}, "error 402: pay"),
    ]:
        route, calls = answering({"error": error})
        vendor.more.append(route)
        with pytest.raises(UserError, match=ends):
            annotate(teacher, ledger, requests(4), 1)
        assert len(calls) == 1
        vendor.more.clear()
    busy = [b'{"error": {"code": 429, "message": "slow down"}}'] * 3
    vendor.more.append(lambda *_: Response(200, busy.pop()) if busy else None)
    assert len(annotate(teacher, ledger, requests(2), 1)) == 2
    assert_billed(ledger, vendor, 2)


@pytest.mark.parametrize("answer", [{"debug": 1}, [], b"<html>"])
def test_what_is_no_answer_at_all_stops_the_run_before_the_cap_is_used_up(
    answer, teacher, vendor, ledger
):
    route, calls = answering(answer)
    vendor.more.append(route)
    with pytest.raises(UserError, match=r"the first 10 calls had no usable answer.*billed"):
        annotate(teacher, ledger, requests(40), 1)
    assert (len(calls), ledger.spend("unknown").queries) == (10, 10)


# Requests that are refused for their form.


def refusing(*fields):
    """Returns what refuses requests with one of these fields, as OpenAI words it."""

    def refuse(request):
        for name in fields:
            if name in request:
                message = f"Unsupported parameter: '{name}' is not supported with this model."
                return {"error": {"message": message, "param": name, "code": "unsupported"}}
        return None

    return refuse


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        (["max_tokens"], {"max_completion_tokens", "temperature", "response_format"}),
        (["temperature"], {"max_tokens", "response_format"}),
        (["response_format"], {"max_tokens", "temperature"}),
        (["max_tokens", "temperature", "response_format"], {"max_completion_tokens"}),
    ],
)
def test_a_field_that_is_refused_is_renamed_or_left_out(fields, sent, vendor, ledger):
    vendor.refuse = refusing(*fields)
    teacher = vendors.make("openai", vendor.url)
    settings = {"temperature": 0.5, "structured": True}
    outcomes = annotate(teacher, ledger, requests(6, **settings), 1)
    assert all(isinstance(outcome, TeacherReply) for outcome in outcomes)
    assert_billed(ledger, vendor, 6)
    # Refused once each; then the server is known.
    assert len(vendor.bodies) == 6 + len(fields)
    assert vendor.bodies[-1].keys() - {"model", "messages"} == sent
    # The ledger's key does not depend on it: what is paid is free for whoever asks next.
    fresh = vendors.make("openai", vendor.url)
    assert annotate(fresh, ledger, requests(6, **settings), 1) == outcomes
    assert len(vendor.bodies) == 6 + len(fields)


def test_the_newer_name_is_renamed_to_the_older_one(vendor, monkeypatch, ledger):
    vendor.refuse = refusing("max_completion_tokens")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{vendor.url}/v1")
    teacher = type(vendors.make("openai", vendor.url))(vendors.config("openai", ""))
    assert len(annotate(teacher, ledger, requests(2), 1)) == 2
    assert [body.keys() & {"max_tokens", "max_completion_tokens"} for body in vendor.bodies] == [
        *({"max_completion_tokens"}, {"max_tokens"}, {"max_tokens"})
    ]
    assert_billed(ledger, vendor, 2)


def test_a_batch_job_that_is_refused_for_its_form_goes_into_another(vendor, ledger, monkeypatch):
    batches = FakeBatches(vendor)
    refuse, row_of = refusing("max_tokens"), batches._openai_job

    def job_of(job):
        for key, request in job.requests.items():
            if job.results and refuse(request):
                job.results[key] = {"refused": refuse(request)}
        value = row_of(job)
        for name, content in batches.files.items():
            rows = [json.loads(line) for line in content.decode().split("\n") if line]
            for row in rows:
                body = (row.get("response") or {}).get("body") or {}
                if "refused" in body:
                    row["response"] = {"status_code": 400, "body": body["refused"]}
            batches.files[name] = "\n".join(map(json.dumps, rows)).encode()
        return value

    monkeypatch.setattr(batches, "_openai_job", job_of)
    # A request that is refused is not answered, so it is not billed either.
    complete = vendor.complete
    monkeypatch.setattr(
        vendor, "complete", lambda r, *more: {} if refuse(r) else complete(r, *more)
    )
    teacher = vendors.make("openai", vendor.url)
    outcomes = annotate_in_batches(teacher, ledger, requests(3), 0.01)
    assert all(isinstance(outcome, TeacherReply) for outcome in outcomes)
    assert len(batches.jobs) == 2
    assert_billed(ledger, vendor, 3)


def test_when_the_first_requests_are_refused_alike_the_run_stops(teacher, vendor, ledger):
    vendor.refuse = lambda request: {"error": {"code": 400, "message": f"id {len(vendor.bodies)}"}}
    with pytest.raises(UserError, match=r"the first 10 requests were all refused .*: .* 0 of 40"):
        annotate(teacher, ledger, requests(40), 1)
    assert len(vendor.bodies) == 10
    assert_billed(ledger, vendor, 0)


def test_requests_that_are_refused_after_an_answer_do_not_stop_it(teacher, vendor, ledger):
    answered = {"question 0", "question 39"}
    error = {"error": {"code": 400, "message": "too long"}}
    vendor.refuse = lambda request: None if _prompt(request) in answered else error
    tally = Tally()
    outcomes = annotate(teacher, ledger, requests(40), 1, tally=tally)
    assert [n for n, o in enumerate(outcomes) if isinstance(o, TeacherReply)] == [0, 39]
    assert tally.info() == {"answered": 2, "refused": 38}
    assert tally.failures() == (
        f"38 refused; the most common reason (38x): {teacher.name} answers HTTP 400: too long"
    )
    assert_billed(ledger, vendor, 2)


def _prompt(request):
    if "messages" in request:
        return request["messages"][-1]["content"]
    return request["contents"][-1]["parts"][0]["text"]


def test_nobody_listening_is_counted_as_failed(teacher, vendor, ledger):
    vendor.stop_listening()
    tally, seen = Tally(), []

    def watch(done, of):
        seen.append((done, of, dict(tally.info())))

    outcomes = annotate(teacher, ledger, requests(8), 2, watch, attempts=2, tally=tally)
    assert all(isinstance(outcome, Failure) for outcome in outcomes)
    assert seen[-1] == (8, 8, {"answered": 0, "failed": 8})
    assert "8 failed; the most common reason (8x): given up after 2 attempts" in tally.failures()
    assert_billed(ledger, vendor, 0)


# The key.


def test_an_answer_that_echoes_the_key_does_not_reach_disk_or_log(
    teacher, vendor, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG)
    echo = {"debug": f"Bearer {KEY}", "headers": {"x-goog-api-key": KEY}}
    vendor.alter = lambda answer: echo
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        (outcome,) = annotate(teacher, ledger, requests(1), 1, attempts=2)
    assert "is not a model reply" in outcome.reason
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for text in (outcome.reason, caplog.text, written.decode("latin-1")):
        assert "5ecret" not in text
    assert "_API_KEY]" in outcome.reason


@pytest.mark.parametrize("cut", [17, 25])
def test_nor_does_one_that_cuts_it_off(cut, teacher, vendor):
    """As we do ourselves with a long answer: the key is hidden first."""
    bodies = [b"x" * n + KEY[:cut].encode() + b" " * 300 for n in range(150, 500, 5)]
    vendor.more.append(lambda *_: Response(200, bodies.pop()))
    for error in failures_of(teacher, len(bodies)):
        assert "sk-test-5" not in str(error)


def test_nor_does_an_error_of_any_status(teacher, vendor):
    statuses = [200, 302, 400, 401, 404, 429, 500, 502]
    left = list(statuses)

    def echo(method, path, headers, body):
        shown = {"error": {"message": f"headers: {headers}", "details": [{"reason": KEY}]}}
        to = {"Location": f"http://{KEY}.invalid/"}
        return Response(left.pop(0), json.dumps(shown).encode(), to)

    vendor.more.append(echo)
    for status, error in zip(statuses, failures_of(teacher, len(statuses))):
        assert f"HTTP {status}" in str(error)
        assert "5ecret" not in "".join(traceback.format_exception(error))
        assert all("5ecret" not in str(inner) for inner in causes(error))


def test_a_reply_that_echoes_the_key_is_kept_without_it(teacher, vendor, tmp_path):
    vendor.answer = lambda prompt: f"key {KEY}"
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        (reply,) = annotate(teacher, ledger, requests(1), 1)
        assert_billed(ledger, vendor, 1)
    assert reply.text.endswith(f"Answer: key [{teacher.secret.variable}]")
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_nor_do_replies_and_errors_of_a_batch_job_hold_it(batch_teacher, vendor, tmp_path):
    batches = FakeBatches(vendor)
    vendor.answer = lambda prompt: f"key {KEY}"
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        replies = annotate_in_batches(batch_teacher, ledger, requests(2), 0.01)
        assert_billed(ledger, vendor, 2)
        assert all(KEY not in reply.text and "_API_KEY]" in reply.text for reply in replies)
        batches.refuse = f"the key {KEY} is unknown"
        with pytest.raises(UserError) as caught:
            annotate_in_batches(batch_teacher, ledger, [ask(7)], 0.01)
    assert "5ecret" not in str(caught.value)
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


@pytest.fixture
def elsewhere():
    """Another host, and what it is sent."""
    with FakeVendor() as other:
        seen = []
        other.more.append(lambda *what: seen.append(what))
        other.key = "any"
        other.respond = lambda *what: seen.append(what) or Response(200, b"{}")  # type: ignore
        yield other, seen


def test_a_redirect_is_not_followed(teacher, vendor, elsewhere, ledger):
    other, seen = elsewhere
    to = {"Location": f"http://localhost:{other.port}/v1/steal?x=1"}
    statuses = [307, 301, 302, 303, 307, 308]
    left = list(statuses)
    vendor.more.append(lambda *_: Response(left.pop(), b"", to))
    with pytest.raises(UserError, match=r"HTTP 308 and redirects to host localhost; .* 0 of 3"):
        annotate(teacher, ledger, requests(3), 1)
    for status, error in zip(statuses[-2::-1], failures_of(teacher, 5)):
        assert f"HTTP {status} and redirects to host localhost;" in str(error)
        assert error.trouble == "fatal"
    assert seen == []
    assert_billed(ledger, vendor, 0)


def test_nor_is_one_of_the_batch_mode(batch_teacher, vendor, elsewhere, ledger):
    other, seen = elsewhere
    to = {"Location": f"http://localhost:{other.port}/v1/steal"}
    vendor.more.append(lambda *_: Response(307, b"", to))
    with pytest.raises(UserError, match="HTTP 307 and redirects to host localhost;"):
        annotate_in_batches(batch_teacher, ledger, requests(3), 0.01)
    assert seen == []
    assert ledger.open_jobs() == []
    assert_billed(ledger, vendor, 0)


def test_a_key_is_not_sent_over_plain_http_to_another_machine(kind, monkeypatch):
    with pytest.raises(UserError, match=r"host\.invalid over plain http.*teacher\.allow_http"):
        reply_of(vendors.make(kind, "http://host.invalid"), ask(1))
    with pytest.raises(TeacherError, match="cannot be reached"):
        reply_of(vendors.make(kind, "http://host.invalid", allow_http=True), ask(1))
    with pytest.raises(UserError, match="contains a user name or a password") as caught:
        vendors.make(kind, "https://me:pa55@host.invalid").check()
    assert "pa55" not in str(caught.value)
    name = {"openai": "OPENAI_BASE_URL", "google-genai": "GOOGLE_GEMINI_BASE_URL"}.get(kind)
    if name:  # What the SDK finds by itself is an address as well.
        monkeypatch.setenv(name, "http://host.invalid/v1")
        teacher = type(vendors.make(kind, ""))(
            vendors.config(kind.replace("google-genai", "gemini"), "")
        )
        with pytest.raises(UserError, match=r"host\.invalid over plain http"):
            teacher.check()


def test_without_a_key_any_address_will_do(monkeypatch):
    vendors.set_keys(monkeypatch, "")
    vendors.make("openai", "http://host.invalid").check()


# Usage.


def with_usage(answer, value):
    """Returns an answer in which all counts of tokens are `value`."""
    name = "usage" if is_openai(answer) else "usageMetadata"
    return answer | {name: dict.fromkeys(answer[name], value)}


USAGES = [-20, 2.5, 10**30, "12", "1" * 5000, True, None, [], {}, float("nan"), float("inf")]


def test_usage_that_cannot_be_is_paid_at_the_worst_case(teacher, vendor, ledger):
    digits = b"1" * 5000

    def change(value):
        return lambda answer: with_usage(answer, value)

    def long(answer):
        return json.dumps(with_usage(answer, 777)).encode().replace(b": 777", b": " + digits)

    vendor.alter = one_after_the_other([*map(change, USAGES), long])
    count = len(USAGES) + 1
    replies = annotate(teacher, ledger, requests(count), 1)
    assert [reply.text.splitlines()[-1] for reply in replies] == ["Answer: 4"] * count
    for number, reply in enumerate(replies):
        worst = teacher.estimate_input_tokens(ask(number)), 90
        assert (reply.input_tokens, reply.output_tokens) == worst
    assert ledger.spend().queries == len(vendor.bills) == count
    expected = sum(PRICES.cost(reply.input_tokens, reply.output_tokens) for reply in replies)
    assert ledger.spend().usd == pytest.approx(expected / 1e9, abs=1e-12)
    assert ledger.spend().usd >= cost(vendor.bills)


# What would be a traceback.


def test_an_odd_time_to_come_back_is_ignored(teacher, vendor, ledger):
    busy = []
    for text in ("inf", "nan", "1e400", "-7", "soon", "Mon, 01 Jan 99999 00:00:00 GMT"):
        details = [{"reason": []}, None, {"retryDelay": f"{text}s"}, {"retryDelay": []}]
        error = {"error": {"message": "m", "details": details, "code": [], "status": {}}}
        busy += [
            Response(429, b"{}", {"Retry-After": text}),
            Response(429, json.dumps(error).encode()),
        ]
    vendor.more.append(lambda *_: busy.pop() if busy else None)
    assert len(annotate(teacher, ledger, requests(2), 1, attempts=20)) == 2
    assert busy == []
    assert_billed(ledger, vendor, 2)


DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
BODIES = {
    "deep": DEEP,
    "a little too deep": b"[" * 500 + b"]" * 500,
    "deep in an error": b'{"error": ' + b"[" * 700 + b"]" * 700 + b"}",
    "unclosed": b"[" * 200_000,
    "long digits": b'{"error": {"code": ' + b"4" * 5000 + b', "message": "m"}}',
    "no utf-8": b'{"error": {"message": "\xff\xfe\xfa"}}',
    "half an emoji": b'{"error": {"message": "\\ud83d"}}',
    "a list of words": b'["a", "b"]',
    "an error of null": b'{"error": null}',
    "nothing": b"",
    "null": b"null",
}


def test_an_error_of_any_body_is_taken_by_its_status(teacher, vendor):
    troubles = {400: "rejected", 401: "fatal", 429: "transient", 503: "transient"}
    cases = [(status, body) for status in troubles for body in BODIES.values()]
    left = list(cases)
    vendor.more.append(lambda *_: Response(*left.pop(0)))
    for (status, _), error in zip(cases, failures_of(teacher, len(cases))):
        assert f"answers HTTP {status}: " in str(error)
        assert error.trouble == troubles[status]
        str(error).encode()
        assert len(str(error)) < 1000


def test_an_answer_of_any_body_is_a_failure_of_that_request_alone(teacher, vendor, ledger):
    bodies = [body for name, body in BODIES.items() if "error" not in name]
    left = [None, *bodies, None]

    def route(*_):
        body = left.pop(0)
        return None if body is None else Response(200, body)

    vendor.more.append(route)
    outcomes = annotate(teacher, ledger, requests(len(bodies) + 2), 1, attempts=1)
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, TeacherReply)] == [
        *(0, len(bodies) + 1)
    ]
    for outcome in outcomes[1:-1]:
        outcome.reason.encode()
    assert ledger.spend().queries == len(vendor.bills) == 2


def test_a_wrong_charset_in_the_header_is_not_believed(teacher, vendor, ledger):
    charsets = ["utf-16", "hex", "idna", "latin-1", "no-such", "undefined"]
    left = list(charsets)
    vendor.answer = lambda prompt: "4 € 😀"

    def route(method, path, headers, body):
        answer = json.dumps(vendor.complete(json.loads(body)), ensure_ascii=False).encode()
        of_type = {"Content-Type": f"application/json; charset={left.pop()}"}
        return Response(200, answer, of_type)

    vendor.more.append(route)
    for reply in annotate(teacher, ledger, requests(len(charsets)), 1):
        assert reply.text.endswith("Answer: 4 € 😀")
    assert_billed(ledger, vendor, len(charsets))


def test_lone_surrogates_in_a_reply_become_replacement_characters(teacher, vendor, ledger):
    vendor.answer = lambda prompt: "4 \ud83d, \udc00 and 😀"
    (reply,) = annotate(teacher, ledger, requests(1), 1)
    assert reply.text.endswith("Answer: 4 \ufffd, \ufffd and 😀")
    reply.text.encode()
    assert_billed(ledger, vendor, 1)


def test_so_do_those_that_an_older_version_has_paid(vendor, tmp_path):
    path = tmp_path / "ledger.sqlite"
    teacher = vendors.make("openai", vendor.url)
    with Ledger(path, 100, 1.0, PRICES) as ledger:
        annotate(teacher, ledger, requests(1), 1)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE requests SET reply = ?", (json.dumps("Answer: \ud83d!"),))
    connection.close()
    with Ledger(path, 100, 1.0, PRICES) as ledger:
        assert annotate(teacher, ledger, requests(1), 1)[0].text == "Answer: \ufffd!"
    assert len(vendor.bills) == 1


def test_a_question_with_half_an_emoji_can_be_asked(teacher, vendor, ledger):
    vendor.answer = lambda prompt: prompt
    request = ask(1)
    broken = type(request)(*("e", "fake", (type(request.messages[0])("user", "2 \ud83d 2?"),), 90))
    (reply,) = annotate(teacher, ledger, [broken], 1)
    assert reply.text.endswith("Answer: 2 \ufffd 2?")
    assert_billed(ledger, vendor, 1)


def test_a_batch_job_with_odd_rows_hides_no_answer(batch_teacher, vendor, ledger, monkeypatch):
    batches = FakeBatches(vendor)
    rows = [
        b"5",
        b"null",
        b'{"custom_id": []}',
        DEEP,
        b'{"custom_id": "x", "response": 5}',
        b"\xff",
    ]
    whole = batches._file
    monkeypatch.setattr(
        batches,
        "_file",
        lambda content: whole(
            b"\n".join([content, *rows]) if content.startswith(b'{"id"') else content
        ),
    )
    job_of = batches._gemini_job

    def with_rows(job):
        value = job_of(job)
        for output in [value["metadata"].get("output")]:
            if output:
                odd = [5, None, {"metadata": {"key": "?"}, "response": {"candidates": 5}}]
                output["inlinedResponses"]["inlinedResponses"] += odd
        return value

    monkeypatch.setattr(batches, "_gemini_job", with_rows)
    outcomes = annotate_in_batches(batch_teacher, ledger, requests(3), 0.01)
    assert all(isinstance(outcome, TeacherReply) for outcome in outcomes)
    assert_billed(ledger, vendor, 3)
