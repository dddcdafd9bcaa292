# Says whether what was built is older than what it was built from. Needs common.sh.
# shellcheck shell=bash

# dist/ is made at once from all of src/, so one stamp stands for it. Directories count: a removed file changes its own.
dist_is_fresh() {
  [[ -f $BUILD/dist.stamp && -d $ROOT/dist ]] || return 1
  [[ -z $(find "$ROOT/src" "$ROOT/scripts/build" "$ROOT/tsconfig.json" "$ROOT/node_modules/.ramet-setup" \
    \( -name '*.ts' -o -name build -o -name '*.json' -o -name .ramet-setup -o -type d \) -newer "$BUILD/dist.stamp" -print -quit 2>/dev/null) ]]
}

native_is_fresh() {
  [[ -f $BUILD/native/ramet.node && -f $BUILD/native/libramet-preload.so && -f $BUILD/native/ramet-rehearsal ]] || return 1
  [[ -z $(find "$ROOT/src/memory/native" "$ROOT/scripts/build-native" \
    -newer "$BUILD/native/ramet.node" -print -quit) ]]
}
