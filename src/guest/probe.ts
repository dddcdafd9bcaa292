import { execFile, type ExecFileException } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import type { Architecture } from "./config.js";
import { GuestError } from "./errors.js";
import { PROBE_DEADLINE_MS } from "./limits.js";

const run = promisify(execFile);

/** An emulator on this host. */
export interface EmulatorProbe {
  binary: string;
  version: string;
  /** The versioned machine types it knows, oldest first. */
  machines: readonly string[];
}

const BINARY = { x86_64: "qemu-system-x86_64", aarch64: "qemu-system-aarch64" } as const;
const PACKAGE = { x86_64: "qemu-system-x86", aarch64: "qemu-system-arm" } as const;
const FAMILY = { x86_64: "pc-q35", aarch64: "virt" } as const;

/** The oldest emulator Ramet works with; its machine type is the one every host can offer. */
const OLDEST_VERSION = { major: 7, minor: 2 };

/** Major, minor and micro. */
const VERSION_PARTS = 3;

/** Keyed by path, size and modification time, so that an upgrade of the emulator is noticed. */
const probes = new Map<string, EmulatorProbe>();

/** The path of the emulator for an architecture on PATH; undefined when it is not installed. */
export function findEmulator(architecture: Architecture): string | undefined {
  for (const directory of (process.env["PATH"] ?? "").split(delimiter)) {
    const path = join(directory, BINARY[architecture]);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // Not in this directory.
    }
  }
  return undefined;
}

function versionOf(text: string): { major: number; minor: number; text: string } | undefined {
  const found = /version (\d+)\.(\d+)(\.\d+)?/.exec(text);
  if (found === null) return undefined;
  return { major: Number(found[1]), minor: Number(found[2]), text: found[0].slice("version ".length) };
}

/** Orders versions and versioned machine types, the older first. */
export function compareVersions(a: string, b: string): number {
  const [ours, theirs] = [a, b].map((text) =>
    text
      .slice(text.lastIndexOf("-") + 1)
      .split(".")
      .map(Number),
  );
  for (let part = 0; part < VERSION_PARTS; part += 1) {
    const difference = (ours?.[part] ?? 0) - (theirs?.[part] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

async function ask(binary: string, args: string[]): Promise<string> {
  const options = {
    timeout: PROBE_DEADLINE_MS,
    killSignal: "SIGKILL",
    maxBuffer: 1024 * 1024,
    env: {},
  } as const;
  const { stdout } = await run(binary, args, options);
  return stdout;
}

/** Why a program that was asked something gave no answer, in words. */
function whyNot(cause: unknown): string {
  const { code, signal, killed, stderr } = cause as ExecFileException & { stderr?: string };
  if (killed === true) return `it did not answer within ${PROBE_DEADLINE_MS / 1000} s`;
  if (code === "EACCES") return "it may not be executed";
  if (typeof code === "string") return `it cannot be executed (${code})`;
  const [words = ""] = (stderr ?? "").trim().split("\n");
  return `it ended with ${signal ?? `code ${code ?? "unknown"}`}${words === "" ? "" : `: ${words}`}`.slice(
    0,
    300,
  );
}

/**
 * Finds out which emulator this host has for an architecture. Asked once for each binary, then remembered.
 * @throws GuestError `not-installed` with the package's name, `start-failed` when it does not answer or is too old.
 */
export async function probeEmulator(
  architecture: Architecture,
  options: { binary?: string } = {},
): Promise<EmulatorProbe> {
  const binary = options.binary ?? findEmulator(architecture);
  if (binary === undefined) {
    throw new GuestError(
      "not-installed",
      `there is no emulator for ${architecture} on this host; install the package ${PACKAGE[architecture]}`,
    );
  }
  const stat = statSync(binary, { throwIfNoEntry: false });
  if (stat === undefined)
    throw new GuestError("not-installed", `there is no emulator ${binary} on this host`);
  const key = `${binary} ${stat.size} ${stat.mtimeMs}`;
  const known = probes.get(key);
  if (known !== undefined) return known;
  const probe = await probeBinary(binary, architecture);
  probes.set(key, probe);
  return probe;
}

async function probeBinary(binary: string, architecture: Architecture): Promise<EmulatorProbe> {
  let answers: [string, string];
  try {
    answers = await Promise.all([ask(binary, ["--version"]), ask(binary, ["-machine", "help"])]);
  } catch (cause) {
    throw new GuestError(
      "start-failed",
      `the emulator ${binary} does not say its version and machine types: ${whyNot(cause)}`,
      { cause },
    );
  }
  const version = versionOf(answers[0]);
  if (version === undefined) throw new GuestError("start-failed", `the emulator ${binary} is not QEMU`);
  const { major, minor } = OLDEST_VERSION;
  if (version.major < major || (version.major === major && version.minor < minor)) {
    throw new GuestError(
      "start-failed",
      `the emulator ${binary} has version ${version.text}; at least ${major}.${minor} is needed`,
    );
  }
  const pattern = new RegExp(`^${FAMILY[architecture]}-\\d+\\.\\d+$`);
  const machines = answers[1]
    .split("\n")
    .map((line) => line.split(" ")[0] as string)
    .filter((name) => pattern.test(name))
    .sort(compareVersions);
  return { binary, version: version.text, machines };
}

/**
 * The machine type for a new guest: that of the oldest emulator Ramet works with, so that the guest can go to any host; or else the
 * oldest this emulator still knows from then on.
 * @throws GuestError `unsupported-machine` when it knows none.
 */
export function defaultMachine(architecture: Architecture, probe: EmulatorProbe): string {
  const oldest = `${FAMILY[architecture]}-${OLDEST_VERSION.major}.${OLDEST_VERSION.minor}`;
  const machine = probe.machines.find((name) => compareVersions(name, oldest) >= 0);
  if (machine !== undefined) return machine;
  throw new GuestError(
    "unsupported-machine",
    `the emulator ${probe.binary} ${probe.version} knows no versioned machine type for ${architecture}`,
  );
}

/**
 * Checks that an emulator can run a guest of this machine type.
 * @throws GuestError `unsupported-machine`.
 */
export function checkMachine(machine: string, probe: EmulatorProbe): void {
  if (probe.machines.includes(machine)) return;
  const newest = probe.machines.at(-1) ?? "none";
  throw new GuestError(
    "unsupported-machine",
    `the emulator of this host (${probe.version}) does not know the machine type ${machine}; the newest it knows is ${newest}`,
  );
}
