import { deferred } from "../base/index.js";
import { ControlError, isFinal, type RpcClient, type TransferView } from "../control/index.js";
import { ASK_DEADLINE_MS } from "./context.js";
import type { Rates } from "./format/transfer.js";

/** Rates are taken over at least this long, so that they do not jump. */
const RATE_SPAN_MS = 1000;

interface Sample {
  elapsedMs: number;
  urgent: number;
  bulk: number;
}

/** Turns the byte counts of one transfer's views into rates. */
export class RateMeter {
  #samples: Sample[] = [];

  add(view: TransferView): void {
    this.#samples.push({ elapsedMs: view.elapsedMs, urgent: view.bytes.urgent, bulk: view.bytes.bulk });
    const from = view.elapsedMs - RATE_SPAN_MS;
    while (this.#samples.length > 2 && (this.#samples[1] as Sample).elapsedMs <= from) this.#samples.shift();
  }

  get rates(): Rates {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    const spanMs = first && last ? last.elapsedMs - first.elapsedMs : 0;
    if (!first || !last || spanMs <= 0) return { urgent: 0, bulk: 0 };
    return {
      urgent: Math.max(0, ((last.urgent - first.urgent) * 1000) / spanMs),
      bulk: Math.max(0, ((last.bulk - first.bulk) * 1000) / spanMs),
    };
  }
}

/** The newest view of every transfer that is of interest, kept up to date by the agent's events. */
export class TransferFollower {
  readonly #client: RpcClient;
  readonly #accept: (view: TransferView) => boolean;
  readonly #views = new Map<string, TransferView>();
  readonly #meters = new Map<string, RateMeter>();
  readonly #watchers = new Set<(view: TransferView) => void>();
  readonly #failed = deferred<never>();

  private constructor(client: RpcClient, accept: (view: TransferView) => boolean) {
    this.#client = client;
    this.#accept = accept;
    // Nobody may be waiting when a refresh fails.
    this.#failed.promise.catch(() => {});
  }

  /** Subscribes, and asks for the transfers there are. Errors as RpcClient.call. */
  static async open(client: RpcClient, accept: (view: TransferView) => boolean): Promise<TransferFollower> {
    const follower = new TransferFollower(client, accept);
    client.onEvent((event) => {
      if (event.event === "transfer") follower.#take(event.data.transfer);
      // Events were lost: what matters is asked for again.
      if (event.event === "lagged") follower.refresh().catch(follower.#failed.reject);
    });
    await client.call("events.subscribe", { topics: ["transfer"] }, { deadlineMs: ASK_DEADLINE_MS });
    await follower.refresh();
    return follower;
  }

  /** Asks the agent for all transfers anew. */
  async refresh(): Promise<void> {
    const { transfers } = await this.#client.call("transfer.list", {}, { deadlineMs: ASK_DEADLINE_MS });
    for (const view of transfers) this.#take(view);
  }

  /** All that is known, the oldest transfer first. */
  get views(): TransferView[] {
    return [...this.#views.values()].sort((a, b) => a.startedAtMs - b.startedAtMs || a.id - b.id);
  }

  /** The rates of the last second or so; of the whole transfer once it is over. */
  ratesOf(view: TransferView): Rates {
    if (isFinal(view.phase)) {
      const seconds = Math.max(view.elapsedMs, 1) / 1000;
      return { urgent: view.bytes.urgent / seconds, bulk: view.bytes.bulk / seconds };
    }
    return this.#meters.get(keyOf(view))?.rates ?? { urgent: 0, bulk: 0 };
  }

  /** Calls `watcher` with every later view. Returns what ends that. */
  onChange(watcher: (view: TransferView) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Waits until every one of these transfers is known and over, however long that takes. Rejects when the connection ends. */
  async untilFinal(ids: ReadonlySet<number>): Promise<void> {
    const over = () =>
      [...ids].every((id) => {
        const views = this.views.filter((view) => view.id === id);
        return views.length > 0 && views.every((view) => isFinal(view.phase));
      });
    const done = deferred<void>();
    const check = () => {
      if (over()) done.resolve();
    };
    const stop = this.onChange(check);
    check();
    try {
      await Promise.race([done.promise, this.#failed.promise, connectionEnd(this.#client)]);
    } finally {
      stop();
    }
  }

  #take(view: TransferView): void {
    if (!this.#accept(view)) return;
    const key = keyOf(view);
    const known = this.#views.get(key);
    // An answer may be older than an event that overtook it.
    if (known && (isFinal(known.phase) || known.elapsedMs > view.elapsedMs)) return;
    this.#views.set(key, view);
    const meter = this.#meters.get(key) ?? new RateMeter();
    meter.add(view);
    this.#meters.set(key, meter);
    for (const watcher of [...this.#watchers]) watcher(view);
  }
}

function keyOf(view: TransferView): string {
  return `${view.id} ${view.role}`;
}

/** Rejects, with ControlError `closed`, when the connection ends. */
export function connectionEnd(client: RpcClient): Promise<never> {
  return new Promise((_, reject) =>
    client.onEnd((end) =>
      reject(new ControlError("closed", `the connection to the agent ended: ${end.message}`)),
    ),
  );
}
