"""The scripts for clusters on bad days, played by `cloud_stub`.

Each day ends in a run that runs, or in a message with the way out. What is billed is always said.
"""

import os
import shutil
import subprocess
from typing import NamedTuple

import pytest
import yaml

from tests.launch import cloud_stub
from tests.launch.tiny_run import ROOT

WHERE = ["--project=p", "--zone=z"]
START = ["--nfs=10.0.0.2:/share", "--", "--config=configs/medical_cpu.py", "--data.path=a b.jsonl"]
PAID = ["--nfs=10.0.0.2:/share", "--yes", "--", "--config=configs/quickstart_gemini.py"]
KEY = {"GEMINI_API_KEY": "not-a-real-key-417"}
BILLED = "STILL BILLED: 16 chips of v5litepod-16 in z"
FREE = "Billed: no TPU"
UNKNOWN = "Google did not say whether a slice bridge is billed"


def play(root, script, *flags, env=None, path=None):
    """Returns (exit code, what was said) of a script among the stubs."""
    secrets = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "HF_TOKEN")
    clean = {name: value for name, value in os.environ.items() if name not in secrets}
    around = clean | {
        "PATH": path or f"{root / 'bin'}:{os.environ['PATH']}",
        "CLOUD_STUB": str(root),
        "BRIDGE_POLL": "0",
    }
    done = subprocess.run(
        [ROOT / "launch" / script, *flags],
        env=around | (env or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=100,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


class Day(NamedTuple):
    """A state of the cloud, a command, and what it has to end in."""

    state: dict
    code: int
    said: list[str]
    verb: str = "start"
    flags: list[str] = START
    running: bool = False  # Whether the run runs on both hosts afterwards.
    env: dict | None = None


ALIVE = {"request": {"path": ["ACTIVE"], "type": "v5litepod-16"}}
DAYS = {
    "a good day": Day({}, 0, ["WAITING_FOR_RESOURCES", "started on 2 hosts", BILLED], running=True),
    "an installation fails, and is repaired": Day(
        {"faults": ["install"]}, 0, ["network unreachable", "trying once more", BILLED],
        running=True,
    ),
    "the image has an old Python": Day({"old_venv": True}, 0, ["started on 2"], running=True),
    "the ssh connection is lost once": Day({"drops": 1}, 0, ["started on 2 hosts"], running=True),
    "the ssh connection is lost as the run begins": Day(
        {"drops_at_begin": 1}, 0, ["started on 2 hosts"], running=True
    ),
    "it is lost again and again": Day(
        {"drops_at_begin": 9}, 1, ["0 of 2 hosts answer over ssh", BILLED]
    ),
    "ssh never answers": Day(
        {"drops": 99}, 1, ["0 of 2 hosts answer", "firewall, ssh-agent", BILLED]
    ),
    "half of the workers are ready late": Day(
        {"silent": {"t-1": 3}}, 0, ["started on 2 hosts"], running=True
    ),
    "a worker never comes": Day(
        {"silent": {"t-1": 99}}, 1, ["1 of 2 hosts answer over ssh: t-0 ready", "delete", BILLED]
    ),
    "preempted while away": Day(
        {"request": {"path": ["SUSPENDED"], "type": "v5litepod-16"}}, 0,
        ["was preempted, or taken back", "requesting again", "started on 2", BILLED], running=True,
    ),
    "the request is being suspended": Day(
        {"request": {"path": ["SUSPENDING", "SUSPENDING", "SUSPENDED"], "type": "v5litepod-16"}}, 0,
        ["SUSPENDING", "started on 2 hosts"], running=True,
    ),
    "the machines are gone, and the request still active": Day(
        ALIVE | {"node": "PREEMPTED"}, 0, ["was preempted", "started on 2 hosts"], running=True
    ),
    "the last request has failed": Day(
        {"request": {"path": ["FAILED"], "type": "v5litepod-16"}}, 0,
        ["the last request has failed", "started on 2"], running=True,
    ),
    "no capacity for long": Day(
        {"paths": [["CREATING", *["WAITING_FOR_RESOURCES"] * 5, "FAILED"]]}, 1,
        ["failed: no capacity in this zone", "a longer --wait (now 6h)", f"{FREE}. The request"],
    ),
    "a state that is new": Day(
        {"paths": [["CREATING", "HIBERNATING", "ACTIVE"]]}, 0, ["HIBERNATING", "started on 2"],
        running=True,
    ),
    "the quota is too small": Day(
        {"refusal": "Quota 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' exhausted. Limit 0"}, 1,
        ["Limit 0", "ask for quota", "--spot, which has a separate quota", FREE],
    ),
    "the wrong zone or type": Day(
        {"refusal": "INVALID_ARGUMENT: accelerator type not found in z"}, 1,
        ["accelerator-types list --project=p --zone=z", FREE],
    ),
    "billing is disabled": Day(
        {"refusal": "FAILED_PRECONDITION: billing is disabled for project p"}, 1,
        ["gcloud billing projects link p", FREE],
    ),
    "the API is off": Day(
        {"refusal": "PERMISSION_DENIED: Cloud TPU API has not been used in project p. "
         "SERVICE_DISABLED"}, 1, ["gcloud services enable tpu.googleapis.com --project=p", FREE],
    ),
    "the name is in use by a live slice": Day(
        {"request": {"path": ["ACTIVE"], "type": "v5p-8"}}, 1,
        ["the name bridge is in use by a live v5p-8", "STILL BILLED: 4 chips of v5p-8"],
    ),
    "gcloud is not logged in": Day(
        {"logged_out": True, "unreachable": True}, 1, ["gcloud auth login", UNKNOWN]
    ),
    "Google does not answer": Day({"unreachable": True}, 1, ["does not answer", UNKNOWN]),
    "the share is read-only": Day(
        {"faults": ["readonly"]}, 1,
        ["not writable for the user bridge (uid 20000)", "Read-only file system", BILLED],
    ),
    "the share is in another network": Day(
        {"faults": ["unmountable"]}, 1, ["cannot be mounted: is it in this network", BILLED]
    ),
    "the disk is full": Day({"faults": ["disk"]}, 1, ["only 2 MiB are free", BILLED]),
    "the key is missing here": Day(
        {}, 1, ["export GEMINI_API_KEY or GOOGLE_API_KEY", FREE], flags=PAID
    ),
    "the key is missing on the first host": Day(
        {"forget_keys": True}, 1,
        ["host t-0: the teacher's key is not on this host: export GEMINI_API_KEY", BILLED],
        flags=PAID, env=KEY,
    ),
    "a paid teacher, and nobody to ask": Day(
        {}, 2, ["at most (budget.queries, budget.usd)", "pass --yes", FREE], env=KEY,
        flags=["--nfs=10.0.0.2:/share", "--", "--config=configs/quickstart_gemini.py"],
    ),
    "a mistake in the config": Day(
        {}, 2, ["did you mean 'budget.usd'", FREE], flags=[*START, "--budget.us=1"]
    ),
    "preempted while watched": Day(
        {"events": ["", "preempt", "", "exit 0"]}, 0,
        ["the slice is gone", "requesting again", "the run is done", BILLED], verb="watch",
    ),
    "ssh is lost while watched": Day(
        {"events": ["drop", "", "exit 0"]}, 0, ["the run is done", BILLED], verb="watch"
    ),
    "Google does not answer for a while, while watched": Day(
        {"unreachable": 4, "events": ["exit 0"]}, 0, ["UNKNOWN", "the run is done", BILLED],
        verb="watch",
    ),
    "a host never joins": Day(
        {"events": ["", "exit 2 t-0", ""]}, 1,
        ["t-0 failed 2", "t-1 running", "a host that did not join", BILLED], verb="watch",
    ),
    "the end, with nobody there": Day(
        {"events": ["", "exit 0"]}, 0, ["the run is done", "Billed: no TPU named"],
        verb="watch", flags=["--delete_at_end", *START],
    ),
    "it fails with nobody there": Day(
        {"faults": ["readonly"]}, 1, ["is not writable", "Billed: no TPU named"],
        verb="watch", flags=["--delete_at_end", *START],
    ),
    "status of nothing": Day(
        {}, 0, ["request: NONE", "run: none, because there are no hosts", FREE],
        verb="status", flags=[],
    ),
    "delete of nothing": Day({}, 0, ["there is no slice bridge", FREE], verb="delete", flags=[]),
    "attach to nothing": Day({}, 1, ["there is no slice", FREE], verb="attach", flags=[]),
}  # fmt: skip


# One of each kind, and the quick ones; the others are played by CI.
OFTEN = {
    "a good day", "an installation fails, and is repaired", "preempted while away",
    "no capacity for long", "a state that is new", "the quota is too small",
    "the name is in use by a live slice", "gcloud is not logged in", "the share is read-only",
    "the key is missing here", "the key is missing on the first host",
    "a paid teacher, and nobody to ask", "a mistake in the config", "preempted while watched",
    "the end, with nobody there", "status of nothing", "delete of nothing", "attach to nothing",
}  # fmt: skip
assert set(DAYS) >= OFTEN


@pytest.mark.parametrize(
    "day",
    [
        pytest.param(day, id=name, marks=() if name in OFTEN else pytest.mark.slow)
        for name, day in DAYS.items()
    ],
)
def test_a_day_with_a_slice(day, tmp_path):
    cloud_stub.install(tmp_path, **day.state)
    code, said = play(tmp_path, "tpu/queued_resource.sh", day.verb, *WHERE, *day.flags, env=day.env)
    assert code == day.code, said
    for text in [*day.said, "Also billed: the Filestore share"]:
        assert text in said
    units = [host / "unit" for host in tmp_path.glob("hosts/*")]
    runs = [unit.exists() and "ActiveState=active" in unit.read_text() for unit in units]
    assert (runs == [True, True]) == day.running


def test_the_run_on_the_hosts_is_that_of_the_flags(tmp_path):
    cloud_stub.install(tmp_path, old_venv=True)
    env = KEY | {"HF_TOKEN": "hf-not-real"}
    code, said = play(
        tmp_path, "tpu/queued_resource.sh", "start", *WHERE, *PAID, "--x=a b", env=env
    )
    assert code == 0, said
    first, second = sorted(tmp_path.glob("hosts/*"))
    command = (second / "opt/bridge/run.sh").read_text()
    assert command.startswith(f"exec {second}/opt/bridge/venv/bin/python -m launch.run --multihost")
    assert "--yes" in command and r"--x=a\ b" in command
    assert "bridge/runs/bridge" in command
    assert (first / "uv").read_text().splitlines()[0].startswith(
        "uv venv --python=3.11 --python-preference=only-managed"
    )  # fmt: skip
    assert (first / "opt/bridge/code/launch/run.py").exists()
    unit = (first / "etc/systemd/system/bridge.service").read_text()
    for line in ("RestartForceExitStatus=75", "User=bridge", "WantedBy=multi-user.target"):
        assert line in unit.splitlines()
    # The teacher's key is on the first host alone, and nowhere else.
    keys = first / "opt/bridge/keys.env"
    assert keys.read_text() == "GEMINI_API_KEY=not-a-real-key-417\nHF_TOKEN=hf-not-real\n"
    assert keys.stat().st_mode & 0o77 == 0
    assert (second / "opt/bridge/keys.env").read_text() == "HF_TOKEN=hf-not-real\n"
    others = [path for path in tmp_path.rglob("*") if path.is_file() and path != keys]
    assert not [path for path in others if KEY["GEMINI_API_KEY"].encode() in path.read_bytes()]
    assert KEY["GEMINI_API_KEY"] not in said
    # The same command changes nothing; other flags are refused while it runs.
    uv = (first / "uv").read_text()
    again = play(tmp_path, "tpu/queued_resource.sh", "start", *WHERE, *PAID, "--x=a b", env=env)
    assert again[0] == 0
    assert (first / "uv").read_text() == uv
    code, said = play(tmp_path, "tpu/queued_resource.sh", "start", *WHERE, *PAID, env=env)
    assert code == 1
    assert "another run is active here: stop it first" in said
    code, said = play(tmp_path, "tpu/queued_resource.sh", "stop", *WHERE)
    assert (code, said.count("stopped")) == (0, 2)
    code, said = play(tmp_path, "tpu/queued_resource.sh", "delete", *WHERE)
    assert code == 0 and "no TPU named bridge" in said


def test_without_gcloud(tmp_path):
    cloud_stub.install(tmp_path)
    (tmp_path / "bin/gcloud").unlink()
    for name in ("bash", "dirname", "mktemp", "sed", "rm", "grep", "tail", "env", "sleep"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    path = str(tmp_path / "bin")
    code, said = play(tmp_path, "tpu/queued_resource.sh", "status", *WHERE, path=path)
    assert code == 1
    assert "gcloud is not installed: https://cloud.google.com/sdk/docs/install" in said
    assert UNKNOWN in said


GKE = ["--project=p", "--location=z", "--cluster=c"]
IMAGE = ["--image=i:1", *START]
NODES = "STILL BILLED: 4 nodes with 4 chips of v5e each"
GKE_DAYS = {
    "a good day": Day({}, 0, ["started in 4 pods", NODES, "keeps asking for nodes"], flags=IMAGE),
    "a good day with TPU7x": Day(
        {}, 0, ["started in 4 pods", "STILL BILLED: 4 nodes with 4 chips of tpu7x each"],
        flags=["--type=tpu7x", "--topology=2x2x4", "--spot", *IMAGE],
    ),
    "no JobSet in the cluster": Day(
        {"no_crd": True}, 1, ["the cluster has no JobSet", "no node with v5e"], flags=IMAGE
    ),
    "no cluster": Day(
        {"no_cluster": "billing is disabled"}, 1, ["the cluster c cannot be reached", "billing"],
        flags=IMAGE,
    ),
    "no node with this topology": Day(
        {"jobsets": [{"conditions": [""], "running": [0]}]}, 1,
        ["0 of 4 pods are running", "didn't match the node selector", "keeps asking for nodes",
         "delete"],
        flags=["--wait=0m", *IMAGE],
    ),
    "half of the pods come late": Day(
        {"jobsets": [{"conditions": [""], "running": [2, 2, 4]}]}, 0, ["started in 4"], flags=IMAGE
    ),
    "the share cannot be written": Day(
        {"jobsets": [{"conditions": ["", "Failed "], "running": [2]}], "nodes": 4}, 1,
        ["is not restarted", "a share that cannot be written", NODES], flags=IMAGE,
    ),
    "the last run has ended": Day(
        {"jobset": {"conditions": ["Failed "], "running": [0]}}, 0,
        ["it resumes from the share", "started in 4 pods"], flags=IMAGE,
    ),
    "the key is missing": Day({}, 1, ["export GEMINI_API_KEY"], flags=["--image=i:1", *PAID]),
    "not logged in": Day({"logged_out": True}, 1, ["gcloud auth login"], flags=IMAGE),
    "stop": Day(
        {"jobset": {"conditions": [""], "running": [4]}, "nodes": 4}, 0,
        ["start resumes the run", NODES], verb="stop", flags=[],
    ),
    "delete": Day({"jobset": {"conditions": [""], "running": [4]}}, 0, ["no node"], "delete", []),
    "status": Day(
        {"jobset": {"conditions": [""], "running": [4]}, "nodes": 4}, 0,
        ["JobSet: active", "bridge-slice-0-3 Running", NODES], "status", [],
    ),
    "status of nothing": Day({}, 0, ["JobSet: NONE", "no node"], "status", []),
    "attach to nothing": Day({}, 1, ["there are no pods"], "attach", []),
    "logs of nothing": Day({}, 1, ["there are no pods"], "logs", []),
}  # fmt: skip


@pytest.mark.parametrize("day", GKE_DAYS.values(), ids=GKE_DAYS)
def test_a_day_on_gke(day, tmp_path):
    cloud_stub.install(tmp_path, **{"context": "gke_p_z_c"} | day.state)
    if "no_cluster" in day.state:
        cloud_stub.write(tmp_path, cloud_stub.read(tmp_path) | {"context": ""})
    code, said = play(tmp_path, "tpu/gke.sh", day.verb, *GKE, *day.flags)
    assert code == day.code, said
    for text in day.said:
        assert text in said
    assert "Also billed, until you delete them: the cluster itself" in said


def test_the_key_goes_to_gke_as_a_secret_alone(tmp_path):
    cloud_stub.install(tmp_path)
    code, said = play(tmp_path, "tpu/gke.sh", "start", *GKE, "--image=i:1", *PAID, env=KEY)
    assert code == 0, said
    assert (tmp_path / "secret").read_text() == "GEMINI_API_KEY=not-a-real-key-417\n\n"
    for name in ("calls", "manifest.yaml"):
        assert KEY["GEMINI_API_KEY"] not in (tmp_path / name).read_text()
    assert KEY["GEMINI_API_KEY"] not in said
    assert yaml.safe_load((tmp_path / "manifest.yaml").read_text())["kind"] == "JobSet"


def test_a_slurm_job_is_submitted_once(tmp_path):
    cloud_stub.install(tmp_path)
    flags = ["--config=configs/medical_cpu.py", "--workdir=runs/a b"]
    code, said = play(tmp_path, "slurm/submit.sh", "start", "--", *flags)
    assert code == 0, said
    assert "charged to your account while it runs: 17 PENDING" in said
    assert r"--workdir=runs/a\ b" in (tmp_path / "batch").read_text()
    code, said = play(tmp_path, "slurm/submit.sh", "start", "--", *flags)
    assert (code, "is already waiting or running" in said) == (1, True)
    code, said = play(tmp_path, "slurm/submit.sh", "stop")
    assert code == 0
    assert "No job named bridge is waiting or running in Slurm." in said


@pytest.mark.parametrize("script", ["tpu/queued_resource.sh", "tpu/gke.sh", "slurm/submit.sh"])
def test_a_script_may_change_while_it_runs(script, tmp_path):
    """As after a `git pull` beside a `watch`: bash reads on where it was in the file."""
    copy = tmp_path / "launch" / script
    shutil.copytree(ROOT / "launch", tmp_path / "launch", ignore=lambda *_: ["__pycache__"])
    (tmp_path / "new").write_text("# This line is new, and has (a bracket)\n" + copy.read_text())
    program = tmp_path / "bin/program"
    program.parent.mkdir()
    answer = 'case "$*" in *describe*) ;; *) echo gke_p_z_c ;; esac'
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/new" > "{copy}"\n{answer}\n')
    program.chmod(0o755)
    for name in cloud_stub.PROGRAMS:
        (tmp_path / "bin" / name).symlink_to(program)
    flags = {"tpu/queued_resource.sh": WHERE, "tpu/gke.sh": GKE, "slurm/submit.sh": []}[script]
    done = subprocess.run(
        [copy, "status", *flags], capture_output=True, text=True, check=False, timeout=100,
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "BRIDGE_POLL": "0"},
    )  # fmt: skip
    assert copy.read_text().startswith("# This line is new")
    assert done.returncode == 0
    assert "line " not in done.stderr
