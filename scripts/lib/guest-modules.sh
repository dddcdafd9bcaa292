# A guest's kernel, and which of its modules the initramfs needs, from the kernel's own files. The caller sets `root` to the checkout, `order` to a file and
# `loaded` to "".
# shellcheck shell=bash

# guest_kernel ARCHITECTURE: what scripts/fetch-packages is to fetch. Debian's kernel for virtual machines, or Ubuntu's, which has most drivers built in.
guest_kernel() {
  echo "depends:linux-image-cloud-$1,linux-image-virtual:linux-image-"
}

# fetch_modules ARCHITECTURE TREE: the kernel's modules, where they are a package of their own, as Ubuntu's are, which has them compressed.
fetch_modules() {
  local tree=$2 tool=$root/build/packages/tree-zstd version
  [ ! -d "$tree/lib/modules" ] || return 0
  version=$(basename "$tree"/boot/vmlinuz-*)
  "$root/scripts/fetch-packages" --architecture "$1" --into "$tree.new" "linux-modules-${version#vmlinuz-}"
  "$root/scripts/fetch-packages" --into "$tool" zstd
  find "$tree.new/lib/modules" -name '*.ko.zst' -exec "$tool/usr/bin/zstd" -d -q --rm {} +
  mkdir -p "$tree/lib"
  mv "$tree.new/lib/modules" "$tree/lib/modules"
  rm -rf "$tree.new"
}

# busybox_in TREE: where the package unpacked there has it, which differs by distribution.
busybox_in() {
  local path
  for path in "$1/bin/busybox" "$1/usr/bin/busybox"; do
    [ ! -f "$path" ] || { echo "$path"; return; }
  done
  echo "there is no busybox in $1" >&2
  return 1
}

module_path() {
  [ ! -d "$1" ] || find "$1" -name "${2//_/[-_]}.ko" | sed -n 1p
}

# Adds the paths of modules and of what they depend on to the file `order`, each once, in the order in which they must be loaded.
in_load_order() {
  local tree=$1 name path
  shift
  for name in "$@"; do
    [[ " ${loaded:-} " == *" $name "* ]] && continue
    path=$(module_path "$tree" "$name")
    [ -n "$path" ] || continue # built into this kernel
    # shellcheck disable=SC2046
    in_load_order "$tree" $(grep -a -o -z -m1 '^depends=.*' "$path" | tr -d '\0' | sed 's/^depends=//' | tr ',-' ' _')
    [[ " ${loaded:-} " == *" $name "* ]] && continue
    loaded="${loaded:-} $name"
    echo "$path" >>"$order"
  done
}
