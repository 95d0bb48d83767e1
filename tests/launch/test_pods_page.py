"""docs/pods.md, followed from its first command to its last, in a project that is played."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import cloud_stub
from tests.launch.tiny_run import ROOT

PAGE = ROOT / "docs/pods.md"
KEY = "not-a-real-key-417"
# What the page runs on your own machine beside the scripts.
LOCAL = {
    "python3.11": "true",
    "pip": "true",
    "make": "true",
    "curl": "echo 203.0.113.7",
    "ssh-keygen": "true",
    "ssh-agent": "true",
    "ssh-add": "true",
    "tmux": "true",
    "python3": f'exec "{sys.executable}" "$@"',
    "python": """
        case "$2" in
          launch.convert) echo '{}' > pubmedqa.jsonl ;;
          launch.export) [ -e bridge/report.html ] && [ ! -e bridge/state ] && mkdir student ;;
        esac""",
}


def blocks() -> list[str]:
    """Returns the page's blocks of commands, without those that show what is printed."""
    found = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return [block for block in found if not block.startswith(("medical_7b on", "chips x"))]


def as_followed(block: str, machine: Path) -> str:
    """Returns a block as a reader runs it: what is shown with --dry_run is then run, too."""
    block = block.replace("submit.sh start", "submit.sh start --yes")
    if block.startswith("tar -xf bridge-jax.tar"):  # On the machine, whose Python has no packages.
        return f'(cd "{machine}/home"; PATH="{machine}:$PATH"\n{block})\n'
    if "--dry_run" in block:
        block += block.replace("--dry_run", "--yes")
    if "queued_resource.sh start" in block:  # The commands of the table that follows.
        command = 'launch/tpu/queued_resource.sh {} --project="$P" --zone="$ZONE"\n'
        block += "".join(map(command.format, ("status", "logs", "stop", "delete")))
    if "gke.sh status" in block:
        block = "".join(
            block.replace("status", verb) for verb in ("status", "logs", "stop", "delete")
        )
    return block


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder of the stub after all of the page, and what was printed."""
    root = tmp_path_factory.mktemp("pods")
    events = ["", "", "preempt", "", "exit 0"]  # One for each question about a run.
    cloud_stub.install(root / "stub", apis=[], there=[], no_crd=True, events=events)
    home, machine = root / "home", root / "stub/machines/bridge-files"
    for name, text in LOCAL.items():
        program(root / "stub/bin" / name, text)
    program(machine / "python3", f'exec "{sys.executable}" -S -E "$@"')
    finished = root / "stub/share/runs/bridge"
    (finished / "state").mkdir(parents=True)
    (finished / "report.html").write_text("The report")
    repository(home)
    text = "set -euo pipefail\n" + "".join(as_followed(each, machine) for each in blocks())
    script = root / "page.sh"
    script.write_text(text.replace("/tmp/bridge-jax.tar", f"{root}/bridge-jax.tar"))
    secrets = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "HF_TOKEN")
    clean = {name: value for name, value in os.environ.items() if name not in secrets}
    done = subprocess.run(
        ["bash", script], input=f"{KEY}\n", capture_output=True, text=True, check=False, cwd=home,
        env=clean | {
            "PATH": f"{root / 'stub/bin'}:{os.environ['PATH']}",
            "CLOUD_STUB": str(root / "stub"), "BRIDGE_POLL": "0", "HOME": str(home),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "stub", done.stdout + done.stderr


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def repository(home: Path) -> None:
    """Writes a repository of what the scripts read, with an environment."""
    for name in ("launch", "configs"):
        shutil.copytree(ROOT / name, home / name, ignore=lambda *_: ["__pycache__"])
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home)
    (home / "bridge_jax").symlink_to(ROOT / "bridge_jax")
    (home / ".gitignore").write_text(".venv\n")
    for name in ("python", "pip"):
        program(home / ".venv/bin" / name, LOCAL["python3"] if name == "python" else "true")
    (home / ".venv/bin/activate").touch()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *command], cwd=home, check=True)


@pytest.mark.slow
def test_nothing_has_to_be_guessed_and_nothing_is_left(followed):
    stub, said = followed
    for text in (
        "the run has started on 2 hosts", "run: running", "the slice is gone", "the run is done",
        "the run has started in 4 pods", "JobSet: active", "the pods save their state and end",
        "Submitted batch job 17", "is paid: 300 queries and $3.00 at most",
    ):  # fmt: skip
        assert text in said
    assert KEY not in said
    state = cloud_stub.read(stub)
    assert state["request"] is state["node"] is state["jobset"] is None
    assert state["there"] == [
        "projects my-project-417", "compute networks default",
        "compute firewall-rules bridge-ssh", "compute firewall-rules bridge-inside",
    ]  # fmt: skip
    roles = {role.removeprefix("roles/") for _, role in state["granted"]}
    assert roles == {
        "tpu.admin", "iam.serviceAccountUser", "compute.viewer", "cloudbuild.builds.builder",
        "artifactregistry.reader", "container.defaultNodeServiceAccount",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="needs gcloud")
def test_gcloud_has_these_commands_and_flags(followed, tmp_path):
    """As its own check says, which sends nothing. That check cannot read add-iam-policy-binding."""
    calls = (followed[0] / "calls").read_text()
    given = [shlex.split(call) for call in re.split(r"\n(?=gcloud|kubectl|s\w+ )", calls)]
    outside_blocks = re.sub(r"^```\n.*?^```", "", PAGE.read_text(), flags=re.M | re.S)
    outside_blocks = outside_blocks.replace("$P", "my-project-417").replace("$REGION", "us-west4")
    given += [shlex.split(each) for each in re.findall("`(gcloud [^`]*)`", outside_blocks)]
    commands = {
        shlex.join("--command=true" if "--command=" in each else each for each in call)
        for call in given
        if call[:1] == ["gcloud"] and "add-iam-policy-binding" not in call
    }
    assert len(commands) > 50
    path = tmp_path / "commands.json"
    path.write_text(json.dumps([{"command_string": each} for each in sorted(commands)]))
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={path}"],
        capture_output=True, text=True, check=True,
        env=os.environ | {"CLOUDSDK_CONFIG": str(tmp_path)},
    )  # fmt: skip
    checked = json.loads(done.stdout)
    assert len(checked) == len(commands)
    refused = {row["command_string"]: row["error_message"] for row in checked if not row["success"]}
    assert refused == {}
