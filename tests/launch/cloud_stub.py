"""Plays gcloud, kubectl and Slurm from a state file, and hosts that run what comes over ssh.

The programs' state is $CLOUD_STUB/state.json, what they were asked $CLOUD_STUB/calls. A host is a
folder: bash really runs the text that comes over ssh, with the paths of a machine put under that
folder, and small programs in place of sudo, systemctl, uv and so on. A project with `apis` in its
state is played as well: what is used has to be created before, and its API enabled.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("CLOUD_STUB", "."))
GRANTED = ["CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
PROGRAMS = ("gcloud", "kubectl", "sbatch", "squeue", "scancel")

_UNIT = "ActiveState={}\\nResult=success\\nExecMainStatus={}\\nExecMainStartTimestamp={}\\n"
# What is on a host. $HOST_DIR is its folder; $CLOUD_STUB/faults/NAME makes something fail.
_ON_HOST = {
    "sudo": 'exec "$@"',
    "hostname": 'basename "$HOST_DIR"',
    "id": '[ -e "$HOST_DIR/user" ] && echo 20000',
    "useradd": 'echo "$@" > "$HOST_DIR/user"',
    "chown": "true",
    "apt-get": "true",
    "mountpoint": '[ -L "$HOST_DIR/mnt/bridge" ]',
    "mount": """
        [ ! -e "$CLOUD_STUB/faults/unmountable" ] || exit 32
        for last; do :; done
        rmdir "$last"; ln -s "$CLOUD_STUB/share" "$last" """,
    "findmnt": 'cut -d" " -f1 "$HOST_DIR/etc/fstab"',
    "df": """
        echo "Filesystem 1024-blocks Used Available"
        if [ -e "$CLOUD_STUB/faults/disk" ]; then echo / 9 9 2048; else echo / 9 9 90000000; fi""",
    "runuser": 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
    "touch": """
        [ ! -e "$CLOUD_STUB/faults/readonly" ] || { echo "Read-only file system" >&2; exit 1; }
        exec /usr/bin/touch "$@" """,
    "python3": 'echo "Python 3.10.12"',
    "curl": """
        mkdir -p "$HOST_DIR/opt/bridge/bin"
        echo 'cp "$HOST_BIN/uv-itself" "$UV_UNMANAGED_INSTALL/uv"' """,
    "uv-itself": """
        echo "uv $*" >> "$HOST_DIR/uv"
        faults="$CLOUD_STUB/faults/install"
        if [ "$1" = venv ]; then
          for last; do :; done
          mkdir -p "$last/bin"; ln -s /bin/true "$last/bin/python"
        elif [ -s "$faults" ]; then
          sed -i 1d "$faults"; echo "error: network unreachable" >&2; exit 1
        fi""",
    "systemctl": f"""
        unit="$HOST_DIR/unit"
        case "$1" in
          is-active) grep -qs "^ActiveState=active" "$unit" ;;
          restart)
            printf "{_UNIT.format("active", 0, "Mon")}" > "$unit"
            service="$HOST_DIR/etc/systemd/system/bridge.service"
            echo started >> "$(sed -n 's/^StandardOutput=append://p' "$service")" ;;
          disable) printf "{_UNIT.format("inactive", 75, "Mon")}" > "$unit" ;;
          show) cat "$unit" 2>/dev/null || printf "{_UNIT.format("inactive", 0, "")}" ;;
        esac""",
}


def install(root: Path, **state) -> Path:
    """Writes the programs and the first state, and returns the folder for PATH."""
    for name in ("bin", "host_bin", "faults", "share"):
        (root / name).mkdir(parents=True)
    # As a module, which Python compiles once: hundreds of them are started.
    python = (
        f"import sys; sys.path[0] = {str(Path(__file__).parent)!r}; import cloud_stub;"
        " sys.exit(cloud_stub.main(sys.argv[1], sys.argv[2:]))"
    )
    for name in PROGRAMS:
        program = root / "bin" / name
        start = shlex.join([sys.executable, "-S", "-E", "-c", python, name])
        program.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        program.chmod(0o755)
    for name, text in _ON_HOST.items():
        program = root / "host_bin" / name
        program.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}\n")
        program.chmod(0o755)
    for name in state.pop("faults", []):
        (root / "faults" / name).write_text("once\n")
    (root / "calls").touch()
    write(root, state)
    return root / "bin"


def read(root: Path) -> dict:
    return json.loads((root / "state.json").read_text())


def write(root: Path, state: dict) -> None:
    whole = root / f"state.{os.getpid()}"
    whole.write_text(json.dumps(state))
    whole.replace(root / "state.json")


def grant(root: Path, state: dict) -> None:
    """Puts a slice of fresh hosts there."""
    shutil.rmtree(root / "hosts", ignore_errors=True)
    for index in range(state.get("hosts", 2)):
        for folder in ("etc/systemd/system", "opt", "mnt", "tmp"):
            (root / "hosts" / f"t-{index}" / folder).mkdir(parents=True)
        if state.get("old_venv"):
            python = root / "hosts" / f"t-{index}" / "opt/bridge/venv/bin/python"
            python.parent.mkdir(parents=True)
            python.write_text("#!/bin/sh\nexit 1\n")
            python.chmod(0o755)
    state["node"] = "READY"


def preempt(root: Path, state: dict, into: str = "SUSPENDED") -> None:
    """Takes the slice away."""
    state["request"]["path"] = [into]
    state["node"] = None
    shutil.rmtree(root / "hosts", ignore_errors=True)


def end_run(root: Path, code: int, hosts: str = "t-*") -> None:
    """Ends the run on the hosts with an exit code."""
    for host in (root / "hosts").glob(hosts):
        active = "inactive" if code == 0 else "failed"
        text = f"ActiveState={active}\nResult=exit-code\nExecMainStatus={code}\n"
        (host / "unit").write_text(text + "ExecMainStartTimestamp=Mon\n")


def refuse(message: str) -> int:
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    return 1


def step(path: list[Any]) -> Any:
    """Returns the next entry of a path; the last one stays."""
    return path.pop(0) if len(path) > 1 else path[0]


def value(arguments: list[str], flag: str) -> str:
    return next((a.partition("=")[2] for a in arguments if a.startswith(f"{flag}=")), "")


def gcloud(arguments: list[str], state: dict) -> int:
    if "apis" in state and (refusal := _not_ready(arguments, state)):
        return refuse(refusal)
    match arguments:
        case ["compute", "tpus", "queued-resources" | "tpu-vm", "list", *_]:
            print(state.get("request") or "")
        case ["auth", "list", *_]:
            print("" if state.get("logged_out") else "me@example.org")
        case ["container", "clusters", "get-credentials", name, *_]:
            if refusal := state.get("no_cluster"):
                return refuse(refusal)
            parts = [value(arguments, flag) for flag in ("--project", "--location")]
            state["context"] = "_".join(["gke", *parts, name])
        case ["compute", "tpus", "queued-resources", what, name, *rest]:
            return queue(what, name, rest, state)
        case ["compute", "tpus", "tpu-vm", what, *rest]:
            return node(what, rest, state)
        case _ if "apis" in state:
            return project(arguments, state)
        case _:
            return refuse(f"unknown command {shlex.join(arguments)}")
    return 0


# The API of a group of commands.
_APIS = {
    "compute": "compute", "compute tpus": "tpu", "filestore": "file", "container": "container",
    "artifacts": "artifactregistry", "builds": "cloudbuild",
}  # fmt: skip


def words(arguments: list[str]) -> list[str]:
    return [each for each in arguments if not each.startswith("-")]


def _not_ready(arguments: list[str], state: dict) -> str:
    """Says what has to come before a command: its project's bill, its API, its cluster."""
    group, cluster = words(arguments)[:2], value(arguments, "--cluster")
    api = _APIS.get(" ".join(group)) or _APIS.get(group[0])
    if api and f"{api}.googleapis.com" not in state["apis"]:
        return f"PERMISSION_DENIED: {api}.googleapis.com has not been used. SERVICE_DISABLED"
    if group[0] == "services" and not state.get("billing"):
        return "FAILED_PRECONDITION: billing is disabled"
    if arguments[:3] == ["container", "clusters", "get-credentials"]:
        cluster = arguments[3]
    if cluster and f"container clusters {cluster}" not in state["there"]:
        return f"NOT_FOUND: {cluster}"
    return ""


def project(arguments: list[str], state: dict) -> int:
    """Plays what is created, listed and deleted in a project."""
    there, asked = state.setdefault("there", []), value(arguments, "--format")
    match words(arguments):
        case ["auth", "login"] | ["config", "set", "project", _] | ["components", "install", *_]:
            pass
        case ["compute", "tpus", "accelerator-types", "list"]:
            print("v5litepod-16")
        case ["billing", "accounts", "list"]:
            print("ACCOUNT_ID")
        case ["billing", "projects", "link", name] if f"projects {name}" in there:
            state["billing"] = True
        case ["services", "enable", *names]:
            state["apis"] += names
        case ["projects", "describe", _]:
            print(417)
        case ["projects", "add-iam-policy-binding", _]:
            granted = [value(arguments, flag) for flag in ("--member", "--role")]
            state.setdefault("granted", []).append(granted)
        case ["compute", "ssh", name] if f"compute instances {name}" in there:
            return on_host(machine(name), value(arguments, "--command"))
        case ["compute", "scp", source, target]:
            return copy(source, target)
        case ["builds", "submit", _]:
            there.append("storage gs://my-project-417_cloudbuild")
            state["images"] = [*state.get("images", []), value(arguments, "--tag")]
        case ["artifacts", "docker", "images", "list", _]:
            print("\n".join(state.get("images", [])))
        case ["storage", "rm", name]:
            there.remove(f"storage {name}")
        case [*group, "list"]:
            print("\n".join(each for each in there if each.startswith(" ".join(group))))
        case [*group, "create", "workload-policy", name] | [*group, "create", name]:
            found = " ".join([*group, name])
            if found in there:
                return refuse(f"ALREADY_EXISTS: {found}")
            there.append(found)
            if group == ["compute", "instances"]:
                for folder in ("home", "mnt"):
                    (machine(name) / folder).mkdir(parents=True)
        case [*group, "describe", name] if " ".join([*group, name]) in there:
            print("10.0.0.2" if "ipAddresses" in asked else "417-compute@example.org")
        case [*group, "delete", name]:
            found = " ".join([*group, name])
            if found not in there:
                return refuse(f"NOT_FOUND: {found}")
            there.remove(found)
            if group == ["container", "clusters"]:  # Its pools go with it.
                there[:] = [each for each in there if "node-pools" not in each]
        case _:
            return refuse(f"unknown command, or NOT_FOUND: {shlex.join(arguments)}")
    return 0


def machine(name: str) -> Path:
    return ROOT / "machines" / name


def copy(source: str, target: str) -> int:
    """Plays `gcloud compute scp`: NAME:/PATH is under the folder of the machine."""
    places = []
    for each in (source, target):
        name, colon, path = each.rpartition(":")
        home = machine(name) / "home"
        places.append(Path(f"{machine(name)}{path}" if path[:1] == "/" else home / path))
        if not colon:
            places[-1] = Path(each)
    shutil.copy(*places)
    return 0


def queue(what: str, name: str, rest: list[str], state: dict) -> int:
    if outage := state.get("unreachable"):  # True, or for how many questions.
        state["unreachable"] = outage if outage is True else outage - 1
        return refuse("could not reach the server")
    request = state.get("request")
    if what == "create":
        if refusal := state.get("refusal"):
            return refuse(refusal)
        if request:
            return refuse(f"ALREADY_EXISTS: {name}")
        paths = state.setdefault("paths", [])
        path = paths.pop(0) if paths else list(GRANTED)
        state["request"] = {"path": path, "type": value(rest, "--accelerator-type")}
        return 0
    if not request:
        return refuse(f"NOT_FOUND: {name}")
    if what == "delete":
        request["path"] = ["DELETING", "GONE"]
        state["node"] = None
        return 0
    asked = value(rest, "--format")
    if "acceleratorType" in asked:
        print(request["type"])
    elif "failedData" in asked:
        print("no capacity in this zone")
    else:
        if len(request["path"]) > 1:
            request["path"].pop(0)
        now = request["path"][0]
        if now == "GONE":
            state["request"] = None
            return refuse(f"NOT_FOUND: {name}")
        if now == "ACTIVE" and not state.get("node"):
            grant(ROOT, state)
        print(now)
    return 0


def node(what: str, rest: list[str], state: dict) -> int:
    if what == "versions":
        print("v2-alpha-tpuv5-lite")
        return 0
    if not state.get("node"):
        return refuse("NOT_FOUND: no such TPU")
    hosts = sorted((ROOT / "hosts").glob("*"))
    worker = value(rest, "--worker")
    asked = hosts if worker == "all" else hosts[int(worker or 0) :][:1]
    if what == "describe":
        print(len(hosts) if "networkEndpoints" in value(rest, "--format") else state["node"])
        return 0
    if what == "scp":
        for host in asked:
            shutil.copy(rest[0], host / "tmp/bridge-code.tar")
        return 0
    command = value(rest, "--command")
    if state.get("drops", 0) and not command.startswith("tail"):
        state["drops"] -= 1
        print("Connection reset by peer", file=sys.stderr)
        return 255
    if state.get("drops_at_begin", 0) and "begin bridge" in command:
        state["drops_at_begin"] -= 1
        return 255
    if re.search(r"\bstate'?$", command):
        happen(state)
        if not state.get("node"):
            return refuse("the host does not answer")
    code = 0
    silent = state.get("silent", {})  # How often a host does not answer.
    for host in asked:
        if silent.get(host.name, 0):
            silent[host.name] -= 1
            code = 255
            continue
        code = on_host(host, command) or code
        if state.get("forget_keys"):
            (host / "opt/bridge/keys.env").unlink(missing_ok=True)
    return code


def happen(state: dict) -> None:
    """Does what the day has for this question about the run."""
    events = state.get("events", [])
    event = events.pop(0) if events else ""
    if event == "preempt":
        preempt(ROOT, state)
    elif event.startswith("exit"):
        _, code, *hosts = event.split()
        end_run(ROOT, int(code), *hosts)
    elif event == "drop":
        state["drops"] = 1


def on_host(host: Path, command: str) -> int:
    for folder in ("/etc/", "/opt/bridge", "/mnt/bridge", "/tmp/bridge"):
        command = command.replace(folder, f"{host}{folder}")
    environment = {
        "PATH": f"{ROOT}/host_bin:/usr/bin:/bin",
        "HOST_DIR": str(host),
        "HOST_BIN": f"{ROOT}/host_bin",
        "CLOUD_STUB": str(ROOT),
    }
    return subprocess.run(["bash", "-c", command], env=environment, check=False).returncode


def kubectl(arguments: list[str], state: dict) -> int:
    arguments = [a for a in arguments if not a.startswith("--context")]
    jobset = state.get("jobset")
    match arguments:
        case ["config", "get-contexts", *_]:
            print(state.get("context", ""))
        case ["get", "crd", *_]:
            if state.get("no_crd"):
                print('Error: "jobsets.jobset.x-k8s.io" not found', file=sys.stderr)
                return 1
        case ["get", "nodes", *_]:
            print("\n".join(f"node/{i}" for i in range(state.get("nodes", 0))))
        case ["get", "pods", *rest]:
            if "PodScheduled" in rest[-1]:
                print("0/3 nodes are available: 3 node(s) didn't match the node selector")
            elif jobset:
                running = step(jobset["running"])
                state["nodes"] = max(state.get("nodes", 0), running)
                for i in range(4):
                    print(f"bridge-slice-0-{i} {'Running' if i < running else 'Pending'}")
        case ["get", _, "-o", _]:
            if not jobset:
                print('Error from server (NotFound): "bridge" not found', file=sys.stderr)
                return 1
            print(step(jobset["conditions"]), end="")
        case ["create", "secret", *_]:
            (ROOT / "secret").write_text(sys.stdin.read())
            print("kind: Secret")
        case ["apply", "--server-side", "-f", address]:
            state["no_crd"] = "jobset" not in address
        case ["apply", "-f", "-"]:
            text = sys.stdin.read()
            if "kind: JobSet" in text:
                (ROOT / "manifest.yaml").write_text(text)
                days = state.setdefault("jobsets", [])
                state["jobset"] = days.pop(0) if days else {"conditions": [""], "running": [0, 4]}
        case ["delete", _, *_]:
            state["jobset"] = None
        case ["patch", *_] if jobset:
            jobset["conditions"], jobset["running"] = ["Suspended "], [0]
        case ["logs", *_]:
            print("[pod/bridge-slice-0-0] error: the data is missing")
        case _:
            return 1
    return 0


def slurm(name: str, state: dict) -> int:
    if name == "squeue":
        print(state.get("job", ""), end="")
    elif name == "sbatch":
        (ROOT / "batch").write_text(sys.stdin.read())
        state["job"] = "17 PENDING (Resources)\n"
        print("Submitted batch job 17")
    else:
        state["job"] = ""
    return 0


def main(name: str, arguments: list[str]) -> int:
    with (ROOT / "calls").open("a") as calls:
        calls.write(shlex.join([name, *arguments]) + "\n")
    state = read(ROOT)
    try:
        if name in ("gcloud", "kubectl"):
            return {"gcloud": gcloud, "kubectl": kubectl}[name](arguments, state)
        return slurm(name, state)
    finally:
        sys.stdout.flush()
        write(ROOT, state)
