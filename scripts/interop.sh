#!/usr/bin/env bash
# Compares Parallax with the Python programs that it exchanges files with; see --help.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/interop.sh [--python PYTHON] [--parallax PROGRAM]

Builds Parallax, installs the packages of scripts/interop-requirements.txt into
a virtual environment in target/interop, and runs scripts/interop.py, which
prints a table of checks and fails if one of them fails. Everything is computed
on the CPU.

  --python PYTHON     use this interpreter, which has the packages already
  --parallax PROGRAM  use this program, and build none
  --help              print this text

On Linux, PyPI's torch brings gigabytes of CUDA libraries. To leave them out:
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu scripts/interop.sh
HELP
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=
parallax=
while (($# > 0)); do
  case "$1" in
    --python | --parallax)
      (($# > 1)) || { printf 'interop: %s needs a value; see --help\n' "$1" >&2; exit 2; }
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      printf 'interop: unknown argument %s; see --help\n' "$1" >&2
      exit 2
      ;;
  esac
  shift
done

if [[ -z "$python" ]]; then
  environment=target/interop
  [[ -x "$environment/bin/python" ]] || python3 -m venv "$environment"
  python="$environment/bin/python"
  "$python" -m pip install --quiet --requirement scripts/interop-requirements.txt
fi
if [[ -z "$parallax" ]]; then
  cargo build --release --locked
  parallax="${CARGO_TARGET_DIR:-target}/release/parallax"
fi
export CUDA_VISIBLE_DEVICES=
exec "$python" scripts/interop.py --parallax "$parallax"
