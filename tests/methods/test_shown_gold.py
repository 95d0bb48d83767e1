"""The assistant is shown the gold answers of the pool, and explains them."""

import dataclasses
from types import SimpleNamespace

import pytest

from bridge_jax.errors import UserError
from bridge_jax.generation.engine import Completion
from bridge_jax.phases import apprenticeship, lessons, logits, plan, rationales
from bridge_jax.phases.context import Run
from bridge_jax.pipeline.files import write_rows
from bridge_jax.phases.stages import fingerprints
from bridge_jax.planning import workload
from bridge_jax.planning.lengths import Lengths
from bridge_jax.text import prompts
from bridge_jax.text.packing import pack
from tests.launch import tiny_run

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
    found = config(setting)
    assert found.shows_gold == shown
    assert found.assistant_modes == (("reason", "explain") if shown else ("reason",))


@pytest.mark.parametrize("setting", ["seed=0", OFF])
def test_the_assistant_learns_each_answer_in_each_mode(config, tmp_path, monkeypatch, setting):
    seen = {}
    monkeypatch.setattr(Run, "trainable", lambda *_: None)
    monkeypatch.setattr(Run, "train", lambda *given: seen.update({given[2]: given[4]}))
    run = Run(config(setting), tmp_path)
    example = run.splits.pool[1]
    (tmp_path / "apprenticeship/annotations").mkdir(parents=True)
    paid = [{"id": example.id, "rationale": "As taught.", "kept": True}]
    write_rows(tmp_path / "apprenticeship/annotations/annotations.jsonl", paid)
    apprenticeship.assistant(run, tmp_path)

    decode = run.tokenizer("assistant").decode
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
    run, given = Run(config(setting), tmp_path), []
    tokenizer = run.tokenizer("assistant")
    monkeypatch.setattr(Run, "model", lambda *_: SimpleNamespace(tokenizer=tokenizer))
    monkeypatch.setattr(Run, "engine", lambda *_: None)
    monkeypatch.setattr(rationales, "write_completions", lambda *found: given.extend(found[3:]))
    rationales.write("apprenticeship/assistant", run, tmp_path)
    pool, asked, to_row = given
    assert asked == [run.prompt("assistant", e, mode) for e in pool]
    ids = tokenizer.encode("Thus.")
    row = to_row(pool[0], Completion(ids, [-0.5] * len(ids), None))
    assert row["shown_gold"] == (mode == "explain")


def test_a_long_question_is_cut_and_the_shown_answer_is_not(tiny_tokenizer, config, tmp_path):
    example = Run(config(), tmp_path).splits.pool[0]
    long = dataclasses.replace(example, question="word " * 300 + "why?")
    ids = prompts.render_prompt(tiny_tokenizer, long, "explain", 150, "truncate")
    assert len(ids) <= 150
    assert f"why?\nAnswer: {example.answer}" in tiny_tokenizer.decode(ids)


def test_the_prompts_of_the_pool_must_fit_with_their_answers(config, tmp_path):
    run = Run(config(), tmp_path)
    reason = [run.prompt("assistant", e, "reason") for e in (*run.splits.pool, *run.splits.test)]
    explain = [run.prompt("assistant", e, "explain") for e in run.splits.pool]
    longest, with_answers = (max(map(len, asked)) for asked in (reason, explain))
    assert with_answers > longest
    # Those of the test are not explained, and may be longer with their answers.
    other = dataclasses.replace(run.splits.test[0], answer="word " * 99)
    run.splits = dataclasses.replace(run.splits, test=[other, *run.splits.test[1:]])

    def check(size, *settings):
        run.config = config(f"max_prompt_tokens={size}", "instruct.examples=0", *settings)
        run.check_inputs()

    check(with_answers)
    check(longest, OFF)
    with pytest.raises(UserError, match=f"max_prompt_tokens is {longest}"):
        check(longest)


def test_what_is_shared_with_a_run_that_shows_none(config, tmp_path):
    shown, hidden = (
        fingerprints(plan.stages(config(*settings)), Run(config(*settings), tmp_path).describe)
        for settings in ((), (OFF,))
    )
    differ = [name for name in shown if shown[name] != hidden[name]]
    assert set(differ) == {
        "apprenticeship/assistant",
        "tutoring/completions",
        "tutoring/rationales",
        "tutoring/student",
        "evaluation/assistant",
        "evaluation/student",
    }


@pytest.mark.parametrize("settings", [("method=self",), ("rationales.filter=none", UNLABELLED)])
def test_who_is_shown_nothing_is_the_same_with_the_setting_off(config, tmp_path, settings):
    one, other = (
        fingerprints(plan.stages(config(*extra)), Run(config(*extra), tmp_path).describe)
        for extra in (settings, (*settings, OFF))
    )
    assert one == other


@pytest.mark.parametrize("form", ["chain", "two_pass"])
@pytest.mark.parametrize(("setting", "mode"), [("seed=0", "explain"), (OFF, "reason")])
def test_the_assistants_logits_are_of_the_prompt_that_it_wrote_to(
    config, tmp_path, monkeypatch, setting, mode, form
):
    run, seen = Run(config(setting, "logits.weight=0.5", f"form={form}"), tmp_path), []
    lesson = lessons.Lesson(run.splits.pool[0], "Thus.", "7")
    bare = lessons.Lesson(run.splits.pool[1], None, "7")

    def predict(config, params, sequences, *_):
        seen.extend(sequences)
        raise InterruptedError

    monkeypatch.setattr(
        Run,
        "model",
        lambda *_: SimpleNamespace(config=None, params=None, tokenizer=run.tokenizer("assistant")),
    )
    monkeypatch.setattr(logits, "of_pool", lambda _: [lesson, bare])
    monkeypatch.setattr(logits, "predict", predict)
    with pytest.raises(InterruptedError):
        logits.write(run, tmp_path)
    *alone, student = lessons.read(run, lesson)
    assert len(alone) == (form == "two_pass")  # The answer, to a prompt that asks for it alone.
    assert seen == [*alone, student._replace(prompt=run.prompt("assistant", lesson.example, mode))]


def test_the_plan_counts_both_modes_and_longer_prompts(config, tmp_path, monkeypatch):
    planned = []

    def remember(sequences, *rest):
        planned.extend(sequences)
        return pack(sequences, *rest)

    monkeypatch.setattr(workload, "pack", remember)
    run = Run(config("assistant_training.batch_rows=1"), tmp_path)
    (work,) = workload.workloads(run, {"apprenticeship/assistant"})
    assert planned == [
        run.sequence("assistant", e, e.rationales["short"], mode=mode)
        for mode in ("reason", "explain")
        for e in run.splits.pool
    ]
    assert work.steps == 3 * len(pack(planned, 192, 0).tokens)

    widths = [
        workload.workloads(Run(config(*extra), tmp_path), {"tutoring/completions"})[0].width
        for extra in ((), (OFF,))
    ]
    assert widths[0] > widths[1]


@pytest.mark.parametrize("setting", ["seed=0", "teacher.kind=openai"])
def test_the_plan_counts_what_a_teacher_has_yet_to_write(config, tmp_path, setting):
    run = Run(config("generation.max_new_tokens=40", setting), tmp_path)
    pool = run.splits.pool
    assert all(example.rationales["short"] for example in pool)
    if setting == "seed=0":  # A teacher that has recorded nothing.
        pool = [dataclasses.replace(e, rationales={}) for e in pool]
    run.splits = dataclasses.replace(run.splits, pool=pool)
    found = Lengths(run).sequences("assistant", 4, reasoned=True, mode="explain")
    assert [s.prompt for s in found] == [run.prompt("assistant", e, "explain") for e in pool]
    assert [s.targets for s in found] == [40] * 4
