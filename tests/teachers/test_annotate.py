import asyncio
import inspect
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tenacity
from fake_teacher import PRICES, USED_USD, FakeTeacher, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger, RequestInBatchJob
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Failure, Tally, TeacherReply
from bridge_jax.teachers import annotate as annotate_module
from bridge_jax.teachers.annotate import RateLimits, annotate
from bridge_jax.teachers.protocol import TeacherError


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", 100, 1.0, PRICES) as ledger:
        yield ledger


@pytest.fixture
def teacher(tmp_path):
    return FakeTeacher(tmp_path / "calls")


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch):
    monkeypatch.setattr(annotate_module, "BACKOFF", tenacity.wait_none())


class Scripted(FakeTeacher):
    """Awaits, or calls, `before(call number of this request, request)` before it answers."""

    def __init__(self, calls, before):
        super().__init__(calls)
        self.before = before

    async def ask(self, request) -> TeacherReply:
        call = self.asked().count(request.example_id) + 1
        reply = await super().ask(request)
        waiting = self.before(call, request)
        if inspect.isawaitable(waiting):
            await waiting
        return reply


def requests(count):
    return [ask(number) for number in range(count)]


def test_replies_come_in_order_and_are_free_the_second_time(teacher, ledger):
    seen = []
    first = annotate(teacher, ledger, requests(12), 5, lambda done, of: seen.append((done, of)))
    assert [reply.text for reply in first] == [f"reply to question {n}" for n in range(12)]
    assert seen == [(done, 12) for done in range(1, 13)]
    assert annotate(teacher, ledger, requests(12), 5) == first
    assert len(teacher.asked()) == 12
    assert ledger.spend().usd == pytest.approx(12 * USED_USD)


def test_equal_requests_of_one_list_are_asked_once(teacher, ledger):
    seen = []
    replies = annotate(teacher, ledger, [ask(1), ask(2), ask(1)], 3, lambda *at: seen.append(at))
    assert replies[0] == replies[2] != replies[1]
    assert sorted(teacher.asked()) == ["e1", "e2"]
    assert seen[-1] == (3, 3)


def test_nothing_to_ask(teacher, ledger):
    assert annotate(teacher, ledger, [], 4) == []


def test_concurrency_is_bounded_and_used(tmp_path, ledger):
    running = most = 0
    together = asyncio.Barrier(3)

    class Counting(FakeTeacher):
        async def ask(self, request):
            nonlocal running, most
            running += 1
            most = max(most, running)
            async with asyncio.timeout(10):
                await together.wait()
            running -= 1
            return await super().ask(request)

    annotate(Counting(tmp_path / "calls"), ledger, requests(9), 3)
    assert most == 3


def test_a_transient_failure_is_tried_again_and_holds_nothing_while_it_waits(tmp_path, ledger):
    def before(call, request):
        assert ledger.spend("reserved").queries <= 2
        if call < 3:
            raise TeacherError("429", "transient")

    teacher = Scripted(tmp_path / "calls", before)
    assert len(annotate(teacher, ledger, requests(4), 2)) == 4
    assert len(teacher.asked()) == 12
    assert ledger.spend().queries == 4


def test_the_vendor_says_how_long_to_wait(tmp_path, ledger):
    def before(call, request):
        waited.append((time.monotonic(), ledger.spend("reserved").queries))
        if call == 1:
            raise TeacherError("429", "transient", retry_after=0.3)

    waited = []
    annotate(Scripted(tmp_path / "calls", before), ledger, requests(1), 1)
    assert 0.3 <= waited[1][0] - waited[0][0] < 3


def test_a_call_of_unknown_outcome_is_abandoned_before_it_is_made_again(
    tmp_path, ledger, monkeypatch
):
    def noted(name, write):
        return lambda *what: notes.append(name) or write(*what)

    def before(call, request):
        if call == 1:
            raise TeacherError("cut off", "unknown")

    notes = []
    for name in ("reserve", "settle", "release", "abandon"):
        monkeypatch.setattr(ledger, name, noted(name, getattr(ledger, name)))
    annotate(Scripted(tmp_path / "calls", before), ledger, requests(1), 1)
    assert notes == ["reserve", "abandon", "reserve", "settle"]


def test_one_that_fails_for_good_is_listed_and_the_others_go_on(tmp_path, ledger):
    def before(call, request):
        if request.example_id == "e2":
            raise TeacherError("400: too long", "rejected")
        if request.example_id == "e3":
            raise TeacherError("503 overloaded", "transient")

    teacher = Scripted(tmp_path / "calls", before)
    outcomes = annotate(teacher, ledger, requests(6), 2, attempts=4)
    assert outcomes[2:4] == [
        Failure("400: too long", "refused"),
        Failure("given up after 4 attempts: 503 overloaded"),
    ]
    assert [o.text for o in outcomes if isinstance(o, TeacherReply)] == [
        f"reply to question {n}" for n in (0, 1, 4, 5)
    ]
    assert (teacher.asked().count("e2"), teacher.asked().count("e3")) == (1, 4)
    assert (ledger.spend().queries, ledger.spend("reserved").queries) == (4, 0)


def test_what_a_callback_raises_ends_the_run_and_loses_no_answer(teacher, ledger):
    def broken(done, of):
        if done == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        annotate(teacher, ledger, requests(50), 2, broken)
    assert f"{ledger.spend().queries} of 50" in caught.value.__notes__[0]
    assert ledger.spend("unknown").queries == ledger.spend("reserved").queries == 0


def test_a_dead_teacher_is_given_up(tmp_path, ledger):
    def before(call, request):
        if int(request.example_id[1:]) >= 3:
            raise TeacherError("503 overloaded", "transient")

    teacher = Scripted(tmp_path / "calls", before)
    message = r"10 requests in a row .* 503 overloaded; 3 of 90 requests to fake .*same command"
    with pytest.raises(UserError, match=message):
        annotate(teacher, ledger, requests(90), 1)
    assert len(teacher.asked()) == 3 + 10 * annotate_module.ATTEMPTS
    assert (ledger.spend().queries, ledger.spend("reserved").queries) == (3, 0)


def test_the_first_that_are_refused_alike_stop_the_run(tmp_path, ledger):
    def before(call, request):
        raise TeacherError(f"400: {request.example_id[1:]} is no tool", "rejected")

    teacher = Scripted(tmp_path / "calls", before)
    message = "the first 10 requests were all refused for the same reason: 400: 9 is no tool; 0 of"
    with pytest.raises(UserError, match=message):
        annotate(teacher, ledger, requests(90), 1)
    assert len(teacher.asked()) == 10
    assert (ledger.spend().queries, ledger.spend("reserved").queries) == (0, 0)


def test_those_that_are_refused_for_different_reasons_do_not(tmp_path, ledger):
    def before(call, request):
        number = int(request.example_id[1:])
        raise TeacherError("400: " + ("too long" if number % 2 else "too short"), "rejected")

    teacher = Scripted(tmp_path / "calls", before)
    outcomes = annotate(teacher, ledger, requests(30), 1)
    assert {outcome.kind for outcome in outcomes} == {"refused"}
    assert len(teacher.asked()) == 30


def test_nor_do_those_after_what_the_ledger_holds(tmp_path, ledger):
    annotate(FakeTeacher(tmp_path / "calls"), ledger, requests(1), 1)

    def before(call, request):
        raise TeacherError("400: too long", "rejected")

    assert len(annotate(Scripted(tmp_path / "calls", before), ledger, requests(30), 1)) == 30


def test_the_first_calls_that_are_all_lost_stop_the_run(tmp_path, ledger):
    def before(call, request):
        raise TeacherError("no completion", "unknown")

    teacher = Scripted(tmp_path / "calls", before)
    message = r"the first 10 calls had no usable answer, and each may be billed; .*no completion"
    with pytest.raises(UserError, match=message):
        annotate(teacher, ledger, requests(90), 1)
    assert len(teacher.asked()) == ledger.spend("unknown").queries == 10
    assert ledger.spend("reserved").queries == 0


def test_calls_that_are_lost_after_an_answer_do_not(tmp_path, ledger):
    def before(call, request):
        if request.example_id != "e0":
            raise TeacherError("cut off", "unknown")

    teacher = Scripted(tmp_path / "calls", before)
    tally = Tally()
    annotate(teacher, ledger, requests(5), 1, attempts=4, tally=tally)
    assert tally.info() == {"answered": 1, "failed": 4}
    assert ledger.spend("unknown").queries == 16


def test_an_error_says_what_failed_and_why_most_of_it_did(tmp_path, ledger):
    def before(call, request):
        number = int(request.example_id[1:])
        if number == 7:
            raise TeacherError("401 bad key")
        if number:
            raise TeacherError(f"400: {number} is too long", "rejected")

    message = (
        r"401 bad key; 1 of 9 requests to fake are answered and kept \(6 refused; the most common "
        r"reason \(6x\): 400: 1 is too long\); run the same command again"
    )
    with pytest.raises(UserError, match=message):
        annotate(Scripted(tmp_path / "calls", before), ledger, requests(9), 1)


def test_the_pace_is_kept_and_no_reservation_is_held_while_waiting(tmp_path, ledger):
    def before(call, request):
        asked.append(time.monotonic())
        reserved.append(ledger.spend("reserved").queries)

    asked, reserved = [], []
    teacher = Scripted(tmp_path / "calls", before)
    annotate(teacher, ledger, requests(6), 6, limits=RateLimits(requests_per_minute=600))
    assert 0.45 <= asked[-1] - asked[0] < 3
    assert max(reserved[2:]) <= 2
    began = time.monotonic()
    annotate(teacher, ledger, requests(6), 6, limits=RateLimits(requests_per_minute=6))
    assert time.monotonic() - began < 20  # what is stored does not wait


def test_a_fatal_error_stops_and_keeps_what_is_in_flight(tmp_path, ledger):
    failed, all_sent = False, asyncio.Barrier(4)

    async def before(call, request):
        nonlocal failed
        if failed:
            return
        async with asyncio.timeout(10):
            await all_sent.wait()
        if request.example_id == "e1":
            failed = True
            raise TeacherError("401 bad key")
        await asyncio.sleep(1.0)

    teacher = Scripted(tmp_path / "calls", before)
    with pytest.raises(UserError, match="401 bad key; 3 of 20"):
        annotate(teacher, ledger, requests(20), 4)
    assert len(teacher.asked()) == 4
    assert (ledger.spend().queries, ledger.spend("reserved").queries) == (3, 0)
    assert len(annotate(teacher, ledger, requests(6), 4)) == 6
    assert len(teacher.asked()) == 7


def test_a_fatal_error_ends_the_waiting_of_others_and_is_the_one_raised(
    tmp_path, ledger, monkeypatch
):
    monkeypatch.setattr(annotate_module, "BACKOFF", tenacity.wait_fixed(60))
    both = asyncio.Barrier(2)

    async def before(call, request):
        async with asyncio.timeout(10):
            await both.wait()
        if request.example_id == "e0":
            raise TeacherError("429 slow down", "transient")
        await asyncio.sleep(1.0)
        raise TeacherError("401 bad key")

    with pytest.raises(UserError, match="401 bad key"):
        annotate(Scripted(tmp_path / "calls", before), ledger, requests(2), 2)
    assert ledger.spend("reserved").queries == 0


def test_after_an_unforeseen_error_the_request_is_unknown_and_can_be_made_again(tmp_path, ledger):
    def before(call, request):
        if call == 1:
            raise KeyError("choices")

    teacher = Scripted(tmp_path / "calls", before)
    with pytest.raises(KeyError) as caught:
        annotate(teacher, ledger, requests(1), 1)
    assert "0 of 1 requests to fake" in caught.value.__notes__[0]
    assert ledger.spend("unknown").queries == 1  # nobody knows whether it was billed
    assert len(annotate(teacher, ledger, requests(1), 1)) == 1
    assert (ledger.spend().queries, ledger.spend("reserved").queries) == (1, 0)
    assert ledger.spend("unknown").queries == 1  # it may have been billed twice


def test_an_interrupt_settles_what_is_in_flight(tmp_path, ledger):
    main = threading.get_ident()

    async def before(call, request):
        if request.example_id == "e2":
            signal.pthread_kill(main, signal.SIGINT)
            await asyncio.sleep(0.3)

    teacher = Scripted(tmp_path / "calls", before)
    with pytest.raises(KeyboardInterrupt) as caught:
        annotate(teacher, ledger, requests(500), 1)
    answered = ledger.spend().queries
    assert 3 <= answered == len(teacher.asked()) < 50
    assert ledger.spend("reserved").queries == 0
    assert f"{answered} of 500" in caught.value.__notes__[0]


def test_the_cap_in_queries_is_used_up_and_named(teacher, tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", 5, 1.0, PRICES) as ledger:
        with pytest.raises(BudgetExceeded, match=r"budget\.queries=5 is reached.*5 of 8"):
            annotate(teacher, ledger, requests(8), 4)
        assert ledger.spend().queries == 5


def test_a_cap_in_dollars_is_not_given_up_while_calls_in_flight_may_leave_room(teacher, tmp_path):
    # After nine answers of 600 microdollars there is room to reserve one more, of 1000, and then
    # none. Six calls in flight reserve more than the whole.
    cap = 0.0064
    with Ledger(tmp_path / "ledger.sqlite", 100, cap, PRICES) as ledger:
        with pytest.raises(BudgetExceeded, match="10 of 16"):
            annotate(teacher, ledger, requests(16), 8)
        assert ledger.spend().queries == 10


def test_a_full_disk_stops_the_calls(teacher, ledger):
    annotate(teacher, ledger, requests(3), 1)
    connection = ledger._database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(UserError, match=r"ledger\.sqlite: .*full.* of 80 requests"):
        annotate(teacher, ledger, requests(80), 4)
    connection.execute("PRAGMA max_page_count = 100000")
    assert len(annotate(teacher, ledger, requests(80), 4)) == 80
    assert len(teacher.asked()) <= 80 + 4


def test_two_threads_may_annotate_on_one_ledger(tmp_path, ledger):
    slow = FakeTeacher(tmp_path / "calls", seconds=0.01)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: annotate(slow, ledger, requests(40), 8), range(2))
    assert first == second and len(slow.asked()) == 40
    assert ledger.spend().queries == 40


def test_a_coroutine_may_call_it(teacher, ledger):
    async def calls():
        return annotate(teacher, ledger, requests(3), 2)

    assert len(asyncio.run(calls())) == 3


def test_a_request_in_another_runs_batch_job_is_not_waited_for(tmp_path, teacher):
    path = tmp_path / "shared.sqlite"
    with Ledger(path, 9, 1.0, PRICES, run="a") as ledger:
        ledger.register("/runs/first")
        ledger.reserve(ask(1), 100, batch=True)
        ledger.begin_job("bridge-1", "gemini", [ask(1).key])
    words = r"gemini's batch job 'bridge-1' of the run in /runs/first; start that run again"
    with (
        Ledger(path, 9, 1.0, PRICES, run="b") as ledger,
        pytest.raises(RequestInBatchJob, match=words),
    ):
        ledger.reserve(ask(1), 100)
    with (
        Ledger(path, 9, 1.0, PRICES, run="b") as ledger,
        pytest.raises(UserError, match=words),
    ):
        annotate(teacher, ledger, [ask(1), ask(2)], 2)


@pytest.mark.parametrize(("trouble", "counts"), [("transient", 0), ("unknown", 1)])
def test_a_vendor_that_says_come_back_tomorrow_ends_the_run(tmp_path, ledger, trouble, counts):
    def later(call, request):
        raise TeacherError("429: daily limit", trouble, retry_after=86400.0)

    teacher = Scripted(tmp_path / "calls", later)
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"
    with pytest.raises(UserError, match=f"daily limit; .* in 1 day, 0:00:00, at {date}: .*again"):
        annotate(teacher, ledger, [ask(1)], 1)
    assert (ledger.spend("reserved").queries, ledger.spend("unknown").queries) == (0, counts)
    assert len(teacher.asked()) == 1


@pytest.mark.parametrize(("seconds", "level"), [(59, "INFO"), (61, "WARNING")])
def test_a_wait_above_a_minute_is_a_warning(tmp_path, ledger, seconds, level, caplog, monkeypatch):
    def busy(call, request):
        if call == 1:
            raise TeacherError("429", "transient", retry_after=seconds)

    async def at_once(seconds, stop):
        pass

    monkeypatch.setattr(annotate_module, "sleep", at_once)
    caplog.set_level("INFO")
    annotate(Scripted(tmp_path / "calls", busy), ledger, [ask(1)], 1)
    assert [r.levelname for r in caplog.records if f"in {seconds} s" in r.message] == [level]


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_no_limit_never_waits(clock):
    pace = RateLimits(clock=clock)
    assert [pace.take(10**9) for _ in range(5)] == [0] * 5


def test_no_minute_has_more_requests_than_its_share(clock):
    pace = RateLimits(requests_per_minute=30, clock=clock)
    assert [pace.take(5) for _ in range(4)] == [0, 2, 4, 6]
    clock.now += 100  # idle time is not saved up
    assert [pace.take(5) for _ in range(2)] == [0, 2]


def test_tokens_are_paced_by_what_was_taken_before(clock):
    pace = RateLimits(tokens_per_minute=600, clock=clock)
    assert [pace.take(n) for n in (50, 20, 10)] == [0, 5, 7]


def test_the_slower_limit_counts(clock):
    pace = RateLimits(requests_per_minute=60, tokens_per_minute=600, clock=clock)
    assert [pace.take(n) for n in (5, 30, 1)] == [0, 1, 4]


def test_what_was_not_used_is_given_back(clock):
    pace = RateLimits(requests_per_minute=60, tokens_per_minute=600, clock=clock)
    pace.take(100)
    pace.give_back(60)
    assert pace.take(100) == 4
    pace.give_back(100, requests=1)
    assert pace.take(1) == 4
