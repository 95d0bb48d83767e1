#!/usr/bin/env bash
# A run on TPUs of a GKE cluster, as a JobSet: the cluster itself starts the run again after a
# preemption, on new nodes, with nobody watching. docs/pods.md has all of it: cluster, node pool, image.
#
#   launch/tpu/gke.sh start --project=P --location=us-west4-a --cluster=C --image=REGISTRY/bridge-jax:TAG \
#       --nfs=10.0.0.2:/share [--name=bridge] [--type=v5e] [--topology=4x4] [--slices=1] [--restarts=20] \
#       [--wait=1h] [--spot] [--yes] [--dry_run] \
#       -- --config=configs/medical_7b.py --data.path=/mnt/bridge/data/pubmedqa.jsonl
#
#   start    applies the JobSet and waits until its pods run, for --wait at most (90m, 6h); run it
#            again to resume after stop or a failure
#   status   the JobSet, its pods, and the nodes
#   logs     the last lines of all pods
#   attach   the log of the first pod as it grows; Ctrl-C or a lost connection do not end the run
#   stop     suspends the JobSet: the pods save their state and end
#   delete   deletes the JobSet and the Secret with its keys; what is on the share stays
#
# Commands after the first need only --project, --location, --cluster and --name (and --type and
# --topology, if you changed them). Types are v4, v5e, v5p, v6e and tpu7x; several slices are copies
# of the model and exchange gradients over the network. The pods mount --nfs on /mnt/bridge, and the
# workdir is /mnt/bridge/runs/NAME. What is after -- goes to launch.run: a config under configs/ (the
# pods read that of the image) and paths on the share. The teacher's key is read from the environment
# into a Secret, which the first pod alone reads; HF_TOKEN likewise for all. A paid teacher is asked
# about once; --yes agrees. --dry_run prints the manifest and the commands, and runs none. Between two
# questions to the cluster the script waits for BRIDGE_POLL seconds (30).
# shellcheck source-path=SCRIPTDIR disable=SC2329

. "$(dirname "$0")/../common.sh"

name=bridge type=v5e topology='' slices=1 restarts=20 wait=1h project='' location='' cluster='' image='' nfs='' spot=''
read_flags 'start status logs attach stop delete' \
  'name type topology slices restarts wait project location cluster image nfs' 'spot' "$@"
require_flags project location cluster
require_name "$name"
if [[ $verb == start ]]; then
  require_flags image nfs
  [[ $nfs == *:/* ]] || usage_error "--nfs=$nfs: must be ADDRESS:/SHARE"
fi

case $type in
  v4) accelerator=tpu-v4-podslice topology=${topology:-2x2x2} ;;
  v5e) accelerator=tpu-v5-lite-podslice topology=${topology:-4x4} ;;
  v5p) accelerator=tpu-v5p-slice topology=${topology:-2x2x2} ;;
  v6e) accelerator=tpu-v6e-slice topology=${topology:-4x4} ;;
  tpu7x) accelerator=tpu7x topology=${topology:-2x2x2} ;;
  *) usage_error "--type=$type: must be one of v4, v5e, v5p, v6e, tpu7x" ;;
esac
axis='[1-9][0-9]*'
[[ $type == v?e || $topology =~ ^${axis}x${axis}x${axis}$ ]] || usage_error "--topology=$topology:" \
  "$type has three axes, such as 2x2x2"
[[ $type != v?e || $topology =~ ^${axis}x${axis}$ ]] || usage_error "--topology=$topology: $type" \
  "has two axes, such as 4x4"
chips=$((${topology//x/ * })) hosts=$((${topology//x/ * } / 4))
((chips % 4 == 0)) || usage_error "--topology=$topology: $chips chips, but the nodes have four each"
case $topology in
  2x2 | 2x4 | 4x4 | 4x8 | 8x8 | 8x16 | 16x16 | 2x2x1 | 2x2x2 | 2x2x4 | 2x4x4) ;;
  *x*x*)
    IFS=x read -r first second third <<<"$topology"
    ((first % 4 + second % 4 + third % 4 == 0 && first <= second && second <= third)) ||
      usage_error "--topology=$topology: $type supports 2x2x1, 2x2x2, 2x2x4, 2x4x4, and above" \
        "these multiples of 4 in ascending order, such as 4x4x8"
    ;;
  *) usage_error "--topology=$topology: $type supports 2x2, 2x4, 4x4, 4x8, 8x8, 8x16 and 16x16" ;;
esac
[[ $slices =~ ^$axis$ ]] || usage_error "--slices=$slices: must be 1 or more"
[[ $wait =~ ^[0-9]+[hm]$ ]] || usage_error "--wait=$wait: use a value such as 90m or 6h"
minutes=${wait%[hm]}
[[ $wait == *m ]] || minutes=$((minutes * 60))
[[ $restarts =~ ^[0-9]+$ ]] || usage_error "--restarts=$restarts: must be a number"
((slices == 1 || hosts > 1)) || usage_error "--slices=$slices: GKE can only join slices of" \
  "several hosts, and $topology has one"
if [[ $verb == start ]]; then
  require_files_of_run
  refuse_control_characters "--image=$image" "--nfs=$nfs" "${rest[@]}"
fi

context=gke_${project}_${location}_$cluster
jobset=jobset.jobset.x-k8s.io/$name
pods_of_run=jobset.sigs.k8s.io/jobset-name=$name
nodes_of_run=cloud.google.com/gke-tpu-accelerator=$accelerator,cloud.google.com/gke-tpu-topology=$topology

kube() { run kubectl --context="$context" "$@"; }

this() {
  printf '%q %s --project=%q --location=%q --cluster=%q --name=%q --type=%q --topology=%q' \
    "$0" "$1" "$project" "$location" "$cluster" "$name" "$type" "$topology"
}

# A string for YAML, which takes three characters more than JSON for line breaks: U+0085, U+2028 and
# U+2029. Other control characters it cannot hold.
json() {
  local LC_ALL=C text=${1//\\/\\\\}
  text=${text//\"/\\\"} text=${text//$'\n'/\\n} text=${text//$'\t'/\\t}
  text=${text//$'\xc2\x85'/\\u0085} text=${text//$'\xe2\x80\xa8'/\\u2028}
  printf '"%s"' "${text//$'\xe2\x80\xa9'/\\u2029}"
}

# Exit code 2 is a mistake that a restart repeats: it fails the JobSet at once. All others, as 75 (a
# notice came, or another host was lost) or a node that is gone, restart all pods.
manifest() {
  local flag
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  suspend: false
  failurePolicy:
    maxRestarts: $restarts
    rules:
    - name: mistake
      action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: slice
    replicas: $slices
    template:
      spec:
        backoffLimit: 0
        completionMode: Indexed
        completions: $hosts
        parallelism: $hosts
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {operator: In, values: [2]}
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 90
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $accelerator
              cloud.google.com/gke-tpu-topology: $topology
YAML
  if [[ -n $spot ]]; then
    cat <<YAML
              cloud.google.com/gke-spot: "true"
            tolerations:
            - {key: cloud.google.com/gke-spot, operator: Equal, value: "true", effect: NoSchedule}
YAML
  fi
  cat <<YAML
            securityContext: {runAsUser: 20000, runAsGroup: 20000}
            initContainers:
            - name: share
              image: $(json "$image")
              securityContext: {runAsUser: 0, runAsGroup: 0}
              command:
              - bash
              - -c
              - >-
                mkdir -p /mnt/bridge/runs; chown 20000:20000 /mnt/bridge/runs;
                setpriv --reuid=20000 --regid=20000 --clear-groups test -w /mnt/bridge/runs ||
                { echo "error: the share is not writable for uid 20000"; exit 2; }
              volumeMounts:
              - {name: share, mountPath: /mnt/bridge}
            containers:
            - name: run
              image: $(json "$image")
              ports:
              - {containerPort: 8471}
              - {containerPort: 8080}
              env:
              - {name: PYTHONUNBUFFERED, value: "1"}
              - name: HF_TOKEN
                valueFrom: {secretKeyRef: {name: $name-keys, key: HF_TOKEN, optional: true}}
              resources:
                limits: {google.com/tpu: 4}
              volumeMounts:
              - {name: share, mountPath: /mnt/bridge}
              - {name: keys, mountPath: /run/keys, readOnly: true}
              command:
              - bash
              - -c
              - |
                # The teacher is asked by the first process, which alone reads its key.
                if [[ \$JOB_COMPLETION_INDEX == 0 && \${MEGASCALE_SLICE_ID:-0} == 0 ]]; then
                  for file in /run/keys/*_API_KEY; do
                    if [[ -e \$file ]]; then export "\${file##*/}=\$(<"\$file")"; fi
                  done
                fi
                exec python -m launch.run "\$@"
              - run
              # After a preemption some pods wait for the others' nodes.
              - --join_timeout=1800
              - --yes
              - --workdir=/mnt/bridge/runs/$name
YAML
  for flag in "${rest[@]}"; do
    echo "              - $(json "$flag")"
  done
  cat <<YAML
            volumes:
            - name: share
              nfs: {server: $(json "${nfs%%:*}"), path: $(json "${nfs#*:}")}
            - name: keys
              secret: {secretName: $name-keys, optional: true}
YAML
}

# The conditions of the JobSet that hold: Completed, Failed, Suspended, or active if none does; NONE if
# there is no JobSet.
conditions() {
  local said
  if said=$(kube get "$jobset" -o jsonpath='{range .status.conditions[?(@.status=="True")]}{.type}{" "}{end}' 2>"$tmp/why"); then
    echo "${said:-active}"
  elif grep -qi 'not *found' "$tmp/why"; then
    echo NONE
  else
    echo UNKNOWN
  fi
}

pods() { kube get pods -l "$pods_of_run" -o jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.phase}{"\n"}{end}'; }

require_pods() { [[ -n $dry_run || -n $(pods) ]] || fail "there are no pods: $(this status)"; }

bill() {
  local code=$? nodes
  set +e # In a trap, a plain return has the status from before it.
  trap - EXIT
  if nodes=$(kube get nodes -l "$nodes_of_run" -o name 2>/dev/null); then
    nodes=$(grep -c . <<<"$nodes" || true)
    if ((nodes)); then
      say "STILL BILLED: $nodes nodes with 4 chips of $type each, whoever uses them, until their" \
        "pool scales down or you delete it: gcloud container node-pools list --cluster=$cluster" \
        "--location=$location --project=$project"
    else
      say "Billed: no node with $type in the topology $topology."
    fi
    [[ $(conditions) == @(NONE|UNKNOWN|*Completed*|*Failed*|*Suspended*) ]] ||
      say "The JobSet $name keeps asking for nodes, watched or not. To end that: $(this delete)"
  else
    say "The cluster did not say what is billed; check with: gcloud container node-pools list" \
      "--cluster=$cluster --location=$location --project=$project, or" \
      "https://console.cloud.google.com/kubernetes/list?project=$project"
  fi
  say 'Also billed, until you delete them: the cluster itself, the Filestore share, the machine bridge-files, the image (docs/pods.md, part 9).'
  rm -rf "$tmp"
  exit "$code"
}

connect() {
  [[ -z $dry_run ]] || return 0
  [[ -n $(gcloud auth list --filter=status:ACTIVE --format='value(account)' 2>/dev/null) ]] ||
    fail 'gcloud is not logged in: gcloud auth login'
  kubectl config get-contexts -o name 2>/dev/null | grep -qx "$context" ||
    gcloud container clusters get-credentials "$cluster" --location="$location" --project="$project" >&2 ||
    fail "the cluster $cluster cannot be reached: check its name and location (gcloud container" \
      "clusters list --project=$project), and billing (docs/pods.md, part 1)"
}

send_keys() {
  [[ -z $(teacher_key)${HF_TOKEN:-} ]] && return
  if [[ -n $dry_run ]]; then
    echo "# kubectl create secret generic $name-keys --from-env-file=/dev/stdin, with the keys on stdin"
    return
  fi
  { teacher_key && echo "${HF_TOKEN:+HF_TOKEN=$HF_TOKEN}"; } |
    kube create secret generic "$name-keys" --from-env-file=/dev/stdin --dry-run=client -o yaml |
    kube apply -f - >&2 || fail 'the Secret with the keys cannot be written; the message above is from kubectl'
}

start() {
  local state running=0 why until
  if [[ -n $dry_run ]]; then
    send_keys
    manifest
    return
  fi
  kube get crd jobsets.jobset.x-k8s.io >/dev/null 2>"$tmp/why" ||
    fail "the cluster has no JobSet, or does not answer ($(tail -n 1 "$tmp/why")). To install it:" \
      "docs/pods.md, part 7"
  state=$(conditions)
  if [[ $state == *Completed* || $state == *Failed* ]]; then
    say "the last run has ended ($state): starting it again; it resumes from the share"
    kube delete "$jobset" --wait >&2 || fail 'the old JobSet cannot be deleted; the message above is from kubectl'
  fi
  send_keys
  manifest | kube apply -f - >&2 ||
    fail "the JobSet cannot be applied; the message above is from kubectl. If a run of this name is" \
      "active with other flags, delete it first: $(this delete)"
  say "waiting for $((hosts * slices)) pods"
  until=$((SECONDS + minutes * 60))
  while ((SECONDS < until)); do
    state=$(conditions)
    case $state in
      *Completed*) say 'the run is done' && return ;;
      *Failed*)
        kube logs -l "$pods_of_run" --all-containers --prefix --tail=20 >&2 || true
        fail 'the run has failed, and is not restarted; the log above says why (code 2 is a mistake in' \
          'the config or the data, or a share that cannot be written)'
        ;;
    esac
    running=$(pods | grep -c ' Running$' || true)
    if ((running == hosts * slices)); then
      say "the run has started in $running pods: $(this attach)"
      return
    fi
    pause
  done
  why=$(kube get pods -l "$pods_of_run" -o jsonpath='{.items[*].status.conditions[?(@.type=="PodScheduled")].message}' 2>/dev/null || true)
  fail "after $wait, $running of $((hosts * slices)) pods are running. ${why:+Kubernetes says: $why. }Check" \
    "that a node pool has $type with $topology${spot:+ as spot}, quota, and room to grow" \
    "(docs/pods.md, part 7). The JobSet stays, and starts when there are nodes"
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# In braces it is read as one: bash reads a script as it runs, and this file may change meanwhile.
{
  if [[ -z $dry_run ]]; then
    trap bill EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
  fi
  need_program gcloud 'https://cloud.google.com/sdk/docs/install'
  need_program kubectl 'gcloud components install kubectl gke-gcloud-auth-plugin'
  if [[ $verb == start ]]; then
    ask_about_money "${rest[@]}"
    require_teacher_key
  fi
  connect
  case $verb in
    start) start ;;
    status)
      say "JobSet: $(conditions)"
      pods >&2 || fail 'the pods cannot be listed; the message above is from kubectl'
      ;;
    logs)
      require_pods
      kube logs -l "$pods_of_run" --all-containers --prefix --tail=100
      ;;
    attach)
      require_pods
      kube logs -f -l "$pods_of_run,jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0" \
        --container=run --tail=40 ||
        fail "the connection ended. The run does not need the connection: $(this status)"
      ;;
    stop)
      kube patch "$jobset" --type=merge -p '{"spec":{"suspend":true}}' >&2 || fail "there is no run" \
        "of this name: $(this status)"
      say "the pods save their state and end; start resumes the run"
      ;;
    delete)
      kube delete "$jobset" --ignore-not-found --wait >&2 || fail 'the JobSet cannot be deleted; the message above is from kubectl'
      kube delete secret "$name-keys" --ignore-not-found >&2 || fail 'the Secret with the keys cannot be deleted; the message above is from kubectl'
      ;;
  esac
  exit
}
