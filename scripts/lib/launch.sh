# Starts one of the two programs from this checkout, building first when the sources have changed.
# shellcheck shell=bash
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$ROOT/scripts/lib/stale.sh"

# launch ROOM ARGUMENT...
launch() {
  local room=$1
  shift
  if ! dist_is_fresh || ! native_is_fresh; then
    "$ROOT/scripts/build" || exit
  fi
  exec node --enable-source-maps "$ROOT/dist/$room/main.js" "$@"
}
