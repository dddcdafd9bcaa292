import type { EmulatorExit, EmulatorStatus } from "./emulator.js";
import type { ProcessEnd } from "./process.js";

/** QEMU's run states (qapi/run-state.json) as Ramet sees them. */
const STATUS: Readonly<Record<string, EmulatorStatus>> = {
  inmigrate: "incoming",
  running: "running",
  paused: "paused",
  prelaunch: "paused",
  postmigrate: "paused",
  "save-vm": "paused",
  // A disk failed, and what it was to do waits.
  "io-error": "paused",
  "restore-vm": "paused",
  suspended: "running",
  shutdown: "ended",
};

/** How a migration of the emulator's own went; here only ever the loading of a device state. */
export type LoadOutcome = "completed" | "failed";

function statusField(value: unknown): string {
  return typeof value === "object" && value !== null && "status" in value ? String(value.status) : "";
}

/** What an answer to `query-status` means; a state nobody expects is a failed guest. */
export function statusOf(answer: unknown): EmulatorStatus {
  return STATUS[statusField(answer)] ?? "failed";
}

/** What a MIGRATION event means; undefined while it goes on. */
export function loadOutcomeOf(data: unknown): LoadOutcome | undefined {
  const status = statusField(data);
  return status === "completed" || status === "failed" ? status : undefined;
}

/** How an emulator has ended, with its code or signal where those are known. */
export function exitOf(
  cause: EmulatorExit["cause"],
  { end, lastLog }: { end: ProcessEnd | undefined; lastLog: string },
): EmulatorExit {
  const { code, signal } = end ?? {};
  return {
    cause,
    expected: cause !== "crashed",
    lastLog,
    ...(code === undefined ? {} : { code }),
    ...(signal === undefined ? {} : { signal }),
  };
}
