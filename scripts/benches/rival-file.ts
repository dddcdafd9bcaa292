import { copyFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { realClock, sleep } from "../../src/base/index.js";
import type { QemuProcess } from "./qemu-process.js";
import { setCapabilities, liftLimits, whenMigrated, type Rival } from "./rival.js";

const LOAD_DEADLINE_MS = 60_000;
const POLL_MS = 2;

/** How a second guest came of the first one by way of a file. */
export interface FileCopy {
  /** From the first guest's STOP to its RESUME, by the emulator's own clock. */
  pauseMs: number;
  /** From the command to the second guest's RESUME. */
  firstInstructionMs: number;
}

/** The guest runs on while the emulator saves it, page by page as they are about to be written; then the file is loaded. */
export async function snapshotByFile(rival: Rival): Promise<FileCopy> {
  return byFile(rival, async (path) => {
    await setCapabilities(rival.process, ["background-snapshot"]);
    await save(rival, path);
    await setCapabilities(rival.process, []);
    return path;
  });
}

/** The guest stands still until it is saved; the file is copied, as to another host, and loaded from there. */
export async function copyByFile(rival: Rival): Promise<FileCopy> {
  return byFile(rival, async (path) => {
    await setCapabilities(rival.process, []);
    await rival.stop();
    await save(rival, path);
    await rival.resume();
    const copy = `${path}-copy`;
    copyFileSync(path, copy);
    rmSync(path);
    return copy;
  });
}

/** @param makeFile saves the guest, which runs again afterwards, and says where. */
async function byFile(rival: Rival, makeFile: (path: string) => Promise<string>): Promise<FileCopy> {
  const path = join(rival.directory, "state");
  const parent = rival.process;
  const child = await rival.startOther();
  try {
    await liftLimits(child);
    parent.forgetEvents();
    const began = wallUs();
    const made = await makeFile(path);
    const pauseUs = (await parent.timeOf("RESUME")) - (await parent.timeOf("STOP"));
    child.forgetEvents();
    await child.execute("migrate-incoming", { uri: `exec:cat '${made}'` });
    await whenLoaded(child);
    const firstInstructionMs = ((await child.timeOf("RESUME")) - began) / 1000;
    return { pauseMs: pauseUs / 1000, firstInstructionMs };
  } finally {
    await child.end();
    for (const name of [path, `${path}-copy`]) rmSync(name, { force: true });
  }
}

/** A guest that was stopped when it was saved stays so when it is loaded, and is let go on. */
async function whenLoaded(child: QemuProcess): Promise<void> {
  const untilUs = realClock.nowUs() + LOAD_DEADLINE_MS * 1000;
  for (;;) {
    const { status } = await child.execute<{ status: string }>("query-status");
    if (status === "paused") await child.execute("cont");
    if (status === "running") return;
    if (realClock.nowUs() > untilUs) throw new Error(`a saved guest is not loaded in time, but ${status}`);
    await sleep(realClock, POLL_MS);
  }
}

async function save(rival: Rival, path: string): Promise<void> {
  await liftLimits(rival.process);
  await rival.process.execute("migrate", { uri: `exec:cat > '${path}'` });
  await whenMigrated(rival.process, `saving to ${path}`);
}

/** The scale on which the emulator tells events. */
function wallUs(): number {
  return realClock.wallMs() * 1000;
}
