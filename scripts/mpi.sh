#!/usr/bin/env bash
# Runs a command with what the feature mpi needs: an MPI library and libclang.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/mpi.sh COMMAND [ARGUMENTS...]

Makes sure that mpicc, mpirun and libclang are there, which the feature mpi of
the crate needs, then runs the command. On Debian, Open MPI is installed if
there is none. For example:

  scripts/mpi.sh cargo test --features mpi --test distributed
HELP
}

if (($# == 0)) || [[ "$1" == -h || "$1" == --help ]]; then
  usage
  exit 0
fi

has_libclang() {
  [[ -n "${LIBCLANG_PATH:-}" ]] || command -v llvm-config >/dev/null ||
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
    ldconfig -p 2>/dev/null | grep -q libclang
}

if ! command -v mpicc >/dev/null || ! command -v mpirun >/dev/null || ! has_libclang; then
  if ! command -v apt-get >/dev/null; then
    printf 'mpi: mpicc, mpirun or libclang is missing; install an MPI library and libclang\n' >&2
    exit 1
  fi
  as_root=()
  if ((EUID != 0)); then as_root=(sudo); fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" apt-get install -qq -y --no-install-recommends openmpi-bin libopenmpi-dev libclang-dev
fi
exec "$@"
