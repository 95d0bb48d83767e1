"""Methods beside BRIDGE: the stages that they consist of, and what the student is given to read."""

import json
import re

import numpy as np
import pytest

from bridge_jax.config_checks import validate
from bridge_jax.config_io import override
from bridge_jax.phases import apprenticeship, evaluate, plan, tutoring
from bridge_jax.phases import lessons as lessons_of
from bridge_jax.phases.context import Run
from bridge_jax.pipeline.files import read_rows, write_rows
from bridge_jax.phases.stages import fingerprints
from bridge_jax.planning import workload
from bridge_jax.planning.spending import expected
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import INSTRUCTIONS
from bridge_jax.training.step import loss_and_gradients
from configs import quickstart
from configs.studies import baselines
from tests.launch import tiny_run

ONE_EPOCH = ("student_training.epochs=1", "instruct.train.epochs=1", "direct_training.epochs=1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The config of a tiny run, with assignments."""
    path = tiny_run.write_config(tmp_path_factory.mktemp("baselines"))
    return lambda *assignments: tiny_run.settings(path, *ONE_EPOCH, *assignments)


@pytest.fixture
def lessons(monkeypatch):
    """The sequences of each training, by the name of its stage; nothing is trained."""
    seen = {}
    monkeypatch.setattr(Run, "trainable", lambda *_: None)
    monkeypatch.setattr(Run, "train", lambda *given: seen.update({given[2]: given[4]}))
    return seen


def texts(run, sequence):
    """Returns what a sequence of the student reads as: prompt, rationale, answer."""
    decode = run.tokenizer("student").decode
    return tuple(decode(part) for part in (sequence.prompt, sequence.rationale, sequence.answer))


def names(config):
    return [stage.name for stage in plan.stages(validate(config))]


def test_labels_are_the_whole_pool_with_its_gold_answers(tiny, lessons, tmp_path):
    run = Run(tiny("method=labels"), tmp_path)
    tutoring.labels(run, tmp_path)
    (found,) = lessons.values()
    assert len(found) == len(run.splits.pool) == 24
    for sequence, example in zip(found, run.splits.pool):
        prompt, rationale, answer = texts(run, sequence)
        assert INSTRUCTIONS["answer"] in prompt and example.question in prompt
        assert (rationale, answer) == ("", f"Answer: {example.answer}")


def test_labels_need_neither_assistant_nor_teacher(tiny, tmp_path):
    config = tiny("method=labels", "assistant.checkpoint=gone", "budget.queries=0")
    report = tiny_run.finish_here(config, tmp_path)
    assert list(report["seconds"]) == [
        "tutoring/instruct",
        "tutoring/student",
        "evaluation/student_base",
        "evaluation/student_instruct",
        "evaluation/student",
    ]
    assert not (tmp_path / "ledger.sqlite").exists()
    assert (report["spend"]["queries"], report["spend"]["usd"]) == (0, 0.0)
    assert set(report["accuracy"]) == {"student_base", "student_instruct", "student"}
    losses = read_rows(tmp_path / "tutoring/student/metrics.jsonl")
    assert all(row["rationale_loss"] == 0 and row["answer_loss"] > 0 for row in losses)
    assert "after the gold answers of the pool" in (tmp_path / "report.html").read_text()


def test_self_training_has_no_teacher(tiny, tmp_path):
    report = tiny_run.finish_here(tiny("method=self", "budget.queries=0"), tmp_path)
    assert list(report["seconds"]) == [
        "apprenticeship/warmup",
        "tutoring/instruct",
        "tutoring/completions",
        "tutoring/rationales",
        "tutoring/student",
        "evaluation/assistant_base",
        "evaluation/assistant",
        "evaluation/student_base",
        "evaluation/student_instruct",
        "evaluation/student",
    ]
    assert not (tmp_path / "ledger.sqlite").exists()
    assert (report["spend"]["queries"], report["spend"]["usd"]) == (0, 0.0)
    assert report["rationales"]["written"] == 24
    assert "after its warm-up on labels" in (tmp_path / "report.html").read_text()
    (stage,) = [s for s in plan.stages(tiny("method=self")) if s.name == "tutoring/completions"]
    assert stage.after == ("apprenticeship/warmup",)


def test_self_training_learns_what_the_warmed_assistant_got_right(tiny, lessons, tmp_path):
    run = Run(tiny("method=self"), tmp_path)
    first, second, *_ = run.splits.pool
    folder = tmp_path / "tutoring/rationales"
    folder.mkdir(parents=True)
    rows = [
        {"id": e.id, "rationale": "Thus.", "answer": e.answer, "kept": e is second}
        for e in (first, second)
    ]
    write_rows(folder / "rationales.jsonl", rows)
    tutoring.student(run, tmp_path)
    (found,) = lessons.values()
    assert [texts(run, s)[1] for s in found] == ["", "Thus."] + 22 * [""]


def test_two_passes_are_a_rationale_and_an_answer_each_to_its_own_prompt(tiny, tmp_path):
    run = Run(tiny("form=two_pass"), tmp_path)
    example = run.splits.pool[0]
    answer, rationale = lessons_of.read(run, lessons_of.Lesson(example, "Thus it is.", "7"))
    assert texts(run, answer)[1:] == ("", "Answer: 7")
    assert texts(run, rationale)[1:] == ("Thus it is.", "")
    assert INSTRUCTIONS["answer"] in texts(run, answer)[0]
    assert INSTRUCTIONS["reason"] in texts(run, rationale)[0]
    end = run.tokenizer("student").end_id
    assert (answer.answer[-1], rationale.rationale[-1]) == (end, end)
    # Where there is no rationale, nothing is written when asked for one.
    assert len(lessons_of.read(run, lessons_of.Lesson(example, None, "7"))) == 1


def test_the_loss_of_two_passes_is_that_of_distilling_step_by_step(tiny, tmp_path, tiny_model):
    """L = a * mean NLL of the rationale tokens + (1 - a) * mean NLL of the answer tokens."""
    run = Run(tiny("form=two_pass"), tmp_path)
    passes = lessons_of.read(run, lessons_of.Lesson(run.splits.pool[0], "Thus it is.", "7"))
    alone = [float(loss(tiny_model, [sequence])) for sequence in passes]
    expected = 0.75 * alone[0] + 0.25 * alone[1]
    np.testing.assert_allclose(loss(tiny_model, passes), expected, rtol=1e-5)


def loss(model, sequences):
    """Returns the loss with a = 0.25, that of one part where there is only one."""
    rows = pack(sequences, 384, 0)
    return loss_and_gradients(*model, rows, 0.25, 1)[0].loss


@pytest.mark.parametrize("method", ["bridge", "direct"])
def test_both_methods_train_in_two_passes(tiny, tmp_path, lessons, method):
    run = Run(tiny(f"method={method}", "form=two_pass"), tmp_path)
    first, second, *rest = run.splits.pool
    for stage, name in (("tutoring", "rationales"), ("apprenticeship", "annotations")):
        (tmp_path / stage / name).mkdir(parents=True)
        asked = second if stage == "apprenticeship" else first
        row = {"id": asked.id, "rationale": "Thus.", "answer": asked.answer, "kept": True}
        write_rows(tmp_path / stage / name / f"{name}.jsonl", [row])
    {"bridge": tutoring.student, "direct": tutoring.direct}[method](run, tmp_path)
    (found,) = lessons.values()
    parts = [(bool(s.rationale), bool(s.answer)) for s in found]
    both = [(False, True), (True, False)]
    assert parts == {"bridge": 2 * both + len(rest) * both[:1], "direct": both}[method]


def test_a_whole_run_in_two_passes(tiny, tmp_path):
    settings = ("method=direct", "selection.strategy=random", "form=two_pass", "budget.queries=3")
    report = tiny_run.finish_here(tiny(*settings), tmp_path)
    assert report["spend"]["queries"] == report["annotations"]["kept"] == 3
    (losses,) = read_rows(tmp_path / "tutoring/student/metrics.jsonl")
    assert losses["rationale_loss"] > 0 and losses["answer_loss"] > 0
    assert losses["loss"] == pytest.approx(
        (losses["rationale_loss"] + losses["answer_loss"]) / 2, rel=1e-4
    )


def test_two_passes_change_the_student_and_how_it_is_tested(tiny, tmp_path):
    prints = [
        fingerprints(plan.stages(config), Run(config, tmp_path).describe)
        for config in (tiny("compare_direct=true"), tiny("compare_direct=true", "form=two_pass"))
    ]
    changed = {name for name in prints[0] if prints[0][name] != prints[1][name]}
    assert changed == {
        "tutoring/student",
        "baselines/direct",
        *(f"evaluation/student{kind}" for kind in ("", "_base", "_instruct", "_direct")),
    }


def test_two_passes_are_planned_as_twice_the_sequences(tiny, tmp_path):
    def rows(*settings):
        rows_of_one = ("student_training.batch_rows=1", "student_training.row_tokens=384")
        config = tiny(*rows_of_one, *settings)
        works = workload.workloads(Run(config, tmp_path))
        return next(work.steps for work in works if work.stage == "tutoring/student")

    # A row of 384 tokens has room for two or three prompts of this kind.
    assert 1.6 * rows() < rows("form=two_pass") <= 2 * rows()


@pytest.fixture
def asked(monkeypatch):
    """Returns the instruction that a candidate of a config is tested with; nothing is written."""
    prompts = []
    monkeypatch.setattr(Run, "model", lambda *_: None)
    monkeypatch.setattr(Run, "engine", lambda *_: None)
    monkeypatch.setattr(evaluate, "write_completions", lambda *given: prompts.append(given[4]))

    def instruction(config, name, out):
        (candidate,) = [c for c in plan.candidates(config) if c.name == name]
        run = Run(config, out)
        evaluate.evaluate(candidate, run, out)
        text = run.tokenizer(candidate.role).decode(prompts[-1][0])
        return next(mode for mode, words in INSTRUCTIONS.items() if words in text)

    return instruction


@pytest.mark.parametrize(
    ("settings", "name", "mode"),
    [
        ("method=bridge", "student", "reason"),
        ("method=bridge", "assistant", "reason"),
        ("method=labels", "student", "answer"),
        ("form=two_pass", "student", "answer"),
        ("form=two_pass", "assistant", "reason"),
        ("method=labels", "student_base", "answer"),
    ],
)
def test_a_student_is_asked_as_it_was_trained_to_answer(
    tiny, asked, tmp_path, settings, name, mode
):
    assert asked(tiny(*settings.split()), name, tmp_path) == mode


@pytest.mark.parametrize("method", ["labels", "self"])
def test_what_has_no_teacher_is_planned_for_nothing(tiny, tmp_path, method):
    run = Run(tiny(f"method={method}"), tmp_path)
    planned = [name for name in names(tiny(f"method={method}")) if name != "tutoring/rationales"]
    assert [work.stage for work in workload.workloads(run)] == planned
    assert set(expected(run)) == {0}


def test_direct_on_the_whole_pool_sets_nothing_aside(tiny, tmp_path):
    config = tiny("method=direct", "selection.strategy=random", "budget.queries=24")
    run = Run(validate(config), tmp_path)
    run.check_inputs()
    (tmp_path / "out").mkdir()
    apprenticeship.selection(run, tmp_path / "out")
    found = json.loads((tmp_path / "out/selection.json").read_text())
    assert sorted(found["ids"]) == sorted(run.pool_by_id)
    assert found["set_aside"] == []


def test_an_assistant_may_be_cut_to_chosen_layers(tiny, tmp_path):
    whole = Run(tiny(), tmp_path).model("assistant", None)
    cut = Run(tiny("assistant.keep_layers=0,2"), tmp_path).model("assistant", None)
    assert (whole.config.num_layers, cut.config.num_layers) == (3, 2)
    kept = np.asarray(whole.params["layers"]["mlp"]["up"]["kernel"])[[0, 2]]
    np.testing.assert_array_equal(cut.params["layers"]["mlp"]["up"]["kernel"], kept)


def documented():
    """Returns the assignments of each command in docs/baselines.md."""
    text = (tiny_run.ROOT / "docs/baselines.md").read_text()
    spans = re.findall(r"`(--[^`]+)`", "".join(re.findall(r"^\|.*", text, re.MULTILINE)))
    flags = [span.split() for span in spans]
    # A key without a point needs the prefix, or absl takes it for a flag of its own.
    assert all("." in flag.partition("=")[0] for part in flags for flag in part)
    return [[flag.removeprefix("--").removeprefix("config.") for flag in part] for part in flags]


@pytest.mark.parametrize("assignments", documented(), ids=" ".join)
def test_what_is_documented_is_a_config(assignments):
    config = override(quickstart.get_config(), [a for a in assignments if not a.endswith("...")])
    if config.data.source == "practice":
        assert validate(config) is config


@pytest.mark.parametrize("variant", baselines.VARIANTS)
def test_every_baseline_is_documented(variant):
    steps = ("budget.", "assistant_training.", "direct_training.")
    changes = {change for change in baselines.VARIANTS[variant] if not change.startswith(steps)}
    assert not changes or any(changes <= set(part) for part in documented())
