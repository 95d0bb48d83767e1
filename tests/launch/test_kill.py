"""Killed again and again, a run ends with the result of one that was left alone."""

import json
import random
import sqlite3
import time

import pytest

from tests.launch import tiny_run

# Seconds after the stage is seen to have begun, at most.
KILLS = {
    "apprenticeship/warmup": 3.0,
    "apprenticeship/assistant": 3.0,
    "tutoring/completions": 2.0,
    "tutoring/student": 2.0,
}


def kill_within(config, workdir, stage, seconds):
    """Runs until `stage` has begun, and `seconds` longer; returns whether it was killed in it."""
    process = tiny_run.start(config, workdir)
    try:
        while process.poll() is None and not is_begun(workdir, stage):
            if (workdir / stage).exists():  # It is finished.
                break
            time.sleep(0.005)
        end = time.monotonic() + seconds
        while process.poll() is None and is_begun(workdir, stage) and time.monotonic() < end:
            time.sleep(0.005)
    finally:
        process.kill()
        _, err = process.communicate()
    assert process.returncode in (-9, 0), err
    return process.returncode == -9 and is_begun(workdir, stage)


def is_begun(workdir, stage):
    return tiny_run.begun(workdir, stage) is not None


def artifacts(workdir):
    """Returns what must not depend on interruptions: the report less times and paths, and rows."""
    report = tiny_run.report(workdir)
    for key in ("seconds", "time", "training", "page"):
        del report[key]
    keys = json.loads((workdir / "stages.json").read_text())
    contents = {
        stage: json.loads((workdir / stage / "manifest.json").read_text())["content"]
        for stage in keys
    }
    rows = {
        f"{stage}/{path.name}": path.read_text()
        for stage in sorted(keys)
        for path in sorted((workdir / stage).glob("*.json*"))
        if (path.suffix == ".jsonl" and path.name != "metrics.jsonl") or path.stem == "selection"
    }
    return report, keys, contents, rows


@pytest.mark.slow
def test_killed_at_every_stage(tiny_config, undisturbed, tmp_path):
    rng = random.Random(0)
    inside = [
        stage
        for stage, longest in KILLS.items()
        if kill_within(tiny_config, tmp_path, stage, rng.uniform(0, longest))
    ]
    assert len(inside) >= 2, inside  # a short stage may end before it is seen
    tiny_run.finish(tiny_config, tmp_path)

    report, keys, contents, rows = artifacts(tmp_path)
    expected, expected_keys, expected_contents, expected_rows = artifacts(undisturbed)
    assert list(rows) == list(expected_rows)
    assert "tutoring/rationales/rationales.jsonl" in rows
    assert "evaluation/student/predictions.jsonl" in rows
    for name in rows:
        assert rows[name] == expected_rows[name], name
    for key in ("accuracy", "compliance", "spend", "selection", "rationales"):
        assert report[key] == expected[key]
    assert report == expected
    # Down to the parameters of every model.
    assert (keys, contents) == (expected_keys, expected_contents)
    for name in ("started.json", "state"):
        assert not list(tmp_path.rglob(name))

    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        found = ledger.execute("SELECT key, state, example_id FROM requests").fetchall()
    assert len(found) == len({key for key, _, _ in found}) == 10
    assert {state for _, state, _ in found} == {"settled"}
    assert sorted(example for _, _, example in found) == sorted(report["selection"]["ids"])
