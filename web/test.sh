#!/usr/bin/env bash
# Usage: web/test.sh [PROGRAM]
#
# Builds the page and tests it in headless Chromium, on its software WebGPU
# (SwiftShader), against the command line PROGRAM, which is built if it is not
# given. Screenshots are written to web/screenshots. Installs Debian's Chromium
# and npm, and the driver of package-lock.json, if they are missing.
set -euo pipefail
program="${1:+$(realpath "$1")}"
cd "$(dirname "${BASH_SOURCE[0]}")"

die() {
  printf 'web test: %s\n' "$*" >&2
  exit 1
}

packages=()
if [[ -z "${CHROMIUM:-}" ]] && ! command -v chromium >/dev/null; then packages+=(chromium); fi
if ! command -v npm >/dev/null; then packages+=(nodejs npm); fi
if ((${#packages[@]} > 0)); then
  command -v apt-get >/dev/null ||
    die "install Node.js 20 or later with npm, and Chromium, or set CHROMIUM to its path"
  root=()
  if ((EUID != 0)); then root=(sudo); fi
  ${root[@]+"${root[@]}"} apt-get update
  ${root[@]+"${root[@]}"} apt-get install --yes --no-install-recommends "${packages[@]}"
fi
node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' ||
  die "Node.js is $(node --version); the driver needs 20 or later"
export CHROMIUM="${CHROMIUM:-$(command -v chromium)}"
if [[ ! -d node_modules/playwright-core ]]; then
  npm ci --no-audit --no-fund
fi

./build.sh
if [[ -z "$program" ]]; then
  cargo build --locked --bin parallax --manifest-path ../Cargo.toml
  target="$(cargo metadata --no-deps --format-version 1 --manifest-path ../Cargo.toml |
    sed -E 's/.*"target_directory":"([^"]*)".*/\1/')"
  program="$target/debug/parallax"
fi
exec node test.mjs "$program"
