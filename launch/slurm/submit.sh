#!/usr/bin/env bash
# A run on GPU nodes under Slurm: one process for each GPU, requeued when its time is up.
#
#   launch/slurm/submit.sh [--nodes=1] [--gpus=8] [--time=24:00:00] [--partition=P] [--dry_run] \
#       -- --config=configs/medical_7b.py --workdir=/shared/runs/medical
#
# Start it where the repository is installed in .venv, on a disk that the nodes share. What is after
# -- goes to launch.run. --dry_run prints the batch script and submits nothing.
set -euo pipefail

nodes=1 gpus=8 time=24:00:00 partition='' dry_run=''
. "$(dirname "$0")/../flags.sh"
read_flags "nodes gpus time partition" "$@"
cd "$(dirname "$0")/../.."

# Slurm sends SIGTERM two minutes before the end; 75 says that the state is saved.
script=$(
  cat <<BATCH
#!/usr/bin/env bash
#SBATCH --job-name=bridge
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$gpus
#SBATCH --gpus-per-node=$gpus
#SBATCH --time=$time
${partition:+#SBATCH --partition=$partition
}#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=bridge-%j.log
code=0
srun --kill-on-bad-exit=0 .venv/bin/python -m launch.run $(printf '%q ' "${rest[@]}") || code=\$?
if [[ \$code == 75 ]]; then scontrol requeue "\$SLURM_JOB_ID"; fi
exit \$code
BATCH
)
if [[ -n $dry_run ]]; then
  echo "$script"
else
  sbatch <<<"$script"
fi
