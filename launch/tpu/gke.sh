#!/usr/bin/env bash
# A run on a GKE cluster with TPUs, through xpk (pip install xpk).
#
#   launch/tpu/gke.sh --project=P --zone=us-west4-a --cluster=C --image=REGISTRY/bridge-jax:TAG \
#       [--name=bridge] [--type=v5litepod-16] [--slices=1] [--restarts=20] [--keys=/mnt/bridge/keys.env] [--dry_run] \
#       -- --config=configs/medical_7b.py --workdir=/mnt/bridge/runs/medical
#
# --keys is a file in the pods (a mounted secret) with lines as GEMINI_API_KEY=...: a key in a command
# line would be seen. The image has this repository, installed with pip install '.[tpu,openai,gemini]'. The workdir is on storage that
# was attached to the cluster (xpk storage attach). What is after -- goes to launch.run. --dry_run
# prints the command and does nothing.
set -euo pipefail

name=bridge type=v5litepod-16 slices=1 restarts=20
project='' zone='' cluster='' image='' keys='' dry_run=''
. "$(dirname "$0")/../flags.sh"
read_flags "name type slices restarts project zone cluster image keys" "$@"
require_flags project zone cluster image

# 75 says that a notice came and the state is saved: the restarted pods go on from there.
command=(
  xpk workload create --workload="$name" --project="$project" --zone="$zone" --cluster="$cluster"
  --tpu-type="$type" --num-slices="$slices" --docker-image="$image"
  --max-restarts="$restarts" --restart-on-exit-codes=75
  --command="${keys:+set -a && . $keys && set +a && }python -m launch.run --multihost $(printf '%q ' "${rest[@]}")"
)
if [[ -n $dry_run ]]; then
  printf '%q ' "${command[@]}" && echo
else
  "${command[@]}"
fi
