#!/usr/bin/env bash
# Slurm: starts a Ray cluster on the nodes of one job, runs one rayprob command on it, and removes everything at the end.
#
# What it starts    Ray on every node of the job, the head on the first, which trains like the others; CPUs and GPUs as
#                   allocated by Slurm. Then `rayprob doctor --cluster`, and if it finds no fault, your command.
# What it costs     The resources in the #SBATCH lines below, from the job's start to its end; Slurm counts GPU hours and priority.
# What it needs     A folder that all nodes see, with this repository, its virtual environment, and the shards.
# Security          A compute node may have other users, and Ray listens on all of its addresses. Every request, except for
#                   Ray's metrics, needs a token: created for each job, passed to the nodes over srun's own channel, and stored
#                   in a file that only you can read (0600, in a folder of 0700 in each node's /tmp), never on a command line or
#                   in the log. The dashboard listens on 127.0.0.1 of the first node.
#
# In the folder of the repository, on a login node; options before the file override its #SBATCH lines:
#
#   . .venv/bin/activate
#   rayprob shard shards/coco2014.yaml --set target=/shared/coco2014
#   sbatch cluster/slurm.sh doctor --cluster --storage /shared/runs
#   sbatch --nodes=4 cluster/slurm.sh train tune_configs/paper.yaml --set folder=/shared/runs/paper \
#     --set data.root=/shared/coco2014 --set placement.num_workers=16 --set placement.use_gpu=true
#   squeue --me
#   tail -F rayprob-JOB.log
#   tensorboard --logdir /shared/runs
#   srun --jobid=JOB --overlap --nodes=1 --ntasks=1 --pty bash
#   scancel --batch --signal=INT JOB
#   scancel JOB
#
# The log starts with the variables that make `ray status` work in that shell, and with the tunnel to the dashboard.
# Five minutes before the time limit (--signal), or if Slurm preempts the job with PreemptParameters=send_user_signal, the run
# saves, stops and is requeued under the same job number; it continues from there. After a lost node it is requeued as well,
# and resumes from the last checkpoint. `scancel --batch --signal=INT` saves and ends; plain `scancel` ends at once, and the run
# resumes from the last checkpoint. Submit the same sbatch again to continue. For a sweep, use `tune` instead of `train`.
#
# Request more than ten minutes: a job with only the five before its limit saves at once and is requeued forever.
#
# Tested: shellcheck; order, token, signals and requeue with stand-ins for Slurm's and Ray's commands (tests/cluster); and, in
# November 2026, under Slurm 22.05 with two nodes on one machine, CPUs only: a run over both nodes with a time limit of three
# minutes saved before the limit, was requeued and resumed, twice, until it finished; both ways to cancel; the shell and `ray
# status` in it. No Ray process, token or folder remained.
# Not run: GPUs, several machines.
#SBATCH --job-name=rayprob
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=48
#SBATCH --gpus-per-node=4
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=rayprob-%j.log
set -euo pipefail
set -m # without job control, background processes of bash ignore SIGINT

start_s=300 # loading Python and torch on all nodes from a network disk may be slow
save_s=240  # of the 300 s that --signal leaves
after=run   # what follows: run, and once that is stopped, end or requeue
driver=     # the process of the command
steps=()    # the processes of the sruns that run Ray
timers=()

main() {
  (($#)) || fail "no command given; for example: sbatch cluster/slurm.sh train tune_configs/paper.yaml --set folder=/shared/runs/paper"
  trap 'save_and requeue' USR1
  trap 'save_and end' INT TERM
  trap clean_up EXIT
  name_places
  start_ray
  [[ $1 == doctor ]] || rayprob doctor --cluster
  run "$@"
}

# The ports are derived from the job number, because jobs may share nodes. Ray's workers use 10002-19999.
name_places() {
  local nodes
  mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  head=${nodes[0]}
  read -r address < <(getent ahostsv4 "$head" | awk '$1 !~ /^127\./ { print $1 }') || read -r address _ < <(hostname -I)
  port=$((20000 + SLURM_JOB_ID % 1000 * 10))
  cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
  folder=/tmp/rayprob-$SLURM_JOB_ID # on each node; short, because the paths of Ray's sockets are limited to 107 characters
  export RAY_ADDRESS=$address:$port RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/auth_token
  export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
  unset RAY_AUTH_TOKEN # it would override the file
  echo "on $head: export RAY_ADDRESS=$RAY_ADDRESS RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$RAY_AUTH_TOKEN_PATH"
  echo "the dashboard: ssh -N -L 8265:127.0.0.1:$((port + 1)) $head"
}

start_ray() {
  python -c 'import secrets; print(secrets.token_hex(32))' | on_nodes "$SLURM_JOB_NUM_NODES" -- take_token "$folder"
  on_nodes 1 --nodelist="$head" -- hold_ray "$folder" --head --node-ip-address="$address" --port="$port" \
    --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) \
    --dashboard-agent-listen-port=$((port + 3)) --num-cpus="$cpus" --disable-usage-stats &
  steps+=($!)
  wait_for_head
  if ((SLURM_JOB_NUM_NODES > 1)); then
    on_nodes $((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" -- hold_ray "$folder" --address="$RAY_ADDRESS" \
      --dashboard-agent-listen-port=$((port + 4)) --num-cpus="$cpus" &
    steps+=($!)
  fi
  wait_for_nodes
}

# on_nodes NUMBER [SRUN OPTION...] -- FUNCTION [ARGUMENT...]: runs a function of this file with srun.
on_nodes() {
  local number=$1 options=()
  shift
  while [[ $1 != -- ]]; do
    options+=("$1")
    shift
  done
  shift
  exec srun --overlap --export=ALL --kill-on-bad-exit=0 --nodes="$number" --ntasks="$number" --ntasks-per-node=1 \
    --cpus-per-task="$cpus" "${options[@]}" bash -c "set -euo pipefail; $(declare -f "$1"); \"\$@\"" bash "$@"
}

# On a node: stores the token from standard input where only this user can read it.
take_token() {
  umask 077
  rm -rf "$1" # left from before a requeue of this job
  mkdir "$1"
  cat > "$1/auth_token"
}

# On a node: runs Ray, until clean_up sends USR2 or scancel TERM.
hold_ray() {
  local folder=$1 ray='' code=0 asked=no
  shift
  trap 'asked=yes; kill $ray 2> /dev/null' TERM USR2 # a signal may arrive before Ray has started
  ulimit -n "$(ulimit -Hn)"
  ray start "$@" --block --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=4000000000 --temp-dir="$folder" \
    > "$folder/start.log" 2>&1 &
  ray=$!
  [[ $asked == no ]] || kill "$ray"
  while wait "$ray" || code=$?; kill -0 "$ray" 2> /dev/null; do :; done
  [[ $asked == yes ]] || tail -n 30 "$folder/start.log"
  rm -rf "$folder"
  [[ $asked == yes ]] || return "$code"
}

wait_for_head() {
  local deadline=$((SECONDS + start_s))
  until (: > "/dev/tcp/$address/$port") 2> /dev/null; do
    kill -0 "${steps[0]}" 2> /dev/null || fail "Ray did not start on $head; see its output above"
    ((SECONDS < deadline)) || fail "Ray on $head did not answer at $RAY_ADDRESS within $start_s s"
    sleep 1
  done
}

wait_for_nodes() {
  python - "$SLURM_JOB_NUM_NODES" "$start_s" << 'PYTHON'
import sys, time
import ray

wanted, deadline_s = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
ray.init(logging_level="ERROR", log_to_driver=False)
while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline_s:
        sys.exit(f"{alive} of {wanted} nodes joined the head within {sys.argv[2]} s")
    time.sleep(1)
PYTHON
}

# Runs the command, and ends this script with its exit code, or requeues the job.
run() {
  local code=130
  if [[ $after == run ]]; then
    rayprob "$@" &
    driver=$!
    # A caught signal ends `wait`, not the command.
    while wait "$driver" && code=0 || code=$?; ((code > 128)) && kill -0 "$driver" 2> /dev/null; do :; done
    driver=
  fi
  if [[ $after == requeue ]] && ((code > 128)); then
    clean_up
    echo "requeued; the run continues from there"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}

# rayprob saves at SIGINT. A run that does not save in time resumes from its last checkpoint.
save_and() {
  [[ $after == end ]] || after=$1 # a cancelled job must not be requeued
  echo "asking the run to save and stop"
  [[ -n $driver ]] || return 0
  kill -INT "$driver"
  kill_later "$save_s" -KILL "$driver"
}

clean_up() {
  trap - EXIT
  trap '' USR1 INT TERM
  if ((${#steps[@]})); then
    kill -USR2 "${steps[@]}" 2> /dev/null || true # srun forwards it to the nodes
    kill_later 30 -TERM "${steps[@]}"
    wait "${steps[@]}" || true
  fi
  for timer in "${timers[@]}"; do
    kill -KILL -- "-$timer" 2> /dev/null || true # it ignores TERM, as this script does by now
  done
}

# kill_later SECONDS SIGNAL PROCESS...
kill_later() {
  (sleep "$1" && kill "${@:2}") 2> /dev/null &
  timers+=($!)
  disown "$!" # so that bash prints nothing when it is killed
}

fail() {
  echo "$1" >&2
  exit 1
}

main "$@"
