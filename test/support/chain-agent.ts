import { createHash, randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { realClock, silentLog } from "../../src/base/index.js";
import { ChainWorks } from "../../src/agent/disks/chain-works.js";
import type { GuestDisks } from "../../src/agent/disks/guest-disks.js";
import { openDisks } from "../../src/agent/disks/open-disks.js";
import { EventHub } from "../../src/agent/events.js";
import { writeRecord, type GuestRecord } from "../../src/agent/guests/guest-record.js";
import { Guest } from "../../src/agent/guests/guest.js";
import type { Services } from "../../src/agent/services.js";
import type { Paths } from "../../src/agent/store/paths.js";
import { parseGuestConfig, type GuestDisk } from "../../src/guest/index.js";
import { Mortal } from "./chain-emulator.js";

const ASYNC_STORE = ["create", "freeze", "renew", "restand", "remove", "give", "lend", "takeBack"] as const;
const NO_KERNEL = { sha256: createHash("sha256").digest("hex"), sizeBytes: 1, source: "none" };

/** What an agent has of a host's disks and of the guests that write them. It can end before any of its acts. */
export class ChainAgent {
  readonly mortal: Mortal;
  readonly disks: GuestDisks;
  readonly chains = new ChainWorks();
  readonly guests: Guest[] = [];
  readonly services: Services;
  readonly #paths: Paths;

  private constructor(paths: Paths, mortal: Mortal, disks: GuestDisks) {
    this.#paths = paths;
    this.mortal = mortal;
    this.disks = disks;
    const { chains, guests } = this;
    const registry = { list: () => guests, byId: (id: string) => guests.find((guest) => guest.id === id) };
    const [clock, log] = [realClock, silentLog];
    this.services = { disks, chains, registry, paths, clock, log } as unknown as Services;
  }

  static async open(
    paths: Paths,
    images: Pick<Parameters<typeof openDisks>[0]["images"], "find" | "findHere" | "hold">,
  ) {
    const mortal = new Mortal();
    const disks = await openDisks({
      paths,
      configuration: { name: "a", sharedDirectories: [] },
      images,
      clock: realClock,
      log: silentLog,
    });
    Object.assign(disks, { store: mortal.wrap(disks.store, ASYNC_STORE) });
    return new ChainAgent(paths, mortal, disks);
  }

  /** A guest whose record an agent before has left. */
  guestOf(record: GuestRecord): Guest {
    const guest = new Guest({ record, paths: this.#paths, events: new EventHub(), log: silentLog });
    return Object.assign(guest, {
      update: (change: Parameters<Guest["update"]>[0]) =>
        this.mortal.act("update", () => Guest.prototype.update.call(guest, change)),
    });
  }

  /** A new guest, with its record. */
  async enter(id: string, name: string, disks: GuestDisk[], state: "running" | "crashed"): Promise<void> {
    const config = parseGuestConfig({
      id,
      name,
      architecture: "x86_64",
      machine: "pc-q35-7.2",
      memoryBytes: 64 * 1024 * 1024,
      cpus: 1,
      kernel: "/dev/null",
      network: { mode: "user", mac: "52:54:00:00:00:01", forwards: [] },
      disks,
      vmgenid: randomUUID(),
    });
    const createdAtMs = realClock.wallMs();
    const boot = { kernel: NO_KERNEL };
    const record = { version: 1, state, createdAtMs, attached: true, boot, config } as const;
    mkdirSync(this.#paths.guest(id), { recursive: true });
    await writeRecord(this.#paths.record(id), record);
    this.guests.push(this.guestOf(record));
  }
}
