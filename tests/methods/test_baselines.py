"""Methods beside BRIDGE: the stages that they consist of, and what the student is given to read."""

import re

import jax
import numpy as np
import pytest

from bridge_jax import methods
from bridge_jax.config.io import override
from bridge_jax.methods import evaluation
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.checks import validate
from bridge_jax.methods.filtering import FILE, RATIONALES, SFTTarget, SFTTargets
from bridge_jax.methods.tutoring import STUDENT
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from bridge_jax.text.packing import pack
from bridge_jax.text.prompts import INSTRUCTIONS
from bridge_jax.training.objectives.sft import SFT
from bridge_jax.training.step import loss_and_gradients
from configs import triage
from configs.studies import baselines
from tests.launch import tiny_run
from tests.methods import one_stage

ONE_EPOCH = (
    "student_training.epochs=1",
    "instruct.train.epochs=1",
    "direct_training.epochs=1",
    "labels_training.epochs=1",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The config of a tiny run, with assignments."""
    path = tiny_run.write_config(tmp_path_factory.mktemp("baselines"))
    return lambda *assignments: tiny_run.settings(path, *ONE_EPOCH, *assignments)


@pytest.fixture
def taught(monkeypatch):
    """The sequences of each training, by its name; nothing is trained."""
    return one_stage.taught(monkeypatch)


def texts(job, sequence):
    """Returns what a sequence of the student reads as: prompt, rationale, answer."""
    decode = job.inputs.model("student").tokenizer.decode
    return tuple(decode(part) for part in (sequence.prompt, sequence.rationale, sequence.answer))


def read(job, target):
    """Returns the sequences that the student reads of a target."""
    return SFTTargets.of(job.config).sequences([target], job.inputs.rendering("student"))[0]


def test_labels_are_the_whole_pool_with_its_gold_answers(tiny, taught, tmp_path):
    job = Run(tiny("method=labels"), tmp_path)
    one_stage.run_alone(job, STUDENT)
    (found,) = taught.values()
    assert len(found) == len(job.inputs.pool) == 24
    for sequence, example in zip(found, job.inputs.pool):
        prompt, rationale, answer = texts(job, sequence)
        assert INSTRUCTIONS["answer"] in prompt and example.question in prompt
        assert (rationale, answer) == ("", f"Answer: {example.answer}")


@pytest.mark.slow
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
    assert "trained on the gold answers of the pool" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
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
    plan = {stage.name: stage for stage in methods.stages(tiny("method=self"))}
    read_by_it = set(plan["tutoring/completions"].reads.values())
    assert read_by_it & plan.keys() == {"apprenticeship/warmup"}


def test_self_training_learns_what_the_warmed_assistant_got_right(tiny, taught, tmp_path):
    job = Run(tiny("method=self"), tmp_path)
    first, second, *_ = job.inputs.pool
    rows = [one_stage.judged(example, kept=example is second) for example in (first, second)]
    one_stage.folder_of(job, RATIONALES).write_rows(FILE, rows)
    one_stage.run_alone(job, STUDENT)
    (found,) = taught.values()
    assert [texts(job, s)[1] for s in found] == ["", "Thus."] + 22 * [""]


def test_two_passes_are_a_rationale_and_an_answer_each_to_its_own_prompt(tiny, tmp_path):
    job = Run(tiny("form=two_pass"), tmp_path)
    example = job.inputs.pool[0]
    answer, rationale = read(job, SFTTarget(example, "Thus it is.", "7"))
    assert texts(job, answer)[1:] == ("", "Answer: 7")
    assert texts(job, rationale)[1:] == ("Thus it is.", "")
    assert INSTRUCTIONS["answer"] in texts(job, answer)[0]
    assert INSTRUCTIONS["reason"] in texts(job, rationale)[0]
    end = job.inputs.model("student").tokenizer.end_id
    assert (answer.answer[-1], rationale.rationale[-1]) == (end, end)
    # Where there is no rationale, nothing is written when asked for one.
    assert len(read(job, SFTTarget(example, None, "7"))) == 1


@pytest.mark.slow
def test_the_loss_of_two_passes_is_that_of_distilling_step_by_step(tiny, tmp_path, tiny_model):
    """L = a * mean NLL of the rationale tokens + (1 - a) * mean NLL of the answer tokens."""
    job = Run(tiny("form=two_pass"), tmp_path)
    passes = read(job, SFTTarget(job.inputs.pool[0], "Thus it is.", "7"))
    alone = [float(loss(tiny_model, [sequence])) for sequence in passes]
    expected = 0.75 * alone[0] + 0.25 * alone[1]
    np.testing.assert_allclose(loss(tiny_model, passes), expected, rtol=1e-5)


def loss(model, sequences):
    """Returns the loss with a = 0.25, that of one part where there is only one."""
    rows = pack(sequences, 384, 0)
    return jax.jit(loss_and_gradients, static_argnums=(0, 1))(SFT(0.25), *model, rows)[0]["loss"]


@pytest.mark.parametrize("method", ["bridge", "direct"])
def test_both_methods_train_in_two_passes(tiny, tmp_path, taught, method):
    job = Run(tiny(f"method={method}", "form=two_pass"), tmp_path)
    first, second, *rest = job.inputs.pool
    one_stage.folder_of(job, RATIONALES).write_rows(FILE, [one_stage.judged(first)])
    annotated = one_stage.folder_of(job, ANNOTATIONS)
    annotated.write_rows("annotations.jsonl", [one_stage.annotation(second)])
    one_stage.run_alone(job, STUDENT)
    (found,) = taught.values()
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
    chain = Run(tiny("compare=direct"), tmp_path)
    passes = Run(tiny("compare=direct", "form=two_pass"), tmp_path)
    assert list(chain.deep) == list(passes.deep)
    assert one_stage.differing(chain, passes) == {
        "tutoring/student",
        "baselines/direct",
        *(f"evaluation/student{kind}" for kind in ("", "_base", "_instruct", "_direct")),
    }


@pytest.mark.parametrize(
    ("settings", "artifact", "mode"),
    [
        ("method=bridge", evaluation.STUDENT, "reason"),
        ("method=bridge", evaluation.ASSISTANT, "reason"),
        ("method=labels", evaluation.STUDENT, "answer"),
        ("form=two_pass", evaluation.STUDENT, "answer"),
        ("form=two_pass", evaluation.ASSISTANT, "reason"),
        ("method=labels", evaluation.STUDENT_BASE, "answer"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_student_is_asked_as_it_was_trained_to_answer(
    tiny, tmp_path, monkeypatch, settings, artifact, mode
):
    job, asked = Run(tiny(*settings.split()), tmp_path), one_stage.asked(monkeypatch)
    one_stage.run_alone(job, artifact)
    text = job.inputs.model(artifact.role).tokenizer.decode(asked[0][1])
    assert next(mode for mode, words in INSTRUCTIONS.items() if words in text) == mode


def test_direct_on_the_whole_pool_sets_nothing_aside(tiny, tmp_path):
    config = tiny("method=direct", "selection.strategy=random", "budget.queries=24")
    job = Run(config, tmp_path)
    one_stage.check(job)
    found = one_stage.run_alone(job, SELECTION).record("selection.json")
    assert sorted(found["ids"]) == sorted(job.inputs.pool.by_id)
    assert found["set_aside"] == []


def test_an_assistant_may_be_cut_to_chosen_layers(tiny, tmp_path):
    whole = Run(tiny(), tmp_path).inputs.model("assistant").load()
    cut = Run(tiny("assistant.keep_layers=0,2"), tmp_path).inputs.model("assistant").load()
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
    config = override(triage.get_config(), [a for a in assignments if not a.endswith("...")])
    if config.data.source == "practice":
        assert validate(config) is config


@pytest.mark.parametrize("variant", baselines.VARIANTS)
def test_every_baseline_is_documented(variant):
    steps = ("budget.", "assistant_training.", "direct_training.")
    changes = {change for change in baselines.VARIANTS[variant] if not change.startswith(steps)}
    assert not changes or any(changes <= set(part) for part in documented())
