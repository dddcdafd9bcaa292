import { execFileSync } from "node:child_process";
import { cpus, release, totalmem } from "node:os";

/** What the figures hold for. */
export interface Machine {
  processors: number;
  model: string;
  memoryGiB: number;
  kernel: string;
  node: string;
  emulator: string;
  accelerator: string;
}

/** This machine, and the emulator that is found on the search path. */
export function thisMachine(): Machine {
  const emulator = execFileSync("qemu-system-x86_64", ["--version"], { encoding: "utf8" }).split("\n", 1)[0];
  return {
    processors: cpus().length,
    model: cpus()[0]?.model.trim() ?? "",
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    emulator: emulator ?? "",
    accelerator: "tcg",
  };
}
