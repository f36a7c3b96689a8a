#!/usr/bin/env bash
# Runs a training on ranks whose network has a limited bandwidth, and prints its speed.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/bandwidth.sh RATE[,RATE...] RANKS ROUNDS COMMAND [ARGUMENTS...]

Runs COMMAND under mpirun on RANKS ranks, ROUNDS times for each RATE in turn, and
prints the lines of the command that begin with "ranks" or "speed" after the
rate. RATE is a rate of tc, such as 200mbit, or none. The ranks exchange
messages by TCP over the loopback interface of a network namespace of their own,
which tc limits. Needs Linux, root, Open MPI, ip and tc (iproute2). For example:

  scripts/bandwidth.sh none,1gbit,200mbit 2 3 target/release/parallax simclr \
    --data shapes --arch resnet18 --width 0.25 --batch-size 32 --steps 20 --no-knn --device cpu

Give no --out: each run has a temporary folder.
HELP
}

if (($# < 4)) || [[ "$1" == -h || "$1" == --help ]]; then
  usage
  exit $(($# > 0 && $# < 4 ? 2 : 0))
fi
IFS=, read -ra rates <<<"$1"
ranks="$2" rounds="$3"
shift 3

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
for ((round = 1; round <= rounds; round++)); do
  for rate in "${rates[@]}"; do
    # shellcheck disable=SC2016 # the inner shell expands
    unshare --net bash -euc '
      rate="$1" ranks="$2" out="$3"
      shift 3
      ip link set lo up
      if [[ "$rate" != none ]]; then
        tc qdisc add dev lo root tbf rate "$rate" burst 256kb latency 100ms
      fi
      mpirun --allow-run-as-root --oversubscribe --mca btl tcp,self --mca btl_tcp_if_include lo \
        -n "$ranks" "$@" --out "$out"
    ' bandwidth "$rate" "$ranks" "$folder/$rate-$round" "$@" 2>&1 |
      sed -n "s/^\(ranks\|speed\)/$rate: \1/p"
  done
done
