/**
 * An agent that can be killed: opens the memory of an emulator, fills it or protects all of it, prints each page that is
 * reported, and serves none. Usage: memory-agent.ts fill|track PID RAM_PATH
 */
import { silentLog } from "../../src/base/index.js";
import { GuestMemory } from "../../src/memory/index.js";

const [mode, pid, ramPath] = process.argv.slice(2);
const memory = GuestMemory.open({ pid: Number(pid), ramPath: ramPath as string, log: silentLog });
const report = (pages: readonly number[]): void => pages.forEach((page) => process.stdout.write(`${page}\n`));
if (mode === "fill") {
  memory.fillable().fill(report);
} else {
  memory.tracked().track(report);
  memory.tracked().protect({ first: 0, count: memory.pageCount });
}
process.stdout.write("ready\n");
