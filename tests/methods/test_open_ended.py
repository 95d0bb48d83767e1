"""A whole run on free texts."""

import json

import pytest

from bridge_jax.config import DataConfig, RunConfig
from bridge_jax.data import sources
from bridge_jax.data.answers import rouge_l
from bridge_jax.evaluation import metrics
from bridge_jax.methods import teacher
from bridge_jax.pipeline.files import read_rows
from tests.launch import tiny_run


@pytest.mark.slow
def test_free_texts_have_a_mean_score_in_the_report(tmp_path):
    pytest.importorskip("tensorflow_text")
    path = tiny_run.write_config(tmp_path)
    words = ["the", "dose", "of", "a", "day", "is", "given", "by", "one", "nurse", "alone"]
    rows = [
        {
            "id": f"q{i}",
            "question": f"When is dose {i} given?",
            "answer": " ".join(words[i % 4 : i % 4 + 6]),
            "split": "train" if i < 16 else "test",
        }
        for i in range(20)
    ]
    data = tmp_path / "open.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ("data.source=jsonl", f"data.path={data}", "data.kind=text", "method=labels")
    training = ("instruct.examples=0", "labels_training.epochs=30", "data.pool=0", "data.test=0")
    config = tiny_run.settings(
        path, *settings, *training, "generation.max_new_tokens=16", "data.min_rouge=0.2",
        "labels_training.learning_rate=3e-3", "labels_training.batch_rows=2",
    )  # fmt: skip
    report = tiny_run.finish_here(config, tmp_path / "run")
    found = read_rows(tmp_path / "run/evaluation/student/predictions.jsonl")
    assert len(found) == report["n_test"] == 4
    for row in found:
        assert row["score"] == rouge_l(row["answer"] or "", row["gold"])
        assert row["correct"] == (row["answer"] is not None and row["score"] >= 0.2)
    assert report["score"]["student"] == sum(row["score"] for row in found) / 4
    assert set(report["score"]) == set(report["accuracy"])
    assert report["score"]["student"] > report["score"]["student_base"]


def test_the_score_is_a_mean_and_only_of_rows_that_have_one():
    row = {"correct": True, "answer": "x", "tokens": 1}
    assert "score" not in metrics.summarise([row])
    found = metrics.summarise([row | {"score": 0.2}, row | {"score": 0.6}])
    assert found["score"] == pytest.approx(0.4)


def test_runs_that_share_a_ledger_are_not_served_labels_for_texts():
    keys = []
    for kind in ("numeric", "text"):
        data = DataConfig(pool=3, dev=1, test=1, domains=("triage",), max_steps=2, kind=kind)
        config = RunConfig(data=data)
        asking, pool = teacher.asking(config), sources.load(data, config.seed).pool
        keys.append([teacher.make_request(asking, example).key for example in pool])
        assert len(set(keys[-1])) == 3
    assert not set(keys[0]) & set(keys[1])
