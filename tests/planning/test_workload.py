"""What the planner derives from stages: of the methods that there are, and of one that is new."""

import dataclasses
from typing import Any

import jax
import pytest

from bridge_jax import methods
from bridge_jax.config import GenerationConfig
from bridge_jax.methods.fitting import TrainSpec, train_spec
from bridge_jax.methods.teacher import asking
from bridge_jax.parallel import chips
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.stages import ByLength, Method, Packed, Stage, Workload
from bridge_jax.planning import plan, workload
from bridge_jax.planning.workload import ScoringWork, expected, list_work, opened
from bridge_jax.text.packing import pack
from tests.launch import tiny_run


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The config of a tiny run, with assignments."""
    path = tiny_run.write_config(tmp_path_factory.mktemp("workload"))
    return lambda *assignments: tiny_run.settings(path, *assignments)


def planned(config) -> dict[str, Any]:
    return {work.stage: work for work in list_work(*opened(config))}


@dataclasses.dataclass(frozen=True)
class Learning:
    how: TrainSpec


@dataclasses.dataclass(frozen=True)
class Writing:
    generation: GenerationConfig


def toy_stages(config):
    """A method that the planner has never heard of: it trains, looks, writes and asks."""
    fit = train_spec(config, "direct_training")
    rows = [
        ("toy/read", "train", "student", fit, Workload("pool", text="answer")),
        ("toy/learn", "train", "assistant", Learning(fit), Workload("pool", text="both", soft=3)),
        (
            "toy/look",
            "score",
            "student",
            None,
            Workload("pool", text="answer", batch=ByLength(512)),
        ),
        (
            "toy/weigh",
            "score",
            "assistant",
            None,
            Workload("pool", samples=2, batch=Packed(8, 192)),
        ),
        (
            *("toy/write", "generate", "student", Writing(GenerationConfig(5, 6))),
            Workload("pool", share=0.25, modes=("reason", "explain"), samples=3),
        ),
        ("toy/choose", "select", None, None, None),
        ("toy/ask", "ask", None, asking(config), Workload("selected", 3, samples=2)),
        ("toy/test", "evaluate", "assistant", Writing(GenerationConfig(5, 6)), Workload("test", 7)),
    ]
    return [
        Stage(Artifact(name, name, work, role), lambda *_: None, params, workload=workload)
        for name, work, role, params, workload in rows
    ]


@pytest.fixture
def toy(tiny, monkeypatch):
    monkeypatch.setitem(methods.METHODS, "toy", Method("toy", "a toy", (), toy_stages))
    return tiny("method=toy", "direct_training.epochs=5", "direct_training.row_tokens=256")


def test_a_new_method_is_planned_by_what_its_stages_say(toy):
    found = planned(toy)
    assert list(found) == [
        *("toy/read", "toy/learn", "toy/look", "toy/weigh", "toy/write", "toy/test"),
    ]
    learn, weigh = found["toy/learn"], found["toy/weigh"]
    assert (learn.role, learn.soft, learn.train.epochs) == ("assistant", 3, 5)
    # In two passes about twice as many rows.
    assert learn.steps > found["toy/read"].steps
    assert learn.steps % 5 == found["toy/read"].steps % 5 == 0
    # Sequences have up to 64 tokens: 512 are eight rows, one for each of the eight devices.
    look = found["toy/look"]
    assert (look.role, look.rows, look.width, look.steps) == ("student", 8, 64, 3)
    assert (weigh.rows, weigh.width) == (8, 192)
    # A quarter of 24 questions, in two modes, three times each; one at a time on each device.
    write = found["toy/write"]
    assert (write.rows, write.steps, write.settings) == (8, 5, GenerationConfig(5, 6))
    assert (found["toy/test"].rows, found["toy/test"].steps) == (8, 1)


def test_the_bill_is_of_what_the_stages_ask(toy):
    assert expected(*opened(toy)).queries == 3 * 2
    found = plan.plan_study([toy, toy], jax.devices()[:1], chips.CHIPS["v5e"])
    made = {name: (total.runs, total.made) for name, total in found.stages.items()}
    assert made == dict.fromkeys(planned(toy), (2, 1))
    assert (found.teacher["queries"], found.teacher_alone["queries"]) == (6, 12)


def test_a_scoring_has_to_say_how_it_forms_batches(toy, monkeypatch):
    stage = Stage(
        Artifact("toy/look", "", "score", "student"), print, None, workload=Workload("pool")
    )
    with pytest.raises(
        ValueError, match="toy/look: its workload does not say how it forms batches"
    ):
        list_work([stage], opened(toy)[1])


def test_a_student_of_two_passes_reads_about_twice_as_many_rows(tiny):
    def rows(*settings):
        one_row = ("student_training.batch_rows=1", "student_training.row_tokens=384")
        config = tiny(*one_row, "student_training.epochs=1", *settings)
        return planned(config)["tutoring/student"].steps

    # A row of 384 tokens has room for two or three prompts of this kind.
    assert 1.6 * rows() < rows("form=two_pass") <= 2 * rows()


@pytest.mark.parametrize("method", ["labels", "self"])
def test_what_has_no_teacher_is_planned_for_nothing(tiny, method):
    stages, lengths = opened(tiny(f"method={method}"))
    names = [stage.name for stage in stages if stage.name != "tutoring/rationales"]
    assert [work.stage for work in list_work(stages, lengths)] == names
    assert set(expected(stages, lengths)) == {0}


def test_the_logits_are_planned_as_one_reading_of_rows_like_the_students(tiny):
    works = planned(tiny("logits.weight=0.5"))
    reading, student = works["tutoring/logits"], works["tutoring/student"]
    assert (reading.role, reading.rows, reading.width) == ("assistant", 8, 192)
    assert (2 * reading.steps, reading.targets) == (student.steps, student.targets)


def test_samples_are_planned_as_often_as_they_are_drawn(tiny):
    config = tiny("rationales.filter=consistency", "data.pool=4", "budget.queries=4")
    # 4 questions, 4 samples each, 8 prompts at a time.
    assert planned(config)["tutoring/samples"].steps == 2


def test_pseudo_labels_are_written_as_short_as_they_are_kept(tiny):
    config = tiny("data.labelled=false", "generation.max_new_tokens=40")
    works = planned(config)
    assert list(works)[:3] == [
        "apprenticeship/warmup",
        "apprenticeship/pseudo_labels",
        "apprenticeship/scores",
    ]
    lengths = [
        works[name].settings.max_new_tokens
        for name in ("apprenticeship/pseudo_labels", "tutoring/completions")
    ]
    assert lengths == [16, 40]


@pytest.mark.parametrize(
    ("strategy", "looks"),
    [
        ("random", []),
        ("herding", ["apprenticeship/scores"]),
        ("badge", ["apprenticeship/scores", "apprenticeship/gradients"]),
    ],
)
def test_what_a_strategy_looks_at_is_planned(tiny, strategy, looks):
    works = list_work(*opened(tiny(f"selection.strategy={strategy}")))
    scorings = [work for work in works if isinstance(work, ScoringWork)]
    assert [work.stage for work in scorings] == looks
    assert len({work.steps for work in scorings}) == bool(looks)


OFF = "rationales.show_gold=false"


def test_both_modes_and_longer_prompts_are_counted(tiny, monkeypatch):
    read = []

    def remember(sequences, *rest):
        read.extend(sequences)
        return pack(sequences, *rest)

    monkeypatch.setattr(workload, "pack", remember)
    small = ("data.pool=4", "budget.queries=4")
    stages, lengths = opened(tiny(*small, "assistant_training.batch_rows=1"))
    (work,) = list_work(stages, lengths, {"apprenticeship/assistant"})
    reading = lengths.inputs.rendering("assistant")
    assert read == [
        reading.sequence(e, e.rationales["short"], mode=mode)
        for mode in ("reason", "explain")
        for e in lengths.inputs.pool
    ]
    assert work.steps == 2 * len(pack(read, 192, 0).tokens)
    shown, bare = (planned(tiny(*small, *more)) for more in ((), (OFF,)))
    assert shown["tutoring/completions"].width > bare["tutoring/completions"].width


@pytest.mark.parametrize("setting", ["seed=0", "teacher.kind=openai"])
def test_what_a_teacher_has_yet_to_write_is_as_long_as_it_may_be(tiny, setting):
    config = tiny("data.pool=4", "budget.queries=4", "generation.max_new_tokens=40", setting)
    lengths = opened(config)[1]
    pool = lengths.pool
    assert all(example.rationales["short"] for example in pool)
    if setting == "seed=0":  # A teacher that has recorded nothing.
        lengths.pool = pool = [dataclasses.replace(e, rationales={}) for e in pool]
    found = lengths.sequences("assistant", Workload("pool", modes=("explain",)))
    reading = lengths.inputs.rendering("assistant")
    assert [s.prompt for s in found] == [reading.prompt(e, "explain") for e in pool]
    assert [s.targets for s in found] == [40] * 4
