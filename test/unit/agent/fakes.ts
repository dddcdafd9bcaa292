import { randomUUID } from "node:crypto";
import { deferred, realClock, silentLog } from "../../../src/base/index.js";
import { DiskError } from "../../../src/disk/index.js";
import type { ArrivingImages } from "../../../src/agent/images/arriving-images.js";
import type { Emulator, EmulatorExit, GuestConfig, GuestEvent } from "../../../src/guest/index.js";
import type { GuestMemory } from "../../../src/memory/index.js";
import type { Admission } from "../../../src/agent/guests/admission.js";
import type { ChildSpec } from "../../../src/agent/guests/child-spec.js";
import type { GuestRecord } from "../../../src/agent/guests/guest-record.js";
import type { ChildRecord, ParentRecord } from "../../../src/agent/transfers/transfer-record.js";
import type { EmulatorSource, LaunchOptions, RelaunchOptions } from "../../../src/agent/guests/launcher.js";
import { LiveEmulator } from "../../../src/agent/guests/live-emulator.js";
import type { Paths } from "../../../src/agent/store/paths.js";

/** An emulator without a process: it ends when it is told to. */
export class FakeEmulator {
  readonly pid = 4711;
  readonly version = "7.2.22";
  readonly calls: string[] = [];
  state: "running" | "paused" = "paused";
  detached = false;
  isSilent = false;
  readonly forwarded = new Set<number>();
  #exit: EmulatorExit | undefined;
  readonly #handlers: ((exit: EmulatorExit) => void)[] = [];
  readonly #listeners: ((event: GuestEvent) => void)[] = [];

  onGuestEvent(handler: (event: GuestEvent) => void): void {
    this.#listeners.push(handler);
  }

  /** Has it tell an event, as QEMU calls it. */
  say(name: string): void {
    for (const handler of this.#listeners) handler({ name, data: {}, atUs: 0 });
  }

  onExit(handler: (exit: EmulatorExit) => void): void {
    if (this.#exit === undefined) this.#handlers.push(handler);
    else handler(this.#exit);
  }

  /** Ends it as something outside would. */
  finish(exit: EmulatorExit): void {
    this.#exit = exit;
    for (const handler of this.#handlers) handler(exit);
  }

  async kill(): Promise<void> {
    this.calls.push("kill");
    if (this.#exit === undefined) this.finish({ cause: "asked", expected: true, lastLog: "" });
  }

  async connect(): Promise<void> {
    if (this.isSilent) throw new Error("it does not answer");
  }

  forgetDeviceState(): void {
    this.calls.push("forget");
  }

  async resume(): Promise<void> {
    this.calls.push("resume");
    this.state = "running";
  }

  async status(): Promise<string> {
    return this.state;
  }

  async addForward({ hostPort }: { hostPort: number }): Promise<void> {
    this.calls.push(`add ${hostPort}`);
    if (hostPort === 666 || this.forwarded.has(hostPort)) throw new Error("taken");
    this.forwarded.add(hostPort);
  }

  async removeForward({ hostPort }: { hostPort: number }): Promise<void> {
    this.calls.push(`remove ${hostPort}`);
    if (!this.forwarded.delete(hostPort)) throw new Error("not forwarded");
  }

  detach(): void {
    this.detached = true;
  }

  get asEmulator(): Emulator {
    return this as unknown as Emulator;
  }
}

/** Memory that is registered for whatever a test says. */
export class FakeMemory {
  readonly calls: string[] = [];
  registered: "missing" | "write-protect" | undefined;

  close(): void {
    this.calls.push("close");
  }

  registration(): string | undefined {
    return this.registered;
  }

  tracked() {
    return {
      track: () => this.calls.push("track"),
      release: () => this.calls.push("release"),
    };
  }
}

/** Makes fake emulators, and finds those a test says still run. */
export class FakeSource implements EmulatorSource {
  readonly launched: FakeEmulator[] = [];
  readonly running = new Map<string, { emulator: FakeEmulator; memory: FakeMemory }>();
  readonly ended: string[] = [];
  readonly #paths: Paths;

  constructor(paths: Paths) {
    this.#paths = paths;
  }

  async launch(options: LaunchOptions): Promise<LiveEmulator> {
    const emulator = new FakeEmulator();
    this.launched.push(emulator);
    return this.#assemble(options, emulator, new FakeMemory());
  }

  async adopt(options: Omit<LaunchOptions, "incoming">): Promise<LiveEmulator | undefined> {
    const found = this.running.get(options.config.id);
    return found === undefined ? undefined : this.#assemble(options, found.emulator, found.memory);
  }

  async launchBeside(): Promise<LiveEmulator> {
    throw new Error("no emulator takes over");
  }

  async relaunch(options: RelaunchOptions): Promise<LiveEmulator> {
    const emulator = new FakeEmulator();
    this.launched.push(emulator);
    return this.#assemble(options, emulator, new FakeMemory());
  }

  async endLeftover(id: string): Promise<void> {
    this.ended.push(id);
  }

  #assemble(
    options: Omit<LaunchOptions, "incoming">,
    emulator: FakeEmulator,
    memory: FakeMemory,
  ): LiveEmulator {
    return new LiveEmulator({
      cell: { confinement: undefined, release() {} },
      ...options,
      id: options.config.id,
      seat: "run",
      emulator: emulator.asEmulator,
      memory: memory as unknown as GuestMemory,
      paths: this.#paths,
      clock: realClock,
      log: silentLog,
    });
  }
}

/** A warm emulator as the pool sees it. */
export function fakeLive(): { live: LiveEmulator; end: () => void; ended: () => boolean } {
  const exited = deferred<EmulatorExit>();
  let over = false;
  const end = (): void => {
    over = true;
    exited.resolve({ cause: "asked", expected: true, lastLog: "" });
  };
  const live = { id: randomUUID(), exited: exited.promise, end: async () => end() };
  return { live: live as unknown as LiveEmulator, end, ended: () => over };
}

export function fakeSpec(changes: Partial<ChildSpec> = {}): ChildSpec {
  return {
    architecture: "x86_64",
    machine: "pc-q35-7.2",
    memoryBytes: 256 * 1024 * 1024,
    cpus: 1,
    append: "",
    kernel: { sha256: "a".repeat(64), path: "/boot/a" },
    network: { mode: "isolated", mac: "52:54:00:00:00:01" },
    ...changes,
  };
}

export function fakeRecord(
  changes: { state?: GuestRecord["state"]; config?: Partial<GuestConfig>; kernel?: string } = {},
): GuestRecord {
  const sha256 = changes.kernel ?? "a".repeat(64);
  return {
    version: 1,
    state: changes.state ?? "running",
    createdAtMs: 1,
    attached: true,
    boot: { kernel: { sha256, sizeBytes: 1, source: "/vmlinuz" } },
    config: {
      id: randomUUID(),
      name: "web",
      architecture: "x86_64",
      machine: "pc-q35-7.2",
      accelerator: "tcg",
      memoryBytes: 256 * 1024 * 1024,
      cpus: 1,
      kernel: `/boot/${sha256}`,
      append: "",
      network: { mode: "none" },
      disks: [],
      vmgenid: randomUUID(),
      ...changes.config,
    },
  };
}

/** A host without base disks. */
export const noImages: Pick<ArrivingImages, "find" | "findHere" | "hold"> = {
  find: () => Promise.reject(new DiskError("no-such-image", "there is none")),
  findHere: () => Promise.reject(new DiskError("no-such-image", "there is none")),
  hold: () => Promise.reject(new DiskError("no-such-image", "there is none")),
};

/** What an emulator is started with besides its configuration. */
export function partsFor(admission: Admission, record: GuestRecord): Omit<LaunchOptions, "incoming"> {
  return {
    config: record.config,
    reservation: admission.reserve(record.config.memoryBytes, "guest web"),
    holds: [],
  };
}

/** What a host notes of a fork, on the parent's side. */
export function fakeParentRecord(changes: Partial<ParentRecord> = {}): ParentRecord {
  return {
    version: 1,
    side: "parent",
    transfer: 7,
    kind: "fork",
    step: "preparing",
    token: "t".repeat(32),
    url: "ws://192.0.2.2:7070",
    host: "b",
    peerGuest: "web-1",
    verify: true,
    paused: false,
    sweep: "on",
    compress: true,
    startedAtMs: 1,
    ...changes,
  };
}

/** What a host notes of a child whose transfer goes on. */
export function fakeChildRecord(changes: Partial<ChildRecord> = {}): ChildRecord {
  return {
    version: 1,
    side: "child",
    transfer: 7,
    params: {
      transfer: 7,
      kind: "fork",
      guest: {
        name: "web-1",
        architecture: "x86_64",
        machine: "pc-q35-7.2",
        memoryBytes: 64 * 1024 * 1024,
        cpus: 1,
        append: "",
        kernel: { sha256: "a".repeat(64), sizeBytes: 1 },
        network: {
          mode: "user",
          mac: "52:54:00:00:00:01",
          forwards: [{ address: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" }],
        },
        attached: true,
      },
      parent: { guest: "web", host: "a" },
      emulatorVersion: "7.2.22",
      parentUrl: "ws://192.0.2.1:7070",
      token: "t".repeat(32),
      pageCount: 16384,
      verify: true,
      paused: false,
      precopy: false,
    },
    holder: { kind: "key", name: "a" },
    step: "loading",
    incarnation: 0,
    startedAtMs: 1,
    ...changes,
  };
}

/** A fault thread to which nothing comes. */
export const idleThread = {
  child: () => ({
    faults: { fill: () => {}, settled: () => {}, stop: () => {} },
    dial: () => new Promise(() => {}),
  }),
};
