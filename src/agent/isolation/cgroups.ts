import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../base/index.js";

/** What an emulator may take of the host. */
export interface Limits {
  memoryBytes: number;
  /** Processes and threads. */
  tasks: number;
  /** Share of the processors when they are short, against 100 for others. */
  cpuWeight: number;
  /** Most processor time, in hundredths of one processor. */
  cpuPercent: number;
}

const ROOT = "/sys/fs/cgroup";
const CONTROLLERS = ["memory", "pids", "cpu"] as const;

/** The period in which processor time is counted, the kernel's default. */
const CPU_PERIOD_US = 100_000;

/** In version 1 weights are counted from 1024, in version 2 from 100. */
const SHARES_PER_WEIGHT = 1024 / 100;

/** One hierarchy of cgroups: the only one in version 2; in version 1 there is one for each controller. */
interface Hierarchy {
  directory: string;
  files(limits: Limits): Record<string, string>;
}

/** Files that carry limits, by controller (Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1). */
const VERSION_2: Hierarchy["files"] = ({ memoryBytes, tasks, cpuWeight, cpuPercent }) => ({
  "memory.max": String(memoryBytes),
  "pids.max": String(tasks),
  "cpu.weight": String(cpuWeight),
  "cpu.max": `${(cpuPercent * CPU_PERIOD_US) / 100} ${CPU_PERIOD_US}`,
});
const VERSION_1: Record<(typeof CONTROLLERS)[number], Hierarchy["files"]> = {
  memory: ({ memoryBytes }) => ({ "memory.limit_in_bytes": String(memoryBytes) }),
  pids: ({ tasks }) => ({ "pids.max": String(tasks) }),
  cpu: ({ cpuWeight, cpuPercent }) => ({
    "cpu.shares": String(Math.round(cpuWeight * SHARES_PER_WEIGHT)),
    "cpu.cfs_period_us": String(CPU_PERIOD_US),
    "cpu.cfs_quota_us": String((cpuPercent * CPU_PERIOD_US) / 100),
  }),
};

/**
 * The cgroups of an agent's emulators: `PARENT/KEY/<uuid>`, where KEY tells agents on one machine apart. They lie outside the agent's own
 * cgroup, so that whoever stops the agent with all of its cgroup does not stop the guests.
 */
export class Cgroups {
  readonly #hierarchies: readonly Hierarchy[];
  readonly #path: string;

  /** Opens the agent's part of the tree, made when missing, and removes cgroups of emulators that have ended. @throws Error with the reason. */
  static open(options: { parent: string; key: string; root?: string }): Cgroups {
    const hierarchies = findHierarchies(options.root ?? ROOT);
    const path = join(options.parent, options.key);
    for (const { directory } of hierarchies) makeBranch(directory, path);
    const cgroups = new Cgroups(hierarchies, path);
    cgroups.#sweep();
    return cgroups;
  }

  private constructor(hierarchies: readonly Hierarchy[], path: string) {
    this.#hierarchies = hierarchies;
    this.#path = path;
  }

  /** Makes an emulator's cgroup with its limits. @returns the directories it is to join. */
  make(id: string, limits: Limits): string[] {
    return this.#hierarchies.map(({ directory, files }) => {
      const cgroup = join(directory, this.#path, id);
      mkdirSync(cgroup, { recursive: true });
      for (const [name, value] of Object.entries(files(limits))) writeFileSync(join(cgroup, name), value);
      return cgroup;
    });
  }

  /** Removes the cgroup of an emulator that has ended; does nothing for one that has none. */
  remove(id: string): void {
    for (const { directory } of this.#hierarchies) removeEmpty(join(directory, this.#path, id));
  }

  /** Removes the agent's part of the tree, unless emulators run on in it. */
  close(): void {
    // The kernel may have been slow to let go of one whose emulator had just ended.
    this.#sweep();
    for (const { directory } of this.#hierarchies) {
      removeEmpty(join(directory, this.#path));
      removeEmpty(join(directory, this.#path, ".."));
    }
  }

  #sweep(): void {
    for (const { directory } of this.#hierarchies) {
      const branch = join(directory, this.#path);
      for (const entry of readdirSync(branch, { withFileTypes: true })) {
        if (entry.isDirectory()) removeEmpty(join(branch, entry.name));
      }
    }
  }
}

/** Version 2 where it has all controllers, else version 1; a machine may have both, with the controllers in either. */
function findHierarchies(root: string): Hierarchy[] {
  const controllers = readWords(join(root, "cgroup.controllers"));
  if (CONTROLLERS.every((name) => controllers.includes(name))) return [{ directory: root, files: VERSION_2 }];
  const missing = CONTROLLERS.filter((name) => !existsSync(join(root, name, "cgroup.procs")));
  if (missing.length > 0) throw new Error(`${root} offers no limits of ${missing.join(", ")}`);
  return CONTROLLERS.map((name) => ({ directory: join(root, name), files: VERSION_1[name] }));
}

/** Makes the directories of a path; in version 2 each level hands its controllers down. */
function makeBranch(root: string, path: string): void {
  let directory = root;
  for (const name of path.split("/").filter((part) => part !== "")) {
    handDown(directory);
    directory = join(directory, name);
    // Recursive, because another agent may make or remove what they share at the same moment.
    mkdirSync(directory, { recursive: true, mode: 0o755 });
  }
  handDown(directory);
}

function handDown(directory: string): void {
  const control = join(directory, "cgroup.subtree_control");
  if (!existsSync(control)) return;
  const handed = readWords(control);
  const lacking = CONTROLLERS.filter((name) => !handed.includes(name));
  if (lacking.length > 0) writeFileSync(control, lacking.map((name) => `+${name}`).join(" "));
}

function readWords(path: string): string[] {
  try {
    return readFileSync(path, "utf8").trim().split(/\s+/);
  } catch {
    return [];
  }
}

/** A cgroup that has processes or children, or is gone, is left alone. */
function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    const code = codeOf(error);
    if (code !== "ENOENT" && code !== "EBUSY" && code !== "ENOTEMPTY") throw error;
  }
}
