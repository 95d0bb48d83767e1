"""Reasoning at stated budgets: what is taught, at which cost, and how it is tested."""

import dataclasses
import json
from io import StringIO

import pytest
from rich.console import Console

from bridge_jax import methods
from bridge_jax.config import CONTROLS, GenerationConfig
from bridge_jax.config.io import override
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.generation.budgets import Cap, capped
from bridge_jax.generation.engine import Completion
from bridge_jax.ledger.requests import TeacherReply
from bridge_jax.methods import budget_tests, evaluation, shortening
from bridge_jax.methods import teacher as asks
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.budget_tests import OF_CONTROL, TESTED, Asked, BudgetTesting
from bridge_jax.methods.budgeted import BUDGETED
from bridge_jax.methods.checks import validate
from bridge_jax.methods.filtering import RATIONALES, SFTTargets
from bridge_jax.methods.shortening import ASKED, CHAINS, WRITTEN, LongReasoning, Shortening
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline import models
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from bridge_jax.text.prompts import with_budget
from bridge_jax.text.thinking import Thinking
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
    "thinking.levels=8,64",
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
        return TeacherReply(f"{text}\nAnswer: {self._answer}", 40, words)

    async def aclose(self):
        pass


def paying(how):
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
    job = Run(tiny("thinking.levels=4,12,64"), tmp_path)
    for stage in (SELECTION, ANNOTATIONS, ASKED):
        one_stage.run_alone(job, stage)
    tokens = job.inputs.count
    rows = read_rows(tmp_path / ASKED.name / CHAINS)
    assert len(rows) == 3 * 3 and len({row["id"] for row in rows}) == 3
    for row in rows:
        variants = job.inputs.pool.by_id[row["id"]].rationales.values()
        fitting = [text for text in variants if tokens(text) <= row["budget"]]
        assert row["rationale"] == max(fitting or [min(variants, key=tokens)], key=tokens)
        assert row["kept"] is (row["budget"] / 2 <= row["tokens"] <= row["budget"])
    bill = json.loads((tmp_path / ASKED.name / "spend.json").read_text())
    assert bill["queries"] == 3 + 9  # what was asked before is on it too


def test_the_same_question_is_taught_at_every_budget(tiny, tmp_path, monkeypatch):
    job = Run(tiny("thinking.after=direct", "thinking.levels=24,64"), tmp_path)
    seen = one_stage.taught(monkeypatch)
    for stage in (SELECTION, ANNOTATIONS, ASKED):
        one_stage.run_alone(job, stage)
    one_stage.run_alone(job, BUDGETED, made=None)
    sequences, decode = seen["at budgets"], job.inputs.model("student").tokenizer.decode
    rows = [row for row in read_rows(tmp_path / ASKED.name / CHAINS) if row["kept"]]
    system = "Reason step by step, then write the answer."
    assert {row["budget"] for row in rows if row["id"] == rows[-1]["id"]} == {24, 64}
    assert len(sequences) == len(rows) + 3  # and the long reasoning, without a budget
    for row, sequence in zip(rows, sequences):
        assert f"{with_budget(system, row['budget'])}\n" in decode(sequence.prompt)
        assert row["question"] in decode(sequence.prompt)
        assert decode(sequence.rationale) == row["rationale"]
        assert len(sequence.rationale) <= row["budget"]
    assert all("at most" not in decode(sequence.prompt) for sequence in sequences[-3:])


@pytest.mark.slow
def test_a_run_from_start_to_report(tiny, tmp_path):
    every = ",".join(CONTROLS)
    config = tiny(
        "thinking.after=direct",
        f"thinking.controls={every}",
        "thinking.samples=2",
        "thinking.leading=so",
    )
    report = Run(config, tmp_path).run(Console(file=StringIO()))
    assert list(report["budgets"]) == list(CONTROLS)
    for control, found in report["budgets"].items():
        rows = read_rows(tmp_path / OF_CONTROL[control].name / TESTED)
        assert len(rows) == 2 * 4 * (2 if control == "sampled" else 1)
        assert list(found["levels"]) == ["8", "64"]
        if control != "stated":
            shares = {8: 4, 64: 32} if control == "sampled" else {8: 8, 64: 64}
            assert all(row["thinking"] <= shares[row["budget"]] for row in rows)
            assert found["levels"]["8"]["over"] == 0.0
    sampled = report["budgets"]["sampled"]["levels"]["64"]
    rows = read_rows(tmp_path / OF_CONTROL["sampled"].name / TESTED)
    assert sampled["tokens"] == sum(r["tokens"] for r in rows if r["budget"] == 64) / 4
    assert {"student", "student_unbudgeted"} <= report["accuracy"].keys()
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
    assert reads[ASKED.name]["judged"] == RATIONALES.name


def test_the_assistant_shortens_at_no_cost(tiny, tmp_path):
    config = tiny("thinking.shortened_by=assistant", "thinking.tries=2", "thinking.levels=60,64")
    job = Run(config, tmp_path)
    assert ASKED.name not in {stage.name for stage in job.stages}
    for stage in (SELECTION, ANNOTATIONS, WRITTEN):
        one_stage.run_alone(job, stage)
    rows = read_rows(tmp_path / WRITTEN.name / CHAINS)
    # A random model writes nothing worth keeping: all tries are used up, and counted.
    assert [(row["kept"], row["asked"]) for row in rows] == [(False, 2)] * 6
    with pytest.raises(UserError, match="no reasoning was kept at any budget"):
        one_stage.run_alone(job, BUDGETED)


def test_what_the_assistant_writes_is_kept_by_answer_and_length(tiny, tmp_path, monkeypatch):
    config = tiny("thinking.shortened_by=assistant", "thinking.tries=2", "thinking.levels=60,64")
    job = Run(config, tmp_path)
    for stage in (SELECTION, ANNOTATIONS):
        one_stage.run_alone(job, stage)
    tokenizer = job.inputs.model("assistant").tokenizer
    first = read_rows(tmp_path / ANNOTATIONS.name / "annotations.jsonl")[0]

    def reply(words, answer):
        text = " ".join(["a"] * words)
        return tokenizer.encode(f"{text}\nAnswer: {answer}"), tokenizer.end_id

    good, long, wrong = (
        reply(n, a) for n, a in ((45, first["gold"]), (70, first["gold"]), (45, "x"))
    )
    engine = Scripted(good, long, *[wrong] * 4, good, *[wrong] * 4)
    monkeypatch.setattr(models.Model, "engine", lambda *_: engine)
    one_stage.run_alone(job, WRITTEN)
    rows = read_rows(tmp_path / WRITTEN.name / CHAINS)
    found = {(r["budget"], r["asked"]): r["tokens"] for r in rows if r["kept"]}
    assert set(found) == {(60, 1), (64, 2)}
    assert set(found.values()) == {job.inputs.count(" ".join(["a"] * 45))}
    assert first["question"] in tokenizer.decode(engine.asked[0].prompt)
    assert first["rationale"] in tokenizer.decode(engine.asked[0].prompt)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("thinking.levels=64,32",), "from small to large"),
        (("thinking.least=1.0", "thinking.most=1.0"), "is not below thinking.most"),
        (("form=two_pass",), "use chain"),
        (("selection.size=0",), "leaves nothing for shortening it"),
        (("budget.queries=500",), "2,400 requests in all"),
        (("thinking.repeats=2",), "raise the temperature"),
        (("thinking.train.row_tokens=200",), "is too short for a prompt of"),
        (("thinking.least=0.01", "thinking.most=0.05"), "no reasoning at the smallest budget"),
        (("thinking.after=self",), "has no teacher"),
        (("teacher.kind=openai", "teacher.model=x", "teacher.temperature=0"), "same text again"),
        (("thinking.controls=sampled", "thinking.samples=32"), "less than one token for each"),
        (("thinking.waiting= ",), "controls=forced requires it"),
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
    with pytest.raises(UserError, match="shorten it or leave it empty"):
        one_stage.check(job)
    reading, both = Run(tiny(), tmp_path).inputs, (job.inputs.pool, job.inputs.test)
    lengths = [reading.rendering("student").prompts(part, "", "reason").lengths for part in both]
    fits = f"max_prompt_tokens={max(part.max() for part in lengths)}"
    one_stage.check(Run(tiny(fits, "method=direct", "direct_training.row_tokens=512"), tmp_path))
    job = Run(tiny(fits), tmp_path)
    with pytest.raises(UserError, match="max_prompt_tokens"):
        one_stage.check(job)


class Scripted:
    """An engine that writes what a test says, and notes what it is asked."""

    def __init__(self, *replies):
        self.replies, self.asked = list(replies), []

    def complete(self, requests, done=()):
        for index in [n for n in range(len(requests)) if n not in set(done)]:
            self.asked.append(requests[index])
            ids, end = self.replies.pop(0)
            if ids is None:
                raise KeyboardInterrupt
            yield [(index, Completion(ids, [0.0] * len(ids), end))]


def test_thinking_is_extended_and_all_that_was_decoded_is_counted(tmp_path):
    plain = Thinking((), (7, 8, 9))
    testing = BudgetTesting("forced", (20,), "plain", GenerationConfig(), 0, 3, times=1)
    request = capped([1, 2], Cap(20, plain, answer_tokens=3))
    asked = [Asked(EXAMPLE, 0, 0, 0, request) for _ in range(3)]
    first = ([11, 12, 7, 8, 9, 30], 0), ([*range(40, 60), 7, 8, 9, 31], 0), ([13, 7, 8, 9, 32], 0)
    out = shortening.Folder(tmp_path, OF_CONTROL["forced"])
    broken = Scripted(*first, ([14, 7, 8, 9, 33], 0), (None, 0))
    with pytest.raises(KeyboardInterrupt):
        budget_tests.written(testing, out, broken, asked, [99], plain)
    engine = Scripted(([15, 16, 7, 8, 9, 34], None))
    found = budget_tests.written(testing, out, engine, asked, [99], plain)
    # What was written before the interruption is not written again.
    assert [each.prompt for each in engine.asked] == [[1, 2, 13, 99]]
    assert found == [
        ([11, 12, 99, 14, 7, 8, 9, 33], 7 + 6),
        ([*range(40, 60), 7, 8, 9, 31], 25),
        ([13, 99, 15, 16, 7, 8, 9, 34], 6 + 6),
    ]


def test_requests_of_a_model_with_tags(tiny, tmp_path):
    job = Run(tiny(), tmp_path)
    reading, test = job.inputs.rendering("student"), job.inputs.test
    tags = Thinking((500,), (501,), answering=(3, 4))
    generation = GenerationConfig(max_new_tokens=8)

    def asked(control, **how):
        params = BudgetTesting(control, (40,), "tags", generation, 0, 5, **how)
        return list(budget_tests.requests(params, test, reading, tags))

    plain = reading.prompt(test[0], "reason")
    (truncated, *_), (triggered, *_) = asked("truncated"), asked("triggered", words="Briefly:")
    assert truncated.request.prompt == plain
    assert (truncated.request.force_at, list(truncated.request.forced)) == (41, [501, 3, 4])
    words = reading.tokenizer.encode("Briefly:")
    assert triggered.request.prompt == [*plain, 500, *words]
    assert (triggered.request.force_at, triggered.begun) == (40 - len(words), len(words))
    stated = asked("stated")[0].request
    assert stated.prompt == reading.prompt(dataclasses.replace(test[0], budget=40), "reason")
    assert (stated.limit, stated.forced) == (40 + 3 + 5, ())
    sampled = asked("sampled", times=4, repeats=2)
    assert [(a.repeat, a.sample) for a in sampled[:8]] == [(r, s) for r in (0, 1) for s in range(4)]
    assert sampled[0].request.force_at == 1 + 10
    assert all(a.example.budget == 40 for a in sampled)
