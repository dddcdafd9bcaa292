# The system packages Ramet needs, how their absence is noticed, and how they are installed.
# The caller sets DRY_RUN to yes or no.
# shellcheck shell=bash

# One line each: package, then what shows that it is there (commands or files' absolute paths, any of which will do). The
# probes count, not the package's name, so an emulator or compiler that was installed by other means is taken as it is.
PACKAGES="
qemu-system-x86   qemu-system-x86_64
qemu-system-arm   qemu-system-aarch64
ipxe-qemu         /usr/lib/ipxe/qemu/efi-virtio.rom /usr/share/qemu/efi-virtio.rom
iproute2          ip
openssl           openssl
util-linux        setpriv
mount             mount
gcc               gcc
libc6-dev         /usr/include/stdio.h
qemu-utils        qemu-img
e2fsprogs         mke2fs
linux-libc-dev    /usr/include/linux/userfaultfd.h
"

# Prints the packages of the table of which no probe finds anything, one a line.
missing_packages() {
  local package probes
  while read -r package probes; do
    # shellcheck disable=SC2086 # the probes are words
    [[ -z $package ]] || is_there $probes || echo "$package"
  done <<<"$PACKAGES"
}

is_there() {
  local probe
  for probe in "$@"; do
    if [[ $probe == /* ]]; then
      [[ ! -e $probe ]] || return 0
    else
      ! has "$probe" || return 0
    fi
  done
  return 1
}

# The version apt would install of a package, without epoch and Debian revision; nothing when it knows none.
candidate_version() {
  has apt-cache || return 0
  apt-cache policy "$1" 2>/dev/null |
    sed -n -e '/(none)/d' -e 's/^ *Candidate: \([0-9]*:\)\?\([0-9][0-9.]*\).*/\2/p'
}

APT_UPDATED=no

# Brings apt's lists up to date, once in a run. A mirror that fails is only reported: the lists there are may do.
update_lists() {
  [[ $APT_UPDATED == yes ]] && return 0
  say "setup: apt-get update"
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq update >&2 </dev/null ||
    say "setup: apt-get update reported errors; going on with the lists there are"
  APT_UPDATED=yes
}

# install_packages PACKAGE...: installs them, or says what an administrator would have to install.
install_packages() {
  if ! has apt-get; then
    fail "$EXIT_NEEDS" "this machine lacks what these Debian packages hold, and has no apt-get: $*"
  fi
  if ! is_root || [[ $DRY_RUN == yes ]]; then
    say "setup: these packages are missing: $*"
    say "setup: as root: apt-get update && apt-get install --yes --no-install-recommends $*"
    exit "$EXIT_NEEDS"
  fi
  update_lists
  say "setup: installing $*"
  mkdir -p "$BUILD"
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq \
    install --yes --no-install-recommends "$@" >"$BUILD/apt.log" 2>&1 </dev/null || {
    tail -n 20 "$BUILD/apt.log" >&2
    fail 1 "apt-get could not install $*; its messages are above"
  }
}
