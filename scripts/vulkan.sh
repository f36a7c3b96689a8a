#!/usr/bin/env bash
# Makes sure that this machine has a Vulkan adapter; see --help.
set -euo pipefail

# Mesa from this version on is left as it is; an older one is replaced where
# backports carry a newer one, because its llvmpipe is much slower.
readonly GOOD_MESA=25.0
readonly PACKAGE=mesa-vulkan-drivers
readonly SWIFTSHADER_ICD=/usr/lib/chromium/vk_swiftshader_icd.json
# shellcheck source=scripts/apt_sources.sh
. "$(dirname "${BASH_SOURCE[0]}")/apt_sources.sh"
readonly ADDED_SOURCE="$SOURCES_DIR/parallax-backports"

export LC_ALL=C
export PATH="$PATH:/usr/sbin:/sbin" # ldconfig is not on every user's path

usage() {
  cat <<'HELP'
Usage: scripts/vulkan.sh [--software | --swiftshader]

Makes sure that a Vulkan adapter is there, and installs nothing if it is.

  (no option)    any adapter counts: a graphics card's or a software one
  --software     Mesa's software adapter, llvmpipe, has to be there
  --swiftshader  SwiftShader, which Debian's package chromium carries
  --help         print this text

On Debian and its relatives Mesa's software driver is installed, from backports
where that is newer. The backports source is derived from the Debian source
that the machine is configured with, and stays in /etc/apt/sources.list.d so
that later upgrades reach the driver. Elsewhere, or without root and sudo, the
script says what to install.
HELP
}

say() { printf 'vulkan: %s\n' "$*"; }

die() {
  printf 'vulkan: %s\n' "$@" >&2
  exit 1
}

# --- what is there -----------------------------------------------------------

# The driver manifests that the Vulkan loader would read, one a line.
driver_manifests() {
  local chosen="${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}"
  local dir file
  local -a dirs
  if [[ -n "$chosen" ]]; then
    tr ':' '\n' <<<"$chosen"
    return
  fi
  IFS=: read -r -a dirs <<<"${XDG_DATA_DIRS:-/usr/local/share:/usr/share}:/etc:${HOME:-/}/.local/share"
  for dir in "${dirs[@]}"; do
    for file in "$dir"/vulkan/icd.d/*.json; do
      if [[ -f "$file" ]]; then printf '%s\n' "$file"; fi
    done
  done
}

# Whether the library that a manifest names is there with all that it needs.
driver_loads() {
  local manifest="$1" library needs
  library=$(sed -n 's/.*"library_path"[^"]*"\([^"]*\)".*/\1/p' "$manifest" 2>/dev/null | head -n 1)
  case "$library" in
    '') return 1 ;;
    /*) ;;
    */*) library="$(dirname "$manifest")/$library" ;;
    *) library=$(ldconfig -p | awk -v name="$library" '$1 == name && !path { path = $NF } END { print path }') ;;
  esac
  [[ -f "$library" ]] || return 1
  needs=$(ldd "$library" 2>/dev/null) || return 1
  [[ "$needs" != *'not found'* ]]
}

loader_is_there() {
  local libraries
  libraries=$(ldconfig -p 2>/dev/null) || return 1
  [[ "$libraries" == *libvulkan.so.1* ]]
}

# The manifest of a driver that works, for 'software' or for 'any' adapter. A
# card's driver counts only where the kernel shows a card: Mesa's package
# brings all its drivers along to any machine.
working_driver() {
  local wanted="$1" manifest manifests card_is_there=no
  loader_is_there || return 1
  manifests=$(driver_manifests)
  if compgen -G '/dev/dri/renderD*' >/dev/null || compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    card_is_there=yes
  fi
  while IFS= read -r manifest; do
    case "$(basename "$manifest")" in
      lvp_icd*) ;;
      vk_swiftshader_icd*) [[ "$wanted" == any ]] || continue ;;
      *) [[ "$wanted" == any && "$card_is_there" == yes ]] || continue ;;
    esac
    if [[ -n "$manifest" ]] && driver_loads "$manifest"; then
      printf '%s\n' "$manifest"
      return 0
    fi
  done <<<"$manifests"
  return 1
}

# --- installing --------------------------------------------------------------

is_debian_like() {
  command -v apt-get >/dev/null && [[ " $(os_release ID) $(os_release ID_LIKE) " == *' debian '* ]]
}

can_be_root() {
  if ((EUID == 0)); then return 0; fi
  command -v sudo >/dev/null || return 1
  # Without a terminal nobody can type a password.
  [[ -t 0 ]] || sudo -n true 2>/dev/null
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 \
    -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 "$@" </dev/null
}

# dpkg's chatter is shown only when the installation fails.
apt_install() {
  local log status=0
  log=$(mktemp)
  apt_get -o Dpkg::Use-Pty=0 install -y --no-install-recommends "$@" >"$log" 2>&1 || status=$?
  if ((status != 0)); then cat "$log" >&2; fi
  rm -f "$log"
  return "$status"
}

refresh_lists() {
  apt_get update || say "apt-get update did not succeed for every source; going on with the lists that are there"
}

installed_version() {
  # The field is dpkg's, not the shell's.
  # shellcheck disable=SC2016
  dpkg-query -W -f='${db:Status-Status} ${Version}\n' "$PACKAGE" 2>/dev/null |
    awk '$1 == "installed" && !version { version = $2 } END { print version }' || true
}

# The newest version that apt would install by itself, or nothing.
candidate_version() {
  apt-cache policy "$PACKAGE" | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

# The version in one suite by the lists that apt holds, or nothing.
version_in_suite() {
  apt-cache madison "$PACKAGE" |
    awk -F ' *[|] *' -v suite="$1/" 'index($3, " " suite) && !version { version = $2 } END { print version }'
}

# Adds the backports source, and keeps it only if it can be read and carries
# the driver.
add_backports() {
  local codename="$1" folder source target
  folder=$(mktemp -d)
  derive_sources "$codename" "$folder" "$codename-backports"
  for source in "$folder"/*; do
    [[ -f "$source" ]] || continue
    target="$ADDED_SOURCE.${source##*.}"
    as_root install -m 644 "$source" "$target"
    if apt_get -o Dir::Etc::sourcelist="$target" -o Dir::Etc::sourceparts=- \
      -o APT::Get::List-Cleanup=0 update && [[ -n "$(version_in_suite "$codename-backports")" ]]; then
      say "added $target"
      rm -rf "$folder"
      return 0
    fi
    as_root rm -f "$target"
  done
  rm -rf "$folder"
  return 1
}

what_to_install() {
  cat <<'TEXT'
vulkan: install a Vulkan driver and the Vulkan loader, then run this again:
  Debian, Ubuntu   mesa-vulkan-drivers libvulkan1 (25.0 or newer; on Debian 12 from bookworm-backports)
  Fedora           mesa-vulkan-drivers vulkan-loader
  Arch Linux       vulkan-swrast vulkan-icd-loader
  openSUSE         libvulkan_lvp libvulkan1
  Alpine           mesa-vulkan-swrast vulkan-loader
Or, with another adapter (a graphics card, or Metal or DirectX 12 where there
is no Vulkan), set PARALLAX_TEST_ADAPTER to a part of its name for the tests.
TEXT
}

# Installs Mesa's software driver or brings it up to date.
install_mesa() {
  local codename backports own newer=''
  codename=$(os_release UBUNTU_CODENAME)
  codename=${codename:-$(os_release VERSION_CODENAME)}
  backports="$codename-backports"

  refresh_lists
  if [[ -z "$codename" ]]; then
    say "this release has no code name, so no backports are looked for"
  elif [[ -n "$(version_in_suite "$backports")" ]] || add_backports "$codename"; then
    newer=$(version_in_suite "$backports")
  else
    say "no $PACKAGE from $backports could be reached; taking the release's own"
  fi

  own=$(candidate_version)
  if [[ -n "$newer" ]] && { [[ -z "$own" ]] || dpkg --compare-versions "$newer" gt "$own"; }; then
    say "installing $PACKAGE $newer from $backports"
    if apt_install -t "$backports" "$PACKAGE" libvulkan1; then return 0; fi
    say "that failed; taking the release's own version"
  fi
  say "installing $PACKAGE ${own:-(version unknown)}"
  apt_install "$PACKAGE" libvulkan1
}

ensure_mesa() {
  local wanted="$1" driver version
  version=''
  if is_debian_like; then version=$(installed_version); fi
  if driver=$(working_driver "$wanted"); then
    if [[ "$driver" != *lvp_icd* || -z "$version" ]] || dpkg --compare-versions "$version" ge "$GOOD_MESA"; then
      say "found $driver${version:+ ($PACKAGE $version)}"
      return 0
    fi
    if ! can_be_root; then
      say "found $driver ($PACKAGE $version); $GOOD_MESA or newer is faster, but installing it needs root"
      return 0
    fi
    say "found $PACKAGE $version, which is old; looking for a newer one"
  elif ! is_debian_like || ! can_be_root; then
    what_to_install >&2
    die "no ${wanted/any/Vulkan} adapter found"
  fi

  install_mesa || die "$PACKAGE could not be installed; apt's messages are above"
  driver=$(working_driver "$wanted") ||
    die "$PACKAGE $(installed_version) is installed, but no driver of it can be loaded" \
      "if VK_DRIVER_FILES or VK_ICD_FILENAMES is set, unset it"
  say "ready: $driver ($PACKAGE $(installed_version))"
}

ensure_swiftshader() {
  if ! loader_is_there || [[ ! -f "$SWIFTSHADER_ICD" ]]; then
    if ! is_debian_like || ! can_be_root; then
      die "SwiftShader is not here: $SWIFTSHADER_ICD does not exist" \
        "install Debian's packages chromium and libvulkan1 (as root), then run this again"
    fi
    say "installing chromium, which carries SwiftShader"
    refresh_lists
    apt_install chromium libvulkan1 || die "chromium could not be installed; apt's messages are above"
  fi
  driver_loads "$SWIFTSHADER_ICD" ||
    die "$SWIFTSHADER_ICD is missing or its library cannot be loaded" \
      "Debian's package chromium has it; Ubuntu's package of that name does not"
  say "found $SWIFTSHADER_ICD; to use it: export VK_DRIVER_FILES=$SWIFTSHADER_ICD"
}

if (($# > 1)); then die "expected one option at most, got: $*; see --help"; fi
case "${1:-}" in
  '') ensure_mesa any ;;
  --software) ensure_mesa software ;;
  --swiftshader) ensure_swiftshader ;;
  -h | --help) usage ;;
  *) die "unknown option: $1; see --help" ;;
esac
