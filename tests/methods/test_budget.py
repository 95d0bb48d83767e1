"""A budget that cannot pay for the teacher is found before anything is trained."""

import dataclasses
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_vendor import KEY
from rich.console import Console

from bridge_jax.config import (
    BudgetConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    SelectionConfig,
    TeacherConfig,
)
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger.accounts import open_ledger
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.methods import teacher
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.teacher import Asking
from bridge_jax.pipeline.execution import Execution
from bridge_jax.runs import Run
from tests.methods import one_stage

EXAMPLES = [Example(f"e{n}", "x" * (10 * n) + "?", "7", "numeric") for n in range(8)]
# Replies of 100 tokens at 10 dollars per 10^6 are 0.001 dollars; the input costs little.
API = TeacherConfig(
    kind="openai", model="big-1", max_output_tokens=100, usd_per_million_input=0.001
)
INPUT = 2e-6  # More than any of these prompts costs.


class Asked(NamedTuple):
    """A run that will ask about `size` of a pool."""

    workdir: Path
    params: Asking
    size: int
    pool: list[Example]

    def check(self):
        plan = teacher.PlannedRequests(self.params, self.size, self.pool)
        return teacher.check_budget([plan], count, self.workdir)


def count(text):
    return len(text.split())


def run_of(workdir, usd=1.0, queries=100, size=4, ledger="", pool=EXAMPLES, **settings):
    config = RunConfig(
        budget=BudgetConfig(queries, usd, str(ledger)),
        selection=SelectionConfig(size=size),
        teacher=dataclasses.replace(API, **settings),
    )
    return Asked(workdir, teacher.asking(config), teacher.selected_count(config), pool)


def pay(run, *numbers, output_tokens=50):
    with open_ledger(run.workdir, run.params.budget, teacher.prices_of(API), False) as ledger:
        for number in numbers:
            request = teacher.make_request(run.params, EXAMPLES[number])
            ledger.reserve(request, 100)
            ledger.settle(request, TeacherReply("so", 100, output_tokens))


def test_what_cannot_pay_for_one_request_is_an_error(tmp_path):
    message = (
        r"budget\.usd=0\.0001 cannot pay for one request to the teacher: the cheapest, about "
        r"example 'e0', may cost up to 0\.00100\d US dollars with a reply of "
        r"teacher\.max_output_tokens=100; raise budget\.usd, or lower teacher\.max_output_tokens"
    )
    with pytest.raises(UserError, match=message):
        run_of(tmp_path, usd=0.0001).check()
    assert run_of(tmp_path, usd=0.0001, max_output_tokens=5, size=1).check() == ""
    assert not list(tmp_path.iterdir())  # no ledger is made for it


@pytest.mark.parametrize(
    ("usd", "covered"), [(0.001 + INPUT, 1), (3 * (0.001 + INPUT), 3), (4 * (0.001 + INPUT), None)]
)
def test_what_may_not_pay_for_all_is_a_note(tmp_path, usd, covered):
    note = run_of(tmp_path, usd=usd).check()
    if covered is None:
        assert note == ""
    else:
        assert f"guarantees only {covered} of 4 requests to the teacher" in note
        assert "one may cost up to 0.00100" in note


def test_half_of_it_will_do_in_batch_mode(tmp_path):
    usd = 0.0005 + INPUT
    with pytest.raises(UserError, match="cannot pay for one request"):
        run_of(tmp_path, usd=usd).check()
    assert run_of(tmp_path, usd=usd, size=1, batch=True).check() == ""


def test_every_sample_of_an_example_is_a_request(tmp_path):
    usd = 4 * (0.001 + INPUT)
    assert run_of(tmp_path, usd=usd, samples=1).check() == ""
    assert "guarantees only 4 of 8 requests" in run_of(tmp_path, usd=usd, samples=2).check()


def test_a_program_as_teacher_is_paid_from_the_same_caps(tmp_path):
    pool = [dataclasses.replace(e, rationales={"terse": "so"}) for e in EXAMPLES]
    settings = {"kind": "oracle", "model": "oracle", "pool": pool}
    with pytest.raises(UserError, match=r"may cost up to 0\.001000 US dollars"):
        run_of(tmp_path, usd=0.0005, **settings).check()
    assert run_of(tmp_path, usd=0.01, **settings).check() == ""


def test_a_run_whose_money_is_spent_on_what_it_asks_goes_on(tmp_path):
    usd = 4 * (0.001 + INPUT)
    pay(run_of(tmp_path, usd), 0, 1, 2, 3)  # 0.0005 each
    spent = run_of(tmp_path, 0.002)
    note = spent.check()
    assert "budget.usd=0.002 (0.002000 of it already spent) guarantees only 0 of 4" in note
    pay(run_of(tmp_path), 4, 5, 6, 7)
    assert run_of(tmp_path, 0.002).check() == ""  # all of the pool is answered


def test_what_is_spent_on_other_prompts_is_missing(tmp_path):
    pay(run_of(tmp_path), 0, 1, 2, 3)
    others = [Example(f"o{n}", f"another {n}?", "7", "numeric") for n in range(8)]
    message = r"budget\.usd=0\.0025 \(0\.002000 of it already spent\) cannot pay for one request"
    with pytest.raises(UserError, match=message):
        run_of(tmp_path, 0.0025, pool=others).check()
    assert run_of(tmp_path, 0.0081, pool=others).check() == ""
    with pytest.raises(UserError, match=r"budget\.queries=4 is used up by other requests"):
        run_of(tmp_path, queries=4, pool=others).check()
    note = run_of(tmp_path, queries=6, pool=others).check()
    assert note.startswith("budget.queries=6 leaves room for 2 of up to 4 requests")


def test_what_other_runs_paid_is_free_and_counts_nothing(tmp_path):
    shared = tmp_path / "shared.sqlite"
    pay(run_of(tmp_path / "a", ledger=shared), 0, 1, 2, 3, 4)
    usd = 3 * (0.001 + INPUT)
    new = run_of(tmp_path / "b", usd, ledger=shared)
    assert new.check() == ""  # at most three of the pool are not answered
    pay(new, 5)
    assert "0.000500 of it already spent" in run_of(new.workdir, 0.001, ledger=shared).check()
    # An account that is not there is found in the ledger by the workdir.
    (new.workdir / "account.json").unlink()
    assert "0.000500 of it already spent" in run_of(new.workdir, 0.001, ledger=shared).check()
    pay(run_of(new.workdir, ledger=shared), 6)
    with pytest.raises(UserError, match=r"has already paid from "):
        run_of(new.workdir).check()
    shared.unlink()
    with pytest.raises(UserError, match=r"has already paid from "):
        run_of(new.workdir, ledger=shared).check()


def test_a_vendor_that_billed_more_than_was_reserved_is_expected_to_do_so_again(tmp_path):
    pay(run_of(tmp_path), 0, output_tokens=2000)
    others = EXAMPLES[1:]
    with pytest.raises(UserError, match=r"up to 0\.02.* big-1 has billed up to 20\.00 times"):
        run_of(tmp_path, 0.03, pool=others).check()


def test_a_ledger_without_its_log_is_found_at_the_start(tmp_path):
    run = run_of(tmp_path / "a")
    with open_ledger(run.workdir, run.params.budget, teacher.prices_of(API), False):
        (tmp_path / "b").mkdir()
        shutil.copy(tmp_path / "a" / "ledger.sqlite", tmp_path / "b")
    with pytest.raises(UserError, match=r"copied without ledger\.sqlite-wal"):
        run_of(tmp_path / "b").check()


@pytest.mark.parametrize("kind", ["oracle", "openai"])
def test_a_run_stops_before_its_warm_up_unless_the_teacher_has_answered(
    kind, checkpoint, tmp_path, monkeypatch
):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model = ModelConfig(str(checkpoint))
    config = RunConfig(
        data=DataConfig(pool=8, dev=1, test=1, max_steps=1),
        budget=BudgetConfig(queries=4, usd=0.0001),
        teacher=TeacherConfig(kind=kind, model={"oracle": "oracle", "openai": "big-1"}[kind]),
        assistant=model,
        student=model,
    )

    def start():
        job = Run(config, tmp_path)
        job.check()
        return job.run(Console(quiet=True))

    with pytest.raises(UserError, match=r"budget\.usd=0\.0001 cannot pay for one request"):
        start()
    assert not [path for path in tmp_path.iterdir() if path.name not in (".lock", "cache")]
    # Annotations that are done are paid: what stops the run now is the first stage.
    one_stage.pretend(Run(config, tmp_path), ANNOTATIONS)
    monkeypatch.setattr(Execution, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start()
