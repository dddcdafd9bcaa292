# Finds what tests leave behind, processes, network namespaces and interfaces, mounts, shared memory, sockets, files, and
# ends processes of theirs. Needs common.sh.
# shellcheck shell=bash

# How long processes are given to end on their own before they are killed, and to be gone after that.
readonly END_GRACE_S=5
readonly END_DEADLINE_S=20

# list_belongings RUN DIRECTORY: one line for each thing that exists now and could be a test's. Processes are told apart
# by RAMET_TEST_RUN=RUN in the environment they were started with, or by DIRECTORY, the tests' TMPDIR, in their arguments.
list_belongings() {
  local run=$1 directory=$2
  # Things come and go while they are listed, and some machines have none of a kind; neither is a failure.
  set +e
  list_processes "$run" "$directory"
  ip netns list 2>/dev/null | awk 'NF { print "network namespace " $1 }'
  ip -o link show 2>/dev/null | awk -F': ' '{ sub(/@.*/, "", $2); print "network interface " $2 }'
  # `ip netns` makes /run/netns a mount when it is first used, and leaves that so.
  awk '$5 != "/run/netns" { print "mount " $5 }' /proc/self/mountinfo
  find /dev/shm -mindepth 1 -maxdepth 2 -printf 'shared memory %p\n' 2>/dev/null
  find /run/ramet -mindepth 1 -printf 'file %p\n' 2>/dev/null
  # Sockets are listed by where they are bound; those of Node's test runner have no name.
  awk -v directory="$directory" 'index($8, directory) { print "socket " $8 }' /proc/net/unix
  # The TypeScript loader keeps its cache there.
  find "$directory" -mindepth 1 -maxdepth 1 ! -name 'tsx-*' -printf 'file %p\n' 2>/dev/null
  set -e
}

# processes_of RUN DIRECTORY: their pids, but for the shell that asks; RUN is a pattern. An emulator is found by its
# arguments only, since its environment is not the test's.
processes_of() {
  local run=$1 directory=$2 pid
  # Nothing at all would be found in the arguments of every process.
  [[ -n $run && -n $directory ]] || fail 1 "a run of tests has a name and a directory"
  # Those that do the looking are found as well, and gone when the loop begins.
  for pid in $({
    grep -lszxE "RAMET_TEST_RUN=$run" /proc/[0-9]*/environ
    grep -lsF "$directory" /proc/[0-9]*/cmdline
  } | cut -d / -f 3 | sort -nu); do
    [[ $pid == "$$" || $pid == "$BASHPID" || ! -d /proc/$pid ]] || printf '%s\n' "$pid"
  done
}

list_processes() {
  local run=$1 directory=$2 pid
  for pid in $(processes_of "$run" "$directory"); do
    # Both files of a zombie are empty; one that is on its way out between two looks has no command line either.
    printf 'process %s %s\n' "$pid" "$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | cut -c1-160)"
  done
}

# end_processes RUN DIRECTORY: ends them all, and those that they start meanwhile. Fails when some cannot be ended.
end_processes() {
  local run=$1 directory=$2 pids started=$SECONDS signal
  while pids=$(processes_of "$run" "$directory") && [[ -n $pids ]]; do
    ((SECONDS - started < END_DEADLINE_S)) || return 1
    signal=KILL
    ((SECONDS - started >= END_GRACE_S)) || signal=TERM
    # shellcheck disable=SC2086
    kill -s "$signal" $pids 2>/dev/null || true
    sleep 0.2
  done
}

# new_belongings BEFORE RUN DIRECTORY: what has come since BEFORE was written. Things that end on their own are given 5 s.
new_belongings() {
  local before=$1 run=$2 directory=$3 found=""
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    found=$(comm -13 - <(list_belongings "$run" "$directory" | sort -u) <"$before")
    [[ -n $found ]] || return 0
    sleep 0.5
  done
  printf '%s\n' "$found"
}
