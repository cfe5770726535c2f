#!/usr/bin/env bash
# Installs the programs that the tests need and this machine lacks: `make test` runs it first.
#
# On Debian and Ubuntu it installs packages with apt-get, as root or with sudo, and says which ones first.
# On other systems it names the programs and fails. SHARDLINE_NO_INSTALL=1 only checks, everywhere.
# `setup_machine.sh python` does the same for Python alone, which is all that `make install` needs.
set -euo pipefail

python=${PYTHON:-python3}
programs=() packages=()

has() { command -v "$1" >/dev/null 2>&1; }

# lacks PROGRAM PACKAGE...: note a missing program. The first package that the system offers brings it.
lacks() {
  programs+=("$1")
  shift
  packages+=("$*")
}

java_is_new_enough() {
  local version
  has java || return 1
  version=$(java -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ]
}

check_python() {
  has "$python" || lacks "$python (Python 3.11 or newer)" python3
  "$python" -c 'import ensurepip, venv' 2>/dev/null || lacks "venv of $python" python3-venv
}

check_all() {
  check_python
  java_is_new_enough || lacks "java (17 or newer)" openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless
  has mvn || lacks mvn maven
  has make || lacks make make
  has curl || lacks curl curl
  has openssl || lacks openssl openssl
  has node || lacks node nodejs
  has npm || lacks npm npm
  has initdb || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || lacks initdb postgresql
  has psql || lacks psql postgresql-client
  has docker-compose || lacks docker-compose docker-compose
  { has prometheus && has promtool; } || lacks "prometheus and promtool" prometheus
  has systemd-analyze || lacks systemd-analyze systemd
  has setpriv || lacks setpriv util-linux
  has chromium || lacks chromium chromium chromium-browser
  has chromedriver || lacks chromedriver chromium-driver chromium-chromedriver
}

# offered PACKAGE...: the first that apt can install; the first of all where it knows none.
offered() {
  local package
  for package in "$@"; do
    if apt-cache show "$package" >/dev/null 2>&1; then
      echo "$package"
      return
    fi
  done
  echo "$1"
}

install_packages() {
  local root=() wanted=() names
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || { echo "setup: installing packages needs root; run this as root, or install sudo" >&2; exit 2; }
    root=(sudo)
    echo "setup: sudo may ask for your password"
  fi
  "${root[@]}" apt-get update -qq
  for names in "${packages[@]}"; do
    # shellcheck disable=SC2086 # the names are separate words
    wanted+=("$(offered $names)")
  done
  echo "setup: apt-get install ${wanted[*]}"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${wanted[@]}" </dev/null
}

case "${1:-all}" in
  all) check_all ;;
  python) check_python ;;
  *) echo "usage: $0 [all|python]" >&2; exit 2 ;;
esac
[ ${#programs[@]} -gt 0 ] || exit 0

printf -v missing '%s, ' "${programs[@]}"
echo "setup: missing: ${missing%, } (on Debian: ${packages[*]%% *})"
if [ "${SHARDLINE_NO_INSTALL:-0}" = 1 ]; then
  echo "setup: SHARDLINE_NO_INSTALL=1 is set, so nothing is installed" >&2
  exit 2
fi
if ! has apt-get; then
  echo "setup: this system has no apt-get; install the programs with its own package manager" >&2
  exit 2
fi
install_packages
# What was installed must be what was missing.
SHARDLINE_NO_INSTALL=1 exec "$0" "$@"
