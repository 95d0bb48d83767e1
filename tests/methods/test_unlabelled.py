"""Pools whose gold answers are not known: nothing but the warm-up may depend on them."""

import dataclasses
import json

import numpy as np
import pytest

from bridge_jax.config_checks import validate
from bridge_jax.phases import apprenticeship, guesses, lessons, plan
from bridge_jax.phases.context import Run
from bridge_jax.pipeline.files import read_rows, write_rows
from bridge_jax.phases.stages import fingerprints
from bridge_jax.planning import workload
from bridge_jax.tasks import sources
from tests.launch import tiny_run

SMALL = (
    *("data.pool=12", "budget.queries=4", "warmup.train.epochs=1", "assistant_training.epochs=1"),
    *("instruct.examples=0", "student_training.epochs=1", "warmup.fraction=0.25"),
    *("data.test=2", "selection.difficulty=entropy", "teacher.keep_wrong=true"),
)
UNLABELLED = (*SMALL, "data.labelled=false", "rationales.filter=none")


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("unlabelled"))


def result(config, workdir):
    """Returns what was scored, chosen and learned."""
    tiny_run.finish_here(config, workdir, "tutoring")
    run = Run(config, workdir)
    chosen = json.loads((workdir / "apprenticeship/selection/selection.json").read_text())
    read = [lessons.read(run, lesson) for lesson in lessons.of_pool(run)]
    losses = [
        [row["loss"] for row in read_rows(workdir / stage / "metrics.jsonl")]
        for stage in ("apprenticeship/assistant", "tutoring/student")
    ]
    return [
        read_rows(workdir / "apprenticeship/guesses/guesses.jsonl"),
        read_rows(workdir / "apprenticeship/scores/scores.jsonl"),
        chosen,
        read,
        losses,
    ]


def test_gold_answers_outside_of_the_warm_up_change_nothing(config_path, tmp_path, monkeypatch):
    config = tiny_run.settings(config_path, *UNLABELLED)
    expected = result(config, tmp_path / "true")
    load = sources.load

    def spoiled(*given):
        splits = load(*given)
        warmed = np.random.default_rng(config.seed).permutation(12)[:3]
        # The oracle teacher has to know what it is asked.
        known = {splits.pool[i].id for i in warmed} | set(expected[2]["ids"])
        assert len(known) < 9
        pool = [e if e.id in known else dataclasses.replace(e, answer="0") for e in splits.pool]
        return dataclasses.replace(splits, pool=tuple(pool))

    monkeypatch.setattr(sources, "load", spoiled)
    found = result(config, tmp_path / "spoiled")
    assert found == expected
    assert [len(row["ids"]) > 0 for row in found[0]] == [True] * 12


def test_scores_are_of_the_assistants_own_answers(config_path, tmp_path):
    run = Run(tiny_run.settings(config_path, *UNLABELLED), tmp_path)
    folder = tmp_path / "apprenticeship/guesses"
    folder.mkdir(parents=True)
    rows = [{"id": e.id, "ids": [7, i + 10, 1]} for i, e in enumerate(run.splits.pool)]
    write_rows(folder / "guesses.jsonl", rows[::-1])
    found = guesses.to_score(run)
    assert [s.answer for s in found] == [[7, i + 10, 1] for i in range(12)]
    assert found[0].prompt == run.sequence("assistant", run.splits.pool[0], None).prompt
    labelled = Run(tiny_run.settings(config_path, *SMALL), tmp_path)
    gold = run.splits.pool[0].answer
    text = labelled.tokenizer("assistant").decode(guesses.to_score(labelled)[0].answer)
    assert text == f"Answer: {gold}"


def test_the_teachers_answer_stands_where_there_is_no_gold_one(config_path, tmp_path):
    def bought(*settings):
        return apprenticeship.bought(Run(tiny_run.settings(config_path, *settings), tmp_path))

    pool = Run(tiny_run.settings(config_path, *SMALL), tmp_path).splits.pool
    rows = [
        {"id": pool[0].id, "rationale": "Thus.", "answer": "said", "kept": True},
        {"id": pool[1].id, "rationale": "Thus.", "answer": None, "kept": True},
        {"id": pool[2].id, "rationale": "Thus.", "answer": "said", "kept": False},
    ]
    (tmp_path / "apprenticeship/annotations").mkdir(parents=True)
    write_rows(tmp_path / "apprenticeship/annotations/annotations.jsonl", rows)
    assert bought(*UNLABELLED) == [(pool[0], "Thus.", "said")]
    assert bought(*SMALL) == [(e, "Thus.", e.answer) for e in pool[:2]]


def test_what_depends_on_labels_runs_again(config_path, tmp_path):
    settings = (*SMALL, "rationales.filter=none")
    prints = [
        fingerprints(plan.stages(validate(config)), Run(config, tmp_path).describe)
        for config in (
            tiny_run.settings(config_path, *settings),
            tiny_run.settings(config_path, *settings, "data.labelled=false"),
        )
    ]
    same = {name for name in prints[0] if prints[0][name] == prints[1][name]}
    assert same == {
        "apprenticeship/warmup",
        "evaluation/student_base",
        "evaluation/assistant_base",
    }
    assert set(prints[1]) - set(prints[0]) == {"apprenticeship/guesses"}
    works = workload.workloads(Run(tiny_run.settings(config_path, *UNLABELLED), tmp_path))
    assert [work.stage for work in works][:3] == [
        "apprenticeship/warmup",
        "apprenticeship/guesses",
        "apprenticeship/scores",
    ]
