/**
 * A host with one guest and the children that were forked of it: real stores of disks, a real emulator's block layer, and agents that follow each other. What the guest does to its disk is known
 * (`DiskModel`), and so is what each child has.
 */
import { strict as assert } from "node:assert";
import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { realClock, sleep, type SeededRandom } from "../../src/base/index.js";
import type { ChainRequest } from "../../src/agent/disks/chain-works.js";
import { ForkDisks } from "../../src/agent/disks/fork-disks.js";
import { layersOf } from "../../src/agent/disks/guest-disks.js";
import { settleAllDisks } from "../../src/agent/disks/settle-all.js";
import { readRecord } from "../../src/agent/guests/guest-record.js";
import type { Guest } from "../../src/agent/guests/guest.js";
import type { LiveEmulator } from "../../src/agent/guests/live-emulator.js";
import type { Services } from "../../src/agent/services.js";
import { Paths } from "../../src/agent/store/paths.js";
import type { GuestDisk } from "../../src/guest/index.js";
import type { QmpClient } from "../../src/guest/qmp.js";
import { ChainAgent } from "./chain-agent.js";
import { AgentsEmulator, ChainEmulator, contentOf, type GuestsHand } from "./chain-emulator.js";
import { CELL_BYTES, DiskModel } from "./chain-model.js";

const CELLS = 384;
const IMAGE_CELLS = 256;
const IMAGE_DIGEST = createHash("sha256").update("image").digest("hex");
const MAX_RUN_CELLS = 40;

export class ChainWorld implements GuestsHand {
  readonly #random: SeededRandom;
  readonly #root: string;
  readonly #paths: Paths;
  readonly #binary: { binary?: string; data?: readonly string[] };
  readonly #guestId = randomUUID();
  /** What each child has, by its guest's id. */
  readonly #children = new Map<string, DiskModel>();
  /** What a layer holds that other hosts may have, by its uuid. */
  readonly #known = new Map<string, string>();
  model: DiskModel;
  #agent!: ChainAgent;
  #emulator!: ChainEmulator;
  #qmp!: QmpClient;
  #value = 1;
  #isPaused = false;
  #writing: Promise<void> = Promise.resolve();
  #transfer = 1;

  constructor(
    root: string,
    random: SeededRandom,
    binary: { binary?: string; data?: readonly string[] } = {},
  ) {
    this.#root = root;
    this.#random = random;
    this.#binary = binary;
    this.#paths = new Paths({ stateDirectory: join(root, "state"), memoryDirectory: join(root, "memory") });
    const image = Buffer.concat(
      Array.from({ length: IMAGE_CELLS }, (_, cell) => Buffer.alloc(CELL_BYTES, 200 + (cell % 50))),
    );
    mkdirSync(this.#paths.guests, { recursive: true });
    writeFileSync(this.#imagePath, image);
    this.model = new DiskModel(
      Array.from({ length: CELLS }, (_, cell) => (cell < IMAGE_CELLS ? 200 + (cell % 50) : 0)),
    );
  }

  get #imagePath(): string {
    return join(this.#root, "image");
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#writing;
  }

  goOn(): void {
    this.#isPaused = false;
  }

  get guest(): Guest {
    const guest = this.#agent.guests.find(({ id }) => id === this.#guestId);
    assert.ok(guest !== undefined);
    return guest;
  }

  get depth(): number {
    return this.guest.config.disks[0]?.chain.length ?? 0;
  }

  get #disk(): GuestDisk {
    return this.guest.config.disks[0] as GuestDisk;
  }

  async start(): Promise<void> {
    await this.#newAgent();
    const { disks } = this.#agent;
    const made = await disks.make(
      [{ image: IMAGE_DIGEST, sizeBytes: CELLS * CELL_BYTES, cache: "writeback", differencing: true }],
      { guest: this.#guestId, tenant: "default", isLive: () => true, used: new Set() },
    );
    await this.#agent.enter(this.#guestId, "web", made, "running");
    await this.#run();
  }

  async stop(): Promise<void> {
    this.#agent.mortal.die();
    this.#qmp.close();
    await this.#emulator.kill();
    rmSync(this.#root, { recursive: true, force: true, maxRetries: 10 });
  }

  /** Writes here and there, a few at a time; what they were is known to the model. */
  async write(): Promise<void> {
    if (this.#isPaused) return;
    const { nbd } = this.#emulator;
    const from = this.#random.below(CELLS);
    const count = 1 + this.#random.below(Math.min(MAX_RUN_CELLS, CELLS - from));
    const kind = this.#random.below(8);
    const value = kind === 0 ? 0 : 1 + (this.#value++ % 199);
    const [offset, bytes] = [from * CELL_BYTES, count * CELL_BYTES];
    const doing = async (): Promise<void> => {
      if (kind === 1) {
        this.model.trim(from, count);
        return nbd.trim(offset, bytes);
      }
      const answered = this.model.write(from, count, [value]);
      await (kind === 0 ? nbd.zeroes(offset, bytes) : nbd.write(offset, Buffer.alloc(bytes, value)));
      answered();
    };
    this.#writing = doing().catch(() => {});
    await this.#writing;
  }

  async flush(): Promise<void> {
    if (this.#isPaused) return;
    const { nbd } = this.#emulator;
    this.#writing = nbd.flush().then(
      () => this.model.flushed(),
      () => {},
    );
    await this.#writing;
  }

  async read(): Promise<void> {
    const from = this.#random.below(CELLS);
    const count = 1 + this.#random.below(CELLS - from);
    const data = await this.#emulator.nbd.read(from * CELL_BYTES, count * CELL_BYTES);
    this.model.see(from, data, "a read of the guest's");
  }

  /** A child on this host; of half of them, another host is lent what is frozen. */
  async fork({ stays }: { stays: boolean }): Promise<void> {
    const { services, disks } = this.#agent;
    const fork = new ForkDisks(services, this.guest);
    await fork.prepare();
    const child = randomUUID();
    const own = await fork.layFor(child);
    fork.arm();
    await this.guest.live.emulator.stop();
    this.model.flushed();
    const has = this.model.copy();
    fork.taken();
    this.goOn();
    await fork.noted();
    await this.#agent.enter(child, `child-${this.#children.size}`, own, "crashed");
    this.#children.set(child, has);
    this.#noteLayers();
    if (!stays) await this.removeChild(child);
    if (this.#random.chance(0.3)) {
      const frozen = this.#disk.chain[1]?.id ?? "";
      const loan = { transfer: this.#transfer++, holder: { kind: "key", name: "b" } } as const;
      await disks.store.lend(frozen, loan);
      if (this.#random.chance(0.7)) await disks.store.takeBack(frozen, loan);
    }
  }

  /** A child that nobody needs any more. */
  async removeChild(id = [...this.#children.keys()][0]): Promise<void> {
    if (id === undefined) return;
    const { guests, disks } = this.#agent;
    guests.splice(
      guests.findIndex((guest) => guest.id === id),
      1,
    );
    rmSync(this.#paths.guest(id), { recursive: true });
    await disks.forget(id, layersOf(guests));
    this.#children.delete(id);
  }

  /** Flattens or commits while the guest writes. */
  async change(
    request: ChainRequest,
    crash?: { at: number; who: "agent" | "emulator" | "both" } | { cancelAt: number },
  ): Promise<"done" | "failed" | "crashed"> {
    const { mortal, chains, services } = this.#agent;
    const controller = new AbortController();
    mortal.acts = 0;
    let ended: Promise<unknown> | undefined;
    if (crash !== undefined && "at" in crash) {
      mortal.dieAt = crash.at;
      mortal.onDeath = async () => {
        if (crash.who !== "emulator") mortal.die();
        ended = crash.who === "agent" ? Promise.resolve() : this.#emulator.kill();
        await ended;
      };
    } else if (crash !== undefined) {
      mortal.dieAt = crash.cancelAt;
      mortal.onDeath = () => controller.abort();
    }
    let outcome: "done" | "failed" | "crashed" | undefined;
    const working = chains
      .change(services, this.guest, request, { signal: controller.signal, onProgress: () => {} })
      .then(
        () => (outcome = "done"),
        (error: unknown) => {
          this.lastError = error;
          outcome = "failed";
        },
      );
    while (outcome === undefined && !mortal.isDead) {
      if (this.#emulator.isGone) await Promise.race([working, sleep(realClock, 50)]);
      else if (this.#random.chance(0.2)) await this.flush();
      else await this.write();
      await sleep(realClock, this.#random.below(4));
    }
    mortal.dieAt = Infinity;
    this.lastActs = mortal.acts;
    if (mortal.isDead) await ended;
    else await working;
    if (this.#emulator.isGone && !mortal.isDead) await this.#recover();
    else if (mortal.isDead) await this.newAgent();
    return outcome ?? "crashed";
  }

  lastError: unknown;
  lastActs = 0;

  /** The emulator is killed between two commands. */
  async crash(): Promise<void> {
    await this.#emulator.kill();
    await this.#recover();
  }

  /** The guest goes on in another emulator, as after an exchange or a migration. */
  async handOver(): Promise<void> {
    await this.flush();
    await this.#emulator.quit(this.#qmp);
    await this.guest.whenFree();
    await this.#check("after a hand-over");
    await this.#restart();
  }

  /** The agent is killed, and there is another one. */
  async newAgent(): Promise<void> {
    this.#agent.mortal.die();
    this.#qmp.close();
    await this.#newAgent();
    const { services, guests } = this.#agent;
    const isAlive = !this.#emulator.isGone;
    for (const id of [this.#guestId, ...this.#children.keys()]) {
      const record = await readRecord(this.#paths.record(id));
      assert.ok(record !== undefined);
      guests.push(
        this.#agent.guestOf(isAlive || id !== this.#guestId ? record : { ...record, state: "crashed" }),
      );
    }
    const isGuest = (id: string): boolean => guests.some((guest) => guest.id === id);
    await this.#agent.disks.removeStray(isGuest, layersOf(guests));
    if (isAlive) await this.#attach();
    const acts: (() => Promise<void>)[] = [];
    const registry = {
      ...services.registry,
      whenAnswering: (_: Guest, act: () => Promise<void>) => acts.push(act),
    };
    await settleAllDisks({ ...services, registry } as unknown as Services);
    for (const act of acts) await act();
    if (isAlive) {
      assert.equal(this.#isPaused, false, "the guest runs on with the next agent");
      await this.read();
    } else {
      this.goOn();
      await this.#check("after a crash of agent and emulator");
      await this.#restart();
    }
    this.#checkQuiet();
  }

  /** Everything that is on disk is what it is said to be. */
  async checkAll(): Promise<void> {
    await this.handOver();
    for (const [id, model] of this.#children) {
      const guest = this.#agent.guests.find((each) => each.id === id);
      const [disk] = guest?.config.disks ?? [];
      assert.ok(disk !== undefined);
      model.settle(readFileSync(await contentOf(disk, this.#root)), `child ${id}`);
      assert.deepEqual(
        this.#agent.disks.store.chainOf(disk.chain[0]?.id ?? "").map((layer) => layer.id),
        disk.chain.map((layer) => layer.id),
        "the child's chain is what the store says",
      );
    }
    this.#checkQuiet();
  }

  async #recover(): Promise<void> {
    this.goOn();
    await this.guest.whenFree();
    await this.#check("after a crash of the emulator");
    await this.#restart();
    this.#checkQuiet();
  }

  async #check(what: string): Promise<void> {
    this.model.settle(readFileSync(await contentOf(this.#disk, this.#root)), what);
  }

  /** Nothing is under way: the store knows the guest's chain, whose layers are as they are to be, and nobody else's content has changed. */
  #checkQuiet(): void {
    const { store } = this.#agent.disks;
    const ids = this.#disk.chain.map(({ id }) => id);
    assert.deepEqual(
      store.chainOf(ids[0] ?? "").map(({ id }) => id),
      ids,
      "the guest's chain is what the store says",
    );
    const mine = store.list().filter(({ writer }) => writer === this.#guestId);
    assert.deepEqual(
      mine.map(({ id }) => id),
      [ids[0]],
      "the guest writes one disk",
    );
    this.#noteLayers();
    assert.equal(readRecordSync(this.#paths.chainWork(this.#guestId)), undefined);
    const used = layersOf(this.#agent.guests);
    const stray = store
      .list()
      .filter(({ id, lent }) => !used.has(id) && lent === undefined && store.childrenOf(id).length === 0);
    assert.deepEqual(stray, [], "no disk is left that nobody has");
  }

  /** What a frozen layer's uuid stands for never changes. */
  #noteLayers(): void {
    const { store } = this.#agent.disks;
    for (const { id, frozen } of store.list()) {
      if (!frozen) continue;
      const digest = createHash("sha256")
        .update(readFileSync(store.pathOf(id)))
        .digest("hex");
      assert.equal(this.#known.get(id) ?? digest, digest, `frozen layer ${id} has changed`);
      this.#known.set(id, digest);
    }
  }

  async #restart(): Promise<void> {
    await this.guest.update({ state: "running" });
    await this.#run();
  }

  async #run(): Promise<void> {
    this.#qmp?.close();
    this.#emulator = await ChainEmulator.start(this.#root, this.guest.config.disks, this.#binary);
    await this.#attach();
  }

  async #attach(): Promise<void> {
    this.#qmp = await this.#emulator.connect();
    const emulator = new AgentsEmulator(this.#qmp, this.#agent.mortal, this);
    const live = {
      emulator,
      exited: this.#emulator.exited,
      shared: { sharers: 0 },
      release: () => Promise.resolve(),
    };
    this.guest.attach(live as unknown as LiveEmulator);
  }

  async #newAgent(): Promise<void> {
    const hold = (digest: string) =>
      Promise.resolve({ digest, path: this.#imagePath, sizeBytes: IMAGE_CELLS * CELL_BYTES, letGo() {} });
    const find = () => Promise.resolve(IMAGE_DIGEST);
    const images = { find, findHere: find, hold };
    this.#agent = await ChainAgent.open(this.#paths, images);
  }
}

function readRecordSync(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
