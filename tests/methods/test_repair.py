"""Damage inside finished annotations is repaired from the ledger, and nobody is asked."""

import dataclasses
import json
import shutil

import pytest
from fake_vendor import KEY, FakeVendor

from bridge_jax.config import BudgetConfig, DataConfig, ModelConfig, RunConfig, TeacherConfig
from bridge_jax.errors import UserError
from bridge_jax.methods import annotations, teacher
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.runs import Run
from bridge_jax.teachers import prompts as teacher_prompts
from tests.methods import one_stage


@pytest.fixture
def vendor(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeVendor() as vendor:
        yield vendor


@pytest.fixture
def make(checkpoint, tmp_path, vendor):
    """Makes runs of four examples each, and has them annotated."""

    def make(workdir="run", kind="openai", ledger="", script=None, shared=None, **settings):
        api = {"kind": kind, "model": "big-1", "base_url": f"{vendor.url}/v1", "timeout": 5}
        config = RunConfig(
            method="direct",
            data=DataConfig(pool=8, dev=1, test=1, max_steps=1),
            budget=BudgetConfig(queries=20, usd=1.0, ledger=str(ledger)),
            teacher=TeacherConfig(**(api if kind == "openai" else {}) | settings),
            student=ModelConfig(str(checkpoint)),
        )
        selection = dataclasses.replace(config.selection, size=4, strategy="random")
        config = dataclasses.replace(config, selection=selection)
        run = Run(config, tmp_path / workdir, shared, "apprenticeship")
        gold = {e.question: e.answer for e in run.inputs.pool}
        vendor.answer = lambda prompt: gold.get(prompt, "-1")
        if script:
            script(run)
        annotate(run)
        return run

    return make


def annotate(run):
    """Runs the stages of phase 1; returns whether the annotations were done before."""
    *_, outcome = run.execution().run()
    assert outcome.name == ANNOTATIONS.name
    return outcome.cached


def compare(run):
    """Compares annotations with the ledger, whether or not their file has changed."""
    inputs, folder = run.inputs, one_stage.folder_of(run, ANNOTATIONS)
    params = one_stage.stage_of(run, ANNOTATIONS).params
    chosen = one_stage.folder_of(run, SELECTION)
    return annotations.repair(params, folder, set(), inputs.pool, chosen, inputs.count, run.workdir)


def kept_annotations(run):
    """Returns what is learned from of what was paid for."""
    return annotations.kept_annotations(
        one_stage.folder_of(run, ANNOTATIONS), run.inputs.pool, True
    )


def file_of(run, name="annotations.jsonl"):
    return run.workdir / ANNOTATIONS.name / name


def rows_of(run):
    return [json.loads(line) for line in file_of(run).read_text().splitlines()]


def edited(content, number, **change):
    lines = content.splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | change).encode()
    return b"\n".join(lines) + b"\n"


DAMAGE = {
    "cut in its last row": lambda c: c[:-20],
    "cut in its last character": lambda c: c[:-1],
    "a lost row": lambda c: b"".join(c.splitlines(keepends=True)[1:]),
    "its last row lost": lambda c: b"".join(c.splitlines(keepends=True)[:-1]),
    "an edited rationale": lambda c: edited(c, 1, rationale="Because I say so."),
    "an edited answer": lambda c: edited(c, 2, answer="-12345"),
    "a row not kept": lambda c: edited(c, 0, kept=False),
    "another question's id": lambda c: edited(c, 0, id="nobody"),
    "a row twice": lambda c: c.splitlines(keepends=True)[0] + c,
    "rows in another order": lambda c: b"".join(reversed(c.splitlines(keepends=True))),
    "empty": lambda c: b"",
    "a list": lambda c: b"[1]\n",
    "not UTF-8": lambda c: c.replace(b'"id"', b'"\xff"', 1),
    "nested too deeply": lambda c: b"[" * 100_000 + b"\n" + c,
    "a blank line": lambda c: c + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_written_again_from_the_ledger(make, vendor, monkeypatch, caplog, damage):
    run = make()
    before, paid = file_of(run).read_bytes(), kept_annotations(run)
    assert len(paid) == 4
    file_of(run).write_bytes(damage(before))
    # Nobody could be asked: there is no key, and no server.
    monkeypatch.delenv("OPENAI_API_KEY")
    vendor.stop_listening()
    caplog.clear()
    again = Run(run.config, run.workdir, phase="apprenticeship")
    assert annotate(again)
    assert file_of(run).read_bytes() == before
    assert kept_annotations(again) == paid
    (message,) = caplog.messages
    assert "annotations.jsonl: " in message and "the teacher is not asked again" in message
    caplog.clear()
    assert annotate(again) and caplog.messages == []
    assert len(vendor.bills) == 4


def test_a_file_that_is_gone_is_written_again_too(make, vendor, caplog):
    run = make()
    before = file_of(run).read_bytes()
    file_of(run).unlink()
    assert annotate(run)
    assert file_of(run).read_bytes() == before
    assert "4 of 4 rows do not match the teacher's replies" in caplog.messages[-1]
    assert len(vendor.bills) == 4


def test_the_message_names_the_rows(make, caplog):
    run = make()
    wrong = rows_of(run)[2]["id"]
    file_of(run).write_bytes(edited(file_of(run).read_bytes(), 2, rationale="No."))
    annotate(run)
    assert f"1 of 4 rows do not match the teacher's replies ({wrong!r})" in caplog.messages[-1]


def test_the_bill_is_written_again_too(make):
    run = make()
    bill = json.loads(file_of(run, "spend.json").read_text())
    for damage in ("", "[1]", "{}", json.dumps(bill | {"usd": "much"})):
        file_of(run, "spend.json").write_text(damage)
        assert annotate(run)
        # At which prices it was settled, the ledger does not say.
        assert json.loads(file_of(run, "spend.json").read_text()) == bill | {"prices": {}}


def test_samples_and_retries_are_put_together_as_they_were(make, vendor):
    def wrong_twice(run):
        right, asked = vendor.answer, []

        def answer(prompt):
            asked.append(prompt)
            wrong = prompt == run.inputs.pool[0].question or asked.count(prompt) == 1
            return "-1" if wrong else right(prompt)

        vendor.answer = answer

    run = make(script=wrong_twice, samples=2, retries=1, min_agreement=0.5)
    before, bills = file_of(run).read_bytes(), len(vendor.bills)
    assert {row["asked"] for row in rows_of(run)} <= {2, 3}
    file_of(run).write_bytes(b"")
    assert annotate(run)
    assert file_of(run).read_bytes() == before
    assert len(vendor.bills) == bills


@pytest.fixture
def refused(make, vendor):
    """A run of which the vendor refused one request."""

    def refuse(run):
        for example in run.inputs.pool[:5]:  # At least one of them is selected.
            vendor.script[example.question] = ["400"]

    run = make(script=refuse)
    failures = [row for row in rows_of(run) if "400" in (row["reason"] or "")]
    assert 0 < len(failures) < 4
    return run, failures


def test_what_was_refused_is_not_asked_again(refused, vendor):
    run, failures = refused
    before, calls = file_of(run).read_bytes(), vendor.calls.total()
    number = rows_of(run).index(failures[0])
    # Why it was refused is in the file alone.
    for change in ({"rationale": "It is seven.", "answer": "7", "kept": True}, {"asked": 9}):
        file_of(run).write_bytes(edited(before, number, **change))
        assert annotate(run)
        assert file_of(run).read_bytes() == before
    file_of(run).write_bytes(b"")
    assert annotate(run)
    without = [row | {"reason": None} for row in rows_of(run)]
    assert without == [row | {"reason": None} for row in map(json.loads, before.splitlines())]
    assert rows_of(run)[number]["reason"] == "no reply is on the ledger"
    assert vendor.calls.total() == calls


def test_an_answer_that_came_later_to_another_run_changes_nothing(make, vendor, tmp_path, caplog):
    shared = tmp_path / "shared.sqlite"

    def refuse(run):
        for example in run.inputs.pool[::2]:
            vendor.script[example.question] = ["400"]

    first = make("a", ledger=shared, script=refuse)
    before = file_of(first).read_bytes()
    assert 0 < sum(row["kept"] for row in rows_of(first)) < 4
    second = make("b", ledger=shared)
    assert all(row["kept"] for row in rows_of(second))
    caplog.clear()
    assert annotate(first) and compare(first)
    assert file_of(first).read_bytes() == before and caplog.messages == []


def test_without_the_list_of_replies_what_is_on_the_ledger_counts(refused, vendor):
    run, failures = refused
    before, calls = file_of(run).read_bytes(), vendor.calls.total()
    for damage in ("", "[1]", '{"keys": 3}', '{"keys": [3]}', None):
        path = file_of(run, "answered.json")
        path.write_text(damage) if damage is not None else path.unlink()
        whole = next(n for n, row in enumerate(rows_of(run)) if row not in failures)
        file_of(run).write_bytes(edited(before, whole, rationale="No."))
        assert annotate(run)
        assert file_of(run).read_bytes() == before
    assert vendor.calls.total() == calls


def test_where_requests_have_other_words_now_rows_that_can_be_read_stand(
    make, vendor, monkeypatch, caplog
):
    """A later version may ask in other words; what was paid for is not thrown away."""
    run = make()
    before = file_of(run).read_bytes()
    messages = teacher_prompts.messages

    def in_other_words(*what):
        return tuple(dataclasses.replace(m, content=m.content + " Go.") for m in messages(*what))

    monkeypatch.setattr(teacher_prompts, "messages", in_other_words)
    assert annotate(run) and compare(run)
    assert file_of(run).read_bytes() == before and caplog.messages == []
    file_of(run).write_bytes(before[:-20])
    with pytest.raises(UserError, match=r"the rows of '.*' cannot be read, and .*ledger\.sqlite"):
        annotate(run)
    assert len(vendor.bills) == 4


def test_what_neither_file_nor_ledger_has_is_an_error_where_it_is_paid(make, vendor):
    run = make()
    before, last = file_of(run).read_bytes(), rows_of(run)[-1]["id"]
    ledger = run.workdir / "ledger.sqlite"
    shutil.move(ledger, run.workdir / "away")
    assert annotate(run) and compare(run)  # What can be read stands.
    file_of(run).write_bytes(before[:-20])
    message = rf"the rows of '{last}' cannot be read, and .*ledger\.sqlite does not have them; res"
    with pytest.raises(UserError, match=message):
        annotate(run)
    file_of(run).write_bytes(before)
    file_of(run, "spend.json").write_text("[1]")
    with pytest.raises(UserError, match=r"spend\.json cannot be read"):
        annotate(run)
    # Nothing was thrown away: with the ledger back, all is repaired.
    shutil.move(run.workdir / "away", ledger)
    file_of(run).write_bytes(before[:-20])
    assert annotate(run)
    assert file_of(run).read_bytes() == before
    assert len(vendor.bills) == 4


def test_a_program_as_teacher_is_asked_again_for_nothing(make):
    run = make(kind="oracle")
    before = file_of(run).read_bytes()
    file_of(run).write_bytes(before[:-20])
    assert annotate(run)  # from the ledger
    assert file_of(run).read_bytes() == before
    (run.workdir / "ledger.sqlite").unlink()
    file_of(run).write_bytes(before[:-20])
    assert not annotate(run)
    assert file_of(run).read_bytes() == before


@pytest.mark.parametrize("content", ["[1]", "", '{"ids": 3}', '{"ids": ["nobody"]}'])
def test_a_damaged_selection_is_made_again_and_nobody_is_asked(make, vendor, content):
    run = make()
    path = run.workdir / "apprenticeship/selection/selection.json"
    before = path.read_text()
    path.write_text(content)
    with pytest.raises(UserError, match=r"selection.*damaged; (delete the folder|run the same)"):
        compare(run)
    first, second = run.execution().run()
    assert (first.name, first.cached) == (SELECTION.name, False)
    assert first.why == "selection.json does not match its checksum; reran it"
    assert (second.name, second.cached) == (ANNOTATIONS.name, True)
    assert path.read_text() == before
    assert len(vendor.bills) == 4


def test_a_damaged_manifest_costs_nothing(make, vendor):
    run = make()
    before = file_of(run).read_bytes()
    file_of(run, "manifest.json").write_text("[1]")
    assert not annotate(run)
    assert file_of(run).read_bytes() == before
    assert len(vendor.bills) == 4


def test_stages_that_a_study_shares_are_mended_as_well(make, vendor, tmp_path):
    settings = {"ledger": tmp_path / "study.sqlite", "shared": tmp_path}
    run, other = make("runs/one", **settings), make("runs/two", **settings)
    before = file_of(run).read_bytes()
    assert file_of(other).samefile(file_of(run))
    # A further run whose annotations the first one has made has no account of its own yet.
    assert not (other.workdir / "account.json").exists()
    for each in (run, other):
        file_of(each).write_bytes(before[:-20])
        assert each.execution().is_done(careful=True)
        assert file_of(each).read_bytes() == before
    assert not (other.workdir / "account.json").exists()
    assert teacher.is_paid(run.config.teacher) and len(vendor.bills) == 4
