"""The table of a method has a row for every stage that it may run, and no other."""

import dataclasses
import itertools

import pytest

from bridge_jax import methods
from bridge_jax.config import CONTROLS, MOST_PARTS, RunConfig
from bridge_jax.config.io import override
from bridge_jax.errors import UserError
from bridge_jax.methods.annotations import ANNOTATIONS

OPTIONS = (
    ["data.labelled=true", "data.labelled=false"],
    ["selection.strategy=random", "selection.strategy=badge"],
    ["selection.parts=1", f"selection.parts={MOST_PARTS}"],
    ["rationales.filter=gold", "rationales.filter=consistency"],
    ["rationales.retries=0", "rationales.retries=2"],
    ["rationales.rounds=0", "rationales.rounds=3"],
    ["logits.weight=0", "logits.weight=0.5"],
    ["instruct.examples=0", "instruct.examples=5"],
    ["compare=", "compare=direct,labels"],
    ["form=chain", "form=two_pass"],
)
# Of a method with options of its own; there the ends of the others suffice.
AT_BUDGETS = (
    ["thinking.after=", "thinking.after=direct", "thinking.after=bridge"],
    ["thinking.shortened_by=teacher", "thinking.shortened_by=assistant"],
    [f"thinking.controls={','.join(CONTROLS)}"],
)
MORE = {"budgeted": AT_BUDGETS, "bard": AT_BUDGETS}


def one_apart(options):
    """Returns the choices that differ in one option at most from all first, or all last, ones."""
    for ends in ([each[0] for each in options], [each[-1] for each in options]):
        yield tuple(ends)
        for place, each in enumerate(options):
            yield from ((*ends[:place], other, *ends[place + 1 :]) for other in each)


def every_choice(options):
    return itertools.product(*options)


@pytest.mark.parametrize("name", methods.METHODS)
@pytest.mark.parametrize("choices", [one_apart, pytest.param(every_choice, marks=pytest.mark.slow)])
def test_the_table_is_what_the_method_may_run(name, choices):
    method, found = methods.get_method(name), {}
    options = OPTIONS
    if name in MORE:
        options = (*([each[0], each[-1]] for each in OPTIONS[:8]), *MORE[name])
    for choice in choices(options):
        held_out = ("evaluation.teacher_test=5", "evaluation.teacher_dev=5")
        settings = (*choice, *held_out, "rationales.least_right=0.9", "evaluation.student_dev=true")
        stages = method.stages(override(RunConfig(method=name), settings))
        found |= {stage.name: stage.artifact for stage in stages}
        # A stage reads what was left before it.
        for number, stage in enumerate(stages):
            before = {each.name for each in stages[:number]}
            assert {n for n in stage.reads.values() if n in found} <= before, (choice, stage.name)
    assert found == {artifact.name: artifact for artifact in method.artifacts}


def test_a_stage_has_one_row_whatever_the_method():
    rows: dict[str, object] = {}
    for method in methods.METHODS.values():
        for artifact in method.artifacts:
            assert rows.setdefault(artifact.name, artifact) == artifact
            assert dataclasses.is_dataclass(artifact)


@pytest.mark.parametrize("phase", methods.PHASES)
@pytest.mark.parametrize("name", methods.METHODS)
def test_a_phase_has_its_results_and_what_they_need(name, phase):
    config = override(RunConfig(method=name), ["thinking.after=bridge"])
    plan = methods.stages(config)
    names = [stage.name for stage in methods.stages(config, phase)]
    assert names == [stage.name for stage in plan if stage.name in names]  # in order
    folders = methods.PHASES[phase]
    assert {s.name for s in plan if not folders or s.name.split("/")[0] in folders} <= set(names)
    ends = {"tutoring": "tutoring/student", "evaluate": "evaluation/student"}
    if phase in ends:
        assert ends[phase] in names
    alone = methods.stages(config, "evaluate", ["tutoring/student"])
    assert "tutoring/student" in [stage.name for stage in alone]


def test_a_run_can_stop_after_any_stage_or_role():
    config = override(RunConfig(), ["compare=labels", "selection.strategy=diversity"])

    def names(until, config=config):
        return [stage.name for stage in methods.stages(config, until)]

    up_to_selection = [f"apprenticeship/{name}" for name in ("warmup", "scores", "selection")]
    assert names("selection") == names("apprenticeship/selection") == up_to_selection
    assert names("teacher") == names("annotations") == [*up_to_selection, ANNOTATIONS.name]
    # It takes as many steps as the student, which are known from the rationales.
    assert names("labels")[-2:] == ["tutoring/rationales", "baselines/labels"]
    # The training, not its test.
    assert names("student")[-1] == "tutoring/student"
    assert names("evaluation/student")[-2:] == ["tutoring/student", "evaluation/student"]
    assert names("student", RunConfig(method="budgeted"))[-1] == "budgets/student"
    mistakes = {"selecton": "selection", "tutorin": "tutoring", "asistant": "assistant"}
    for wrong, near in mistakes.items():
        with pytest.raises(UserError, match=f"--stop_after={wrong}: .* mean {near}.* warmup, sc"):
            names(wrong)


@pytest.mark.parametrize(
    ("settings", "student", "assistant"),
    [
        ((), "reason", "reason"),
        (("form=two_pass",), "answer", "reason"),
        (("method=labels",), "answer", None),
        (("method=direct",), "reason", None),
    ],
)
def test_a_model_is_asked_for_what_it_was_trained_to_write(settings, student, assistant):
    modes = {
        stage.artifact.measured.name: stage.params.mode
        for stage in methods.stages(override(RunConfig(), settings))
        if stage.artifact.work == "evaluate" and stage.artifact.measured
    }
    assert (modes["student"], modes.get("assistant")) == (student, assistant)
