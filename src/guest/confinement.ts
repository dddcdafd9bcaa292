/**
 * An emulator kept to itself: a user of its own without capabilities, and a file system of its own in which there is nothing but what it
 * needs. Done by tools every Linux has (util-linux), one after the other in one process, which in the end becomes the emulator:
 *
 *     unshare ─▶ sh: join cgroups, mount ROOT, make it /, unmount the host's ─▶ setpriv ─▶ env ─▶ QEMU
 *
 * Nothing is mounted that the host or another guest could see, and all of it goes with the process.
 */
import {
  closeSync,
  lstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

/** Something of the host that an emulator has elsewhere in its own file system. */
export interface Place {
  source: string;
  target: string;
}

/** How one emulator is confined. */
export interface Confinement {
  /** Its user and its group; nobody else's. */
  uid: number;
  /** A directory that does not exist yet; it becomes the emulator's `/`. */
  root: string;
  /** Directories of cgroups that it joins. */
  cgroups: readonly string[];
  /** Files and directories of the host it may read besides programs and libraries. */
  readOnly: readonly (string | Place)[];
  /** Directories of the host it may write to besides its own two, as far as the files' owners let it. */
  writable?: readonly string[];
}

/** Where programs, libraries and the emulator's firmware are; what a host lacks of it is left out. */
const SYSTEM = ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin"];
/** Where libraries are looked for and names resolved; the latter for guests' user-mode network. */
const FILES = ["/etc/ld.so.cache", "/etc/alternatives", "/etc/resolv.conf"];
const DEVICES = ["/dev/null", "/dev/random", "/dev/urandom"];
const KVM = "/dev/kvm";

/** The path programs are looked for in, before the emulator has an environment of its own. */
const TOOLS_PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Arguments: file of mounts, root, directory to start in, cgroups, `--`, program and its arguments. A process that the kernel may end first when memory is short
 * is better an emulator than the agent, whose protection it must not inherit. umount(8) looks for mounts in /proc, which goes with them.
 */
const SCRIPT = `
mounts=$1 root=$2 directory=$3
shift 3
while [ "$1" != -- ]; do
  echo $$ >"$1/cgroup.procs"
  shift
done
shift
echo 0 >/proc/$$/oom_score_adj || :
ulimit -c 0
mount --no-mtab --all --fstab "$mounts"
cd "$root"
pivot_root . host
cd /
umount --no-mtab --lazy /host /proc
cd "$directory"
exec "$@"
`;

/** One bind mount below the new root, at the same path as on the host unless it says where. */
interface Mount {
  source: string;
  target?: string;
  options: string;
}

/** The mounts of a confined emulator, in order. */
function mountsOf(options: {
  confinement: Confinement;
  writable: readonly string[];
  devices: readonly string[];
}): Mount[] {
  const isThere = (path: string): boolean => lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  const isLink = (path: string): boolean => lstatSync(path).isSymbolicLink();
  const read = (source: string): Mount => ({ source, options: "bind,ro,nosuid,nodev" });
  return [
    ...SYSTEM.filter((path) => isThere(path) && !isLink(path)).map(read),
    ...FILES.filter((path) => statSync(path, { throwIfNoEntry: false }) !== undefined).map(read),
    ...options.confinement.readOnly.map((place) =>
      typeof place === "string" ? read(place) : { ...read(place.source), target: place.target },
    ),
    ...options.devices.map((source) => ({ source, options: "bind,nosuid,noexec" })),
    ...options.writable.map((source) => ({ source, options: "bind,nosuid,nodev,noexec" })),
    // For the tools, until the emulator takes their place.
    { source: "/proc", options: "bind" },
  ];
}

/** fstab(5) has no quotes; these characters are written in octal. */
function escapeField(text: string): string {
  return text.replaceAll(/[\s\\#]/g, (found) => `\\${found.charCodeAt(0).toString(8).padStart(3, "0")}`);
}

/** The lines of fstab(5) that put mounts below a root, which itself can then not be written to. */
export function mountTable(root: string, mounts: readonly Mount[]): string {
  const line = (source: string, target: string, options: string): string =>
    `${escapeField(source)} ${escapeField(target)} none ${options} 0 0\n`;
  return (
    line(root, root, "bind,ro,nosuid,nodev") +
    mounts.map(({ source, target = source, options }) => line(source, join(root, target), options)).join("")
  );
}

/** Makes a place for something to be mounted on. */
function makePlace(root: string, { source, target = source }: Pick<Mount, "source" | "target">): void {
  const place = join(root, target);
  const isDirectory = statSync(source).isDirectory();
  mkdirSync(isDirectory ? place : dirname(place), { recursive: true, mode: 0o755 });
  if (!isDirectory && !lstatSync(place, { throwIfNoEntry: false })) closeSync(openSync(place, "wx", 0o444));
}

/**
 * Makes the directory that will be a confined emulator's root, and the file that says what is mounted in it. Both lie in the guest's directory
 * and go with it.
 * @param options.writable directories of the host that it may write to, as far as their owners let it.
 * @returns the file.
 */
export function prepareRoot(options: {
  confinement: Confinement;
  writable: readonly string[];
  accelerator: "tcg" | "kvm";
}): string {
  const { root } = options.confinement;
  const mask = process.umask(0o022);
  try {
    mkdirSync(join(root, "host"), { recursive: true, mode: 0o755 });
    const devices = options.accelerator === "kvm" ? [...DEVICES, KVM] : DEVICES;
    const mounts = mountsOf({ ...options, devices });
    for (const mount of mounts) makePlace(root, mount);
    for (const path of SYSTEM) {
      // A second emulator of the same guest finds what was made for the first.
      const isMade = lstatSync(join(root, path), { throwIfNoEntry: false }) !== undefined;
      if (!isMade && lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true)
        symlinkSync(readlinkSync(path), join(root, path));
    }
    const file = `${root}.mounts`;
    writeFileSync(file, mountTable(root, mounts), { mode: 0o600 });
    return file;
  } finally {
    process.umask(mask);
  }
}

/**
 * The command that becomes the emulator, confined.
 * @param options.mounts the file that `prepareRoot` made.
 * @param options.directory where it starts.
 * @param options.sharesNetwork whether it reaches the host's network; without, it has one in which there is nothing.
 * @param options.groups groups besides its own.
 */
export function confinedCommand(options: {
  confinement: Confinement;
  mounts: string;
  directory: string;
  sharesNetwork: boolean;
  groups: readonly number[];
  environment: Readonly<Record<string, string>>;
  binary: string;
  args: readonly string[];
}): { binary: string; args: string[]; environment: Record<string, string> } {
  const { uid, root, cgroups } = options.confinement;
  const namespaces = ["--mount", "--ipc", ...(options.sharesNetwork ? [] : ["--net"])];
  const groups = options.groups.length === 0 ? ["--clear-groups"] : ["--groups", options.groups.join(",")];
  const args = [
    ...namespaces,
    ...[
      "--propagation",
      "private",
      "--",
      "/bin/sh",
      "-euc",
      SCRIPT,
      "ramet",
      options.mounts,
      root,
      options.directory,
    ],
    ...[...cgroups, "--", "setpriv", "--reuid", String(uid), "--regid", String(uid), ...groups],
    ...["--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all", "--no-new-privs", "--"],
    ...["env", "--ignore-environment"],
    ...Object.entries(options.environment).map(([name, value]) => `${name}=${value}`),
    ...[options.binary, ...options.args],
  ];
  return { binary: "unshare", args, environment: { PATH: TOOLS_PATH } };
}

/** Groups through which a user without rights may open the device of an accelerator. */
export function acceleratorGroups(accelerator: "tcg" | "kvm"): number[] {
  const group = accelerator === "kvm" ? statSync(KVM, { throwIfNoEntry: false })?.gid : undefined;
  return group === undefined || group === 0 ? [] : [group];
}
