"""The selection of a tiny pool by every strategy, in one workdir: what runs, and what is shared."""

import dataclasses
import json

import numpy as np
import pytest

from bridge_jax.config import io as config_io
from bridge_jax.errors import UserError
from bridge_jax.methods.apprenticeship import SELECTION as CHOSEN
from bridge_jax.parallel.preemption import Preempted
from bridge_jax.pipeline.storage import Shards
from bridge_jax.runs import Run
from bridge_jax.selection import scores
from tests.launch import tiny_run
from tests.methods import one_stage

WARMUP, SCORES, GRADIENTS, SELECTION = (
    f"apprenticeship/{name}" for name in ("warmup", "scores", "gradients", "selection")
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    return config_io.load(tiny_run.write_config(folder)), folder / "run"


def make(base, **settings):
    config, workdir = base
    selection = dataclasses.replace(config.selection, **settings)
    return Run(dataclasses.replace(config, selection=selection), workdir)


def run(base, **settings):
    """Runs up to the selection; returns the stages that were not there, and the selection."""
    new = []
    for outcome in make(base, **settings).execution().run():
        if not outcome.cached:
            new.append(outcome.name)
        if outcome.name == SELECTION:
            break
    return new, json.loads((base[1] / SELECTION / "selection.json").read_text())


@pytest.mark.slow
def test_strategies_share_warm_up_and_scores_and_badge_alone_needs_gradients(base):
    new, coverage = run(base, strategy="coverage")
    assert new == [WARMUP, SCORES, SELECTION]
    assert coverage["strategy"] == "coverage"
    assert len(set(coverage["ids"])) == 10
    new, badge = run(base, strategy="badge")
    assert new == [GRADIENTS, SELECTION]
    gradients = np.load(base[1] / GRADIENTS / "gradients.npy")
    assert gradients.shape == (base[0].data.pool, scores.PROJECTED)
    assert np.linalg.norm(gradients, axis=1).min() > 0
    rows = [json.loads(row) for row in (base[1] / SCORES / "scores.jsonl").open()]
    ids = [row["id"] for row in rows]
    kept = [i for i, id_ in enumerate(ids) if id_ not in badge["set_aside"]]
    assert badge["ids"][0] == ids[max(kept, key=lambda i: np.linalg.norm(gradients[i]))]
    orders = {"badge": badge["ids"], "coverage": coverage["ids"]}
    for strategy in ("difficulty", "diversity", "typicality", "herding"):
        new, result = run(base, strategy=strategy)
        assert new == [SELECTION]
        assert result["strategy"] == strategy
        orders[strategy] = result["ids"]
    assert len(set(map(tuple, orders.values()))) == len(orders)

    new, result = run(base, strategy="difficulty", difficulty="margin", within_labels=False)
    assert new == [SELECTION]
    unsure = sorted(rows, key=lambda row: -row["margin"])
    assert 0 < unsure[-1]["margin"] <= unsure[0]["margin"] <= 1
    left_out = len(result["set_aside"])
    assert result["ids"] == [row["id"] for row in unsure[left_out : left_out + 10]]


def test_scores_without_the_measure_say_what_to_do(base):
    run(base)
    path = base[1] / SCORES / "scores.jsonl"
    whole = path.read_text()
    rows = [json.loads(row) for row in whole.splitlines()]
    for row in rows:
        del row["margin"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"without margin; run the same command"):
        one_stage.run_alone(make(base, difficulty="margin"), CHOSEN)
    # The run itself notices that the file has changed, and scores the pool again.
    assert run(base)[0] == [SCORES]
    assert path.read_text() == whole


def test_a_stopped_scoring_loses_what_came_after_the_last_shard(base, monkeypatch):
    batches, shards, stop_after = [], [], [100]
    compute, write = scores.score_batch, Shards.write

    def counted(config, params, batch):
        batches.append(batch)
        return compute(config, params, batch)

    def written(self, part):
        write(self, part)
        shards.append(len(part["index"]))
        if len(shards) == stop_after[0]:
            raise Preempted

    monkeypatch.setattr(scores, "score_batch", counted)
    monkeypatch.setattr(scores, "SHARD_SECONDS", 0.0)
    monkeypatch.setattr(Shards, "write", written)
    run(base)
    folder = base[1] / SCORES

    def again():
        """Scores the damaged pool in small batches; returns the files as they were."""
        (folder / "scores.jsonl").write_text("")
        del batches[:], shards[:]
        # The selection follows where small batches round the scores otherwise.
        assert run(base, batch_tokens=64)[0] in ([SCORES], [SCORES, SELECTION])
        return {path.name: path.read_bytes() for path in folder.glob("[!m]*")}

    whole, total = again(), len(batches)
    assert sorted(whole) == ["embeddings.npy", "scores.jsonl"]
    assert total >= 3 and sum(shards) == 24
    stop_after[0] = 2
    with pytest.raises(Preempted):
        again()
    assert len(list((folder / "shards").iterdir())) == 2
    stop_after[0], done = 100, sum(shards)
    assert again() == whole
    assert len(batches) == total - 2
    assert sum(shards) == 24 - done
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["restarts"] == 1
    assert sorted(manifest["files"]) == sorted(whole)
