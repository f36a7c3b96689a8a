#!/usr/bin/env bash
# Builds the page and tests it in headless Chromium, on its software WebGPU
# (SwiftShader). Screenshots are written to web/screenshots. Installs Debian's
# Chromium, and the driver of package-lock.json, if they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

die() {
  printf 'web test: %s\n' "$*" >&2
  exit 1
}

export CHROMIUM="${CHROMIUM:-$(command -v chromium || true)}"
if [[ -z "$CHROMIUM" ]]; then
  command -v apt-get >/dev/null || die "there is no Chromium; install one, or set CHROMIUM to its path"
  root=()
  if ((EUID != 0)); then root=(sudo); fi
  "${root[@]}" apt-get update
  "${root[@]}" apt-get install --yes --no-install-recommends chromium
  CHROMIUM="$(command -v chromium)"
fi
command -v npm >/dev/null || die "npm is missing; install Node.js 20 or later"
if [[ ! -d node_modules/playwright-core ]]; then
  npm ci --no-audit --no-fund
fi

./build.sh
cargo build --locked --bin parallax --manifest-path ../Cargo.toml
target="$(cargo metadata --no-deps --format-version 1 --manifest-path ../Cargo.toml |
  sed -E 's/.*"target_directory":"([^"]*)".*/\1/')"
exec node test.mjs "$target/debug/parallax"
