#!/usr/bin/env bash
# Trains a recipe with several seeds and prints the accuracies; see --help.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/recipes.sh NAME DATA-DIR [SEED...]

Trains the recipe NAME (see parallax recipes) on the data of DATA-DIR with each
SEED (by default 0, 1 and 2), and prints the accuracy of the nearest neighbours
in percent, then the mean and its standard error. The run folders are
target/recipes/NAME-sSEED. A run that has ended is not repeated, and one that
was interrupted is resumed.

  PARALLAX         the absolute path of the program (by default it is built)
  PARALLAX_DEVICE  the device (by default cpu)
HELP
}

if (($# < 2)) || [[ "$1" == -h || "$1" == --help ]]; then
  usage
  exit $(($# < 2 ? 2 : 0))
fi
name="$1"
data=$(realpath "$2")
shift 2
seeds=("$@")
if ((${#seeds[@]} == 0)); then seeds=(0 1 2); fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
program="${PARALLAX:-target/release/parallax}"
if [[ -z "${PARALLAX:-}" ]]; then cargo build --release --locked --quiet; fi
command=$("$program" recipes "$name" | sed -n 's/^command = "\(.*\)"$/\1/p')

accuracies=()
for seed in "${seeds[@]}"; do
  out="target/recipes/$name-s$seed"
  "$program" "$command" --config "recipe:$name" --data-dir "$data" --seed "$seed" \
    --device "${PARALLAX_DEVICE:-cpu}" --out "$out" --resume >&2
  accuracy=$(sed -n 's/^ *"knn_top1": \([0-9.]*\),*$/\1/p' "$out/summary.json")
  if [[ -z "$accuracy" ]]; then
    printf 'recipes: %s/summary.json has no accuracy of nearest neighbours\n' "$out" >&2
    exit 1
  fi
  printf 'seed %s: %s\n' "$seed" "$(awk -v a="$accuracy" 'BEGIN { printf "%.2f", 100 * a }')"
  accuracies+=("$accuracy")
done
printf '%s\n' "${accuracies[@]}" | awk '
  { sum += 100 * $1; squares += 1e4 * $1 * $1 }
  END {
    mean = sum / NR
    variance = squares / NR - mean * mean
    if (variance < 0) variance = 0
    error = NR > 1 ? sqrt(variance / (NR - 1)) : 0
    printf "mean: %.2f", mean
    if (NR > 1) printf " ± %.2f", error
    print ""
  }'
