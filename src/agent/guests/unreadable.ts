import { guestNameProblem } from "../../base/index.js";
import { MAX_MESSAGE_CHARACTERS } from "../../control/index.js";
import { readIfThere } from "../store/files.js";
import type { GuestRecord } from "./guest-record.js";

/** What a guest that cannot be read is shown to have; nothing is started or decided by it. */
const NOT_KNOWN = { machine: "unknown", memoryBytes: 64 * 1024 * 1024, kernel: "/unknown" };

/** Stands in for a record that cannot be read, in listings. The name is taken from what is legible of it, or made of the id. */
export async function unreadableRecord(path: string, id: string, problem: string): Promise<GuestRecord> {
  const cure = "repair it and restart the agent, or end the guest with kill and then remove it";
  return {
    version: 1,
    state: "unreadable",
    message: `${problem.replaceAll(/\s+/g, " ")}; its emulator, if it runs, was not touched: ${cure}`.slice(
      0,
      MAX_MESSAGE_CHARACTERS,
    ),
    createdAtMs: 0,
    attached: false,
    boot: { kernel: { sha256: "0".repeat(64), sizeBytes: 1, source: NOT_KNOWN.kernel } },
    config: {
      id,
      name: (await legibleName(path)) ?? `unreadable-${id.slice(0, 8)}`,
      architecture: "x86_64",
      machine: NOT_KNOWN.machine,
      accelerator: "tcg",
      memoryBytes: NOT_KNOWN.memoryBytes,
      cpus: 1,
      kernel: NOT_KNOWN.kernel,
      append: "",
      network: { mode: "none" },
      disks: [],
    },
  };
}

async function legibleName(path: string): Promise<string | undefined> {
  try {
    // The guest's own: its parent and disks have names as well.
    const [, name] =
      /"config":\s*\{\s*"id":\s*"[^"]*",\s*"name":\s*"([^"]+)"/.exec((await readIfThere(path)) ?? "") ?? [];
    return name !== undefined && guestNameProblem(name) === undefined ? name : undefined;
  } catch {
    return undefined;
  }
}
