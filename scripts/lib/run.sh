# A run of tests that ends with all it started, however it ends. Needs common.sh and leftovers.sh.
# shellcheck shell=bash

# begin_run SCRIPT ARGUMENT...: what is started from now on has RAMET_TEST_RUN in its environment, by which it is found
# again; RAMET_TEST_SCRATCH is the run's directory. To be called by SCRIPT with its own arguments before it starts anything.
begin_run() {
  # This shell's own environment is that of its start, and so is that of the shells it forks.
  [[ ${RAMET_TEST_RUN-} =~ ^$$-[0-9]+$ ]] || RAMET_TEST_RUN=$$-$(date +%s) exec bash "$@"
  export RAMET_TEST_RUN RAMET_TEST_SCRATCH
  # A short name, because unix socket paths end at 107 bytes.
  RAMET_TEST_SCRATCH=/tmp/rt$(printf %08x "$SRANDOM")
  (umask 077 && mkdir "$RAMET_TEST_SCRATCH")
  trap finish_run EXIT
  trap 'stop_run HUP' HUP
  trap 'stop_run INT' INT
  trap 'stop_run TERM' TERM
}

# await COMMAND...: runs it so that a signal is acted upon at once and not when it has ended.
await() {
  "$@" &
  wait "$!"
}

# Also where this shell ends because a command has failed, or was killed itself: what that had started runs on.
finish_run() {
  trap '' HUP INT TERM
  end_processes "$RAMET_TEST_RUN(\.[0-9]+)?" "$RAMET_TEST_SCRATCH" || say "${0##*/}: some of what it started could not be ended"
  rm -rf "$RAMET_TEST_SCRATCH"
}

stop_run() {
  trap '' HUP INT TERM
  say "${0##*/}: SIG$1; ending what this run started"
  exit $((128 + $(kill -l "$1")))
}
