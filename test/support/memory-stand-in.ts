import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { PAGE_BYTES, realClock, withDeadline } from "../../src/base/index.js";
import { openUserfaultDevice, preloadEnvironment } from "../../src/memory/index.js";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

/** Long enough that only something that waits for ever reaches it. */
const ANSWER_DEADLINE_MS = 20_000;

/** Builds the addon and the preloaded library when they are missing or old. */
export function buildNative(): void {
  execFileSync(join(ROOT, "scripts", "build-native"), { stdio: "inherit" });
}

let builtStandIn: string | undefined;

/** Compiles the process that stands in for an emulator, once, and returns its path. */
function buildStandIn(): string {
  if (builtStandIn !== undefined) return builtStandIn;
  buildNative();
  const directory = join(ROOT, "build", "test");
  const program = join(directory, "memory-stand-in");
  mkdirSync(directory, { recursive: true });
  const fresh = `${program}.${process.pid}`;
  const source = join(ROOT, "test", "support", "memory-stand-in.c");
  execFileSync(
    "gcc",
    ["-O2", "-D_FILE_OFFSET_BITS=64", "-Wall", "-Wextra", "-pthread", "-o", fresh, source],
    { stdio: "inherit" },
  );
  renameSync(fresh, program); // test files run at the same time
  builtStandIn = program;
  return program;
}

/** Creates an empty (sparse) file of the given size on tmpfs; the caller removes it. */
export function createRamFile(pageCount: number, directory = "/dev/shm"): string {
  const path = join(directory, `ramet-test-${randomBytes(8).toString("hex")}`);
  writeFileSync(path, "", { flag: "wx", mode: 0o600 });
  truncateSync(path, pageCount * PAGE_BYTES);
  return path;
}

/** The bytes of tmpfs a file takes; holes take none. */
export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512;
}

/** A process that has mapped a tmpfs file as an emulator maps its guest's memory, and touches pages on command. */
export class MemoryStandIn {
  readonly pid: number;
  readonly ramPath: string;
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, (answer: string) => void>();
  readonly #exited: Promise<void>;
  #nextId = 1;

  private constructor(process: ChildProcess, pid: number, ramPath: string) {
    this.#process = process;
    this.pid = pid;
    this.ramPath = ramPath;
    this.#exited = new Promise((resolve) => process.once("exit", () => resolve()));
  }

  /**
   * Starts the process on a new file.
   * @param options `cut` maps the file in several adjacent areas; `preload: false` leaves the preloaded library out, `device`
   * stands in for /dev/userfaultfd.
   */
  static async start(options: {
    pageCount: number;
    cut?: boolean;
    preload?: boolean;
    directory?: string;
    device?: string;
  }): Promise<MemoryStandIn> {
    const program = buildStandIn();
    const ramPath = createRamFile(options.pageCount, options.directory);
    const device = options.device === undefined ? openUserfaultDevice() : openSync(options.device, "r+");
    const parameters = [ramPath, String(options.pageCount * PAGE_BYTES), ...(options.cut ? ["cut"] : [])];
    const environment = options.preload === false ? {} : preloadEnvironment(3);
    const child = spawn(program, parameters, {
      stdio: ["pipe", "pipe", "inherit", device],
      env: { ...process.env, ...environment },
    });
    closeSync(device);
    const standIn = new MemoryStandIn(child, child.pid as number, ramPath);
    await standIn.#listen();
    return standIn;
  }

  /**
   * Starts a process that has mapped another one's file privately, as the emulator of a child does: it opens a file that is not there, and is given the other
   * one's, which it may only read.
   */
  static async startPrivate(parent: MemoryStandIn, pageCount: number): Promise<MemoryStandIn> {
    const program = buildStandIn();
    const ramPath = `${parent.ramPath}-of-a-child-${randomBytes(4).toString("hex")}`;
    const device = openUserfaultDevice();
    const memory = openSync(parent.ramPath, "r");
    const child = spawn(program, [ramPath, String(pageCount * PAGE_BYTES), "private"], {
      stdio: ["pipe", "pipe", "inherit", device, memory],
      env: { ...process.env, ...preloadEnvironment(3, { fdNumber: 4, path: ramPath }) },
    });
    closeSync(device);
    closeSync(memory);
    const standIn = new MemoryStandIn(child, child.pid as number, ramPath);
    await standIn.#listen();
    return standIn;
  }

  /** Reads a page through the mapping: the value all its bytes have. */
  read(page: number): Promise<number> {
    return this.#ask(`read ${page}`);
  }

  /** Fills a page with a value through the mapping. */
  async write(page: number, value: number): Promise<void> {
    await this.#ask(`write ${page} ${value}`);
  }

  /** Writes pages below `pages` at random for some seconds. Several storms run side by side. */
  async storm(pages: number, seconds: number): Promise<void> {
    await this.#ask(`storm ${pages} ${seconds}`);
  }

  /** Like `read`, but the kernel touches the page, within a system call. */
  kernelRead(page: number): Promise<number> {
    return this.#ask(`kernel-read ${page}`);
  }

  /** Like `write`, but the kernel touches the page, within a system call. */
  async kernelWrite(page: number, value: number): Promise<void> {
    await this.#ask(`kernel-write ${page} ${value}`);
  }

  /** Whether the process still has what made it load the library in its environment. */
  async isMarked(): Promise<boolean> {
    return (await this.#ask("environment")) === 1;
  }

  /** Ends the process and leaves the file. May be called twice. */
  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#exited;
  }

  /** Ends the process and removes the file. */
  async close(): Promise<void> {
    await this.kill();
    rmSync(this.ramPath, { force: true });
  }

  async #listen(): Promise<void> {
    const ready = new Promise<void>((resolve, reject) => {
      this.#process.once("exit", () => reject(new Error("the stand-in has ended")));
      createInterface({ input: this.#process.stdout as NodeJS.ReadableStream }).on("line", (line) => {
        const [id, answer] = line.split(" ");
        if (id === "ready") return resolve();
        this.#waiting.get(Number(id))?.(answer as string);
        this.#waiting.delete(Number(id));
      });
    });
    await withDeadline(realClock, ANSWER_DEADLINE_MS, "the stand-in's start", ready);
  }

  async #ask(command: string): Promise<number> {
    const id = this.#nextId++;
    const answered = new Promise<string>((resolve) => this.#waiting.set(id, resolve));
    this.#process.stdin?.write(`${id} ${command}\n`);
    const answer = await withDeadline(
      realClock,
      ANSWER_DEADLINE_MS,
      `the stand-in's answer to "${command}"`,
      answered,
    );
    if (/^\d+$/.test(answer)) return Number(answer);
    throw new Error(`the stand-in answered "${command}" with ${answer}`);
  }
}
