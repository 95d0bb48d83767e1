# The flags of the scripts beside this one, into variables of the same names. To be sourced.

usage_error() {
  echo "error: $1; see the top of $0" >&2
  exit 2
}

# read_flags "name type" "$@": --name=..., --type=..., --dry_run; what is after -- goes into `rest`.
read_flags() {
  local known=" $1 " key
  shift
  while (($#)); do
    key=${1%%=*} key=${key#--}
    case $1 in
      --) shift && break ;;
      --dry_run) dry_run=1 ;;
      --spot=*) usage_error "--spot takes no value" ;;
      --spot) [[ $known == *" spot "* ]] || usage_error "unknown flag $1" && spot=--spot ;;
      --*=*) [[ $known == *" $key "* ]] || usage_error "unknown flag $1" && printf -v "$key" %s "${1#*=}" ;;
      *) usage_error "unknown flag $1" ;;
    esac
    shift
  done
  rest=("$@")
}

require_flags() {
  local key
  for key in "$@"; do
    [[ -n ${!key} ]] || usage_error "--$key is missing"
  done
}
