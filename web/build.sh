#!/usr/bin/env bash
# Builds the page into web/dist, which any static server can host.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The largest module that a page should load, compressed.
readonly MAX_BYTES=3000000

if ! rustc --print target-libdir --target wasm32-unknown-unknown 2>/dev/null | xargs test -d; then
  command -v rustup >/dev/null || {
    printf 'web: the target wasm32-unknown-unknown is missing and there is no rustup to install it with\n' >&2
    exit 1
  }
  rustup target add wasm32-unknown-unknown
fi

cargo build --release --locked --target wasm32-unknown-unknown
rm -rf dist
mkdir dist
cargo run --quiet --locked -p bindgen -- target/wasm32-unknown-unknown/release/parallax_web.wasm dist
cp page/* dist

bytes="$(gzip -9 -c dist/parallax_web_bg.wasm | wc -c)"
printf 'web: dist/parallax_web_bg.wasm has %d bytes, %d compressed\n' \
  "$(wc -c <dist/parallax_web_bg.wasm)" "$bytes"
((bytes <= MAX_BYTES)) || {
  printf 'web: the module has %d bytes compressed; expected at most %d\n' "$bytes" "$MAX_BYTES" >&2
  exit 1
}
