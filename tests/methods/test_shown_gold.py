"""The assistant is shown the gold answers of the pool, and explains them."""

import dataclasses
from types import SimpleNamespace

import pytest

from bridge_jax import methods
from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Completion
from bridge_jax.methods import logits
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.filtering import SFTTarget, SFTTargets
from bridge_jax.methods.logits import LOGITS
from bridge_jax.methods.rationales import ASSISTANT, COMPLETIONS
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.runs import Run
from bridge_jax.text import prompts
from tests.launch import tiny_run
from tests.methods import one_stage

OFF = "rationales.show_gold=false"
UNLABELLED = "data.labelled=false"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config of a tiny run of four questions, with assignments."""
    path = tiny_run.write_config(tmp_path_factory.mktemp("shown_gold"))
    return lambda *given: tiny_run.settings(path, "data.pool=4", "budget.queries=4", *given)


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("seed=0", True),
        (OFF, False),
        ("rationales.filter=none", True),
        ("data.labelled=false", False),
        ("method=self", False),
        ("method=direct", False),
        ("method=labels", False),
    ],
)
def test_an_assistant_that_a_teacher_taught_is_shown_what_labels_there_are(config, setting, shown):
    plan = {stage.name: stage for stage in methods.stages(config(setting))}
    for stage, modes in (
        (ASSISTANT, ("reason", "explain") if shown else ("reason",)),
        (COMPLETIONS, ("explain",) if shown else ("reason",)),
    ):
        if stage.name in plan:
            assert plan[stage.name].workload.modes == modes


@pytest.mark.parametrize("setting", ["seed=0", OFF])
def test_the_assistant_learns_each_answer_in_each_mode(config, tmp_path, monkeypatch, setting):
    job, seen = Run(config(setting), tmp_path), one_stage.taught(monkeypatch)
    example = job.inputs.pool[1]
    annotated = one_stage.folder_of(job, ANNOTATIONS)
    annotated.write_rows("annotations.jsonl", [one_stage.annotation(example)])
    one_stage.run_alone(job, ASSISTANT)

    decode = job.inputs.model("assistant").tokenizer.decode
    given = f"{example.question}\nAnswer: {example.answer}"
    alone, *explained = seen["assistant"]
    assert decode(alone.rationale) == "As taught."
    assert prompts.INSTRUCTIONS["reason"] in decode(alone.prompt)
    assert given not in decode(alone.prompt)
    assert len(explained) == (0 if setting == OFF else 1)
    for sequence in explained:
        assert sequence[1:] == alone[1:]
        assert prompts.INSTRUCTIONS["explain"] in decode(sequence.prompt)
        assert given in decode(sequence.prompt)


@pytest.mark.parametrize(("setting", "mode"), [("seed=0", "explain"), (OFF, "reason")])
def test_how_the_pool_is_written(config, tmp_path, monkeypatch, setting, mode):
    job, asked = Run(config(setting), tmp_path), one_stage.asked(monkeypatch)
    one_stage.run_alone(job, COMPLETIONS)
    reading = job.inputs.rendering("assistant")
    assert asked == [(example, reading.prompt(example, mode)) for example in job.inputs.pool]
    ids = job.inputs.model("assistant").tokenizer.encode("Thus.")
    row = asked.to_row(job.inputs.pool[0], Completion(ids, [-0.5] * len(ids), None))
    assert row["shown_gold"] == (mode == "explain")


def test_a_long_question_is_cut_and_the_shown_answer_is_not(tiny_tokenizer, config, tmp_path):
    example = Run(config(), tmp_path).inputs.pool[0]
    long = dataclasses.replace(example, question="word " * 300 + "why?")
    ids = prompts.render_prompt(tiny_tokenizer, long, "explain", 150, "cut_beginning")
    assert len(ids) <= 150
    assert f"why?\nAnswer: {example.answer}" in tiny_tokenizer.decode(ids)


def test_the_prompts_of_the_pool_must_fit_with_their_answers(config, tmp_path):
    inputs = Run(config(), tmp_path).inputs
    reading = inputs.rendering("assistant")
    reason = [reading.prompt(example, "reason") for example in (*inputs.pool, *inputs.test)]
    explain = [reading.prompt(example, "explain") for example in inputs.pool]
    longest, with_answers = (max(map(len, asked)) for asked in (reason, explain))
    assert with_answers > longest
    # Those of the test are not explained, and may be longer with their answers.
    other = dataclasses.replace(inputs.test[0], answer="word " * 99)
    splits = dataclasses.replace(inputs.splits, test=(other, *inputs.test[1:]))

    def check(size, *settings):
        chosen = config(f"max_prompt_tokens={size}", "instruct.examples=0", *settings)
        job = Run(chosen, tmp_path)
        job.inputs.splits = splits
        one_stage.check(job)

    check(with_answers)
    check(longest, OFF)
    with pytest.raises(UserError, match=f"max_prompt_tokens is {longest}"):
        check(longest)


def test_what_is_shared_with_a_run_that_shows_none(config, tmp_path):
    shown, hidden = Run(config(), tmp_path), Run(config(OFF), tmp_path)
    assert list(shown.deep) == list(hidden.deep)
    assert one_stage.differing(shown, hidden) == {
        "apprenticeship/assistant",
        "tutoring/completions",
        "tutoring/rationales",
        "tutoring/student",
        "evaluation/assistant",
        "evaluation/student",
    }


@pytest.mark.parametrize(
    "settings",
    [
        ("method=self",),
        (
            "rationales.filter=none",
            UNLABELLED,
            "teacher.keep_wrong=true",
            "selection.difficulty=entropy",
        ),
    ],
)
def test_who_is_shown_nothing_is_the_same_with_the_setting_off(config, tmp_path, settings):
    one, other = (Run(config(*extra), tmp_path) for extra in (settings, (*settings, OFF)))
    assert one.deep == other.deep


@pytest.mark.parametrize("form", ["chain", "two_pass"])
@pytest.mark.parametrize(("setting", "mode"), [("seed=0", "explain"), (OFF, "reason")])
def test_the_assistants_logits_are_of_the_prompt_that_it_wrote_to(
    config, tmp_path, monkeypatch, setting, mode, form
):
    job, seen = Run(config(setting, "logits.weight=0.5", f"form={form}"), tmp_path), []
    target = SFTTarget(job.inputs.pool[0], "Thus.", "7")
    bare = SFTTarget(job.inputs.pool[1], None, "7")

    def predict(config, params, sequences, *_):
        seen.extend(sequences)
        raise InterruptedError

    monkeypatch.setattr(
        RoleModel,
        "load",
        lambda *_: SimpleNamespace(
            config=None, params=None, mesh=None, tokenizer=SimpleNamespace(pad_id=0)
        ),
    )
    monkeypatch.setattr(SFTTargets, "of_pool", lambda *_: [target, bare])
    monkeypatch.setattr(logits, "predict", predict)
    with pytest.raises(InterruptedError):
        one_stage.run_alone(job, LOGITS)
    *alone, student = SFTTargets.of(job.config).sequences(
        [target], job.inputs.rendering("student")
    )[0]
    assert len(alone) == (form == "two_pass")  # The answer, to a prompt that asks for it alone.
    asked = job.inputs.rendering("assistant").prompt(target.example, mode)
    assert seen == [*alone, student._replace(prompt=asked)]
