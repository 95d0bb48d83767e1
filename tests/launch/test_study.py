"""Studies of tiny checkpoints: stages and answers shared, killed, in parallel, and read again."""

import json
import random
import re
import sqlite3
import time

import pytest

from launch.study_runs import take_turns
from tests.launch import commands, tiny_study

pytestmark = pytest.mark.slow  # Whole runs, one after the other.

VOLATILE = ("page", "seconds")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_study.write(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """The study of one process, and what that printed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "study"
    return workdir, tiny_study.finish(tiny_study.start(config, workdir))


def made(workdir):
    """Returns stage -> how many of it are in the store."""
    found = {}
    for manifest in sorted((workdir / "stages").glob("*/*/*/manifest.json")):
        name = manifest.parents[1].relative_to(workdir / "stages").as_posix()
        found[name] = found.get(name, 0) + 1
    return found


def rows(workdir):
    """Returns what the runs wrote, by path: no weights, no times."""
    return {
        path.relative_to(workdir).as_posix(): path.read_text()
        for path in sorted(workdir.glob("stages/*/*/*/*.json*"))
        if path.suffix == ".jsonl" and path.name != "metrics.jsonl"
    }


def requests(workdir):
    with sqlite3.connect(workdir / "ledger.sqlite") as ledger:
        return ledger.execute("SELECT key, state FROM requests ORDER BY key").fetchall()


def result(workdir):
    found = json.loads((workdir / "study.json").read_text())
    for point in found["points"]:
        del point["failures"]
    return {key: value for key, value in found.items() if key not in VOLATILE}


def test_what_runs_have_in_common_is_made_once(undisturbed):
    workdir, _ = undisturbed
    common = {"apprenticeship/warmup", "apprenticeship/scores", "tutoring/instruct"}
    common |= {f"evaluation/{name}" for name in ("student_base", "student_instruct",
                                                 "assistant_base")}  # fmt: skip
    for name, count in made(workdir).items():
        assert count == (1 if name in common else 4), name
    run = workdir / "runs" / "difficulty-6-seed0"
    assert (run / "tutoring" / "instruct").is_symlink()
    assert json.loads((run / "report.json").read_text())["seconds"].keys() == made(workdir).keys()


def test_no_answer_is_paid_twice_and_each_run_has_its_full_price(undisturbed):
    workdir, said = undisturbed
    found = json.loads((workdir / "study.json").read_text())
    keys = [key for key, _ in requests(workdir)]
    assert len(keys) == len(set(keys)) == found["bill"]["queries"] < 16
    by_point = {(p["variant"], p["x"]): p["cost"] for p in found["points"]}
    for (_, x), cost in by_point.items():
        assert cost["queries"] == x
        assert cost["usd"] > 0 and cost["teacher_tokens"] > 50 * x
    # Selections are nested: two of the six had been paid by the smaller run, or more by others.
    order = re.findall(r"^(\S+) \(\d of 4\)", said, re.MULTILINE)
    reports = {n: json.loads((workdir / "runs" / n / "report.json").read_text()) for n in order}
    chosen = {name: set(report["selection"]["ids"]) for name, report in reports.items()}
    earlier = set().union(*(chosen[name] for name in order[: order.index("random-6-seed0")]))
    shared = len(chosen["random-6-seed0"] & earlier)
    assert chosen["random-2-seed0"] <= earlier and shared >= 2
    spend = reports["random-6-seed0"]["spend"]
    assert (spend["queries"], spend["of_others"]["queries"]) == (6 - shared, shared)
    paid = spend["usd"] + spend["of_others"]["usd"]
    assert by_point["random", 6.0]["usd"] == pytest.approx(paid)
    assert found["seconds"]["shared"] < found["seconds"]["alone"]


def test_the_result_is_of_the_runs(undisturbed):
    workdir, printed = undisturbed
    found = json.loads((workdir / "study.json").read_text())
    assert found["runs"] == {"total": 4, "done": 4, "missing": []}
    for point in found["points"]:
        run = workdir / "runs" / f"{point['variant']}-{point['x']:g}-seed0" / "report.json"
        report = json.loads(run.read_text())
        means = {role: value["mean"] for role, value in point["accuracy"].items()}
        assert means == pytest.approx(report["accuracy"])
        assert point["compliance"]["student"] == report["compliance"]["student"]
    assert {"accuracy.svg", "accuracy.pdf", "differences.svg"} <= {
        path.name for path in (workdir / "figures").iterdir()
    }
    assert "all 4 are done" in printed
    assert "runs/random-2-seed0/report.html" in (workdir / "study.html").read_text()


def test_again_nothing_is_done_and_the_report_is_the_same(config, undisturbed):
    workdir, _ = undisturbed
    before = result(workdir)
    again = tiny_study.finish(tiny_study.start(config, workdir))
    assert "apprenticeship" not in again and "all 4 are done" in again
    assert result(workdir) == before
    flags = f"--workdir={workdir}", "--target_accuracy=0.6"
    told = tiny_study.finish(commands.start("launch.report", *flags))
    assert "random: 2 budgets measured, a curve needs 4." in told
    assert result(workdir) == before


def test_killed_and_in_parallel_it_is_the_same_study(config, undisturbed, tmp_path):
    rng = random.Random(0)
    workdir = tmp_path / "study"
    for _ in range(2):  # Two at once, killed somewhere.
        pair = [tiny_study.start(config, workdir) for _ in range(2)]
        while not (workdir / "stages").is_dir() and pair[0].poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(2, 10))
        for process in pair:
            process.kill()
            process.communicate()
    pair = [tiny_study.start(config, workdir) for _ in range(2)]
    printed = [tiny_study.finish(process) for process in pair]
    assert any("all 4 are done" in text for text in printed)
    expected, _ = undisturbed
    assert made(workdir) == made(expected)
    assert rows(workdir) == rows(expected)
    assert not list(workdir.rglob("started.json"))
    assert [state for _, state in requests(workdir)] == ["settled"] * len(requests(expected))
    ours, theirs = result(workdir), result(expected)
    assert ours["bill"]["usd"] == theirs["bill"]["usd"]
    for one, other in zip(ours["points"], theirs["points"]):
        for key in other:
            assert one[key] == other[key], key
    assert ours == theirs


def test_models_that_no_run_needs_are_dropped(config, tmp_path):
    workdir = tmp_path / "study"
    flags = ("--nokeep_models", "--only=random-*")
    printed = tiny_study.finish(tiny_study.start(config, workdir, *flags))
    assert "2 of 4 are done; missing: difficulty-2-seed0, difficulty-6-seed0" in printed
    left = {path.parents[1].name for path in (workdir / "stages").glob("*/*/*/params")}
    assert left == {"warmup", "instruct"}  # what the other two will read
    tiny_study.finish(tiny_study.start(config, workdir, "--nokeep_models"))
    assert not list((workdir / "stages").glob("*/*/*/params"))
    again = tiny_study.finish(tiny_study.start(config, workdir))
    assert "apprenticeship" not in again


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    process = tiny_study.start(tiny_study.write_failing(tmp_path), tmp_path / "study")
    out, err = process.communicate()
    assert process.returncode == 2
    assert "1 of 2 runs failed; poor-seed0: " in err
    assert "budget.usd=1e-07 cannot pay for one request to the teacher" in err
    assert "1 of 2 are done; missing: poor-seed0" in out
    found = json.loads((tmp_path / "study" / "study.json").read_text())
    assert [point["variant"] for point in found["points"]] == ["rich"]


def attempts(*steps):
    """Returns an attempt that answers by run what `steps` say, one after the other."""
    left = {run: list(states) for run, states in steps}
    return lambda run: left[run].pop(0)


def test_turns_go_on_while_there_is_something_to_wait_for():
    waits = []
    attempt = attempts(
        ("a", ["done"]), ("b", ["taken", "taken", "done"]), ("c", ["waits", "waits", "done"])
    )
    assert take_turns("abc", attempt, lambda: waits.append(1)) == []
    assert waits == [1]  # after the second round, in which nothing was done


def test_turns_end_when_only_others_are_at_work():
    attempt = attempts(("a", ["done"]), ("b", ["taken"] * 3), ("c", ["waits", "done"]))
    assert take_turns("abc", attempt, lambda: pytest.fail("waited")) == ["b"]
