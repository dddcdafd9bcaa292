import { codeOf, messageOf, sleep } from "../../base/index.js";
import type { ChainOutcome } from "../../control/index.js";
import { DiskError } from "../../disk/index.js";
import type { GuestDisk } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import { planCommit, planFlatten, requireAllHere, type ChainPlan } from "./chain-plan.js";
import { ChainWork, settleWork, type ChainProgress } from "./chain-work.js";
import { readChainWork } from "./chain-work-record.js";
import { layerViewOf } from "./guest-disks.js";
import { settleChainSoon, type ChainServices } from "./settle-chain.js";

/** How often it is tried again to bring to an end what failed, and did not come to one. */
const RETRY_MS = 1000;

export interface ChainRequest {
  kind: "flatten" | "commit";
  /** All of the guest's, when it is absent. */
  disk?: string | undefined;
  /** A flattened disk stands on no base disk either. */
  alone: boolean;
  rateBps?: number | undefined;
  /** The guest has not run yet, and does not when this fails. */
  isNew?: boolean;
}

/** What becomes of a new disk that is to stand on nothing. */
const WHOLE = { kind: "flatten", alone: true, isNew: true } as const;

/** Whoever has disks copied. */
export interface ChainFollower {
  /** Gives it up. */
  signal: AbortSignal;
  onProgress: (progress: ChainProgress & { disk: string }) => void;
}

/** What is being done to the chains of guests' disks in this agent. It is given up when the agent ends, and settled by the next one when it ends otherwise. */
export class ChainWorks {
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #abort = new AbortController();

  /**
   * Flattens or commits disks of a guest, one after the other; meanwhile nothing else is done with it.
   * @throws AgentError `busy`, `bad-state`, `not-ready`, `no-room`, `cancelled`, `timeout`, `chain-failed`; DiskError `in-use`, `no-such-disk`; GuestError. The disk is whole then, as it is at any
   * moment, and the guest runs on.
   */
  async change(
    services: ChainServices,
    guest: Guest,
    request: ChainRequest,
    follower: ChainFollower,
  ): Promise<ChainOutcome[]> {
    const doing = request.kind === "flatten" ? "flattened" : "committed";
    guest.requireIdle();
    guest.requireState(doing, "running");
    const names = disksOf(guest, request.disk).map(({ name }) => name);
    return this.#occupying(services, guest, { what: `its disks being ${doing}`, names, request, follower });
  }

  /**
   * Copies into disks of a new guest, before its first instruction, all that they stand on. A blank one stands on nothing already.
   * @throws AgentError `not-ready`, `no-room`, `cancelled`, `timeout`, `chain-failed`; GuestError. The guest is of no use then; an agent that ends meanwhile leaves one that the next one removes.
   */
  async makeWhole(
    services: ChainServices,
    guest: Guest,
    disks: readonly GuestDisk[],
    follower: ChainFollower,
  ): Promise<void> {
    guest.requireState("given whole disks", "starting");
    if (disks.length === 0) return;
    const names = disks.map(({ name }) => name);
    const what = "its disks being copied before it runs";
    await this.#occupying(services, guest, { what, names, request: WHOLE, follower });
  }

  /**
   * What an earlier agent left of a guest's disks. Nothing else is done with the guest, and nothing put over what was being merged, until the returned function has been called, which brings it to
   * its end, and may be called twice.
   */
  takeUp(services: ChainServices, guest: Guest): (() => Promise<void>) | undefined {
    const path = services.paths.chainWork(guest.id);
    try {
      const work = readChainWork(path);
      if (work === undefined) return undefined;
      const leave = guest.occupy({ what: "its disks being settled", transfers: [] });
      const release = services.disks.store.claim(claimedBy(work));
      const over = (): void => {
        release();
        leave();
      };
      let settled: Promise<void> | undefined;
      return () => (settled ??= settleChainSoon(services, guest, this.#abort.signal).finally(over));
    } catch (error) {
      guest.log.error({ problem: messageOf(error) }, "what was done to a disk's chain is left as it is");
      return undefined;
    }
  }

  /** Gives up what is under way, and resolves when that is over. */
  async end(): Promise<void> {
    this.#abort.abort();
    await Promise.allSettled(this.#underWay);
  }

  /** Meanwhile nothing else is done with the guest; and it is given up when the agent ends. */
  async #occupying(
    services: ChainServices,
    guest: Guest,
    {
      what,
      names,
      request,
      follower,
    }: { what: string; names: readonly string[]; request: ChainRequest; follower: ChainFollower },
  ): Promise<ChainOutcome[]> {
    const leave = guest.occupy({ what, transfers: [] });
    const signal = AbortSignal.any([follower.signal, this.#abort.signal]);
    const work = this.#all(services, guest, { names, request, follower: { ...follower, signal } });
    this.#underWay.add(work);
    try {
      return await work;
    } finally {
      this.#underWay.delete(work);
      leave();
    }
  }

  async #all(
    services: ChainServices,
    guest: Guest,
    {
      names,
      request,
      follower,
    }: { names: readonly string[]; request: ChainRequest; follower: ChainFollower },
  ): Promise<ChainOutcome[]> {
    const outcomes: ChainOutcome[] = [];
    for (const name of names) {
      try {
        outcomes.push(await this.#one(services, guest, { name, request, follower }));
      } catch (error) {
        // Of all disks, those are done that can be.
        if (request.disk !== undefined || codeOf(error) !== "in-use") throw error;
        const [disk] = disksOf(guest, name) as [GuestDisk];
        outcomes.push({ ...outcomeOf(disk, disk), message: messageOf(error) });
      }
    }
    return outcomes;
  }

  async #one(
    services: ChainServices,
    guest: Guest,
    { name, request, follower }: { name: string; request: ChainRequest; follower: ChainFollower },
  ): Promise<ChainOutcome> {
    const [disk] = disksOf(guest, name) as [GuestDisk];
    requireAllHere(guest, disk);
    const plan = planOf(services, guest, disk, request);
    if (plan === undefined) return outcomeOf(disk, disk);
    const release = services.disks.store.claim(claimedBy(plan.record));
    const { signal, onProgress } = follower;
    const work = new ChainWork(services, {
      guest,
      disk,
      plan,
      rateBps: request.rateBps,
      signal,
      onProgress: (progress) => onProgress({ disk: name, ...progress }),
    });
    try {
      const { copiedBytes, pauseUs } = await work.run();
      await settleWork(services, guest, work);
      guest.log.info({ disk: name, kind: request.kind, copiedBytes, pauseUs }, "a disk's chain is shorter");
      const [now] = disksOf(guest, name) as [GuestDisk];
      return { ...outcomeOf(disk, now), copiedBytes, ...(pauseUs === undefined ? {} : { pauseUs }) };
    } catch (error) {
      await this.#settleFailed(services, guest, work);
      throw failed(guest, name, { error, isNew: request.isNew === true });
    } finally {
      release();
    }
  }

  /** Once; what does not succeed is tried again behind the command's back. */
  async #settleFailed(services: ChainServices, guest: Guest, work: ChainWork): Promise<void> {
    for (let isDone = false; !isDone;) {
      try {
        // Its record is looked at by whoever removes the guest, which has an end of its own.
        if (!guest.hasEmulator) await guest.whenFree();
        await settleWork(services, guest, work);
        isDone = true;
      } catch (error) {
        if (codeOf(error) === "bad-record" || this.#abort.signal.aborted) return;
        guest.log.warn({ problem: messageOf(error) }, "what was done to a disk's chain is not settled yet");
        await sleep(services.clock, RETRY_MS);
      }
    }
  }
}

/** @throws DiskError `no-such-disk`. */
function disksOf(guest: Guest, name: string | undefined): GuestDisk[] {
  const { disks } = guest.config;
  const found = name === undefined ? disks : disks.filter((disk) => disk.name === name);
  if (found.length > 0) return [...found];
  const has = disks.length === 0 ? "no disks" : disks.map((disk) => disk.name).join(", ");
  throw new DiskError(
    "no-such-disk",
    `guest ${guest.name} has ${has}${name === undefined ? "" : `, and no ${name}`}`,
  );
}

function planOf(
  { disks, registry }: ChainServices,
  guest: Guest,
  disk: GuestDisk,
  { kind, alone }: ChainRequest,
): ChainPlan | undefined {
  return kind === "flatten"
    ? planFlatten(disk, { alone })
    : planCommit({ store: disks.store, registry }, guest, disk);
}

/** Nothing new may stand on what a commit writes, or on what stands on that. */
function claimedBy({ kind, stages }: ChainPlan["record"]): string[] {
  const [before = [], , after = []] = stages;
  if (kind === "flatten") return [];
  const kept = new Set(after.slice(1).map(({ id }) => id));
  return [...before, ...after].map(({ id }) => id).filter((id) => !kept.has(id));
}

function outcomeOf(before: GuestDisk, after: GuestDisk): ChainOutcome {
  return {
    disk: before.name,
    layersBefore: before.chain.length,
    chain: after.chain.map(layerViewOf),
    copiedBytes: 0,
  };
}

function failed(guest: Guest, disk: string, { error, isNew }: { error: unknown; isNew: boolean }): unknown {
  if (!(error instanceof AgentError) && codeOf(error) !== "gone") return error;
  // Without an emulator, whatever was asked of it last says only that.
  const isGone = !guest.hasEmulator && codeOf(error) === "bad-state";
  const code = error instanceof AgentError && !isGone ? error.code : "chain-failed";
  const what = isNew
    ? "the guest is not run, and nothing is left of it"
    : `the disk is whole, and ${guest.hasEmulator ? `guest ${guest.name} is ${guest.state}` : `guest ${guest.name} has ended`}`;
  return new AgentError(code, `${disk} of guest ${guest.name}: ${messageOf(error)}; ${what}`, {
    cause: error,
  });
}
