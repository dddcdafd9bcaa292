# Which tests there are, and how they are run. Needs common.sh.
# shellcheck shell=bash

# Schedules the simulation plays in scripts/check, where seconds count, and in scripts/test.
readonly SCHEDULES_QUICK=300
readonly SCHEDULES_FULL=400

# The longest any one test, or file of tests, may take. The simulation at its full number of schedules is the longest.
readonly TEST_TIMEOUT_MS=900000

# How many of the slowest files scripts/test names in the end.
readonly SLOWEST=12

# Prints the test files below the named directories of test/ and proto/, one a line, in a stable order.
test_files() {
  local directory
  for directory in "$@"; do
    [[ ! -d $ROOT/$directory ]] || (cd "$ROOT" && find "$directory" -name '*.test.ts' | sort)
  done
}

# Tests that need neither root nor an emulator, the longest first, so that none is left to run alone in the end.
quick_test_files() {
  test_files test/simulation
  unit_test_files
  test_files test/conformance test/hostile test/fuzz proto
}

# Prints, for each room, a file in build/unit that imports its unit tests and is made here: in a process of its own, a file takes
# far longer to load what it tests than to test it. Those with hooks for all tests of their process have one nevertheless, and so have
# those of disks, which wait for files and programs and do that two at a time.
unit_test_files() {
  local directory room together apart file
  mkdir -p "$BUILD/unit"
  for directory in "$ROOT"/test/unit/*/; do
    room=$(basename "$directory") together=() apart=()
    while read -r file; do
      if grep -qE '^(before|after)(Each)?\(' "$ROOT/$file" || [[ $room == disk ]]; then
        apart+=("$file")
      else
        together+=("$file")
      fi
    done < <(test_files "test/unit/$room")
    ((${#apart[@]} == 0)) || printf '%s\n' "${apart[@]}"
    ((${#together[@]} > 0)) || continue
    printf 'import "../../%s";\n' "${together[@]}" >"$BUILD/unit/$room.test.ts"
    echo "build/unit/$room.test.ts"
  done
}

# Tests with real emulators, likewise.
guest_test_files() { test_files test/chaos test/end-to-end; }

is_guest_test() { [[ $1 =~ (^|/)test/(end-to-end|chaos)/ ]]; }

# run_tests CONCURRENCY RECORD [PREFIX...] -- FILE...: one run of Node's test runner, whose TAP goes to the file RECORD.
# PREFIX is a command that runs another.
run_tests() {
  local concurrency=$1 record=$2 prefix=()
  shift 2
  while [[ $1 != -- ]]; do
    prefix+=("$1")
    shift
  done
  shift
  (($# > 0)) || fail 1 "there are no tests to run"
  (cd "$ROOT" && "${prefix[@]}" node --import tsx --import ./scripts/lib/test-times.mjs \
    --test --test-concurrency="$concurrency" --test-timeout="$TEST_TIMEOUT_MS" \
    --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$record" "$@")
}

# count_tests RECORD...: says how many have passed and failed, on a line of its own. Fails when none has passed.
count_tests() {
  local passed failed
  passed=$(cat "$@" | awk '/^# pass / { sum += $3 } END { print sum + 0 }')
  failed=$(cat "$@" | awk '/^# (fail|cancelled) / { sum += $3 } END { print sum + 0 }')
  printf '%s passed, %s failed\n' "$passed" "$failed"
  ((passed > 0))
}

# In scripts/test, in whose directory RAMET_TEST_SCRATCH tap.NUMBER, left.NUMBER and failed.NUMBER tell how it went:
# run_batch NUMBER CONCURRENCY FILE... runs files as a part of the run with a number of its own.
run_batch() {
  local number=$1 concurrency=$2 scratch=$RAMET_TEST_SCRATCH
  shift 2
  RAMET_TEST_TIMES=$scratch/times run_tests "$concurrency" "$scratch/tap.$number" \
    "$ROOT/scripts/lib/apart" "$number" -- "$@" || note_failed "$scratch/failed.$number" "$@"
  if [[ -f $scratch/left.$number ]]; then
    say "test: this was left behind:"
    say "$(<"$scratch/left.$number")"
  fi
}

# note_failed RECORD FILE...: a file of tests by its name, which may have failed in what it does before or after them.
note_failed() {
  local record=$1
  shift
  if (($# == 1)); then echo "$1"; else echo "the quick tests, which are named above"; fi >"$record"
}

# run_lanes LANES FILE...: each file as a batch, so many at a time. What one says is shown when it has ended. Every other lane begins at the end:
# files beside each other in the alphabet are of one kind, and starve each other of what that needs most.
run_lanes() {
  local lanes=$1 lane waiting=()
  shift
  printf '%s\n' "$@" | awk '{ printf "%03d %s\n", NR, $0 }' >"$RAMET_TEST_SCRATCH/queue"
  for ((lane = 0; lane < lanes; lane++)); do
    run_lane $((lane % 2 == 0 ? 1 : -1)) &
    waiting+=("$!")
  done
  wait "${waiting[@]}"
}

# run_lane FROM: files from the beginning of the queue (1) or from its end (-1).
run_lane() {
  local from=$1 next number file started
  while next=$(next_in_queue "$from") && [[ -n $next ]]; do
    number=${next%% *} file=${next#* } started=$SECONDS
    run_batch "$number" 1 "$file" >"$RAMET_TEST_SCRATCH/out.$number" 2>&1
    (
      flock 9
      printf '\n%s (%d s)\n' "$file" "$((SECONDS - started))"
      # Its own counts are part of those at the end.
      sed -E '/^ℹ (tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /d' "$RAMET_TEST_SCRATCH/out.$number"
    ) 9>"$RAMET_TEST_SCRATCH/print.lock"
  done
}

next_in_queue() (
  local from=$1
  local line=1
  ((from > 0)) || line='$'
  flock 9
  sed -n "${line}p" "$RAMET_TEST_SCRATCH/queue"
  sed -i "${line}d" "$RAMET_TEST_SCRATCH/queue"
) 9>"$RAMET_TEST_SCRATCH/queue.lock"

# Says how long the slowest files took, by what scripts/lib/test-times.mjs wrote of each.
say_slowest() {
  [[ -f $RAMET_TEST_SCRATCH/times ]] || return 0
  say "test: the slowest files, in seconds, and seconds of processor time but for guests:"
  sort -rn "$RAMET_TEST_SCRATCH/times" | awk -v most="$SLOWEST" 'NR <= most { printf "%8.1f %8.1f  %s\n", $1, $2, $3 }' >&2
}
