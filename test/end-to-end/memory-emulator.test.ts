import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { createInterface, type Interface } from "node:readline";
import { describe, it, type TestContext } from "node:test";
import { PAGE_BYTES, realClock, silentLog, withDeadline } from "../../src/base/index.js";
import { GuestMemory, openUserfaultDevice, preloadEnvironment } from "../../src/memory/index.js";
import { FaultLog } from "../support/memory-faults.js";
import { allocatedBytes, buildNative, createRamFile } from "../support/memory-stand-in.js";

const PAGE_COUNT = 65536; // 256 MiB
const DEADLINE_MS = 20_000;

/** The least of a real emulator: started stopped, with its memory in a file, and commanded over standard input. */
class Emulator {
  readonly ramPath = createRamFile(PAGE_COUNT);
  readonly #process: ChildProcess;
  readonly #lines: Interface;

  constructor(test: TestContext, extra: string[]) {
    buildNative();
    const device = openUserfaultDevice();
    this.#process = spawn(
      "qemu-system-x86_64",
      [
        ["-S", "-display", "none", "-nodefaults", "-qmp", "stdio", "-accel", "tcg", "-m", "256M"],
        ["-machine", "pc-q35-7.2,memory-backend=ram"],
        ["-object", `memory-backend-file,id=ram,size=256M,mem-path=${this.ramPath},share=on`],
        extra,
      ].flat(),
      { stdio: ["pipe", "pipe", "inherit", device], env: { ...process.env, ...preloadEnvironment(3) } },
    );
    closeSync(device);
    this.#lines = createInterface({ input: this.#process.stdout as NodeJS.ReadableStream });
    test.after(async () => {
      const exited = once(this.#process, "exit");
      if (this.#process.exitCode === null && this.#process.kill("SIGKILL")) await exited;
      rmSync(this.ramPath);
    });
  }

  get pid(): number {
    return this.#process.pid as number;
  }

  /** Waits for the greeting; from then on the memory is mapped. */
  async ready(): Promise<void> {
    await this.#line((message) => "QMP" in message);
    await this.command("qmp_capabilities");
  }

  async command(name: string): Promise<void> {
    const answered = this.#line((message) => "return" in message);
    this.#process.stdin?.write(`${JSON.stringify({ execute: name })}\n`);
    await answered;
  }

  #line(wanted: (message: object) => boolean): Promise<void> {
    const seen = new Promise<void>((resolve) => {
      const read = (line: string): void => {
        if (!wanted(JSON.parse(line) as object)) return;
        this.#lines.off("line", read);
        resolve();
      };
      this.#lines.on("line", read);
    });
    return withDeadline(realClock, DEADLINE_MS, "the emulator's answer", seen);
  }
}

async function startEmulator(test: TestContext, extra: string[] = []) {
  const emulator = new Emulator(test, extra);
  await emulator.ready();
  const memory = GuestMemory.open({ pid: emulator.pid, ramPath: emulator.ramPath, log: silentLog });
  test.after(() => memory.close());
  return { emulator, memory };
}

describe("a real emulator", () => {
  it("that waits for a migration has untouched memory, which can be filled", async (test) => {
    const { emulator, memory } = await startEmulator(test, ["-incoming", "defer"]);
    assert.equal(memory.pageCount, PAGE_COUNT);
    assert.equal(allocatedBytes(emulator.ramPath), 0);
    memory.fillable().fill(() => {});
    assert.equal(memory.registration(), "missing");
    memory.fillable().install(1000, Buffer.alloc(16 * PAGE_BYTES, 1));
    assert.equal(allocatedBytes(emulator.ramPath), 16 * PAGE_BYTES);
    memory.fillable().release();
    assert.equal(memory.registration(), undefined);
  });

  it("runs its firmware on memory whose every write is held up and let through", async (test) => {
    const { emulator, memory } = await startEmulator(test);
    const tracked = memory.tracked();
    const faults = new FaultLog();
    const content = Buffer.alloc(PAGE_BYTES);
    tracked.track((pages) => {
      for (const first of new Set(pages)) {
        tracked.read({ first, count: 1 }, content);
        tracked.unprotect({ first, count: 1 });
      }
      faults.report(pages);
    });
    tracked.protect({ first: 0, count: PAGE_COUNT });
    await emulator.command("cont");
    await faults.reported(0); // the firmware sets up the interrupt vectors there
    await emulator.command("stop");
    tracked.release();
    assert.equal(memory.registration(), undefined);
  });

  it("runs its firmware on memory it finds missing page by page", async (test) => {
    const { emulator, memory } = await startEmulator(test);
    const child = memory.fillable();
    const faults = new FaultLog();
    child.fill((pages) => {
      for (const first of pages) child.installZero({ first, count: 1 });
      faults.report(pages);
    });
    await emulator.command("cont");
    await faults.reported(0);
    await emulator.command("stop");
    assert.equal(allocatedBytes(emulator.ramPath) < PAGE_COUNT * PAGE_BYTES, true);
    child.release();
  });

  it("keeps one userfaultfd, closed on exec, and no other trace of the preload", async (test) => {
    const { emulator } = await startEmulator(test);
    const directory = `/proc/${emulator.pid}/fd`;
    const targets = readdirSync(directory).map((fd) => readlinkSync(`${directory}/${fd}`));
    assert.equal(targets.filter((target) => target === "anon_inode:[userfaultfd]").length, 1);
    assert.equal(targets.includes("/dev/userfaultfd"), false);
    const info = readFileSync(`/proc/${emulator.pid}/fdinfo/200`, "utf8");
    assert.match(info, /^flags:\t02004000$/m); // O_CLOEXEC, O_NONBLOCK
  });
});
