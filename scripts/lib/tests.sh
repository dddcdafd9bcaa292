# Which tests there are, and how they are run. Needs common.sh.
# shellcheck shell=bash

# Schedules the simulation plays in scripts/check, where seconds count, and in scripts/test.
readonly SCHEDULES_QUICK=300
readonly SCHEDULES_FULL=2000

# Prints the test files below the named directories of test/ and proto/, one a line, in a stable order.
test_files() {
  local directory
  for directory in "$@"; do
    [[ ! -d $ROOT/$directory ]] || (cd "$ROOT" && find "$directory" -name '*.test.ts' | sort)
  done
}

# Tests that need neither root nor an emulator.
quick_test_files() { test_files test/unit test/conformance test/hostile test/simulation test/fuzz proto; }

# The longest any one test, or file of tests, may take. The simulation at its full number of schedules is the longest.
readonly TEST_TIMEOUT_MS=900000

# run_tests CONCURRENCY FILE...: one run of Node's test runner, then its counts on a line of their own.
run_tests() {
  local concurrency=$1 code=0 passed failed
  local record=$BUILD/tests.tap
  shift
  (($# > 0)) || fail 1 "there are no tests to run"
  mkdir -p "$BUILD"
  (cd "$ROOT" && node --import tsx --test --test-concurrency="$concurrency" --test-timeout="$TEST_TIMEOUT_MS" \
    --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$record" "$@") || code=$?
  passed=$(sed -n 's/^# pass //p' "$record" | tail -n 1)
  failed=$(sed -n 's/^# \(fail\|cancelled\) //p' "$record" | awk '{ sum += $1 } END { print sum + 0 }')
  printf '%s passed, %s failed\n' "${passed:-0}" "$failed"
  ((${passed:-0} > 0)) || code=1
  return "$code"
}
