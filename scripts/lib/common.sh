# Sourced by every script: the checkout's directory, the search path, and how scripts speak and fail.
# shellcheck shell=bash

# What a script's exit code says, beside 0 (done) and 1 (failed).
readonly EXIT_USAGE=2 # wrong arguments
readonly EXIT_NEEDS=3 # the machine lacks something that this script may not or cannot install

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly ROOT
BUILD=$ROOT/build
readonly BUILD

# `ip` and other system tools lie in sbin, which ordinary users do not search; a Node of our own comes first.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
[[ -x $BUILD/node/bin/node ]] && PATH=$BUILD/node/bin:$PATH
export PATH

say() { printf '%s\n' "$*" >&2; }

# fail CODE MESSAGE...
fail() {
  local code=$1
  shift
  say "${0##*/}: $*"
  exit "$code"
}

has() { command -v "$1" >/dev/null 2>&1; }

is_root() { [[ $EUID -eq 0 ]]; }

# at_least VERSION MINIMUM: dotted numbers, compared field by field.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | sed -n 1p) == "$2" ]]; }

# with_lock NAME COMMAND...: one process at a time in this checkout; the others wait.
with_lock() {
  local lock=$BUILD/.$1.lock
  shift
  mkdir -p "$BUILD"
  (
    flock 9
    # The lock must not be inherited by anything that outlives the command.
    "$@" 9>&-
  ) 9>"$lock"
}
