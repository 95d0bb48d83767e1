"""The scripts for clusters say with --dry_run what they would do."""

import os
import shlex
import subprocess

import pytest

from tests.launch.tiny_run import ROOT

RUN = ["--", "--config=configs/medical_7b.py", "--data.path=/mnt/bridge/a b.jsonl"]


def script(name, *flags, env=None):
    done = subprocess.run(
        [ROOT / "launch" / name, *flags], capture_output=True, text=True, check=False, env=env
    )
    return done.returncode, done.stdout, done.stderr


def test_a_tpu_slice_is_asked_for_prepared_used_and_given_back():
    where = ["--project=p", "--zone=z", "--nfs=10.0.0.2:/share", "--repo=https://example.org/r"]
    code, out, err = script("tpu/queued_resource.sh", *where, "--spot", "--dry_run", *RUN)
    assert code == 0, err
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("gcloud")]
    verbs = [command[3:5] for command in commands]
    assert verbs == [
        ["queued-resources", "create"], ["tpu-vm", "ssh"], ["tpu-vm", "ssh"], ["tpu-vm", "ssh"],
        ["queued-resources", "delete"],
    ]  # fmt: skip
    assert {"--accelerator-type=v5litepod-16", "--spot", "--node-id=bridge"} <= set(commands[0])
    assert all({"--project=p", "--zone=z"} <= set(command) for command in commands)
    assert "sudo mount 10.0.0.2:/share /mnt/bridge" in commands[1][-1]
    run = commands[3][-1]
    assert "--worker=all" in commands[3]
    assert "launch.run --multihost --workdir=/mnt/bridge/runs/bridge" in run
    assert "'--data.path=/mnt/bridge/a b.jsonl'" in run or r"a\ b.jsonl" in run
    assert "[ $code = 75 ]" in run
    _, out, _ = script("tpu/queued_resource.sh", *where, "--keys=/k.env", "--dry_run", *RUN)
    assert "cd bridge-jax && set -a && . /k.env && set +a && while" in shlex.join(shlex.split(out))


@pytest.mark.parametrize(
    ("state", "message"),
    [("echo ACTIVE", "the run has failed"), ("exit 1", "Google Cloud does not answer")],
)
def test_a_slice_that_may_live_is_never_deleted(state, message, tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/log\ncase "$*" in *describe*) {state} ;; esac\n'
        'case "$*" in *ssh*) exit 1 ;; esac\n'
    )
    gcloud.chmod(0o755)
    where = ["--project=p", "--zone=z", "--nfs=10.0.0.2:/share", "--repo=https://example.org/r"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    code, _, err = script("tpu/queued_resource.sh", *where, *RUN, env=os.environ | {"PATH": path})
    assert code == 1
    assert message in err
    assert "delete" not in (tmp_path / "log").read_text()


def test_gke_restarts_on_a_notice():
    where = ["--project=p", "--zone=z", "--cluster=c", "--image=i"]
    keys = "--keys=/secrets/keys.env"
    _, out, _ = script("tpu/gke.sh", *where, keys, "--dry_run", *RUN)
    assert "--command=set -a && . /secrets/keys.env && set +a && python" in shlex.split(out)[-1]
    code, out, err = script("tpu/gke.sh", *where, "--dry_run", *RUN)
    assert code == 0, err
    command = shlex.split(out)
    assert command[:3] == ["xpk", "workload", "create"]
    assert {"--restart-on-exit-codes=75", "--tpu-type=v5litepod-16"} <= set(command)
    assert "--max-restarts=20" in command
    assert command[-1].startswith("--command=python -m launch.run --multihost --config=")


def test_slurm_has_a_process_a_gpu_and_is_requeued():
    code, out, err = script("slurm/submit.sh", "--nodes=2", "--partition=gpu", "--dry_run", *RUN)
    assert code == 0, err
    for line in (
        "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8", "#SBATCH --partition=gpu",
        "#SBATCH --signal=TERM@120", "#SBATCH --requeue",
    ):  # fmt: skip
        assert line in out.splitlines()
    assert "if [[ $code == 75 ]]; then scontrol requeue" in out
    assert r"--data.path=/mnt/bridge/a\ b.jsonl" in out


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("tpu/queued_resource.sh", ["--project=p", "--dry_run"], "--zone is missing"),
        ("tpu/gke.sh", ["--clusters=c"], "unknown flag --clusters=c"),
        ("slurm/submit.sh", ["--node=3"], "unknown flag --node=3"),
    ],
)
def test_mistakes_are_named(name, flags, message):
    code, out, err = script(name, *flags)
    assert (code, out) == (2, "")
    assert message in err
