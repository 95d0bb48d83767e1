#!/usr/bin/env bash
# A run on a TPU VM slice of Google Cloud: requests the slice, prepares its hosts, and starts the run
# as a service on them, where it needs no connection. docs/pods.md has all of it, from an empty project.
#
#   launch/tpu/queued_resource.sh start --project=P --zone=us-west4-a --nfs=10.0.0.2:/share \
#       [--name=bridge] [--type=v5litepod-16] [--runtime=IMAGE] [--spot] [--wait=6h] [--yes] [--dry_run] \
#       -- --config=configs/medical_7b.py --data.path=/mnt/bridge/data/pubmedqa.jsonl
#
#   start    requests the slice if there is none, waits for it, installs this repository as it is here,
#            starts the run, and returns. Run it again at any time: it does what is missing.
#   watch    the same, and stays: after a preemption it requests another slice, and the run resumes.
#            It may be killed and started again. --delete_at_end deletes the slice after the run, and
#            if the run or its preparation fails.
#   status   the request, the slice, and the run on each host
#   logs     the last lines of all hosts' logs
#   attach   the log of the first host as it grows; Ctrl-C or a lost connection do not end the run
#   stop     ends the run (it saves its state; start resumes it); the slice is still billed
#   delete   deletes the slice and its request; what is on the share stays
#
# Commands after the first need only --project, --zone and --name. --nfs is a Filestore share, mounted
# on /mnt/bridge: the workdir is /mnt/bridge/runs/NAME. --wait is how long the request may stay in the
# queue. What is after -- goes to launch.run: a config under configs/, as nothing else of yours goes with
# the code, and paths on the share. The teacher's key is read from the environment (GEMINI_API_KEY,
# OPENAI_API_KEY) and is sent to the first host alone; HF_TOKEN to all. A paid teacher is asked about
# once; --yes agrees. --dry_run prints the commands and runs none. Between two questions to Google the
# script waits for BRIDGE_POLL seconds (30).
# shellcheck source-path=SCRIPTDIR disable=SC2329

. "$(dirname "$0")/../common.sh"

name=bridge type=v5litepod-16 runtime='' project='' zone='' nfs='' spot='' wait=6h delete_at_end=''
read_flags 'start watch status logs attach stop delete' 'name type runtime project zone nfs wait' \
  'spot delete_at_end' "$@"
require_flags project zone
require_name "$name"
if [[ $verb == start || $verb == watch ]]; then
  require_flags nfs
  [[ $nfs == *:/* ]] || usage_error "--nfs=$nfs: must be ADDRESS:/SHARE"
fi

case $type in
  v5litepod-[1-9]*) image=v2-alpha-tpuv5-lite ;;
  v6e-[1-9]*) image=v2-alpha-tpuv6e ;;
  v5p-[1-9]*) image=v2-alpha-tpuv5 ;;
  v4-[1-9]*) image=tpu-ubuntu2204-base ;;
  tpu7x* | v7x*) usage_error "--type=$type: TPU7x is available only through GKE: launch/tpu/gke.sh" ;;
  *) usage_error "--type=$type: use a type such as v5litepod-16, v6e-16, v5p-16 or v4-16" ;;
esac
[[ $verb != start && $verb != watch ]] || require_files_of_run
where=(--project="$project" --zone="$zone")
trouble='' hosts=0 answers=''
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# "16 chips of v5litepod-16": v4 and v5p count cores, two a chip.
chips_of() {
  local count=${1##*-}
  [[ $1 == v4-* || $1 == v5p-* ]] && count=$((count / 2))
  echo "$count chips of $1"
}

# Another command about the same slice, to be copied.
this() { printf '%q %s --project=%q --zone=%q --name=%q' "$0" "$1" "$project" "$zone" "$name"; }

# --- What Google says ---

queue() { run gcloud compute tpus queued-resources "$@" "${where[@]}"; }
node() { run gcloud compute tpus tpu-vm "$@" "${where[@]}"; }

# request_state [ONCE]: NONE if there is no such request, UNKNOWN if Google could not be asked.
request_state() {
  local said tries
  for tries in ${1-1 2} 3; do
    if said=$(queue describe "$name" --format='value(state.state)' 2>"$tmp/why"); then
      echo "${said:-UNKNOWN}"
      return
    elif grep -q NOT_FOUND "$tmp/why"; then
      echo NONE
      return
    fi
    [[ $tries == 3 ]] || pause
  done
  echo UNKNOWN
}

# The state of the machines: READY, PREEMPTED, ..., or NONE.
node_state() {
  local said
  if said=$(node describe "$name" --format='value(state)' 2>"$tmp/why"); then
    echo "${said:-UNKNOWN}"
  elif grep -q NOT_FOUND "$tmp/why"; then
    echo NONE
  else
    echo UNKNOWN
  fi
}

type_of_slice() { queue describe "$name" --format='value(tpu.nodeSpec[0].node.acceleratorType)' 2>/dev/null || true; }

count_hosts() {
  hosts=$(node describe "$name" --format='value(networkEndpoints.len())' 2>"$tmp/why") || hosts=0
  hosts=${hosts:-0}
}

# --- What is billed is said at every exit ---

bill() {
  local code=$? state real=''
  set +e # In a trap, a plain return has the status from before it.
  trap - EXIT
  state=$(request_state '')
  [[ $state == @(NONE|UNKNOWN) ]] || real=$(type_of_slice)
  real=$(chips_of "${real:-$type}")
  case $state in
    NONE) say "Billed: no TPU named $name." ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING)
      say "Billed: no TPU yet. The request $name is in the queue ($state), and its $real are" \
        "billed as soon as it is ACTIVE, watched or not. To withdraw it: $(this delete)"
      ;;
    ACTIVE)
      say "STILL BILLED: $real in $zone, used or not. To end that: $(this delete)"
      ;;
    SUSPENDING | DELETING) say "The slice $name is being deleted and may be billed until then:" \
      "$(this status)" ;;
    SUSPENDED | FAILED) say "Billed: no TPU. The request $name is $state; start requests it" \
      "again, delete removes it." ;;
    *) say "Google did not say whether a slice $name is billed; check with: $(this status), or" \
      "https://console.cloud.google.com/compute/tpus?project=$project" ;;
  esac
  say "Also billed: the Filestore share and the machine bridge-files, until you delete them" \
    "(docs/pods.md, part 9)."
  rm -rf "$tmp"
  exit "$code"
}

# --- The slice ---

request() {
  local said
  say "requesting $type in $zone"
  queue create "$name" --node-id="$name" --accelerator-type="$type" \
    --runtime-version="${runtime:-$image}" --valid-until-duration="$wait" --async \
    ${spot:+--spot} 2>"$tmp/why" && return
  said=$(<"$tmp/why")
  say "$said"
  case ${said,,} in
    *billing*)
      trouble="link a billing account: gcloud billing projects link $project --billing-account=ACCOUNT"
      ;;
    *service_disabled* | *'has not been used'*)
      trouble="enable the API: gcloud services enable tpu.googleapis.com --project=$project"
      ;;
    *quota* | *resource_exhausted*)
      trouble="ask for quota (docs/pods.md, part 3), a smaller --type, another --zone"
      [[ -n $spot ]] || trouble+=", or --spot, which has a separate quota"
      ;;
    *permission*)
      trouble="your account needs the roles TPU Admin and Service Account User in $project"
      ;;
    *already_exists* | *'already exists'*)
      trouble="the name is in use by another machine: choose another --name"
      ;;
    *invalid_argument* | *not_found* | *'not found'*)
      trouble="see what $zone has:"
      trouble+=" gcloud compute tpus accelerator-types list --project=$project --zone=$zone;"
      trouble+=" gcloud compute tpus tpu-vm versions list --project=$project --zone=$zone"
      ;;
    *) trouble="the message above is Google's; start again when it is fixed" ;;
  esac
  fail "the slice cannot be requested: $trouble"
}

remove() {
  local tries
  if [[ -z $dry_run && $(request_state) == NONE ]]; then
    say "there is no slice $name to delete"
    return
  fi
  queue delete "$name" --force --quiet --async || fail "the slice cannot be deleted; the message" \
    "above is Google's"
  [[ -z $dry_run ]] || return 0
  for ((tries = 0; tries < 120; tries++)); do
    [[ $(request_state) == NONE ]] && return
    pause
  done
  fail "the slice is still there after 120 checks"
}

# Returns when the slice is there: requests it, waits, and replaces what is gone.
own_slice() {
  local state before='' other machines said tries=0
  while :; do
    state=$(request_state)
    [[ $state == "$before" ]] || say "$(date +%H:%M:%S) the request $name: $state"
    case $state in
      NONE) request ;;
      ACTIVE)
        other=$(type_of_slice)
        [[ -z $other || $other == "$type" ]] ||
          fail "the name $name is in use by a live $other: choose another --name, or pass --type=$other"
        machines=$(node_state)
        case $machines in
          READY) return ;;
          PREEMPTED | TERMINATED | STOPPED | NONE)
            say 'the slice was preempted: deleting what is left, and requesting again'
            remove
            ;;
          *)
            say "its machines: $machines"
            ((++tries < 40)) || give_up "the slice is not ready after 40 checks: delete it and" \
              "start over"
            ;;
        esac
        ;;
      SUSPENDED)
        say 'the slice was preempted, or taken back: deleting the request, and requesting again'
        remove
        ;;
      FAILED)
        if [[ -z $before ]]; then
          say 'the last request has failed: deleting it, and requesting again'
          remove
        else
          said=$(queue describe "$name" --format='value(state.failedData.error.message)' 2>/dev/null) || true
          fail "the request has failed${said:+: $said}. If chips are short, try another zone, fewer" \
            "of them, ${spot:+no }--spot, or a longer --wait (now $wait). If quota is short, see" \
            "docs/pods.md, part 3"
        fi
        ;;
      UNKNOWN)
        # Who watches is not there to start again.
        [[ $verb == watch ]] || fail "Google Cloud does not answer: $(tail -n 1 "$tmp/why")"
        ;;
    esac
    before=$state
    pause
  done
}

# Ends the script; with --delete_at_end it leaves no slice, as nobody may be there to delete it.
give_up() {
  say "error: $*"
  [[ -z $delete_at_end ]] || remove
  exit 1
}

slice_lives() { [[ $(request_state) == ACTIVE && $(node_state) != @(PREEMPTED|TERMINATED|STOPPED|NONE) ]]; }

# --- The hosts ---

# ask WORKER FUNCTION ARGUMENT...: calls a function of on_host.sh there. The lines for us go into
# `answers`. Returns 0 if all hosts that were asked have answered well.
ask() {
  local worker=$1 expected=1 text
  shift
  [[ $worker == all ]] && expected=$hosts
  if [[ -n $dry_run ]]; then
    node ssh "$name" --worker="$worker" --command="sudo bash (launch/tpu/on_host.sh)$(quoted "$@")"
    return
  fi
  text=$(<"$root/launch/tpu/on_host.sh")$'\n'$(quoted "$@")
  answers=$(node ssh "$name" --worker="$worker" --command="sudo bash -c $(printf %q "$text")") || true
  answers=$(grep '^bridge-host ' <<<"$answers" | sort -u || true)
  [[ $answers != *' error: '* ]] && (($(grep -c . <<<"$answers") == expected))
}

# Why the last `ask` has failed.
complaint() {
  if [[ $answers == *' error: '* ]]; then
    sed -n 's/^bridge-host \([^ ]*\) error: /host \1: /p' <<<"$answers"
  else
    echo "$(grep -c . <<<"$answers" || true) of $hosts hosts answer over ssh: ${answers//bridge-host /}"
  fi
}

# Prepares the hosts and starts the run; what fails is in `trouble`.
settle_in() {
  local tries stamp
  count_hosts
  trouble='Google did not list the hosts of the slice: start again'
  ((hosts)) || return
  for ((tries = 1; ; tries++)); do
    ask all hello </dev/null && break
    trouble="$(complaint). A host may still be starting: start again; if it never answers, delete the"
    trouble+=" slice and start over. If none answers, see part 4 of docs/pods.md (firewall, ssh-agent)"
    ((tries < 10)) && slice_lives || return 1
    pause
  done
  COPYFILE_DISABLE=1 tar -cf "$tmp/bridge-code.tar" --exclude=__pycache__ -C "$root" \
    pyproject.toml README.md LICENSE bridge_jax launch configs
  stamp=$(cksum <"$tmp/bridge-code.tar")
  say "installing on $hosts hosts: some minutes the first time"
  for tries in 1 2; do
    node scp "$tmp/bridge-code.tar" "$name:/tmp/bridge-code.tar" --worker=all >&2 || true
    ask all prepare "$nfs" "$stamp" </dev/null && break
    trouble="$(complaint)"$'\n'"The hosts are not prepared. Fix this (docs/pods.md, part 10) and"
    trouble+=" start again: only the missing steps are done"
    ((tries < 2)) && slice_lives || return 1
    say "$(complaint)"$'\n'"trying once more"
    pause
  done
  send_keys || return
  if ! ask_surely true all begin "$name" "${flags[@]}"; then
    trouble="$(complaint)"
    return 1
  fi
  say "the run has started on $hosts hosts: $(this attach)"
}

hub_key() { echo "${HF_TOKEN:+HF_TOKEN=$HF_TOKEN}"; }

all_keys() { teacher_key && hub_key; }

# ask_surely INPUT ASK...: asks up to three times if the connection is lost; INPUT writes stdin.
ask_surely() {
  local input=$1 tries
  shift
  for tries in 1 2 3; do
    ask "$@" < <("$input") && return
    [[ $answers != *' error: '* && $tries != 3 ]] || return 1
    pause
  done
}

send_keys() {
  local worker
  trouble="the keys cannot be sent: start again"
  if [[ -n ${HF_TOKEN:-} ]]; then
    for ((worker = 1; worker < hosts; worker++)); do
      ask_surely hub_key "$worker" keep_keys || return
    done
  fi
  if [[ -n $(teacher_key)${HF_TOKEN:-} ]]; then
    ask_surely all_keys 0 keep_keys || return
  fi
  if [[ $paid == yes ]] && ! ask_surely true 0 require_key; then
    trouble="$(complaint): export ${key_names// / or } and start again"
    return 1
  fi
}

# The run in one word: running, done, stopped, failed, none, or lost if not all hosts answer.
run_state() {
  count_hosts
  if ((hosts == 0)) || ! ask all state </dev/null; then
    echo lost
  elif [[ $answers == *' failed '* ]]; then
    echo failed
  else
    local word
    for word in running stopping stopped none; do
      [[ $answers == *" $word"* ]] && echo "$word" && return
    done
    echo 'done'
  fi
}

# --- The commands ---

start() {
  # A host that reboots takes minutes to join the others again.
  flags=(--multihost --join_timeout=900 --yes --workdir="/mnt/bridge/runs/$name" "${rest[@]}")
  if [[ -n $dry_run ]]; then
    request
    node scp bridge-code.tar "$name:/tmp/bridge-code.tar" --worker=all
    ask all prepare "$nfs" STAMP
    say 'the keys go to stdin of the next command:'
    ask 0 keep_keys
    ask all begin "$name" "${flags[@]}"
    return
  fi
  while :; do
    own_slice
    settle_in && return
    slice_lives && give_up "$trouble"
    say 'the slice was lost in the meantime'
  done
}

watch() {
  local state misses=0
  start
  [[ -z $dry_run ]] || return 0
  while pause; do
    run_state >"$tmp/state"
    state=$(<"$tmp/state")
    if [[ $state != running ]] && ! slice_lives; then
      say "$(date +%H:%M:%S) the slice is gone"
      start
      continue
    fi
    case $state in
      running | stopping) misses=0 ;;
      none) start ;;
      lost)
        ((++misses < 20)) || give_up "$(complaint), for 20 checks. The run may still be active:" \
          "see status, or delete the slice and watch again"
        ;;
      *)
        say "${answers//bridge-host /}"
        [[ $state == failed ]] && ask_logs
        [[ $state != failed ]] || give_up "the run has failed. Code 2 is a mistake in the config" \
          "or the data, or a host that did not join; the log says which (logs)"
        [[ -z $delete_at_end || $state == stopped ]] || remove
        say "the run is $state; its files are on the share in runs/$name"
        return
        ;;
    esac
  done
}

ask_logs() { node ssh "$name" --worker=0 --command="tail -n 30 /mnt/bridge/logs/$name/*.log" >&2 || true; }

status() {
  say "request: $(request_state)"
  say "slice: $(node_state)"
  run_state >"$tmp/state"
  if ((hosts)); then
    say "run: $(<"$tmp/state")"
  else
    say "run: none, because there are no hosts"
  fi
  [[ -z $answers ]] || say "${answers//bridge-host /  }"
}

on_first() {
  node ssh "$name" --worker=0 --command="$1" ||
    fail "the connection ended, or there is no slice. The run does not need the connection: $(this status)"
}

# In braces it is read as one: bash reads a script as it runs, and this file may change meanwhile.
{
  if [[ -z $dry_run ]]; then
    trap bill EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
  fi
  need_program gcloud 'https://cloud.google.com/sdk/docs/install'
  if [[ $verb == start || $verb == watch ]]; then
    ask_about_money "${rest[@]}"
    require_teacher_key
  fi
  [[ -n $dry_run || -n $(gcloud auth list --filter=status:ACTIVE --format='value(account)' 2>/dev/null) ]] ||
    fail 'gcloud is not logged in: gcloud auth login'
  case $verb in
    start | watch) "$verb" ;;
    status) status ;;
    logs) on_first "tail -n 100 /mnt/bridge/logs/$name/*.log" ;;
    attach) on_first "tail -n 40 -F /mnt/bridge/logs/$name/\$(hostname).log" ;;
    stop)
      count_hosts
      ((hosts)) || fail 'there is no slice, so no run'
      ask all end </dev/null || fail "$(complaint)"
      say "${answers//bridge-host /}"
      ;;
    delete) remove ;;
  esac
  exit
}
