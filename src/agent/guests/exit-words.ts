import type { EmulatorExit } from "../../guest/index.js";

/** Why a guest has no emulator any more, in words. */
export function describeExit(exit: EmulatorExit): string {
  if (exit.cause === "asked") return "it was killed";
  if (exit.cause === "guest") return "it switched itself off";
  const last = exit.lastLog.trim().split("\n").at(-1) ?? "";
  return `its emulator ended ${crashOf(exit)}${last === "" ? "" : `: ${last}`}`;
}

/** An adopted emulator's code or signal nobody can know: it was not started by this process. */
function crashOf({ signal, code }: EmulatorExit): string {
  if (signal !== undefined) return `by ${signal}`;
  return code === undefined ? "unexpectedly" : `with code ${code}`;
}
