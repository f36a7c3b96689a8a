#!/usr/bin/env bash
# Runs the tests, with a Vulkan adapter for those that need a GPU; see --help.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/test.sh [--swiftshader | --mesa26] [--long] [cargo test arguments...]

Makes sure that a Vulkan adapter is there (scripts/vulkan.sh), then runs
cargo test with the arguments that are left. Without any, that is every test.

  --swiftshader  run on SwiftShader, a second, independent software Vulkan;
                 without further arguments only the tests of the
                 operations run: --lib ops::
  --mesa26       run on a lavapipe that has matrix units, which is unpacked in
                 target/mesa26 (scripts/mesa26.sh; 100 MB are downloaded once);
                 without further arguments only the tests of products,
                 convolutions and the self-test run
  --long         run the long form of the tests (PARALLAX_LONG_TESTS=1)
  --help         print this text

The GPU tests run on the adapter whose name contains PARALLAX_TEST_ADAPTER
(llvmpipe, Mesa's software adapter, if it is not set), and fail where there is
none. For a graphics card: PARALLAX_TEST_ADAPTER=GeForce scripts/test.sh
HELP
}

swiftshader=no
mesa26=no
arguments=()
while (($# > 0)); do
  case "$1" in
    --swiftshader) swiftshader=yes ;;
    --mesa26) mesa26=yes ;;
    --long) export PARALLAX_LONG_TESTS=1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    --)
      # What follows is the test harness's.
      arguments+=("$@")
      break
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ "$swiftshader" == yes ]]; then
  scripts/vulkan.sh --swiftshader
  export VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json
  export PARALLAX_TEST_ADAPTER=SwiftShader
  if ((${#arguments[@]} == 0)) || [[ "${arguments[0]}" == -- ]]; then
    arguments=(--lib ops:: ${arguments[@]+"${arguments[@]}"})
  fi
elif [[ "$mesa26" == yes ]]; then
  scripts/mesa26.sh target/mesa26
  # Tests fail if the adapter has no matrices, instead of leaving them out.
  export PARALLAX_TEST_MATRICES=1 PARALLAX_TEST_ADAPTER=llvmpipe
  host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  export "CARGO_TARGET_${host}_RUNNER=$PWD/target/mesa26/run"
  if ((${#arguments[@]} == 0)); then
    arguments=(--lib -- ops::gemm ops::conv2d selftest)
  fi
else
  export PARALLAX_TEST_ADAPTER="${PARALLAX_TEST_ADAPTER:-llvmpipe}"
  # Another adapter is the user's own: there is nothing to install for it, and
  # the tests say so if it is not there.
  shopt -s nocasematch
  if [[ "$PARALLAX_TEST_ADAPTER" == *llvmpipe* ]]; then
    scripts/vulkan.sh --software
  fi
fi

# An empty array counts as unset in the bash of macOS, hence the plus signs.
printf 'test: cargo test %s (adapter: %s)\n' "${arguments[*]+"${arguments[*]}"}" "$PARALLAX_TEST_ADAPTER"
exec cargo test ${arguments[@]+"${arguments[@]}"}
