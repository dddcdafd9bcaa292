import { timingSafeEqual } from "node:crypto";
import { isSame, type Holder, type Identity, type Log } from "../../base/index.js";
import type { LoanView, Params, Result } from "../../control/index.js";
import { DiskError, FileSource, type DiskStore } from "../../disk/index.js";
import { findData } from "../../memory/index.js";
import type { BlockGrants } from "../blocks/block-grants.js";
import { AgentError } from "../errors.js";

/** What the host of one child of a fork may read. */
interface Offer {
  token: string;
  layers: ReadonlySet<string>;
  /** Resolves when it was noted that the layers are frozen. */
  noted: () => Promise<void>;
}

/**
 * Frozen disks that hosts of children read from this one. What is lent is noted beside the disk: it outlives the guest that was forked, and this agent, until it is given back.
 */
export class LayerLoans {
  readonly #store: DiskStore;
  readonly #grants: BlockGrants;
  readonly #onReturned: (disk: string) => Promise<void>;
  readonly #log: Log;
  readonly #offers = new Map<number, Offer>();
  /** The newest grant of each loan. */
  readonly #granted = new Map<string, number>();

  /** @param options.onReturned called with a disk that one reader fewer needs. */
  constructor(options: {
    store: DiskStore;
    grants: BlockGrants;
    onReturned: (disk: string) => Promise<void>;
    log: Log;
  }) {
    this.#store = options.store;
    this.#grants = options.grants;
    this.#onReturned = options.onReturned;
    this.#log = options.log;
  }

  /** Lets the host that has the transfer's token read layers, until the returned function is called. What it has opened by then stays lent. */
  offer(transfer: number, offer: Offer): () => void {
    this.#offers.set(transfer, offer);
    return () => void (this.#offers.get(transfer) === offer && this.#offers.delete(transfer));
  }

  /** @throws AgentError `no-such-transfer` to whoever was not offered the disk, `not-ready` before the instant; DiskError. */
  async open(params: Params<"peer.openLayer">, by: Identity): Promise<Result<"peer.openLayer">> {
    const { transfer, disk } = params;
    const loan = { transfer, holder: holderOf(by) };
    if (!this.#store.has(disk) || !this.#store.isLent(disk, loan)) {
      const offer = this.#offers.get(transfer);
      if (offer === undefined || !offer.layers.has(disk) || !isEqual(offer.token, params.token))
        throw new AgentError("no-such-transfer", `disk ${disk} is not lent for transfer ${transfer}`);
      await offer.noted();
      if (!this.#store.get(disk).frozen)
        throw new AgentError("not-ready", `disk ${disk} is written by the guest that is forked`);
      await this.#store.lend(disk, loan);
    }
    const source = await FileSource.open(this.#store.pathOf(disk), findData);
    const close = (): void => void source.close();
    try {
      this.#endGrant(params, by);
      const granted = this.#grants.open({ holder: by, disks: [source], onEnd: close });
      this.#granted.set(keyOf(params), granted.grant);
      return { ...granted, sizeBytes: source.sizeBytes };
    } catch (error) {
      close();
      throw error;
    }
  }

  /** Whoever has no such loan returns nothing. */
  async takeBack(params: Params<"peer.returnLayer">, by: Identity): Promise<void> {
    const { transfer, disk } = params;
    if (!this.#store.has(disk) || !this.#store.isLent(disk, { transfer, holder: holderOf(by) })) return;
    this.#endGrant(params, by);
    await this.#store.takeBack(disk, { transfer, holder: holderOf(by) });
    this.#log.info({ disk, transfer }, "a disk was given back by the host that read it");
    await this.#onReturned(disk);
  }

  /** What other hosts have on loan. */
  list(): LoanView[] {
    return this.#store
      .list()
      .flatMap(({ id, lent = [] }) =>
        lent.map(({ transfer, holder }) => ({ disk: id, transfer, host: holder.name })),
      );
  }

  /**
   * Ends all loans of a host that is gone for good: what it reads it is not given any more.
   * @param options.force also of a host that reads at present.
   * @returns what it had. @throws AgentError `no-such-peer` when it has nothing; DiskError `in-use` while it reads.
   */
  async release(host: string, { force }: { force: boolean }): Promise<LoanView[]> {
    const loans = this.list().filter((loan) => loan.host === host);
    if (loans.length === 0)
      throw new AgentError(
        "no-such-peer",
        `no host ${host} has disks of this one on loan; ramet disk loans shows who has`,
      );
    const read = loans.filter((loan) => this.#isRead(loan));
    if (read.length > 0 && !force)
      throw new DiskError(
        "in-use",
        `${host} reads ${read.length === 1 ? "one" : read.length} of the disks it has on loan at present: its guests would stand still for ever. Wait until it gives them back; --force takes them all the same`,
      );
    for (const { disk, transfer } of loans) {
      const found = this.#store
        .find(disk)
        ?.lent?.find((loan) => loan.transfer === transfer && loan.holder.name === host);
      if (found === undefined) continue;
      this.#endGrant({ transfer, disk }, found.holder);
      await this.#store.takeBack(disk, found);
      this.#log.warn({ disk, transfer, host }, "a disk on loan was taken from the host that had it");
      await this.#onReturned(disk);
    }
    return loans;
  }

  /** Whether the host is there, and has not all of the disk yet. */
  #isRead(loan: { transfer: number; disk: string }): boolean {
    const grant = this.#granted.get(keyOf(loan));
    return grant !== undefined && this.#grants.isRead(grant);
  }

  /** Whoever asks again has lost what was granted before. */
  #endGrant(loan: { transfer: number; disk: string }, by: Holder): void {
    const grant = this.#granted.get(keyOf(loan));
    this.#granted.delete(keyOf(loan));
    if (grant !== undefined) this.#grants.end(grant, by);
  }
}

function keyOf({ transfer, disk }: { transfer: number; disk: string }): string {
  return `${transfer} ${disk}`;
}

function holderOf({ kind, name }: Identity): Holder {
  return { kind, name };
}

function isEqual(known: string, shown: string | undefined): boolean {
  if (shown?.length !== known.length) return false;
  return timingSafeEqual(Buffer.from(known), Buffer.from(shown));
}

/** @throws AgentError `refused` when somebody else answers where a disk was to come from. */
export function requireHolder(expected: Holder, found: Holder, url: string): void {
  if (isSame(expected, found)) return;
  throw new AgentError("refused", `${found.name} answers at ${url}, and the disk is of ${expected.name}`);
}
