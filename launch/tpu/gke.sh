#!/usr/bin/env bash
# A run on a GKE cluster with TPUs, through xpk (pip install xpk).
#
#   launch/tpu/gke.sh --project=P --zone=us-west4-a --cluster=C --image=REGISTRY/bridge-jax:TAG \
#       [--name=bridge] [--type=v5litepod-16] [--slices=1] [--restarts=20] [--dry_run] \
#       -- --config=configs/medical_7b.py --workdir=/mnt/bridge/runs/medical
#
# The image has this repository, installed with pip install '.[tpu]'. The workdir is on storage that
# was attached to the cluster (xpk storage attach). What is after -- goes to launch.run. --dry_run
# prints the command and does nothing.
set -euo pipefail

name=bridge type=v5litepod-16 slices=1 restarts=20
project='' zone='' cluster='' image='' dry_run=''
while (($#)); do
  case $1 in
    --name=* | --type=* | --slices=* | --restarts=* | --project=* | --zone=* | --cluster=* | --image=*)
      key=${1%%=*}
      printf -v "${key#--}" %s "${1#*=}"
      ;;
    --dry_run) dry_run=1 ;;
    --) shift && break ;;
    *) echo "error: unknown flag $1; see the top of $0" >&2 && exit 2 ;;
  esac
  shift
done
for key in project zone cluster image; do
  [[ -n ${!key} ]] || { echo "error: --$key is missing; see the top of $0" >&2 && exit 2; }
done

# 75 says that a notice came and the state is saved: the restarted pods go on from there.
command=(
  xpk workload create --workload="$name" --project="$project" --zone="$zone" --cluster="$cluster"
  --tpu-type="$type" --num-slices="$slices" --docker-image="$image"
  --max-restarts="$restarts" --restart-on-exit-codes=75
  --command="python -m launch.run --multihost $(printf '%q ' "$@")"
)
if [[ -n $dry_run ]]; then
  printf '%q ' "${command[@]}" && echo
else
  "${command[@]}"
fi
