#!/usr/bin/env bash
# A run on a TPU VM slice of Google Cloud: asks for the slice, installs, runs, begins again after a
# preemption, and leaves the slice for you to delete.
#
#   launch/tpu/queued_resource.sh --project=P --zone=us-west4-a --nfs=10.0.0.2:/share \
#       --repo=https://github.com/YOU/bridge-jax [--name=bridge] [--type=v5litepod-16] \
#       [--runtime=v2-alpha-tpuv5-lite] [--spot] [--dry_run] \
#       -- --config=configs/medical_7b.py --data.path=/mnt/bridge/med_pubmedqa.jsonl
#
# --nfs is a Filestore share that every host mounts on /mnt/bridge: the workdir lies there. What is
# after -- goes to launch.run. --dry_run prints the commands and does nothing.
set -euo pipefail

name=bridge type=v5litepod-16 runtime=v2-alpha-tpuv5-lite
project='' zone='' nfs='' repo='' spot='' dry_run=''
. "$(dirname "$0")/../flags.sh"
read_flags "name type runtime project zone nfs repo spot" "$@"
require_flags project zone nfs repo
where=(--project="$project" --zone="$zone")

run() {
  if [[ -n $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

state() {
  gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' 2>/dev/null || echo NONE
}

on_all() { run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all --command="$1"; }

obtain() {
  run gcloud compute tpus queued-resources create "$name" --node-id="$name" "${where[@]}" \
    --accelerator-type="$type" --runtime-version="$runtime" ${spot:+"$spot"}
  if [[ -z $dry_run ]]; then
    until [[ $(state) == ACTIVE ]]; do
      case $(state) in FAILED | SUSPENDED) echo "error: the request has failed" >&2 && exit 1 ;; esac
      echo "waiting for $type in $zone: $(state)" && sleep 30
    done
  fi
  on_all "sudo apt-get install -y -q nfs-common && sudo mkdir -p /mnt/bridge && sudo mount $nfs /mnt/bridge"
  on_all "git clone $repo bridge-jax; cd bridge-jax && python3 -m venv .venv && .venv/bin/pip install -q '.[tpu]'"
}

remove() { run gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet; }

flags=$(printf '%q ' "${rest[@]}")
# 75 says that a notice came and the state is saved: the same command goes on.
command="cd bridge-jax && while :; do .venv/bin/python -m launch.run --multihost --workdir=/mnt/bridge/runs/$name $flags; code=\$?; [ \$code = 75 ] || exit \$code; done"

if [[ -n $dry_run || $(state) != ACTIVE ]]; then obtain; fi
until on_all "$command"; do
  [[ $(state) == ACTIVE ]] && echo "error: the run has failed; its message is above" >&2 && exit 1
  echo "the slice was preempted: asking for another"
  remove
  obtain
done
echo "The slice still costs money. To give it back:"
dry_run=1 remove
