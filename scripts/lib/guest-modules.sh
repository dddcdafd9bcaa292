# Which kernel modules a guest's initramfs needs, from the kernel's own files. The caller sets `order` to a file and `loaded` to "".
# shellcheck shell=bash

module_path() {
  find "$1" -name "${2//_/[-_]}.ko" | head -n 1
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
