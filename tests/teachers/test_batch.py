import os
import signal

import pytest
import tenacity
import vendors
from fake_batches import FakeBatches
from fake_vendor import FakeVendor
from vendors import PRICES, ask

from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.ledger.prices import BudgetExceeded
from bridge_jax.ledger.requests import Failure, TeacherReply
from bridge_jax.teachers import annotate as annotate_module
from bridge_jax.teachers import batch
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.batch import annotate_in_batches, collect_left_open
from bridge_jax.teachers.protocol import TeacherError


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    vendors.set_keys(monkeypatch)
    monkeypatch.setattr(annotate_module, "BACKOFF", tenacity.wait_none())


@pytest.fixture
def vendor():
    with FakeVendor() as vendor:
        yield vendor


@pytest.fixture
def batches(vendor):
    return FakeBatches(vendor)


@pytest.fixture(params=["openai", "google-genai"])
def kind(request):
    return request.param


@pytest.fixture
def teacher(kind, vendor, batches):
    return vendors.make(kind, vendor.url)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def opened(path, queries=100):
    return Ledger(path, queries, 1.0, PRICES)


def cost(bills):
    return sum(PRICES.cost(b.input_tokens, b.output_tokens, b.batch) for b in bills) / 1e9


def requests(count, **settings):
    return [ask(n, **settings) for n in range(count)]


def submit_alone(teacher, ledger, asked):
    """Submits requests, and is interrupted while their job is at work."""
    shown = []

    def interrupt(*at):
        shown.append(at)
        if len(shown) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotate_in_batches(teacher, ledger, asked, 0.01, interrupt)


def test_a_job_is_submitted_watched_and_paid_at_half_the_price(teacher, vendor, batches, path):
    seen = []
    with opened(path) as ledger:
        replies = annotate_in_batches(
            teacher, ledger, requests(6, structured=True), 0.01, lambda *at: seen.append(at)
        )
        assert [reply.text for reply in replies] == [
            f'{{"rationale": "One thing leads to another in \'question {n}\'.", "answer": "4"}}'
            for n in range(6)
        ]
        assert ledger.spend().usd == pytest.approx(cost(vendor.bills), abs=1e-12)
        full = sum(PRICES.cost(b.input_tokens, b.output_tokens) for b in vendor.bills) / 1e9
        assert ledger.spend().usd == pytest.approx(full / 2, abs=1e-8)
        assert (ledger.spend("reserved").queries, ledger.open_jobs()) == (0, [])
        # What is paid is free, in either mode.
        assert annotate_in_batches(teacher, ledger, requests(6, structured=True), 0.01) == replies
        assert annotate(teacher, ledger, requests(6, structured=True), 2) == replies
    assert len(batches.jobs) == 1
    assert seen[-1] == (6, 6)


def test_partial_failures_are_reconciled(teacher, vendor, batches, path):
    batches.fate = {
        "question 1": "error",
        "question 2": "refusal",
        "question 3": "missing",
        "question 4": "length",
    }
    with opened(path) as ledger:

        def heal(done, of):
            if done == 5:  # all but the missing one, which goes into a second job
                batches.fate["question 3"] = ""

        outcomes = annotate_in_batches(teacher, ledger, requests(6), 0.01, heal)
        assert isinstance(outcomes[1], Failure)
        assert "too long" in outcomes[1].reason
        assert [o.finish for o in outcomes if isinstance(o, TeacherReply)] == [
            *("stop", "refused", "stop", "length", "stop")
        ]
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (5, 1)
    assert len(batches.jobs) == 2
    assert len(vendor.bills) == 6
    assert vendor.billed()["question 3"] == 2


def test_a_row_that_is_no_answer_is_unknown_and_hides_no_other(teacher, vendor, batches, path):
    batches.fate = {"question 1": "garbled"}
    with opened(path) as ledger:
        outcomes = annotate_in_batches(teacher, ledger, requests(3), 0.01, attempts=1)
        assert [isinstance(outcome, TeacherReply) for outcome in outcomes] == [True, False, True]
        assert "the response is not a model reply" in outcomes[1].reason
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (2, 1)
        assert ledger.open_jobs() == []


def test_a_line_cut_in_two_is_unknown_and_hides_no_other(vendor, batches, path, monkeypatch):
    whole = batches._file
    teacher = vendors.make("openai", vendor.url)
    cut = lambda content: content[: -9 if content.startswith(b'{"id"') else None]  # noqa: E731
    monkeypatch.setattr(batches, "_file", lambda content: whole(cut(content)))
    with opened(path) as ledger:
        annotate_in_batches(teacher, ledger, requests(3), 0.01, attempts=1)
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (2, 1)


@pytest.mark.parametrize("end", ["EXPIRED", "CANCELLED"])
def test_a_row_that_is_no_answer_is_unknown_in_a_job_that_expired_too(
    teacher, kind, vendor, batches, path, end
):
    """It was delivered, so it may be billed; what has no row is not."""
    batches.fate = {"question 0": "expired", "question 1": "garbled", "question 3": "error"}
    batches.expired_as = end
    with opened(path) as ledger:
        outcomes = annotate_in_batches(teacher, ledger, requests(4), 0.01, attempts=1)
        assert [isinstance(outcome, TeacherReply) for outcome in outcomes] == [
            False,
            False,
            True,
            False,
        ]
        word = "expired" if kind == "openai" else end.lower()
        assert [word in o.reason for o in outcomes if isinstance(o, Failure)] == [
            *(True, False, False)
        ]
        assert "whether it is billed is unknown" in outcomes[1].reason
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (1, 1)
        assert ledger.spend("reserved").queries == 0
    assert len(vendor.bills) == 2


def test_a_row_without_a_name_may_be_that_of_any_request_of_an_expired_job(
    vendor, batches, path, monkeypatch
):
    whole = batches._file
    cut = lambda content: content[:20] + b"\n" + content.partition(b"\n")[2]  # noqa: E731
    monkeypatch.setattr(
        batches, "_file", lambda content: whole(cut(content) if b"choices" in content else content)
    )
    batches.fate = {"question 0": "expired"}
    with opened(path) as ledger:
        teacher = vendors.make("openai", vendor.url)
        outcomes = annotate_in_batches(teacher, ledger, requests(3), 0.01, attempts=1)
        # The first of two answers is cut in the middle of its name.
        assert [isinstance(outcome, TeacherReply) for outcome in outcomes] == [False, False, True]
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (1, 1)


def test_answers_without_keys_are_not_given_to_others(vendor, batches, path):
    """Gemini's come in the order of the job; of one that is half collected that says nothing."""
    teacher = vendors.make("google-genai", vendor.url)
    with opened(path) as ledger:
        submit_alone(teacher, ledger, requests(3))
        ledger.settle(ask(0), TeacherReply("collected before", 10, 20))
        batches.nameless = True
        collect_left_open(teacher, ledger, 0.01)
        assert ledger.reserve(ask(0), 100) == TeacherReply("collected before", 10, 20)
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (1, 2)
    with opened(path.with_name("whole.sqlite")) as ledger:
        replies = annotate_in_batches(teacher, ledger, requests(3), 0.01)
        assert [f"'question {n}'" in reply.text for n, reply in enumerate(replies)] == [True] * 3


def test_what_expired_goes_into_another_job(teacher, vendor, batches, path):
    batches.fate = {"question 0": "expired", "question 2": "expired"}
    with opened(path) as ledger:

        def heal(done, of):
            if done == 1:
                batches.fate = {}

        outcomes = annotate_in_batches(teacher, ledger, requests(3), 0.01, heal)
        assert all(isinstance(outcome, TeacherReply) for outcome in outcomes)
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (3, 0)
    assert len(vendor.bills) == 3


def test_what_keeps_expiring_is_listed(teacher, batches, path):
    batches.fate = {"question 0": "expired"}
    with opened(path) as ledger:
        (outcome,) = annotate_in_batches(teacher, ledger, requests(1), 0.01, attempts=3)
        assert "expired" in outcome.reason
        assert ledger.spend("reserved").queries == ledger.spend("unknown").queries == 0
    assert len(batches.jobs) == 3


def test_a_job_that_is_refused_costs_nothing_and_says_why(teacher, kind, batches, path):
    batches.refuse = "no such model"
    reason = "no such model" if kind == "openai" else "refused batch job batches/job-0"
    with opened(path) as ledger:
        with pytest.raises(UserError, match=reason):
            annotate_in_batches(teacher, ledger, requests(3), 0.01)
        assert ledger.spend("reserved").queries == ledger.spend("unknown").queries == 0
        assert ledger.open_jobs() == []


def test_a_submission_whose_answer_is_lost_is_found_by_its_name(teacher, vendor, batches, path):
    batches.lose = ["/v1/batches", ":batchGenerateContent"]
    with opened(path) as ledger, pytest.raises(UserError, match="same command again"):
        annotate_in_batches(teacher, ledger, requests(3), 0.01)
    with opened(path) as ledger:
        batches.lose = []
        assert ledger.spend("reserved").queries == 3
        assert len(annotate_in_batches(teacher, ledger, requests(3), 0.01)) == 3
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (3, 0)
    assert (len(batches.jobs), len(vendor.bills)) == (1, 3)


@pytest.mark.parametrize("moment", ["finding", "watching", "collecting"])
def test_a_key_revoked_meanwhile_leaves_the_job_on_the_ledger(
    kind, vendor, batches, path, moment, monkeypatch
):
    teacher, good = vendors.make(kind, vendor.url), vendor.key
    batches.looks = 1
    before = {"finding": "submit", "watching": "submit", "collecting": "state"}[moment]
    call = getattr(teacher, before)

    def revoke(*what):
        said = call(*what)
        vendor.key = "another"
        if moment == "finding":  # The job was made, and the vendor says "try again".
            raise TeacherError("overloaded", "transient")
        return said

    monkeypatch.setattr(teacher, before, revoke)
    with opened(path) as ledger:
        with pytest.raises(UserError, match=r"accepts.* stays on the ledger: .*collect it"):
            annotate_in_batches(teacher, ledger, requests(3), 0.01)
        assert (ledger.spend("reserved").queries, len(ledger.open_jobs())) == (3, 1)
    vendor.key = good
    with opened(path) as ledger:
        assert (
            len(annotate_in_batches(vendors.make(kind, vendor.url), ledger, requests(3), 0.01)) == 3
        )
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (3, 0)
    assert (len(batches.jobs), len(vendor.bills)) == (1, 3)


def test_a_submission_with_a_wrong_key_leaves_nothing(teacher, vendor, batches, path):
    vendor.key = "another"
    with opened(path) as ledger:
        with pytest.raises(UserError, match="accepts"):
            annotate_in_batches(teacher, ledger, requests(3), 0.01)
        assert (ledger.spend("reserved").queries, ledger.open_jobs()) == (0, [])
    assert batches.jobs == {}


def test_one_that_was_never_submitted_is_forgotten(teacher, vendor, batches, path):
    with opened(path) as ledger:
        for request in requests(3):
            ledger.reserve(request, 100, batch=True)
        ledger.begin_job("bridge-x", teacher.vendor, [r.key for r in requests(3)])
    with opened(path) as ledger:
        assert len(annotate_in_batches(teacher, ledger, requests(3), 0.01)) == 3
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (3, 0)
    assert (len(batches.jobs), len(vendor.bills)) == (1, 3)


@pytest.mark.parametrize("moment", ["submitting", "submitted", "watching", "collecting"])
def test_killed_on_the_way_the_next_start_collects_the_same_job(
    kind, vendor, batches, path, moment
):
    vendors.make(kind, vendor.url).check()  # the SDK is imported by the parent
    batches.looks = 4
    child = os.fork()
    if child == 0:
        die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        teacher = vendors.make(kind, vendor.url)
        with opened(path) as ledger:
            if moment == "submitting":
                submit = teacher.submit
                teacher.submit = lambda *what: (submit(*what), die())  # type: ignore
            elif moment == "submitted":
                teacher.state = die  # type: ignore
            elif moment == "watching":
                teacher.results = die  # type: ignore
            else:
                settle, settled = ledger.settle, []
                ledger.settle = lambda *what: (  # type: ignore
                    die() if len(settled) == 2 else (settled.append(1), settle(*what))
                )
            annotate_in_batches(teacher, ledger, requests(5), 0.01)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    with opened(path) as ledger:
        assert ledger.spend().queries == (2 if moment == "collecting" else 0)
        assert ledger.spend().queries + ledger.spend("reserved").queries == 5
        replies = annotate_in_batches(vendors.make(kind, vendor.url), ledger, requests(5), 0.01)
        assert all(isinstance(reply, TeacherReply) for reply in replies)
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (5, 0)
        assert ledger.spend().usd == pytest.approx(cost(vendor.bills), abs=1e-12)
    assert (len(batches.jobs), len(vendor.bills)) == (1, 5)


def test_a_changed_config_still_collects_what_was_paid(teacher, vendor, batches, path):
    batches.looks = 10**9
    with opened(path) as ledger:

        def interrupt(done, of):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            annotate_in_batches(teacher, ledger, requests(3), 0.01, interrupt)
    with opened(path) as ledger:
        # Nothing was submitted: the interrupt came before.
        assert ledger.spend("reserved").queries == 0
    with opened(path) as ledger:
        submit_alone(teacher, ledger, requests(3))
    batches.looks = 1
    with opened(path) as ledger:
        (other,) = annotate_in_batches(teacher, ledger, [ask(7)], 0.01)
        assert isinstance(other, TeacherReply)
        assert (ledger.spend().queries, ledger.spend("unknown").queries) == (4, 0)
        assert len(annotate_in_batches(teacher, ledger, requests(3), 0.01)) == 3
    assert len(vendor.bills) == 4


def test_the_cap_holds_and_what_fits_is_collected(teacher, vendor, batches, path):
    with opened(path, queries=4) as ledger:
        with pytest.raises(BudgetExceeded, match=r"budget\.queries=4.*same command"):
            annotate_in_batches(teacher, ledger, requests(6), 0.01)
        assert ledger.spend().queries == 4
        outcomes = annotate_in_batches(teacher, ledger, requests(6), 0.01, optional=True)
        assert [isinstance(outcome, TeacherReply) for outcome in outcomes] == [True] * 4 + [
            False
        ] * 2
        assert "not asked" in outcomes[5].reason
    assert len(vendor.bills) == 4


def test_large_jobs_are_split(teacher, vendor, batches, path, monkeypatch):
    monkeypatch.setattr(batch, "REQUESTS_PER_JOB", 4)
    with opened(path) as ledger:
        assert len(annotate_in_batches(teacher, ledger, requests(10), 0.01)) == 10
    assert [len(job.requests) for job in batches.jobs.values()] == [4, 4, 2]
    monkeypatch.setattr(batch, "REQUESTS_PER_JOB", 100)
    monkeypatch.setattr(batch, "BYTES_PER_JOB", 400)
    batches.jobs.clear()
    with opened(path.with_name("other.sqlite")) as ledger:
        annotate_in_batches(teacher, ledger, requests(10), 0.01)
    parts = [list(job.requests) for job in batches.jobs.values()]
    size = len(ask(0).to_json())  # each of them
    assert [key for part in parts for key in part] == [r.key for r in requests(10)]
    assert all(len(part) * size < 400 + size for part in parts)
    assert len(parts) == 1 + 10 * size // 400


def test_a_vendor_that_is_away_for_a_while_is_waited_for(teacher, vendor, batches, path):
    batches.lose = ["job-0"] * 3
    with opened(path) as ledger:
        assert len(annotate_in_batches(teacher, ledger, requests(2), 0.01)) == 2
    assert batches.lose == []
    assert len(vendor.bills) == 2


def test_another_vendors_job_stays_open(vendor, batches, path):
    with opened(path) as ledger:
        gemini = vendors.make("google-genai", vendor.url)
        submit_alone(gemini, ledger, requests(2))
    with opened(path) as ledger:
        openai = vendors.make("openai", vendor.url)
        annotate_in_batches(openai, ledger, [ask(5)], 0.01)
        assert [job.vendor for job in ledger.open_jobs()] == [gemini.vendor]
