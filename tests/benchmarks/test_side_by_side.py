"""The comparisons with transformers: what they print, and that they find a difference."""

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks import generate, page, score, side_by_side, train
from benchmarks.result import BASE
from benchmarks.side_by_side import (
    DifferError,
    Figures,
    Found,
    Peak,
    Setup,
    Way,
    compare,
    figures,
)
from bridge_jax.models.costs import Cost

BENCHMARKS = {"train": train, "score": score, "generate": generate}
# What each prints of a case that is timed beside transformers, and of the others.
BESIDE = {"sdpa f32 / ours", "best torch / ours"}
RATIOS = {
    "train": {"30M": BESIDE, "ragged": BESIDE},
    "score": {"30M": BESIDE, "ragged-64": BESIDE, "memory": {"150,000 / 8,192 tokens"}},
    "generate": {
        "30M-1": BESIDE,
        "ragged": BESIDE,
        "samples": {"eight prompts / ours"},
        "busy": {"share of slots and steps"},
    },
}


@pytest.fixture(autouse=True)
def one_variant(monkeypatch):
    """A smoke run with two of the variants: the others differ in what torch does alone."""
    two = [side_by_side.Variant("sdpa", dtype) for dtype in (torch.float32, torch.bfloat16)]
    monkeypatch.setattr(side_by_side, "variants", lambda quick: two)


def test_the_page_has_every_case():
    cases = {name: list(module.CASES) for name, module in BENCHMARKS.items()}
    assert cases == {name: list(rows) for name, rows in page.ROWS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_smoke_run_prints_the_result(name, monkeypatch, capsys):
    results = []
    for case in RATIOS[name]:
        options = ["--json", "--quick", "--pairs=2", f"--cases={case}"]
        monkeypatch.setattr(sys, "argv", [name, *options])
        side_by_side.main(name, "About.", BENCHMARKS[name].CASES)
        results.append(json.loads(capsys.readouterr().out))
    found = side_by_side.joined(results)
    for peak in found["peak"]:
        assert found["peak"][peak] == max(result["peak"][peak] for result in results)
    assert set(found) == {"name", "on_gpu", "machine", "ratios", "absolute", "peak"}
    assert found["name"] == name
    assert {"rss_mib", "flops_per_second", "bytes_per_second"} <= set(found["peak"])
    expected = {f"{case}: {what}" for case, whats in RATIOS[name].items() for what in whats}
    assert set(found["ratios"]) == expected
    for ratio in found["ratios"].values():
        assert 0 <= ratio["low"] <= ratio["median"] <= ratio["high"]  # rounded
    for case, whats in RATIOS[name].items():
        if whats == BESIDE:
            assert BASE in found["absolute"][f"{case}: seconds"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"),
    [("train", "30M"), ("train", "ragged"), ("score", "30M"), ("score", "ragged-64"),
     ("generate", "30M-1")],
)  # fmt: skip
def test_a_wrong_weight_is_found(name, case, monkeypatch):
    twins = side_by_side.twins

    def unlike(shape, matmul):
        found = twins(shape, matmul)
        with torch.no_grad():
            found.model.model.layers[1].self_attn.v_proj.weight[0] += 1.0
        return found

    monkeypatch.setattr(side_by_side, "twins", unlike)
    setup = Setup(case, True, 1, Peak(1e9, 1e9), lambda _: None)
    with pytest.raises(DifferError, match=case):
        BENCHMARKS[name].CASES[case](setup)


SETUP = Setup("case", False, 3, Peak(100.0, 10.0), lambda _: None)


def way(value, runs, tolerance=0.0):
    def run():
        runs.append(value)

    return Way(lambda: np.float32(value), run, tolerance)


def test_ways_take_turns_and_what_fails_is_left_out(monkeypatch):
    monkeypatch.setattr(side_by_side, "REST", 0.0)
    runs = []

    def fails():
        raise RuntimeError("no compiler")

    theirs = {BASE: way(2.0, runs, 1.0), "compiled": Way(fails, fails)}
    found = compare(SETUP, way(1.0, runs), theirs)
    assert runs == [1.0, 2.0] + 3 * [1.0, 2.0]
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == {"ours": 3, BASE: 3}
    assert found.left_out == {"compiled": "RuntimeError: no compiler"}


def test_the_base_may_not_fail_and_nan_is_a_difference():
    def fails():
        raise RuntimeError("no torch")

    with pytest.raises(RuntimeError, match="no torch"):
        compare(SETUP, way(1.0, []), {BASE: Way(fails, fails)})
    with pytest.raises(DifferError, match=f"case, {BASE}"):
        compare(SETUP, way(1.0, []), {BASE: way(float("nan"), [], 1.0)})


def test_ratios_are_of_neighbours_and_the_limit_is_of_every_phase():
    seconds = {"ours": [1.0, 2.0, 4.0], BASE: [2.0, 6.0, 4.0], "eager f32": [3.0, 3.0, 3.0]}
    found: Figures = figures(
        SETUP, Found(seconds, {}), 50, [Cost(60.0, 4.0, 0), Cost(10.0, 2.0, 0)]
    )
    assert found.ratios == {
        f"case: {BASE} / ours": {"median": 2.0, "low": 1.0, "high": 3.0},
        "case: best torch / ours": {"median": 1.5, "low": 0.75, "high": 3.0},
    }
    assert found.absolute["case: best torch"] == "eager f32"
    assert found.absolute["case: tokens_per_second"] == 25.0
    # 0.6 s of computing, then 0.2 s of reading, of the 2 s that it took.
    assert found.absolute["case: share of the limit"] == 0.4


def test_each_of_several_cases_has_a_process_of_its_own(monkeypatch, capsys):
    commands = []

    def alone(command, **how):
        commands.append(command)
        case = command[3].removeprefix("--cases=")
        found = {"ratios": {case: 1}, "absolute": {}, "peak": {"rss_mib": len(commands)}}
        return subprocess.CompletedProcess(command, 0, json.dumps(found))

    monkeypatch.setattr(subprocess, "run", alone)
    monkeypatch.setattr(sys, "argv", ["train", "--json", "--pairs=7", "--matmul=bfloat16"])
    side_by_side.main("train", "About.", dict.fromkeys("ab", train.fixed_case))
    assert json.loads(capsys.readouterr().out) == {
        "ratios": {"a": 1, "b": 1},
        "absolute": {},
        "peak": {"rss_mib": 2},
    }
    assert [command[1:] for command in commands] == [
        ["-m", "benchmarks.train", f"--cases={case}", "--pairs=7", "--json", "--matmul=bfloat16"]
        for case in "ab"
    ]
