import { randomBytes } from "node:crypto";
import { MAX_BLOCK_DISKS, assert, type Clock, type Holder, type Log, type Timer } from "../../base/index.js";
import type { BlockSource } from "../../disk/index.js";
import type { FrameLane, LaneEnd } from "../../transfer/index.js";
import { AgentError } from "../errors.js";
import { LaneRoutes } from "../transfers/lane-routes.js";
import { BlockSupply, type BlockPurpose } from "./block-supply.js";

/** A grant that nobody has a lane of for so long ends: its reader has gone, and asks again if it comes back. */
const IDLE_MS = 600_000;

/** Most grants of one agent: each may hold files open. */
const MAX_GRANTS = 1024;

const TOKEN_BYTES = 24;

/** Who takes the lanes of a grant. */
export interface BlockTaker {
  holder(): Holder;
  /** Throws when the lane is out of date. */
  acceptLane(purpose: BlockPurpose, epoch: number, lane: FrameLane, options: { lz4: boolean }): void;
}

/** What a grant gives, and to whom. */
export interface GrantOptions {
  holder: Holder;
  disks: readonly BlockSource[];
  /** Called once when the grant has ended: what its disks need may be let go. */
  onEnd(): void;
}

/** What a reader is told. */
export interface Grant {
  grant: number;
  token: string;
}

/** What this agent has agreed to give readers of disks. A grant is of one reader, and ends with this agent. */
export class BlockGrants {
  /** Who is led where: by number, token and holder. */
  readonly routes = new LaneRoutes<BlockTaker>({ isWhole: () => true });
  readonly #grants = new Map<number, BlockGrant>();
  readonly #clock: Clock;
  readonly #log: Log;
  #endedBytes = 0;

  constructor(options: { clock: Clock; log: Log }) {
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** Agrees to give disks. @throws AgentError `busy` when too much is given already. */
  open(options: GrantOptions): Grant {
    assert(options.disks.length > 0 && options.disks.length <= MAX_BLOCK_DISKS, "a grant names some disks");
    if (this.#grants.size >= MAX_GRANTS)
      throw new AgentError("busy", `this agent gives disks to ${MAX_GRANTS} readers already`);
    const grant = this.#newNumber();
    const token = randomBytes(TOKEN_BYTES).toString("base64url");
    let closeRoute = (): void => {};
    const taker: BlockGrant = new BlockGrant({
      ...options,
      grant,
      clock: this.#clock,
      log: this.#log,
      onEnd: () => {
        closeRoute();
        this.#grants.delete(grant);
        this.#endedBytes += taker.sentBytes;
        options.onEnd();
      },
    });
    this.#grants.set(grant, taker);
    closeRoute = this.routes.open(grant, token, taker);
    return { grant, token };
  }

  /** Ends a grant: its reader has what it wanted. Whoever else asks ends nothing. May be called twice. */
  end(grant: number, by: Holder): void {
    const found = this.#grants.get(grant);
    const holder = found?.holder();
    if (holder?.kind === by.kind && holder.name === by.name)
      found?.end({ code: "closed", message: "the grant has ended", fatal: true });
  }

  /** Whether the reader of a grant has a lane at present: it is there, and still wants something. */
  isRead(grant: number): boolean {
    return this.#grants.get(grant)?.hasLanes === true;
  }

  /** Bytes that were sent to readers whose grants have not ended, by grant. */
  get sentBytes(): ReadonlyMap<number, number> {
    return new Map([...this.#grants].map(([grant, { sentBytes }]) => [grant, sentBytes]));
  }

  /** Bytes that were sent to readers since this agent was started, as they were on the lanes. */
  get totalSentBytes(): number {
    return [...this.#grants.values()].reduce((sum, { sentBytes }) => sum + sentBytes, this.#endedBytes);
  }

  /** Ends all grants. Readers dial again, and are told by the next agent that it knows of none. */
  close(): void {
    for (const grant of [...this.#grants.values()])
      grant.end({ code: "closed", message: "the agent is stopping", fatal: false });
  }

  #newNumber(): number {
    for (;;) {
      const number = randomBytes(4).readUInt32BE();
      if (number !== 0 && !this.routes.has(number)) return number;
    }
  }
}

/** One reader's grant, with the lanes it has at present: one of each purpose at most. */
class BlockGrant implements BlockTaker {
  readonly #options: GrantOptions & { grant: number; clock: Clock; log: Log };
  readonly #lanes = new Map<BlockPurpose, { epoch: number; supply: BlockSupply }>();
  #endedBytes = 0;
  #idle: Timer | undefined;
  #over = false;

  constructor(options: GrantOptions & { grant: number; clock: Clock; log: Log }) {
    this.#options = options;
    this.#waitForLanes();
  }

  get sentBytes(): number {
    return [...this.#lanes.values()].reduce((sum, { supply }) => sum + supply.sentBytes, this.#endedBytes);
  }

  get hasLanes(): boolean {
    return this.#lanes.size > 0;
  }

  holder(): Holder {
    return this.#options.holder;
  }

  acceptLane(purpose: BlockPurpose, epoch: number, lane: FrameLane, { lz4 }: { lz4: boolean }): void {
    const before = this.#lanes.get(purpose);
    if (before !== undefined && before.epoch >= epoch)
      throw new AgentError("bad-state", `a ${purpose} lane of epoch ${before.epoch} is there already`);
    before?.supply.close({ code: "closed", message: "a newer lane has come", fatal: false });
    this.#idle?.cancel();
    const { grant, disks, log } = this.#options;
    const onEnd = (): void => {
      this.#endedBytes += supply.sentBytes;
      if (this.#lanes.get(purpose)?.supply === supply) this.#lanes.delete(purpose);
      this.#waitForLanes();
    };
    // What somebody waits for is not compressed: the frame is short, and the processor slower than it.
    const compress = lz4 && purpose === "block-bulk";
    const supply: BlockSupply = new BlockSupply({ lane, purpose, grant, disks, compress, log, onEnd });
    this.#lanes.set(purpose, { epoch, supply });
  }

  end(end: LaneEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#idle?.cancel();
    for (const { supply } of [...this.#lanes.values()]) supply.close(end);
    this.#options.onEnd();
  }

  #waitForLanes(): void {
    if (this.#over || this.#lanes.size > 0) return;
    this.#idle?.cancel();
    this.#idle = this.#options.clock.after(IDLE_MS, () => {
      this.end({ code: "closed", message: "nobody has read for too long", fatal: true });
    });
  }
}
