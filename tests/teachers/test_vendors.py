import contextlib
import logging
import socket
import sys

import pytest
import tenacity
import vendors
from fake_vendor import KEY, LOST, REFUSED, FakeVendor, Response
from vendors import PRICES, ask, reply_of

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Failure, TeacherReply
from bridge_jax.teachers import annotate as annotate_module
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.gemini_teacher import GeminiTeacher
from bridge_jax.teachers.openai_teacher import OpenAITeacher
from bridge_jax.teachers.protocol import TeacherError


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    vendors.set_keys(monkeypatch)


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
def fast(monkeypatch):
    monkeypatch.setattr(annotate_module, "BACKOFF", tenacity.wait_random(0, 0.01))


def test_the_reply_is_what_the_vendor_wrote_and_billed(teacher, vendor):
    reply = reply_of(teacher, ask(1))
    (bill,) = vendor.bills
    assert reply == TeacherReply(
        "One thing leads to another in 'question 1'.\nAnswer: 4",
        bill.input_tokens,
        bill.output_tokens,
    )
    assert teacher.estimate_input_tokens(ask(1)) >= bill.input_tokens


def test_what_openai_is_sent(vendor):
    reply_of(vendors.make("openai", vendor.url), ask(1, temperature=0.5))
    assert vendor.bodies[-1] == {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "question 1"},
        ],
        "max_tokens": 90,
        "temperature": 0.5,
    }
    assert OpenAITeacher(vendors.config("openai", "")).body(ask(1, temperature=None)).keys() == {
        *("model", "messages", "max_completion_tokens")
    }


@pytest.mark.parametrize("kind", vendors.KINDS[1:])
def test_what_gemini_is_sent(teacher, vendor):
    reply_of(teacher, ask(1, temperature=0.5))
    (body,) = vendor.bodies
    assert body["contents"] == [{"role": "user", "parts": [{"text": "question 1"}]}]
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    assert body["generationConfig"] == {"maxOutputTokens": 90, "temperature": 0.5}
    reply_of(teacher, ask(1, temperature=None))
    assert vendor.bodies[-1]["generationConfig"] == {"maxOutputTokens": 90}


def test_structured_replies_are_asked_for_and_arrive(teacher, vendor):
    reply = reply_of(teacher, ask(1, structured=True))
    assert reply.text.startswith('{"rationale": "One thing')
    assert "rationale" in str(vendor.bodies[-1]).replace("'One thing", "")


@pytest.mark.parametrize("fault", [*REFUSED, *LOST, "400"])
def test_a_call_without_reply_says_whether_it_may_be_billed(kind, vendor, fault):
    teacher = vendors.make(kind, vendor.url, timeout=2.0 if fault == "hang" else 30.0)
    vendor.script["question 1"] = [fault]
    with pytest.raises(TeacherError, match=f"{teacher.name}.* ({fault}|billed is unknown)") as e:
        reply_of(teacher, ask(1))
    expected = {"400": "rejected"} | dict.fromkeys(REFUSED, "transient")
    assert e.value.trouble == expected.get(fault, "unknown")
    assert e.value.retry_after == (0.01 if fault in ("429", "503") else 0)
    # No SDK has tried again behind our back.
    assert vendor.calls["question 1"] == 1
    assert len(vendor.bills) == (fault in LOST)


def test_an_error_without_words_is_an_error_all_the_same(kind, vendor):
    vendor.more.append(lambda *_: Response(503, b""))
    with pytest.raises(TeacherError) as caught:
        reply_of(vendors.make(kind, vendor.url), ask(1))
    assert caught.value.trouble == "transient"


@pytest.mark.parametrize("fault", ["refusal", "empty", "length", "malformed"])
def test_a_reply_that_is_no_answer_is_paid_and_says_why(teacher, vendor, fault):
    vendor.script["question 1"] = [fault]
    reply = reply_of(teacher, ask(1, structured=fault == "malformed"))
    assert reply.finish == {"refusal": "refused"}.get(fault, fault)
    assert (reply.input_tokens, reply.output_tokens) == (
        vendor.bills[0].input_tokens,
        vendor.bills[0].output_tokens,
    )


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 7}, {"completion_tokens": 7}, {"prompt_tokens": None}],
)
def test_openai_without_usage_is_taken_at_the_worst_case(usage):
    teacher = OpenAITeacher(vendors.config("openai", "http://localhost"))
    choice = {"message": {"content": "Answer: 4"}, "finish_reason": "stop"}
    reply = teacher.reply(ask(1), {"choices": [choice], "usage": usage})
    assert (reply.input_tokens, reply.output_tokens) == (teacher.estimate_input_tokens(ask(1)), 90)


@pytest.mark.parametrize(
    ("prompt", "total", "expected"),
    [
        (9, 30, (9, 21)),
        (9, 9, (9, 0)),  # a prompt that is blocked
        *[(*counts, None) for counts in [(None, None), (9, None), (None, 30), (9, 0), (0, 0)]],
        (30, 9, None),
    ],
)
def test_gemini_without_usage_is_taken_at_the_worst_case(prompt, total, expected):
    teacher = GeminiTeacher(vendors.config("gemini", ""))
    usage = {"promptTokenCount": prompt, "totalTokenCount": total}
    answer = {
        "candidates": [{"content": {"parts": [{"text": "4"}]}, "finishReason": "STOP"}],
        "usageMetadata": {name: count for name, count in usage.items() if count is not None},
    }
    reply = teacher.reply(ask(1), answer)
    worst = (teacher.estimate_input_tokens(ask(1)), 90)
    assert (reply.input_tokens, reply.output_tokens) == (expected or worst)


def test_a_vendor_that_is_not_there(kind, vendor):
    vendor.stop_listening()
    with pytest.raises(TeacherError, match="cannot be reached: ConnectionRefused") as caught:
        reply_of(vendors.make(kind, vendor.url), ask(1))
    assert caught.value.trouble == "transient"


def test_a_connection_that_is_not_made_costs_nothing(kind):
    """As behind a firewall that drops what it does not like."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # Then nobody else gets in.
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        teacher = vendors.make(kind, f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.5)
        with pytest.raises(TeacherError, match="cannot be reached: ") as caught:
            reply_of(teacher, ask(1))
    assert caught.value.trouble == "transient"


def test_a_proxy_of_the_environment_is_used(kind, vendor, monkeypatch):
    monkeypatch.setenv("http_proxy", vendor.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    teacher = vendors.make(kind, "http://vendor.invalid", allow_http=True)
    assert reply_of(teacher, ask(1)).finish == "stop"
    assert vendor.calls["question 1"] == 1


def test_without_a_key_nothing_is_sent(kind, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("GEMINI_API_KEY")
    teacher = vendors.make(kind, "http://127.0.0.1:9")
    if kind == "openai":  # A server of one's own may need none; OpenAI's does.
        teacher.check()
        teacher = OpenAITeacher(vendors.config("openai", ""))
    with pytest.raises(UserError, match=r"needs a key: set the environment variable \w+_API_KEY"):
        teacher.check()


@pytest.mark.parametrize("module", ["openai", "google.genai", "google.generativeai"])
def test_an_sdk_that_is_not_installed_is_named(module, monkeypatch):
    teacher = vendors.make(module.replace("google.", "google-"), "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, module, None)
    if module != "openai":
        monkeypatch.delattr(sys.modules["google"], module.partition(".")[2])
    with pytest.raises(UserError, match=r"needs the SDK: pip install 'bridge-jax\[\w+\]'"):
        teacher.check()


def test_a_wrong_key_ends_the_run_at_once_and_is_not_repeated(
    teacher, vendor, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    vendors.set_keys(monkeypatch, "sk-mistyped-12345")
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        with pytest.raises(UserError, match=r"answers HTTP 40[01]: .* 0 of 9 requests") as caught:
            annotate(teacher, ledger, [ask(n) for n in range(9)], 2)
        assert ledger.spend("reserved").queries == ledger.spend("unknown").queries == 0
    assert "_API_KEY to a key that it accepts" in str(caught.value)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for text in (str(caught.value), repr(caught.value), caplog.text, written.decode("latin-1")):
        assert "mistyped" not in text


def test_a_key_revoked_in_mid_run_loses_nothing(teacher, vendor, tmp_path, fast):
    requests = [ask(n) for n in range(30)]
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:

        def revoke(done, _):
            if done == 10:
                vendor.key = "another"

        with pytest.raises(UserError, match="accepts"):
            annotate(teacher, ledger, requests, 4, revoke)
        kept = ledger.spend().queries
        assert kept == len(vendor.bills)
        assert 10 <= kept < 20
        vendor.key = KEY
        assert all(isinstance(r, TeacherReply) for r in annotate(teacher, ledger, requests, 4))
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (30, 0)
    assert set(vendor.billed().values()) == {1}


FAULTS = (*REFUSED, *LOST, "refusal", "empty", "length", "overreport", "malformed")


def test_ledger_and_bills_agree_whatever_happens(kind, vendor, tmp_path, fast):
    teacher = vendors.make(kind, vendor.url, timeout=4.0)
    for number, fault in enumerate(FAULTS):
        vendor.script[f"question {number}"] = [fault, "503"]
    vendor.script["question 20"] = ["400"]
    vendor.script["question 21"] = ["500"] * 3
    requests = [ask(n) for n in range(24)]
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        outcomes = annotate(teacher, ledger, requests, 6, attempts=3)
        assert [n for n, o in enumerate(outcomes) if isinstance(o, Failure)] == [20, 21]
        spent, unknown = ledger.spend(), ledger.spend("unknown")
    lost = [bill for bill in vendor.bills if bill.fault in LOST]
    delivered = [bill for bill in vendor.bills if bill.fault not in LOST]
    assert unknown.queries == len(lost) == 5
    assert spent.queries == len(delivered) == 22
    assert spent.usd == pytest.approx(
        sum(PRICES.cost(b.input_tokens, b.output_tokens) for b in delivered) / 1e9, abs=1e-12
    )


def test_the_cap_holds_while_calls_are_lost(teacher, vendor, tmp_path, fast):
    for number in range(0, 40, 3):
        vendor.script[f"question {number}"] = ["drop"]
    with Ledger(tmp_path / "ledger.sqlite", 20, 1.0, PRICES) as ledger:
        with pytest.raises(BudgetExceeded, match=r"budget\.queries=20"):
            annotate(teacher, ledger, [ask(n) for n in range(40)], 8)
        assert ledger.spend().queries + ledger.spend("unknown").queries == 20
    assert len(vendor.bills) == 20


def test_concurrency_reaches_the_vendor_and_stays_within_bounds(kind, vendor, tmp_path):
    teacher = vendors.make(kind, vendor.url, timeout=30.0)
    vendor.together, vendor.seconds = 12, 0.05  # Time for one too many to come.
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        annotate(teacher, ledger, [ask(n) for n in range(48)], 12)
    assert vendor.most_at_once == 12


@pytest.mark.parametrize("kind", vendors.KINDS[:2])
def test_no_client_has_a_bound_of_its_own(kind, vendor, tmp_path):
    teacher = vendors.make(kind, vendor.url, timeout=60.0)
    vendor.together = 150
    with Ledger(tmp_path / "ledger.sqlite", 1000, 1.0, PRICES) as ledger:
        annotate(teacher, ledger, [ask(n) for n in range(150)], 150)
    assert vendor.most_at_once == 150


def test_a_teacher_asks_on_one_event_loop_after_the_other(teacher, vendor, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        for start in (0, 3):
            annotate(teacher, ledger, [ask(n) for n in range(start, start + 3)], 2)
    assert set(vendor.billed().values()) == {1} and len(vendor.bills) == 6
