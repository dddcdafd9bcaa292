# Finds what tests leave behind: processes, network namespaces and interfaces, mounts, shared memory, sockets, files.
# Needs common.sh.
# shellcheck shell=bash

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

list_processes() {
  local run=$1 directory=$2 process pid
  for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [[ $pid != "$$" && $pid != "$BASHPID" ]] || continue
    if { grep -qzx "RAMET_TEST_RUN=$run" "$process/environ" || grep -qF "$directory" "$process/cmdline"; } 2>/dev/null; then
      # Both files of a zombie are empty; one that is on its way out between two looks has no command line either.
      printf 'process %s %s\n' "$pid" "$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null | cut -c1-160)"
    fi
  done
}

# new_belongings BEFORE RUN DIRECTORY: what has come since BEFORE was written. Things that end on their own are given 5 s.
new_belongings() {
  local before=$1 run=$2 directory=$3 found=""
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    found=$(comm -13 "$before" <(list_belongings "$run" "$directory" | sort -u))
    [[ -n $found ]] || return 0
    sleep 0.5
  done
  printf '%s\n' "$found"
}
