"""Batch jobs on the ledger: they outlive their process, at half the price."""

import dataclasses

import pytest
from fake_teacher import PRICES, ask

from bridge_jax.ledger.ledger import Ledger, RequestInFlight
from bridge_jax.ledger.prices import BudgetExceeded, Spend
from bridge_jax.ledger.requests import TeacherReply

REPLY = TeacherReply("yes", 100, 50)
HALF_RESERVED = 0.0005  # US dollars a request


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def open_ledger(path, queries=100, usd=1.0, run=""):
    return Ledger(path, queries, usd, PRICES, run)


def reserve(ledger, *numbers):
    for number in numbers:
        assert ledger.reserve(ask(number), 100, batch=True) is None
    return [ask(number).key for number in numbers]


def test_a_job_is_collected_by_a_later_process_at_half_the_price(path):
    with open_ledger(path) as ledger:
        keys = reserve(ledger, 1, 2, 3)
        ledger.begin_job("ours-1", "openai", keys)
        ledger.record_job("ours-1", "batch_abc")
        assert ledger.spend("reserved") == Spend(3, 300, 270, 1_500_000)
    with open_ledger(path) as ledger:
        (job,) = ledger.open_jobs()
        assert (job.name, job.id, job.vendor) == ("ours-1", "batch_abc", "openai")
        assert job.waiting == (ask(1), ask(2), ask(3))
        assert (ledger.spend("reserved").queries, ledger.spend("unknown").queries) == (3, 0)
        with pytest.raises(RequestInFlight, match="batch job 'ours-1'"):
            ledger.reserve(ask(1), 100)
        ledger.settle(job.waiting[0], REPLY)
        assert [r.example_id for r in ledger.open_jobs()[0].waiting] == ["e2", "e3"]
        ledger.release(ask(2))  # the vendor says: not processed, not billed
        assert ledger.close_job("ours-1") == 1  # of the third it says nothing
        assert ledger.open_jobs() == []
        assert ledger.spend() == Spend(1, 100, 50, 300_000)
        assert ledger.spend("unknown") == Spend(1, 100, 90, 500_000)
        assert ledger.reserve(ask(1), 100) == REPLY
        assert ledger.close_job("ours-1") == 0


def test_a_crash_while_submitting_leaves_a_job_without_an_id(path):
    with open_ledger(path) as ledger:
        ledger.begin_job("ours-1", "gemini", reserve(ledger, 1, 2))
        ledger.begin_job("ours-2", "gemini", reserve(ledger, 3))
    with open_ledger(path) as ledger:
        found, lost = ledger.open_jobs()
        assert (found.name, found.id, lost.name, lost.id) == ("ours-1", None, "ours-2", None)
        ledger.record_job("ours-1", "batches/7")
        ledger.record_job("ours-1", "batches/7")  # no harm
        with pytest.raises(ValueError, match="another id"):
            ledger.record_job("ours-1", "batches/8")
        ledger.release(ask(3))
        assert ledger.close_job("ours-2") == 0
        assert [job.id for job in ledger.open_jobs()] == ["batches/7"]
        assert (ledger.spend("reserved").queries, ledger.spend("unknown").queries) == (2, 0)


def test_the_requests_of_a_job_come_back_with_every_setting(path):
    made = dataclasses.replace(ask(1), temperature=None, sample=2, structured=True)
    with open_ledger(path) as ledger:
        ledger.reserve(made, 100, batch=True)
        ledger.begin_job("ours-1", "openai", [made.key])
        ((again,),) = [job.waiting for job in ledger.open_jobs()]
    assert again == made
    assert again.key == made.key


def test_what_was_reserved_for_a_job_that_was_never_begun_costs_nothing(path):
    with open_ledger(path) as ledger:
        reserve(ledger, 1, 2)
    with open_ledger(path) as ledger:
        assert (ledger.spend("reserved").queries, ledger.spend("unknown").queries) == (0, 0)
        reserve(ledger, 1)


def test_jobs_count_towards_the_caps(path):
    with open_ledger(path, queries=2) as ledger:
        ledger.begin_job("ours-1", "openai", reserve(ledger, 1, 2))
    with open_ledger(path, queries=2) as ledger, pytest.raises(BudgetExceeded):
        ledger.reserve(ask(3), 100, batch=True)
    with open_ledger(path, usd=3 * HALF_RESERVED) as ledger:
        reserve(ledger, 3)
        with pytest.raises(BudgetExceeded, match=r"up to 0\.000500 US dollars"):
            ledger.reserve(ask(4), 100, batch=True)


def test_two_processes_that_collect_the_same_job_pay_once(path):
    with open_ledger(path) as ledger:
        ledger.begin_job("ours-1", "openai", reserve(ledger, 1, 2))
    with open_ledger(path) as one, open_ledger(path) as two:
        one.settle(ask(1), REPLY)
        two.settle(ask(1), REPLY)
        two.settle(ask(2), REPLY)
        assert one.spend() == Spend(2, 200, 100, 600_000)


def test_another_run_neither_sees_nor_touches_a_job(path):
    with open_ledger(path, run="a") as ledger:
        ledger.begin_job("ours-1", "openai", reserve(ledger, 1))
    with open_ledger(path, run="b") as ledger:
        assert ledger.open_jobs() == []
        assert ledger.close_job("ours-1") == 0
        ledger.release(ask(1))
        with pytest.raises(ValueError, match="without a reservation"):
            ledger.settle(ask(1), REPLY)
        with pytest.raises(RequestInFlight, match="ours-1"):
            ledger.reserve(ask(1), 100)
    with open_ledger(path, run="a") as ledger:
        ledger.settle(ask(1), REPLY)
    with open_ledger(path, run="b") as ledger:
        assert ledger.reserve(ask(1), 100) == REPLY
        assert ledger.spend().queries == 0


def test_a_job_needs_reservations_and_a_name_of_its_own(path):
    with open_ledger(path) as ledger:
        keys = reserve(ledger, 1)
        with pytest.raises(ValueError, match="without a reservation"):
            ledger.begin_job("ours-1", "openai", [*keys, ask(2).key])
        assert ledger.open_jobs() == []
        ledger.begin_job("ours-1", "openai", keys)
        with pytest.raises(ValueError, match="'ours-1' is on the ledger already"):
            ledger.begin_job("ours-1", "openai", reserve(ledger, 2))
        with pytest.raises(ValueError, match="without a reservation"):
            ledger.begin_job("ours-2", "openai", keys)  # it is in a job
