"""Pools whose gold answers are not known: nothing but the warm-up may depend on them."""

import dataclasses
import json

import numpy as np
import pytest

from bridge_jax.data import sources
from bridge_jax.methods import apprenticeship
from bridge_jax.methods.annotations import ANNOTATIONS, kept_annotations
from bridge_jax.methods.apprenticeship import PSEUDO_LABELS
from bridge_jax.methods.filtering import RATIONALES, SFTTargets
from bridge_jax.pipeline.files import read_rows
from bridge_jax.runs import Run
from bridge_jax.text.prompts import TrainingSequence
from tests.launch import tiny_run
from tests.methods import one_stage

SMALL = (
    "data.pool=12",
    "budget.queries=4",
    "warmup.train.epochs=1",
    "assistant_training.epochs=1",
    "instruct.examples=0",
    "student_training.epochs=1",
    "warmup.fraction=0.25",
    "data.test=2",
    "selection.difficulty=entropy",
    "teacher.keep_wrong=true",
)
UNLABELLED = (*SMALL, "data.labelled=false", "rationales.filter=none")


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    return tiny_run.write_config(tmp_path_factory.mktemp("unlabelled"))


def result(config, workdir):
    """Returns what was scored, chosen and learned."""
    tiny_run.finish_here(config, workdir, "tutoring")
    job = Run(config, workdir)
    targets, reading = SFTTargets.of(config), job.inputs.rendering("student")
    judged, annotated = (one_stage.folder_of(job, each) for each in (RATIONALES, ANNOTATIONS))
    chosen = json.loads((workdir / "apprenticeship/selection/selection.json").read_text())
    found = targets.of_pool(job.inputs.pool, judged, annotated)
    read = targets.sequences(found, reading)
    losses = [
        [row["loss"] for row in read_rows(workdir / stage / "metrics.jsonl")]
        for stage in ("apprenticeship/assistant", "tutoring/student")
    ]
    return [
        read_rows(workdir / "apprenticeship/pseudo_labels/pseudo_labels.jsonl"),
        read_rows(workdir / "apprenticeship/scores/scores.jsonl"),
        chosen,
        read,
        losses,
    ]


@pytest.mark.slow
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
    job = Run(tiny_run.settings(config_path, *UNLABELLED), tmp_path)
    pool, reading = job.inputs.pool, job.inputs.rendering("assistant")
    tokenizer = job.inputs.model("assistant").tokenizer
    # The mark and the end token are those of every answer; one that was cut has no end token.
    mark, end = tokenizer.encode("Answer:"), [tokenizer.end_id]
    rows = [
        apprenticeship.PseudoLabel(id=e.id, ids=[*mark, 7, i + 10, *(end if i else [])])
        for i, e in enumerate(pool)
    ]
    folder = one_stage.folder_of(job, PSEUDO_LABELS)
    folder.write_rows("pseudo_labels.jsonl", rows[::-1])
    found = apprenticeship.labels_to_score(pool, reading, folder)
    assert [s.answer for s in found] == [[7, i + 10] for i in range(12)]
    gold = apprenticeship.labels_to_score(pool, reading, None)
    for sequences in (found, gold):
        assert sequences[0].prompt == reading.sequence(pool[0], None).prompt
        assert sequences[0].rationale == mark
    assert tokenizer.decode(gold[0].answer).strip() == pool[0].answer


def test_an_answer_without_tokens_of_its_own_stays():
    frame = TrainingSequence([5], [], [1, 2, 3])
    assert frame.own_answer([1, 2], [3]) == frame
    assert frame.own_answer([1], [4, 3]) == TrainingSequence([5], [1], [2])
    assert frame.own_answer([9], [3]) == TrainingSequence([5], [], [1, 2])


def test_an_unlabelled_pool_is_scored_on_pseudo_labels(config_path, tmp_path):
    for settings, reads in ((UNLABELLED, True), (SMALL, False)):
        job = Run(tiny_run.settings(config_path, *settings), tmp_path)
        scores = next(stage for stage in job.stages if stage.name == "apprenticeship/scores")
        assert (PSEUDO_LABELS.name in scores.reads.values()) == reads


def test_the_teachers_answer_stands_where_there_is_no_gold_one(config_path, tmp_path):
    job = Run(tiny_run.settings(config_path, *SMALL), tmp_path)
    pool = job.inputs.pool
    annotated = one_stage.folder_of(job, ANNOTATIONS)
    rows = [
        one_stage.annotation(pool[0], rationale="Thus.", answer="said"),
        one_stage.annotation(pool[1], rationale="Thus.", answer=None),
        one_stage.annotation(pool[2], rationale="Thus.", answer="said", kept=False),
    ]
    annotated.write_rows("annotations.jsonl", rows)
    assert kept_annotations(annotated, pool, labelled=False) == [(pool[0], "Thus.", "said")]
    assert kept_annotations(annotated, pool, labelled=True) == [
        (e, "Thus.", e.answer) for e in pool[:2]
    ]


def test_what_depends_on_labels_runs_again(config_path, tmp_path):
    settings = (*SMALL, "rationales.filter=none")
    labelled, bare = (
        Run(tiny_run.settings(config_path, *settings, *more), tmp_path)
        for more in ((), ("data.labelled=false",))
    )
    assert set(labelled.deep) - one_stage.differing(labelled, bare) == {
        "apprenticeship/warmup",
        "evaluation/student_base",
        "evaluation/assistant_base",
    }
    assert set(bare.deep) - set(labelled.deep) == {"apprenticeship/pseudo_labels"}
