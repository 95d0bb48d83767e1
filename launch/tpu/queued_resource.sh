#!/usr/bin/env bash
# A run on a TPU VM slice of Google Cloud: asks for the slice, installs, runs, begins again after a
# preemption, and leaves the slice for you to delete.
#
#   launch/tpu/queued_resource.sh --project=P --zone=us-west4-a --nfs=10.0.0.2:/share \
#       --repo=https://github.com/YOU/bridge-jax [--name=bridge] [--type=v5litepod-16] \
#       [--runtime=v2-alpha-tpuv5-lite] [--keys=/mnt/bridge/keys.env] [--spot] [--dry_run] \
#       -- --config=configs/medical_7b.py --data.path=/mnt/bridge/med_pubmedqa.jsonl
#
# --nfs is a Filestore share that every host mounts on /mnt/bridge: the workdir lies there. --keys is a
# file on the hosts with lines as GEMINI_API_KEY=..., which only you can read: a key in a command line
# would be seen. What is after -- goes to launch.run. --dry_run prints the commands and does nothing.
set -euo pipefail

name=bridge type=v5litepod-16 runtime=v2-alpha-tpuv5-lite
project='' zone='' nfs='' repo='' keys='' spot='' dry_run=''
. "$(dirname "$0")/../flags.sh"
read_flags "name type runtime project zone nfs repo keys spot" "$@"
require_flags project zone nfs repo
where=(--project="$project" --zone="$zone")

run() {
  if [[ -n $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# Its state in one word: NONE if there is no such request, UNKNOWN if Google could not be asked.
state() {
  local said
  if [[ -n $dry_run ]]; then
    echo NONE
  elif said=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' 2>&1); then
    echo "$said"
  elif [[ $said == *NOT_FOUND* ]]; then
    echo NONE
  else
    echo UNKNOWN
  fi
}

on_all() { run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"; }

obtain() {
  run gcloud compute tpus queued-resources create "$name" --node-id="$name" "${where[@]}" \
    --accelerator-type="$type" --runtime-version="$runtime" ${spot:+"$spot"}
  settle_in
}

settle_in() {
  if [[ -z $dry_run ]]; then
    until [[ $(state) == ACTIVE ]]; do
      case $(state) in FAILED | SUSPENDED) echo "error: the request has failed" >&2 && exit 1 ;; esac
      echo "waiting for $type in $zone: $(state)" && sleep 30
    done
  fi
  on_all "sudo apt-get install -y -q nfs-common && sudo mkdir -p /mnt/bridge && sudo mount $nfs /mnt/bridge"
  on_all "git clone $repo bridge-jax; cd bridge-jax && python3 -m venv .venv && .venv/bin/pip install -q '.[tpu,openai,gemini]'"
}

remove() { run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

flags=$(printf '%q ' "${rest[@]}")
# 75 says that a notice came and the state is saved: the same command goes on.
command="cd bridge-jax && ${keys:+set -a && . $keys && set +a && }while :; do .venv/bin/python -m launch.run --multihost --workdir=/mnt/bridge/runs/$name $flags; code=\$?; [ \$code = 75 ] || exit \$code; done"

case $(state) in
  NONE) obtain ;;
  ACTIVE) ;;
  UNKNOWN) echo "error: Google Cloud does not answer; is gcloud logged in?" >&2 && exit 1 ;;
  *) settle_in ;;
esac
until on_all "$command"; do
  case $(state) in
    ACTIVE) echo "error: the run has failed; its message is above" >&2 && exit 1 ;;
    UNKNOWN) echo "error: the slice cannot be asked for; start this command again" >&2 && exit 1 ;;
  esac
  echo "the slice was preempted: asking for another"
  remove
  obtain
done
echo "The slice still costs money. To give it back:"
dry_run=1 remove
