"""The requests of a run to an API teacher, and the replies that it keeps; the vendor is local."""

import dataclasses
from collections import Counter

import pytest
import tenacity
from fake_batches import FakeBatches
from fake_vendor import KEY, FakeVendor, prompt_of
from rich.console import Console

from bridge_jax.config import BudgetConfig, DataConfig, ModelConfig, RunConfig, TeacherConfig
from bridge_jax.errors import UserError
from bridge_jax.ledger.ledger import Ledger
from bridge_jax.methods import teacher
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.pipeline.execution import Execution
from bridge_jax.runs import Run
from bridge_jax.teachers import annotate as annotate_module
from bridge_jax.teachers.openai_teacher import OpenAITeacher
from bridge_jax.teachers.replies import annotation
from tests.methods import one_stage


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture
def vendor():
    with FakeVendor() as vendor:
        yield vendor


@pytest.fixture
def make_run(checkpoint, tmp_path, vendor):
    def make(workdir="run", ledger="", **settings):
        teacher = {
            "kind": "openai",
            "model": "big-1",
            "base_url": f"{vendor.url}/v1",
            "timeout": 5,
            "batch_poll_seconds": 0.01,
        }
        config = RunConfig(
            data=DataConfig(pool=8, dev=1, test=1, max_steps=1),
            budget=BudgetConfig(queries=20, usd=1.0, ledger=str(ledger)),
            teacher=TeacherConfig(**teacher | settings),
            student=ModelConfig(str(checkpoint)),
        )
        config = dataclasses.replace(
            config, selection=dataclasses.replace(config.selection, size=4)
        )
        job = Run(config, tmp_path / workdir)
        gold = {e.question: e.answer for e in job.inputs.pool}
        vendor.answer = lambda prompt: gold.get(prompt, "-1")
        return job, job.inputs.pool[:4]

    return make


def params_of(job):
    return one_stage.stage_of(job, ANNOTATIONS).params


def ask(job, examples):
    """Asks about the examples; returns the outcomes and the bill."""
    return teacher.ask(params_of(job), examples, job.inputs.count, job.workdir)


def rows(job, examples, outcomes):
    rules = teacher.rules_of(job.config.teacher, job.inputs.count)
    return [annotation(e, o, rules) for e, o in zip(examples, outcomes)]


def test_samples_and_retries_are_requests_of_their_own(vendor, make_run):
    run, examples = make_run(samples=2, retries=2, min_agreement=0.5)
    right = vendor.answer
    asked = Counter()

    def answer(prompt):
        # The first example is answered wrongly three times, the second once.
        asked[prompt] += 1
        wrong = {examples[0].question: 3, examples[1].question: 1}
        return "-1" if asked[prompt] <= wrong.get(prompt, 0) else right(prompt)

    vendor.answer = answer
    outcomes, spend = ask(run, examples)
    assert [len(outcome) for outcome in outcomes] == [4, 2, 2, 2]
    assert spend["queries"] == len(vendor.bills) == 10
    kept = rows(run, examples, outcomes)
    assert [row["kept"] for row in kept] == [False, True, True, True]
    assert [row["agreement"] for row in kept] == [0.0, 0.5, 1.0, 1.0]
    assert "0 of 2 samples" in kept[0]["reason"]
    # The same again is free.
    assert ask(run, examples)[0] == outcomes
    assert len(vendor.bills) == 10


def test_retries_end_with_the_budget_and_the_run_goes_on(vendor, make_run):
    run, examples = make_run(retries=9)
    vendor.answer = lambda prompt: "-1"
    outcomes, spend = ask(run, examples)
    assert spend["queries"] == len(vendor.bills) == 20
    said = rows(run, examples, outcomes)
    assert not any(row["kept"] for row in said)
    assert all("budget.queries=20 is reached" in row["reason"] for row in said)


def test_the_batch_mode_of_a_run_costs_half(vendor, make_run):
    batches = FakeBatches(vendor)
    run, examples = make_run(batch=True, samples=2)
    outcomes, spend = ask(run, examples)
    assert all(row["kept"] for row in rows(run, examples, outcomes))
    tokens = [(bill.input_tokens, bill.output_tokens) for bill in vendor.bills]
    full = sum(1.25e-6 * i + 10e-6 * o for i, o in tokens)
    assert spend["usd"] == pytest.approx(full / 2, abs=1e-8)
    assert (len(batches.jobs), len(vendor.bills)) == (1, 8)
    # Asked one by one, they are on the ledger already.
    single, _ = make_run(samples=2)
    assert ask(single, examples)[0] == outcomes
    assert len(vendor.bills) == 8


def test_a_job_left_open_is_collected_although_the_batch_mode_is_off_now(
    vendor, make_run, monkeypatch
):
    def die(*_):
        raise KeyboardInterrupt

    batches = FakeBatches(vendor)
    run, examples = make_run(batch=True)
    with monkeypatch.context() as patch:
        patch.setattr(OpenAITeacher, "state", die)
        with pytest.raises(KeyboardInterrupt):
            ask(run, examples)
    single, _ = make_run()
    outcomes, spend = ask(single, examples)
    assert all(row["kept"] for row in rows(single, examples, outcomes))
    assert spend["queries"] == len(vendor.bills) == 4
    assert len(batches.jobs) == 1
    assert all(bill.batch for bill in vendor.bills)


def test_an_unreachable_teacher_is_no_success(vendor, make_run, capsys, monkeypatch):
    monkeypatch.setattr(annotate_module, "BACKOFF", tenacity.wait_none())
    run, examples = make_run(attempts=2)
    vendor.stop_listening()
    message = (
        r"teacher openai/big-1: no request was answered: 4 failed; the most common reason \(4x\): "
        r"given up after 2 attempts: openai/big-1 cannot be reached: ConnectionRefusedError"
    )
    with pytest.raises(UserError, match=message):
        ask(run, examples)
    said = capsys.readouterr().err
    assert "teacher 4/4 requests in" in said
    assert said.rstrip().endswith("answered=0 failed=4")
    assert "answers" not in said


def test_what_is_refused_is_counted_and_said_and_the_others_are_kept(
    vendor, make_run, capsys, caplog
):
    run, examples = make_run()
    bad = examples[1].question
    refusal = {"error": {"message": f"the word in Bearer {KEY} is too long"}}
    vendor.refuse = lambda request: refusal if prompt_of(request) == bad else None
    outcomes, spend = ask(run, examples)
    kept = rows(run, examples, outcomes)
    assert [row["kept"] for row in kept] == [True, False, True, True]
    assert spend["queries"] == len(vendor.bills) == 3
    reason = "openai/big-1 answers HTTP 400: the word in Bearer [OPENAI_API_KEY] is too long"
    assert kept[1]["reason"] == reason
    assert "answered=3 refused=1" in capsys.readouterr().err
    said = f"teacher openai/big-1: 3 answered, 1 refused; the most common reason (1x): {reason}"
    assert said in caplog.text


def test_a_batch_job_counts_too(vendor, make_run, capsys):
    batches = FakeBatches(vendor)
    run, examples = make_run(batch=True)
    batches.fate = {examples[0].question: "error"}
    outcomes, _ = ask(run, examples)
    assert outcomes[0][0].kind == "refused"
    assert capsys.readouterr().err.rstrip().endswith("answered=3 refused=1")
    batches.fate = dict.fromkeys([e.question for e in run.inputs.pool], "error")
    with pytest.raises(UserError, match=r"no request was answered: 2 refused; .*too long"):
        ask(run, run.inputs.pool[5:7])


def test_plain_http_may_be_allowed_and_makes_no_other_run(vendor, make_run):
    run, _ = make_run()
    allowed, _ = make_run(allow_http=True)
    assert run.deep == allowed.deep
    settings = dataclasses.replace(run.config.teacher, base_url="http://host.invalid/v1")
    with pytest.raises(UserError, match=r"plain http.*teacher\.allow_http=true"):
        teacher.check_key(settings)
    teacher.check_key(dataclasses.replace(settings, allow_http=True))
    gemini = dataclasses.replace(settings, kind="gemini")
    pytest.importorskip("google.genai")
    with pytest.raises(UserError, match=r"(plain http|needs a key)"):
        teacher.check_key(gemini)


def test_a_shared_ledger_keeps_the_answers_of_two_servers_apart(vendor, make_run, tmp_path):
    shared = tmp_path / "shared.sqlite"
    first, examples = make_run("a", shared)
    ours, _ = ask(first, examples)
    with FakeVendor() as other:
        other.answer = lambda prompt: "5"
        second, _ = make_run("b", shared, base_url=f"{other.url}/v1")
        theirs, spend = ask(second, examples)
        assert len(other.bills) == spend["queries"] == 4
        assert "of_others" not in spend
        assert [said[0].text for said in theirs] != [said[0].text for said in ours]
        assert all('"answer": "5"' in said[0].text for said in theirs)
        # The same server, spelled otherwise, is the same.
        third, _ = make_run("c", shared, base_url=f"{other.url.upper()}/v1/".replace("V1", "v1"))
        again, spend = ask(third, examples)
        assert again == theirs
        assert (spend["queries"], spend["of_others"]["queries"]) == (0, 4)
        assert len(other.bills) == 4
    assert len(vendor.bills) == 4
    # What was recorded is said again under the config of its own server, and under no other.
    for run, said in ((first, ours), (second, theirs)):
        settings = {"base_url": run.config.teacher.base_url, "replay_from": str(shared)}
        assert ask(make_run(f"{run.workdir.name}-again", **settings)[0], examples)[0] == said
    nobody, _ = make_run("d", base_url="http://127.0.0.1:9/v1", replay_from=str(shared))
    with pytest.raises(UserError, match=r"use the config of the recorded run .*127\.0\.0\.1:9/v1"):
        ask(nobody, examples)


def test_a_server_of_the_environment_is_part_of_what_a_stage_reads(make_run, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    run, examples = make_run(base_url="")
    assert params_of(run).server == ""
    key = teacher.make_request(params_of(run), examples[0]).key
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    there, _ = make_run(base_url="")
    assert params_of(there).server == "http://localhost:8000/v1"
    assert teacher.make_request(params_of(there), examples[0]).key != key
    assert ANNOTATIONS.name in one_stage.differing(run, there)
    # It is the same if the config names it.
    named, _ = make_run(base_url="http://localhost:8000/v1")
    assert named.deep == there.deep


def test_a_batch_job_is_not_looked_for_at_another_server(vendor, make_run, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    batches = FakeBatches(vendor)
    run, examples = make_run(batch=True)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_job", die)  # before the vendor's id is known
        with pytest.raises(KeyboardInterrupt):
            ask(run, examples)
    with FakeVendor() as other:
        FakeBatches(other)
        elsewhere, _ = make_run(base_url=f"{other.url}/v1")
        _, spend = ask(elsewhere, examples)
        assert spend["queries"] == len(other.bills) == 4
    outcomes, spend = ask(run, examples)
    assert all(row["kept"] for row in rows(run, examples, outcomes))
    assert (len(batches.jobs), len(vendor.bills), spend["queries"]) == (1, 4, 8)


def test_a_server_that_is_free_says_the_same_as_one_that_has_a_price(make_run):
    free = {"usd_per_million_input": 0.0, "usd_per_million_output": 0.0}
    run, examples = make_run(free=True, **free)
    _, spend = ask(run, examples)
    assert (spend["queries"], spend["usd"]) == (4, 0.0)
    # What it costs is no part of what a stage reads.
    paid, _ = make_run()
    assert run.deep == paid.deep


def test_the_gold_answer_is_shown_on_request(vendor, make_run):
    run, examples = make_run(show_gold=True)
    ask(run, examples[:1])
    (body,) = vendor.bodies
    assert f"The answer is known: {examples[0].answer}." in body["messages"][-1]["content"]


def test_a_missing_key_is_found_first_also_beside_annotations_of_another_config(
    checkpoint, tmp_path, monkeypatch
):
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    model = ModelConfig(str(checkpoint))
    config = RunConfig(
        data=DataConfig(pool=8, dev=1, test=1, max_steps=1),
        budget=BudgetConfig(queries=4, usd=1.0),
        teacher=TeacherConfig(kind="gemini", model="big-1"),
        assistant=model,
        student=model,
    )
    job = Run(config, tmp_path)
    job.check()
    one_stage.pretend(job, ANNOTATIONS, key="that of another config")
    with pytest.raises(UserError, match="needs a key: set the environment variable GEMINI_API_KEY"):
        job.run(Console(quiet=True))
    assert not (tmp_path / "stages/apprenticeship/warmup").exists()
    one_stage.pretend(job, ANNOTATIONS)
    # These need no key: what stops the run now is the first stage.
    monkeypatch.setattr(Execution, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job.run(Console(quiet=True))
