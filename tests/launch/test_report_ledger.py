"""`python -m launch.report --ledger`."""

import json

from bridge_jax.config import BudgetConfig, RunConfig
from bridge_jax.config.io import to_json
from bridge_jax.ledger.accounts import open_ledger
from bridge_jax.ledger.prices import Prices
from bridge_jax.ledger.requests import Message, TeacherReply, TeacherRequest
from bridge_jax.study import RUNS_FILE
from tests.launch import commands


def report(*flags):
    return commands.run("launch.report", *flags)


def test_it_prints_the_bill_of_a_run_that_shares_a_ledger(tmp_path):
    workdir, bill = tmp_path / "run", tmp_path / "bill.csv"
    workdir.mkdir()
    budget = BudgetConfig(7, 0.5, str(tmp_path / "shared.sqlite"))
    (workdir / "config.json").write_text(json.dumps(to_json(RunConfig(budget=budget))))
    with open_ledger(workdir, budget, Prices(1.0, 10.0), local=False) as ledger:
        for number in range(3):
            request = TeacherRequest(f"e{number}", "gpt", (Message("user", f"{number}?"),), 90)
            ledger.reserve(request, 100)
            if number < 2:
                ledger.settle(request, TeacherReply("yes", 100, 50))
    code, out, err = report(f"--workdir={workdir}", "--ledger", f"--csv={bill}")
    assert code == 0, err
    assert f"Ledger   {tmp_path}/shared.sqlite" in out
    assert "Paid     2 of 7 queries, $0.001200 of $0.50" in out
    assert "Also     1 query without an answer, up to $0.001000" in out
    assert f"3 requests written to {bill}" in out
    assert len(bill.read_text().splitlines()) == 4
    assert not (workdir / "report.json").exists()


def test_of_a_study_it_prints_the_bill_of_all_runs(tmp_path):
    (tmp_path / RUNS_FILE).write_text("{}")
    budget = BudgetConfig(7, 0.5, str(tmp_path / "ledger.sqlite"))
    for number in range(2):
        run = tmp_path / f"run{number}"
        with open_ledger(run, budget, Prices(1.0, 10.0), local=False) as ledger:
            request = TeacherRequest(f"e{number}", "gpt", (Message("user", f"{number}?"),), 90)
            ledger.reserve(request, 100)
            ledger.settle(request, TeacherReply("yes", 100, 50))
    code, out, err = report(f"--workdir={tmp_path}", "--ledger")
    assert code == 0, err
    assert "Paid     2 queries, $0.001200" in out


def test_a_job_that_its_vendor_has_deleted_is_written_off(tmp_path):
    requests = [TeacherRequest(f"e{n}", "gpt", (Message("user", f"{n}?"),), 90) for n in range(2)]
    with open_ledger(tmp_path, BudgetConfig(7, 0.5), Prices(1.0, 10.0), local=False) as ledger:
        for request in requests:
            ledger.reserve(request, 100, batch=True)
        ledger.begin_job("bridge-1", "openai", [request.key for request in requests])
        ledger.record_job("bridge-1", "batch_9")
        ledger.settle(requests[0], TeacherReply("yes", 100, 50))
    code, _, err = report(f"--workdir={tmp_path}", "--write_off=batch_8")
    assert code == 2
    assert "no batch job 'batch_8' is open; the open jobs are: batch_9" in err
    code, out, err = report(f"--workdir={tmp_path}", "--write_off=batch_9")
    assert code == 0, err
    assert "batch_9 is closed: 1 of its requests have no answer" in out
    with open_ledger(tmp_path, BudgetConfig(7, 0.5), Prices(1.0, 10.0), local=False) as ledger:
        assert ledger.open_jobs() == []
        assert ledger.spend("unknown").queries == 1
        assert ledger.reserve(requests[0], 100) == TeacherReply("yes", 100, 50)
        assert ledger.reserve(requests[1], 100) is None
    assert report(f"--workdir={tmp_path}", "--write_off=batch_9")[0] == 2


def test_without_a_ledger_it_says_so(tmp_path):
    code, _, err = report(f"--workdir={tmp_path}", "--ledger")
    assert code == 2
    assert f"error: {tmp_path}/ledger.sqlite: no such ledger" in err
    code, _, err = report(f"--workdir={tmp_path}/none", "--ledger")
    assert code == 2 and "no such folder" in err
