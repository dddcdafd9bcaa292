import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realClock, silentLog } from "../../../src/base/index.js";
import { openDisks } from "../../../src/agent/disks/open-disks.js";
import { EventHub } from "../../../src/agent/events.js";
import { Admission } from "../../../src/agent/guests/admission.js";
import { writeRecord, type GuestRecord } from "../../../src/agent/guests/guest-record.js";
import { GuestRegistry } from "../../../src/agent/guests/registry.js";
import { BootStore } from "../../../src/agent/store/boot-store.js";
import { FormerChildren } from "../../../src/agent/store/former-children.js";
import { Paths } from "../../../src/agent/store/paths.js";
import { FakeEmulator, FakeMemory, FakeSource, noImages } from "./fakes.js";

const MIB = 1024 * 1024;

/** The directories of a host with emulators that are none, on which one registry after the other is opened, as one agent follows another. */
export class FakeHost {
  readonly scratch: string;
  readonly paths: Paths;
  readonly boot: BootStore;
  readonly admission: Admission;
  readonly events = new EventHub();
  source: FakeSource;
  readonly #opened: GuestRegistry[] = [];

  private constructor(scratch: string, paths: Paths, boot: BootStore) {
    this.scratch = scratch;
    this.paths = paths;
    this.boot = boot;
    this.source = new FakeSource(paths);
    const room = () => ({ totalBytes: 1024 * MIB, freeBytes: 1024 * MIB, ownBytes: 0 });
    this.admission = new Admission({ limitBytes: undefined, reserveBytes: 0, room });
  }

  static async make(): Promise<FakeHost> {
    const scratch = mkdtempSync(join(tmpdir(), "ramet-registry-"));
    const paths = new Paths({
      stateDirectory: join(scratch, "state"),
      memoryDirectory: join(scratch, "memory"),
    });
    mkdirSync(paths.memory);
    mkdirSync(paths.guests, { recursive: true });
    return new FakeHost(scratch, paths, await BootStore.open(paths.boot));
  }

  /** What an agent does with its guests when it starts. */
  async open(
    maxGuests = 3,
    beforeSettled: (registry: GuestRegistry) => Promise<void> = async () => {},
  ): Promise<GuestRegistry> {
    const { paths, source, boot, admission, events } = this;
    const [clock, log] = [realClock, silentLog];
    const formerChildren = await FormerChildren.open({ path: paths.formerChildren, clock, log });
    const disks = await openDisks({
      paths,
      configuration: { name: "a", sharedDirectories: [] },
      images: noImages,
      clock,
      log,
    });
    const common = { paths, source, boot, disks, formerChildren, admission, events };
    const registry = await GuestRegistry.open({ ...common, maxGuests, clock, log });
    this.#opened.push(registry);
    await beforeSettled(registry);
    await registry.settle();
    return registry;
  }

  /** Leaves a guest on disk as an earlier agent would, with its emulator running or not. */
  async leave(
    record: GuestRecord,
    running?: { emulator?: FakeEmulator; memory?: FakeMemory },
  ): Promise<GuestRecord> {
    const { id } = record.config;
    mkdirSync(this.paths.guest(id));
    mkdirSync(this.paths.guestMemory(id));
    await writeRecord(this.paths.record(id), record);
    const { emulator = new FakeEmulator(), memory = new FakeMemory() } = running ?? {};
    if (running !== undefined) this.source.running.set(id, { emulator, memory });
    return record;
  }

  async remove(): Promise<void> {
    // One that still settles its guests would try for ever to write their records.
    for (const registry of this.#opened) await registry.leaveAll();
    // A record may be on its way to its file still.
    rmSync(this.scratch, { recursive: true, maxRetries: 20, retryDelay: 50 });
  }
}
