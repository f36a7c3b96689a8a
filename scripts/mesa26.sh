#!/usr/bin/env bash
# Unpacks a lavapipe with cooperative matrices beside the system's; see --help.
set -euo pipefail

# The oldest version of the driver that serves, and the Debian release whose backports have a newer
# one. Backports keep the newest version only, so none can be pinned.
readonly MESA=26.1
readonly RELEASE=trixie
readonly PACKAGES=(mesa-vulkan-drivers libvulkan1)

export LC_ALL=C

# shellcheck source=scripts/apt_sources.sh
. "$(dirname "${BASH_SOURCE[0]}")/apt_sources.sh"

usage() {
  cat <<HELP
Usage: scripts/mesa26.sh FOLDER
       FOLDER/run PROGRAM [ARGUMENTS...]

Downloads Mesa's Vulkan drivers, version $MESA or newer, from Debian 13's
backports, the Vulkan loader and every library that they need (about 100 MB),
and unpacks them below FOLDER (about 310 MB). Does nothing if FOLDER has them.
The system stays as it is: nothing is installed, apt's own lists do not change,
and root is not needed. To remove it all, delete FOLDER.

FOLDER/run starts a program with these libraries and with lavapipe as the only
Vulkan driver. This lavapipe has VK_KHR_cooperative_matrix, which older ones lack.

The archive's address comes from the Debian source that apt is configured with:
the script copies that entry and replaces its suite.
HELP
}

say() { printf 'mesa26: %s\n' "$*"; }

die() {
  printf 'mesa26: %s\n' "$@" >&2
  exit 1
}

# Runs one of apt's programs with lists, a cache and a package database of their own, and with one
# source file.
with_own_state() {
  local state="$1" source="$2" program="$3"
  shift 3
  "$program" -qq -o Dir::Etc::sourcelist="$source" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Acquire::Retries=2 "$@" </dev/null
}

# Downloads the packages and their dependencies from one source to a folder. Fails if the source
# does not carry them.
download() {
  local state="$1" source="$2" packages="$3" wanted
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  # No package is installed, so that every dependency is downloaded, the C library included.
  : >"$state/status"
  with_own_state "$state" "$source" apt-get update || return 1
  wanted=$(with_own_state "$state" "$source" apt-get -s --no-install-recommends \
    -t "$RELEASE-backports" install "${PACKAGES[@]}" |
    awk '/^Inst/ { gsub(/[()]/, "", $3); print $2 "=" $3 }') || return 1
  [[ "$wanted" == *mesa-vulkan-drivers=* ]] || return 1
  # One word is one package.
  # shellcheck disable=SC2086
  (cd "$packages" && with_own_state "$state" "$source" apt-get download $wanted)
}

# The first file below a folder that has this name.
find_file() {
  find "$1" -name "$2" -print -quit
}

# Writes FOLDER/run, which starts a program with the libraries below FOLDER/root.
write_launcher() {
  local folder="$1" driver manifest linker
  driver=$(find_file "$folder/root/usr/lib" libvulkan_lvp.so)
  manifest=$(find_file "$folder/root/usr/share/vulkan" 'lvp_icd*.json')
  [[ -n "$driver" && -n "$manifest" ]] || die "the packages have no lavapipe: nothing like libvulkan_lvp.so is below $folder/root"
  linker=$(find_file "$(dirname "$driver")" 'ld-linux*.so*')
  [[ -n "$linker" ]] || die "the packages have no dynamic linker below $(dirname "$driver")"
  sed "s#\"library_path\": *\"[^\"]*\"#\"library_path\": \"$driver\"#" "$manifest" >"$folder/lavapipe.json"
  cat >"$folder/run" <<LAUNCHER
#!/bin/sh
# Starts a program with the libraries and the lavapipe of this folder.
program=\$(command -v "\$1") || { echo "run: there is no program \$1" >&2; exit 127; }
shift
export VK_DRIVER_FILES='$folder/lavapipe.json'
# The matrices work with vectors of 256 bits only.
export LP_NATIVE_VECTOR_WIDTH=256
exec '$linker' --library-path '$(dirname "$driver")' "\$program" "\$@"
LAUNCHER
  chmod +x "$folder/run"
}

main() {
  local folder work source version downloaded=no
  folder=$(realpath -m "$1")
  if [[ -x "$folder/run" && -s "$folder/version" ]]; then
    say "found Mesa $(cat "$folder/version") in $folder"
    return 0
  fi
  if [[ -e "$folder" && -n "$(ls -A "$folder")" ]]; then
    die "$folder is not empty, and has no complete Mesa; name another folder, or delete it first"
  fi
  if ! command -v apt-get >/dev/null || [[ "$(os_release ID)" != debian ]]; then
    die "this needs Debian's apt-get and its configured archive, and this system is $(os_release ID)" \
      "any lavapipe of Mesa 26.1 or newer will do instead: install one, set VK_DRIVER_FILES to its manifest" \
      "and PARALLAX_TEST_MATRICES=1, and run cargo test"
  fi

  mkdir -p "$folder/root"
  work="$folder/download"
  mkdir -p "$work/sources" "$work/packages"
  # Run by root, apt downloads as its own user, which has to be able to write there.
  if ((EUID == 0)); then chown _apt "$work/packages" 2>/dev/null || true; fi
  derive_sources "$(os_release VERSION_CODENAME)" "$work/sources" "$RELEASE $RELEASE-backports"
  for source in "$work/sources"/*; do
    [[ -f "$source" ]] || continue
    if download "$work/state.$(basename "$source")" "$source" "$work/packages"; then
      downloaded=yes
      break
    fi
  done
  if [[ "$downloaded" != yes ]]; then
    # The next call starts again.
    rm -rf "$folder"
    die "${PACKAGES[*]} could not be downloaded from $RELEASE-backports; apt's messages are above"
  fi
  version=$(dpkg-deb -f "$work"/packages/mesa-vulkan-drivers_*.deb Version)
  if ! dpkg --compare-versions "$version" ge "$MESA"; then
    rm -rf "$folder"
    die "$RELEASE-backports has Mesa $version; expected $MESA or newer"
  fi

  for source in "$work/packages"/*.deb; do dpkg -x "$source" "$folder/root"; done
  write_launcher "$folder"
  rm -rf "$work"
  printf '%s\n' "$version" >"$folder/version"
  say "ready: $folder/run PROGRAM (Mesa $version)"
}

if (($# != 1)); then die "one folder is expected, got: ${*:-nothing}; see --help"; fi
case "$1" in
  -h | --help) usage ;;
  -*) die "unknown option: $1; see --help" ;;
  *) main "$1" ;;
esac
