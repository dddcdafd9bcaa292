import { readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { GuestIsolation } from "../../control/index.js";

const CGROUP_ROOT = "/sys/fs/cgroup";

/** Version 1 says a number of this size, less a part of a page, where there is no limit. */
const UNLIMITED_BYTES = 2 ** 62;

/**
 * What holds for an emulator, read from the kernel and not from what was asked for; so it is true of an emulator that was found running, too.
 * @returns undefined when the process has ended.
 */
export function isolationOf(pid: number): GuestIsolation | undefined {
  const status = read(`/proc/${pid}/status`);
  const cgroups = read(`/proc/${pid}/cgroup`);
  if (status === undefined || cgroups === undefined) return undefined;
  const field = (name: string): string => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1] ?? "";
  return {
    user: Number(field("Uid")),
    withoutCapabilities: /^0+$/.test(field("CapEff") + field("CapPrm") + field("CapBnd")),
    noNewPrivileges: field("NoNewPrivs") === "1",
    systemCallFilter: field("Seccomp") === "2",
    ownFiles: mountsOf(pid) !== mountsOf("self"),
    limits: limitsOf(cgroups),
  };
}

/** The namespace of mounts a process is in; two that share one see the same files. */
function mountsOf(pid: number | "self"): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`);
  } catch {
    return "unknown";
  }
}

function limitsOf(cgroups: string): GuestIsolation["limits"] {
  const unified = /^0::(.*)$/m.exec(cgroups)?.[1];
  const directoryOf = (controller: string): string => {
    const own = new RegExp(`^\\d+:(?:[^:]*,)?${controller}(?:,[^:]*)?:(.*)$`, "m").exec(cgroups)?.[1];
    return own === undefined ? join(CGROUP_ROOT, unified ?? "/") : join(CGROUP_ROOT, controller, own);
  };
  const memory = directoryOf("memory");
  const cpu = directoryOf("cpu");
  const memoryBytes = numberIn(memory, "memory.max") ?? numberIn(memory, "memory.limit_in_bytes");
  const tasks = numberIn(directoryOf("pids"), "pids.max");
  const cpuPercent = percentOf(
    read(join(cpu, "cpu.max")) ??
      `${read(join(cpu, "cpu.cfs_quota_us")) ?? ""} ${read(join(cpu, "cpu.cfs_period_us")) ?? ""}`,
  );
  return {
    ...(memoryBytes === undefined || memoryBytes > UNLIMITED_BYTES ? {} : { memoryBytes }),
    ...(tasks === undefined ? {} : { tasks }),
    ...(cpuPercent === undefined ? {} : { cpuPercent }),
  };
}

/** `QUOTA PERIOD`; a quota that is no positive number is none. */
function percentOf(text: string): number | undefined {
  const [quota = 0, period = 0] = text.trim().split(/\s+/).map(Number);
  return quota > 0 && period > 0 ? Math.round((quota / period) * 100) : undefined;
}

function numberIn(directory: string, file: string): number | undefined {
  const value = Number(read(join(directory, file))?.trim() ?? Number.NaN);
  return Number.isSafeInteger(value) || value > UNLIMITED_BYTES ? value : undefined;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
