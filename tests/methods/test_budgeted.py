"""Reasoning at stated budgets: what is taught, at which cost, and how it is tested."""

import json
from io import StringIO

import pytest
from rich.console import Console

from bridge_jax import methods
from bridge_jax.config.io import override
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.ledger.requests import Reply
from bridge_jax.methods import bridge, budgeted, evaluation, shortening
from bridge_jax.methods import teacher as asks
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.budgeted import BUDGETED, OF_CONTROL, TESTED
from bridge_jax.methods.checks import validate
from bridge_jax.methods.sft_targets import SFTTargets
from bridge_jax.methods.shortening import ASKED, CHAINS, WRITTEN, LongReasoning, Shortening
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from bridge_jax.text.prompts import with_budget
from configs import budgets
from tests.launch import tiny_run
from tests.methods import one_stage

SETTINGS = (
    "method=budgeted",
    "data.domains=samples",
    "data.min_steps=3",
    "data.max_steps=3",
    "data.pool=6",
    "data.test=4",
    "data.rationale=long",
    "selection.size=3",
    "selection.strategy=random",
    "selection.noise_fraction=0",
    "budget.queries=40",
    "budget.usd=1",
    "instruct.examples=0",
    "thinking.levels=6,64",
    "generation.max_new_tokens=64",
    "thinking.answer_tokens=4",
    "thinking.train.row_tokens=384",
    "thinking.train.epochs=1",
    "thinking.train.batch_rows=2",
    "direct_training.epochs=1",
    "direct_training.row_tokens=384",
)
EXAMPLE = Example("a", "2 + 2?", "4", "numeric")
LONG = LongReasoning(EXAMPLE, " ".join(["two"] * 40), "4")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tiny_run.write_config(tmp_path_factory.mktemp("budgeted"))
    return lambda *assignments: tiny_run.settings(path, *SETTINGS, *assignments)


def count(text):
    return len(text.split())


def limits(*levels, tries=3):
    return Shortening(SFTTargets("chain", True), levels, 0.5, 1.0, tries)


class Shorter:
    """Rewrites to as many words as it is asked for, the first time to twice as many."""

    name = "shorter"

    def __init__(self, answer="4"):
        self.asked, self._answer = [], answer

    def estimate_input_tokens(self, request):
        return 40

    async def ask(self, request):
        self.asked.append(request)
        words = int(request.messages[0].content.split("at most ")[1].split()[0])
        text = " ".join(["two"] * words * (2 if request.sample == 0 else 1))
        return Reply(f"{text}\nAnswer: {self._answer}", 40, words)

    async def aclose(self):
        pass


def paying(how, **teacher):
    config = override(budgets.get_config(), ("teacher.kind=openai", "teacher.model=gpt-x"))
    asking = asks.asking(config)
    given = {name: getattr(asking, name) for name in ("teacher", "server", "variant", "budget")}
    return shortening.Paying(**given, how=how)


def paid_rows(tmp_path, monkeypatch, how, teacher, long=LONG):
    monkeypatch.setattr(shortening.paid, "make_teacher", lambda *_: teacher)
    monkeypatch.setattr(shortening, "long_reasoning", lambda *_: [long])
    out = shortening.Folder(tmp_path, ASKED)
    pool = shortening.Examples([long.example], "")
    shortening.pay(paying(how), out, pool, count, tmp_path)
    return out.rows(CHAINS)


def test_reasoning_is_asked_for_again_until_it_is_within_its_budget(tmp_path, monkeypatch):
    teacher = Shorter()
    rows = paid_rows(tmp_path, monkeypatch, limits(8, 16), teacher)
    assert [(r["budget"], r["tokens"], r["asked"], r["kept"]) for r in rows] == [
        (8, 8, 2, True),
        (16, 16, 2, True),
    ]
    # The same question at both budgets; each request is on the ledger under its own name.
    assert {request.example_id for request in teacher.asked} == {"a@8", "a@16"}
    spend = json.loads((tmp_path / "spend.json").read_text())
    assert spend["queries"] == 4 and spend["usd"] > 0


def test_what_stays_out_of_its_limits_is_dropped_and_counted(tmp_path, monkeypatch):
    (row,) = paid_rows(tmp_path, monkeypatch, limits(8, tries=1), Shorter())
    assert (row["kept"], row["asked"], row["tokens"]) == (False, 1, 16)
    assert row["reason"] == "16 tokens, above thinking.most x budget=8"


def test_another_answer_is_dropped(tmp_path, monkeypatch):
    (row,) = paid_rows(tmp_path, monkeypatch, limits(8), Shorter("5"))
    assert (row["kept"], row["asked"]) == (False, 3)
    assert "the answer '5' is not the gold one" in row["reason"]


def test_reasoning_within_the_limits_is_not_paid_for_and_short_one_not_made_longer(
    tmp_path, monkeypatch
):
    teacher = Shorter()
    rows = paid_rows(tmp_path, monkeypatch, limits(8, 40, 79, 81, 200), teacher)
    assert [(r["budget"], r["asked"], r["tokens"]) for r in rows] == [
        (8, 2, 8), (40, 0, 40), (79, 0, 40),
    ]  # fmt: skip
    assert {request.example_id for request in teacher.asked} == {"a@8"}


def test_a_recorded_teacher_takes_the_longest_variant_that_fits(tiny, tmp_path):
    job = Run(tiny(), tmp_path)
    for stage in (SELECTION, ANNOTATIONS, ASKED):
        one_stage.run_alone(job, stage)
    tokens = job.inputs.count
    rows = read_rows(tmp_path / ASKED.name / CHAINS)
    assert len(rows) == 3 * 2 and len({row["id"] for row in rows}) == 3
    for row in rows:
        variants = job.inputs.pool.by_id[row["id"]].rationales.values()
        fitting = [text for text in variants if tokens(text) <= row["budget"]]
        assert row["rationale"] == max(fitting, key=tokens)
        assert row["kept"] is (row["tokens"] >= row["budget"] / 2)
    bill = json.loads((tmp_path / ASKED.name / "spend.json").read_text())
    assert bill["queries"] == 3 + 6  # what was asked before is on it too


def test_the_same_question_is_taught_at_every_budget(tiny, tmp_path, monkeypatch):
    job, seen = Run(tiny("thinking.after=direct"), tmp_path), one_stage.taught(monkeypatch)
    for stage in (SELECTION, ANNOTATIONS, ASKED):
        one_stage.run_alone(job, stage)
    one_stage.run_alone(job, BUDGETED, made=None)
    sequences, decode = seen["at budgets"], job.inputs.model("student").tokenizer.decode
    rows = [row for row in read_rows(tmp_path / ASKED.name / CHAINS) if row["kept"]]
    system = "Reason step by step, then write the answer."
    assert len(sequences) == len(rows) + 3  # and the long reasoning, without a budget
    for row, sequence in zip(rows, sequences):
        assert f"{with_budget(system, row['budget'])}\n" in decode(sequence.prompt)
        assert row["question"] in decode(sequence.prompt)
        assert decode(sequence.rationale) == row["rationale"]
        assert len(sequence.rationale) <= row["budget"]
    assert all("at most" not in decode(sequence.prompt) for sequence in sequences[-3:])


def test_a_run_from_start_to_report(tiny, tmp_path):
    every = ",".join(budgeted.CONTROLS)
    config = tiny("thinking.after=direct", f"thinking.controls={every}", "thinking.samples=2")
    report = Run(config, tmp_path).run(Console(file=StringIO()))
    assert list(report["budgets"]) == list(budgeted.CONTROLS)
    for control, found in report["budgets"].items():
        rows = read_rows(tmp_path / OF_CONTROL[control].name / TESTED)
        assert len(rows) == 2 * 4 * (2 if control == "sampled" else 1)
        assert list(found["levels"]) == ["6", "64"]
        if control != "stated":
            shares = {6: 3, 64: 32} if control == "sampled" else {6: 6, 64: 64}
            leading = 8 if control == "triggered" else 0  # These come with the prompt.
            assert all(row["thinking"] <= shares[row["budget"]] + leading for row in rows)
            assert found["levels"]["6"]["over"] == 0.0
    sampled = report["budgets"]["sampled"]["levels"]["64"]
    rows = read_rows(tmp_path / OF_CONTROL["sampled"].name / TESTED)
    assert sampled["tokens"] == sum(r["tokens"] for r in rows if r["budget"] == 64) / 4
    assert {"student", "student_before"} <= report["accuracy"].keys()
    assert report["chains"]["64"]["written"] == 3
    page = (tmp_path / "report.html").read_text()
    assert "Thinking at a budget" in page and "Before, cut off" in page
    again = StringIO()
    Run(config, tmp_path).run(Console(file=again))
    assert tiny_run.stages_run(again.getvalue()) == []


def test_it_goes_on_after_a_finished_tutoring(tiny):
    after = tiny("thinking.after=direct")
    before = override(after, ("method=direct",))
    theirs = {stage.name: stage for stage in methods.stages(before)}
    ours = {stage.name: stage for stage in methods.stages(after)}
    shared = (SELECTION.name, ANNOTATIONS.name, STUDENT.name)
    assert all(ours[name] == theirs[name] for name in shared)
    assert ours[BUDGETED.name].reads["made"] == STUDENT.name
    names = [stage.name for stage in methods.stages(after, "budgets")]
    assert names[-1] == BUDGETED.name and evaluation.STUDENT.name not in names
    full = override(after, ("thinking.after=bridge", "budget.queries=100"))
    reads = {stage.name: stage.reads for stage in methods.stages(full)}
    assert reads[ASKED.name]["judged"] == bridge.rationales.RATIONALES.name


def test_the_assistant_shortens_at_no_cost(tiny, tmp_path):
    config = tiny("thinking.shortened_by=assistant", "thinking.tries=2", "thinking.levels=60,64")
    job = Run(config, tmp_path)
    assert ASKED.name not in {stage.name for stage in job.stages}
    for stage in (SELECTION, ANNOTATIONS, WRITTEN):
        one_stage.run_alone(job, stage)
    rows = read_rows(tmp_path / WRITTEN.name / CHAINS)
    # A random model writes nothing worth keeping: all tries are used up, and counted.
    assert [(row["kept"], row["asked"]) for row in rows] == [(False, 2)] * 6
    with pytest.raises(UserError, match="no reasoning is kept at any budget"):
        one_stage.run_alone(job, BUDGETED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("thinking.levels=64,32",), "from small to large"),
        (("thinking.least=1.0", "thinking.most=1.0"), "is not below thinking.most"),
        (("form=two_pass",), "use chain"),
        (("selection.size=0",), "leaves nothing for shortening it"),
        (("budget.queries=300",), "1,800 in all"),
        (("thinking.repeats=2",), "raise the temperature"),
        (("thinking.controls=sampled", "thinking.samples=32"), "leaves none for each"),
    ],
)
def test_settings_that_cannot_work(changes, message):
    with pytest.raises(UserError, match=message):
        validate(override(budgets.get_config(), changes))


def test_prompts_and_tags_are_checked_before_anything_is_paid(tiny, tmp_path):
    job = Run(tiny("thinking.form=tags"), tmp_path)
    with pytest.raises(UserError, match="has no token <think>"):
        one_stage.check(job)
    job = Run(tiny("thinking.closing=" + "stop now please " * 20), tmp_path)
    with pytest.raises(UserError, match="say it in fewer words"):
        one_stage.check(job)
    job = Run(tiny(), tmp_path)
    pool = job.inputs.rendering("student").prompts(job.inputs.pool, "", "reason")
    job = Run(tiny(f"max_prompt_tokens={pool.lengths.max()}"), tmp_path)
    with pytest.raises(UserError, match="max_prompt_tokens"):
        one_stage.check(job)
