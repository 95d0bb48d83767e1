# What the scripts for clusters share: flags, --dry_run, messages, waiting, and the question about
# money. To be sourced.
# shellcheck shell=bash disable=SC2034

set -euo pipefail
# An empty array is an error in the bash of macOS (3.2).
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "error: bash $BASH_VERSION is too old, 4.4 is needed (macOS: brew install bash)" >&2
  exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
verb='' dry_run='' yes='' rest=()
# The teacher of the run: "yes" if it is paid, and the variables that may hold its key.
paid='' key_names=''

say() { echo "$*" >&2; }

fail() {
  say "error: $*"
  exit 1
}

usage_error() {
  say "error: $*; see $0 --help"
  exit 2
}

# Prints the comment at the top of the script.
help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# read_flags "verbs" "names" "switches" "$@": the verb into `verb`, --name=VALUE and --switch into
# variables of these names, what is after -- into `rest`.
read_flags() {
  local verbs=" $1 " names=" $2 " switches=" $3 dry_run yes " key
  shift 3
  while (($#)); do
    key=${1%%=*} key=${key#--}
    case $1 in
      -h | --help) help && exit 0 ;;
      --) shift && break ;;
      --*=*)
        [[ $switches != *" $key "* ]] || usage_error "--$key takes no value"
        [[ $names == *" $key "* ]] || usage_error "unknown flag $1"
        printf -v "$key" %s "${1#*=}"
        ;;
      --*)
        [[ $names != *" $key "* ]] || usage_error "write --$key=VALUE"
        [[ $switches == *" $key "* ]] || usage_error "unknown flag $1"
        printf -v "$key" %s "$key"
        ;;
      *)
        [[ -z $verb ]] || usage_error "give one command, not both $verb and $1"
        verb=$1
        ;;
    esac
    shift
  done
  rest=("$@")
  [[ -n $verb ]] || usage_error "give a command: ${verbs# }"
  [[ $verbs == *" $verb "* ]] || usage_error "unknown command $verb; use one of: ${verbs# }"
}

require_flags() {
  local key
  for key in "$@"; do
    [[ -n ${!key} ]] || usage_error "--$key is missing"
  done
}

# The name goes into names of machines, units and folders.
require_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    usage_error "--name=$1: must be 1 to 40 of a-z, 0-9 and -, starting with a letter"
}

# The flags after -- for a shell.
quoted() { (($#)) && printf ' %q' "$@" || true; }

# Runs a command, or with --dry_run prints it.
run() {
  if [[ -n $dry_run ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# Waits between two questions to the cloud: BRIDGE_POLL seconds, 30 by default.
pause() { sleep "${BRIDGE_POLL:-30}"; }

need_program() {
  [[ -n $dry_run ]] || command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

# Hosts and pods have the share, and of the files on this machine those under configs/. Without this
# check a wrong path would be found only there, where machines are billed.
require_files_of_run() {
  local flag value config=''
  for flag in "${rest[@]}"; do
    value=${flag#*=}
    case $flag in
      --config=* | --overlay=* | --flagfile=*)
        [[ $value == configs/* && $value != *..* ]] ||
          usage_error "$flag is not under configs/, and no other files of yours are sent with the code: put it there"
        [[ -e $root/$value ]] || usage_error "$flag: there is no $root/$value"
        [[ $flag != --config=* ]] || config=$value
        ;;
      --data.path=* | --data.test_path=* | --config.data.path=* | --config.data.test_path=*)
        [[ $value == /mnt/bridge/* || ! -e $value ]] ||
          usage_error "$flag is only on this machine: copy it to the share (docs/pods.md, part 5)," \
            "and write ${flag%%=*}=/mnt/bridge/data/${value##*/}"
        ;;
    esac
  done
  [[ -n $config ]] || usage_error "write -- --config=configs/FILE.py at the end, the config of the run"
}

# What goes into a manifest may have line breaks and tabs, but no other control characters.
refuse_control_characters() {
  local LC_ALL=C each
  for each in "$@"; do
    [[ ${each//[$'\n\t']/} != *[[:cntrl:]]* ]] ||
      usage_error "$(printf %q "$each"): has a control character, which a manifest cannot contain; remove it"
  done
}

# Reads the config of the run, shows the cap, and asks once; --yes answers. A mistake in the config
# ends the script here, before anything is asked for.
ask_about_money() {
  local python=$root/.venv/bin/python said code=0
  [[ -x $python ]] || python=python3
  said=$(cd "$root" && "$python" -m launch.teacher_cost "$@" 2>&1) || code=$?
  if ((code == 2)); then
    say "$said"
    exit 2
  elif ((code)); then
    paid=unknown key_names='OPENAI_API_KEY GEMINI_API_KEY GOOGLE_API_KEY'
    say "The config cannot be read on this machine: ${said##*$'\n'}. (pip install -e . would fix this.)"
  else
    { read -r paid && read -r key_names && read -r said; } <<<"$said"
    say "$said"
  fi
  [[ $paid == no || -n $yes || -n $dry_run ]] && return
  [[ $paid == unknown ]] && said='The caps of the config could not be shown.'
  [[ -t 0 ]] || usage_error "there is no terminal to ask on, so pass --yes to agree. $said"
  read -r -p 'Continue? [y/N] ' said
  [[ $said == [yY]* ]] || fail 'nothing was requested'
}

# Prints the teacher's key as NAME=VALUE, from the environment.
teacher_key() {
  local name
  for name in $key_names; do
    if [[ -n ${!name:-} ]]; then
      [[ ${!name} != *[$' \t\n\r"\'\\']* ]] || fail "$name contains a space, a quote or a backslash"
      echo "$name=${!name}"
      return
    fi
  done
}

require_teacher_key() {
  if [[ $paid == unknown && -z $(teacher_key) ]]; then
    say "No teacher key is in the environment. If the config has a paid teacher, the run will end" \
      "with code 2 on the machines: export ${key_names// / or } first."
  fi
  [[ $paid != yes || -n $dry_run || -n $(teacher_key) ]] ||
    fail "the teacher needs a key in the environment: export ${key_names// / or } (read -rs keeps" \
      "it off the screen)"
}
