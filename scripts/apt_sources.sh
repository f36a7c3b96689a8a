# Functions for scripts that read Debian packages from other suites of the configured archive.

readonly SOURCES_DIR=/etc/apt/sources.list.d

# A value of /etc/os-release, or nothing.
os_release() {
  (
    unset "$1"
    # shellcheck source=/dev/null
    if [[ -r /etc/os-release ]]; then . /etc/os-release; fi
    printf '%s' "${!1:-}"
  )
}

# Copies each configured source of the machine's own release CODENAME that has the component main,
# with the suites SUITES in the suite's place and all options kept, to a numbered file in FOLDER. A
# third-party archive may use the release's name as its suite too, so there can be several.
# Usage: derive_sources CODENAME FOLDER SUITES
derive_sources() {
  local codename="$1" folder="$2" target="$3" file
  for file in "$SOURCES_DIR"/*.sources; do
    [[ -r "$file" ]] || continue
    awk -v RS='' -v codename="$codename" -v suites_of_copy="$target" -v stem="$folder/$(basename "$file")" '
      {
        delete value
        copy = ""
        field = ""
        lines = split($0, line, "\n")
        for (i = 1; i <= lines; i++) {
          if (line[i] ~ /^#/) continue
          if (line[i] ~ /^[ \t]/) {
            value[field] = value[field] " " line[i]
          } else {
            field = tolower(line[i])
            sub(/:.*/, "", field)
            text = line[i]
            sub(/^[^:]*:/, "", text)
            value[field] = text
          }
          if (field != "suites" && field != "types") copy = copy line[i] "\n"
        }
        suites = " " value["suites"] " "
        gsub(/[ \t]+/, " ", suites)
        if ((" " value["types"] " ") !~ /[ \t]deb[ \t]/) next
        if (tolower(value["enabled"]) ~ /no|false|off|0/) next
        if ((" " value["components"] " ") !~ /[ \t]main[ \t]/) next
        if (!index(suites, " " codename " ") && !index(suites, " stable ")) next
        printf "Types: deb\nSuites: %s\n%s", suites_of_copy, copy > (stem "." NR ".sources")
      }' "$file"
  done
  for file in "$(dirname "$SOURCES_DIR")/sources.list" "$SOURCES_DIR"/*.list; do
    [[ -r "$file" ]] || continue
    awk -v codename="$codename" -v suites_of_copy="$target" -v stem="$folder/$(basename "$file")" '
      $1 == "deb" {
        options = ""
        rest = $0
        sub(/#.*/, "", rest)
        sub(/^[ \t]*deb[ \t]+/, "", rest)
        if (match(rest, /^\[[^]]*\][ \t]*/)) {
          options = substr(rest, 1, RLENGTH)
          rest = substr(rest, RLENGTH + 1)
        }
        n = split(rest, word, /[ \t]+/)
        components = ""
        for (i = 3; i <= n; i++) components = components " " word[i]
        if ((components " ") !~ / main /) next
        if (word[2] != codename && word[2] != "stable") next
        n = split(suites_of_copy, suite, " ")
        for (i = 1; i <= n; i++) {
          printf "deb %s%s %s%s\n", options, word[1], suite[i], components > (stem "." NR ".list")
        }
      }' "$file"
  done
}
