#!/usr/bin/env bash
# A run on GPU nodes under Slurm: one process for each GPU, requeued when its time is up, when a node is
# lost, or when the partition's owner takes the nodes back. It goes on without you.
#
#   launch/slurm/submit.sh start [--name=bridge] [--nodes=1] [--gpus=8] [--time=24:00:00] [--partition=P] \
#       [--yes] [--dry_run] -- --config=configs/medical_7b.py --workdir=/shared/runs/medical
#
#   start    submits the job, if none of this name is waiting or running
#   status   what Slurm says of the job
#   logs     the last lines of the log
#   attach   the log as it grows; Ctrl-C does not end the run
#   stop     ends the run: it saves its state, and start resumes it
#
# Start it where the repository is installed in .venv, on a disk that the nodes share; the log is
# bridge-NAME.log there. What is after -- goes to launch.run. The teacher's key is read from the
# environment, which Slurm hands to the job. A paid teacher is asked about once; --yes agrees. --dry_run
# prints the batch script and submits nothing.
# shellcheck source-path=SCRIPTDIR disable=SC2329

. "$(dirname "$0")/../common.sh"

name=bridge nodes=1 gpus=8 time=24:00:00 partition=''
read_flags 'start status logs attach stop' 'name nodes gpus time partition' '' "$@"
require_name "$name"
cd "$root"
log=bridge-$name.log

# A new line in a value would be a line of the batch script.
[[ $time$partition != *[$' \t\n']* ]] || usage_error "--time and --partition must not contain spaces"
[[ -n $time ]] || usage_error "--time is empty: use a value such as 24:00:00"
[[ $nodes =~ ^[1-9][0-9]*$ ]] || usage_error "--nodes=$nodes: must be 1 or more"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || usage_error "--gpus=$gpus: must be 1 or more, per node"
if [[ $verb == start ]]; then
  flags=" ${rest[*]}"
  [[ $flags == *' --config='* ]] || usage_error "write -- --config=FILE.py at the end, the config of the run"
  [[ $flags == *' --workdir='* ]] ||
    usage_error "write --workdir=FOLDER after --config, on a disk that the nodes share"
fi

# Slurm sends SIGTERM two minutes before the end. 75 says that the state is saved, or that another
# process was lost.
batch_script() {
  cat <<BATCH
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$gpus
#SBATCH --gpus-per-node=$gpus
#SBATCH --time=$time
${partition:+#SBATCH --partition=$partition
}#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$log
code=0
srun --kill-on-bad-exit=0 .venv/bin/python -m launch.run --yes$(quoted "${rest[@]}") || code=\$?
if [[ \$code == 75 ]]; then scontrol requeue "\$SLURM_JOB_ID"; fi
exit \$code
BATCH
}

jobs_of_run() { squeue --me --name="$name" --noheader --format='%i %T %R'; }

# What uses the account is said at every exit.
bill() {
  local code=$? found
  set +e # In a trap, a plain return has the status from before it.
  trap - EXIT
  if ! found=$(jobs_of_run 2>/dev/null); then
    say 'Slurm did not say what is waiting or running; check with squeue --me'
  elif [[ -n $found ]]; then
    say "In Slurm's queue, and charged to your account while it runs: $found"
  else
    say "No job named $name is waiting or running in Slurm."
  fi
  exit "$code"
}

if [[ -n $dry_run ]]; then
  batch_script
  exit
fi
trap bill EXIT
need_program sbatch "this is not a login node of a Slurm cluster"
# In braces it is read as one: bash reads a script as it runs, and this file may change meanwhile.
{
  case $verb in
    start)
      [[ -x .venv/bin/python ]] || fail "$root/.venv is missing: docs/pods.md, part 8, has the commands"
      ask_about_money "${rest[@]}"
      require_teacher_key
      found=$(jobs_of_run) || fail 'Slurm does not answer; the message above is from squeue'
      [[ -z $found ]] || fail "a job of this name is already waiting or running: stop it, or choose another --name"
      batch_script | sbatch || fail 'the job was not accepted; the message above is from sbatch'
      ;;
    status) jobs_of_run || fail 'Slurm does not answer; the message above is from squeue' ;;
    logs) tail -n 200 "$log" || fail 'no log yet: the job has not started' ;;
    attach) tail -n 40 -F "$log" ;;
    stop) scancel --me --name="$name" || fail 'Slurm does not answer; the message above is from scancel' ;;
  esac
  exit
}
