"""Several processes as one run, and the notice that a machine is about to go."""

import json
import re
import signal
import socket
import time

import pytest

from launch import cluster
from tests.launch import commands, tiny_run


def start(config, workdir, *flags, devices=2):
    """Starts the two processes of a run, which share the devices."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    common = [f"--coordinator=localhost:{port}", "--num_processes=2", *flags]
    return [
        tiny_run.start(config, workdir, *common, f"--process_id={i}", devices=devices // 2)
        for i in range(2)
    ]


def losses(workdir):
    return [
        [json.loads(line)["loss"] for line in (workdir / stage / "metrics.jsonl").open()]
        for stage in ("apprenticeship/assistant", "tutoring/student")
    ]


def wait_for(workdir, stage, process, file="started.json"):
    """Waits until a stage has begun and written a file; returns its folder."""
    while True:
        folder = tiny_run.begun(workdir, stage)
        if folder and (folder / file).exists():
            return folder
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
def test_two_processes_stopped_twice_give_the_report_of_one(tiny_config, undisturbed, tmp_path):
    """SIGTERM to one of them stops both; the same command on both goes on, to the same result."""
    for stage, file in (
        ("apprenticeship/assistant", "metrics.jsonl"),
        ("tutoring/completions", "completions.jsonl"),
    ):
        processes = start(tiny_config, tmp_path / "two", devices=4)
        folder = wait_for(tmp_path / "two", stage, processes[0], file)
        processes[1].send_signal(signal.SIGTERM)  # one is told, all have to stop
        outputs = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [75, 75], outputs
        assert tiny_run.begun(tmp_path / "two", stage) == folder
    processes = start(tiny_config, tmp_path / "two", devices=4)
    outputs = [process.communicate(timeout=900) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "4 cpu device(s)" in outputs[0][0] and "2 hosts" in outputs[0][0]
    # Gloo's threads speak as well, and break each other's lines, which leaves empty ones.
    gloo = re.compile(r"\[Gloo\]|peer ranks")
    lines = outputs[1][0].splitlines()
    ours = [line for line in lines if line.strip() and not gloo.search(line)]
    assert ours == []  # one of them speaks
    two, one = tiny_run.report(tmp_path / "two"), tiny_run.report(undisturbed)
    for key in ("accuracy", "compliance", "spend", "selection", "rationales", "parameters"):
        assert two[key] == one[key], key
    # Four devices round otherwise than one; how many processes hold them is a last bit.
    for found, expected in zip(losses(tmp_path / "two"), losses(undisturbed), strict=True):
        assert found == pytest.approx(expected, rel=0, abs=1e-4)


@pytest.mark.slow
def test_hosts_with_different_files_do_not_begin(tiny_config, tmp_path):
    """The same command in two folders, each with a file of the same name."""
    processes = []
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    for host, answer in enumerate(("late", "lost")):
        folder = tmp_path / f"host{host}"
        folder.mkdir()
        splits = ["train"] * 23 + ["test"] * 8
        rows = [
            {"id": f"{i}", "question": f"Where is {i}?", "answer": "late", "split": split}
            for i, split in enumerate(splits)
        ]
        rows.append(rows[0] | {"id": "last", "question": "And this?", "answer": answer})
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={host}"]
        flags += ["--data.source=jsonl", "--data.path=rows.jsonl", "--data.kind=label"]
        flags += ["--data.choices=late,lost", "--config.method=labels"]
        command = [f"--config={tiny_config}", f"--workdir={tmp_path / 'run'}", *flags]
        processes.append(commands.start("launch.run", *command, cwd=folder))
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2, err
        assert (
            "error: host 1 and host 0 have different versions of rows.jsonl (data/pool); give all"
            in err
        )
    assert not list((tmp_path / "run").glob("stages/*/*/*"))


@pytest.mark.slow
def test_a_lost_process_ends_the_other(tiny_config, tmp_path):
    processes = start(tiny_config, tmp_path, "--lost_timeout=10")
    wait_for(tmp_path, "apprenticeship/warmup", processes[0])
    processes[1].kill()
    _, err = processes[0].communicate(timeout=300)
    assert processes[0].returncode == 75  # So a scheduler starts all of them again.
    (message,) = (line for line in err.splitlines() if "process" in line and "again" in line)
    # Whichever notices first: the collective that was cut, or the silence.
    assert "another process of the run was lost" in message or "process 1 of 2 sent no" in message
    assert "Run the same command again on all hosts" in message
    assert "Traceback" not in err and "Fatal" not in err
    processes[1].communicate()


@pytest.mark.slow
def test_a_process_that_never_joins_is_named(tiny_config, tmp_path):
    first, other = start(tiny_config, tmp_path, "--join_timeout=5")
    other.kill()
    other.communicate()
    _, err = first.communicate(timeout=300)
    assert first.returncode == 2
    message = "error: process 0 of 2: the processes did not all join within --join_timeout=5 s; "
    assert err.splitlines()[-1].startswith(message)
    assert "Traceback" not in err and "Fatal" not in err


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_75(tiny_config, undisturbed, tmp_path):
    flags = [
        f"--config.{stage}.checkpoint_every=100" for stage in ("warmup.train", "assistant_training")
    ]
    process = tiny_run.start(tiny_config, tmp_path, *flags)
    folder = wait_for(tmp_path, "apprenticeship/assistant", process, "metrics.jsonl")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75
    assert "interrupted; run the same command again to resume" in err
    assert "Traceback" not in err
    (saved,) = (folder / "state").iterdir()
    steps = (folder / "metrics.jsonl").read_text().splitlines()
    assert int(saved.name) == len(steps)
    tiny_run.finish(tiny_config, tmp_path, *flags)
    found, expected = tiny_run.report(tmp_path), tiny_run.report(undisturbed)
    assert found["accuracy"] == expected["accuracy"]
    assert not list(tmp_path.rglob("started.json"))


def test_what_schedulers_say():
    for environment in (
        {"SLURM_STEP_NUM_TASKS": "2"},
        {"OMPI_COMM_WORLD_SIZE": "8"},
        {"TPU_WORKER_HOSTNAMES": "host-0,host-1"},
        {"TPU_WORKER_HOSTNAMES": "host-0", "MEGASCALE_NUM_SLICES": "2"},
    ):
        assert cluster.is_one_of_several(environment), environment
    for environment in (
        {}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_NTASKS": "4"}, {"TPU_WORKER_HOSTNAMES": "host-0"}
    ):  # fmt: skip
        assert not cluster.is_one_of_several(environment), environment


def test_incomplete_flags(tiny_config, tmp_path):
    code, _, err = tiny_run.run(tiny_config, tmp_path, "--num_processes=2")
    assert code == 2
    assert "--coordinator, --num_processes, --process_id: pass all three" in err
