import {
  codeOf,
  deferred,
  messageOf,
  realClock,
  sleep,
  withDeadline,
  type SeededRandom,
} from "../../src/base/index.js";
import {
  isFinal,
  type ChildOutcome,
  type TransferPhase,
  type TransferView,
} from "../../src/control/index.js";
import type { Host } from "../support/hosts.js";
import { TwinWatch } from "./emulators.js";
import type { Field } from "./field.js";
import { isMigration, type Plan, type State } from "./plan.js";
import type { Subject } from "./subject.js";

const CALL_DEADLINE_MS = 60_000;
const REACH_DEADLINE_MS = 15_000;
const LOOK_INTERVAL_MS = 30;
/** Bulk a second while the sweep is to last: a guest has some 45 MiB that are not zero. */
const SLOW_BYTES_PER_S = 56 * 1024 * 1024;
const NEARLY = 0.9;

const ORDER: readonly TransferPhase[] = [
  "preparing",
  "precopying",
  "arming",
  "pausing",
  "starting",
  "paging",
  "complete",
];

/** How the command came out. */
export type Answer = { outcomes: readonly ChildOutcome[] } | { code: string; message: string };

/** One fork or migration of a subject, from its command on. */
export class Running {
  readonly plan: Plan;
  readonly subject: Subject;
  readonly source: Host;
  readonly targets: readonly Host[];
  /** The guests that come of it, should they. */
  readonly children: readonly Subject[];
  readonly answer: Promise<Answer>;
  /** What the parent's agent, or the child's, said last of each transfer, by its number and its side. */
  readonly views = new Map<string, TransferView>();
  /** The latest phase that was told when the state was reached. */
  reached: TransferPhase | "not begun" = "not begun";
  readonly #field: Field;
  readonly #twins: TwinWatch | undefined;
  readonly #stopListening: () => void;
  readonly #readings: Promise<unknown>[] = [];
  #heard = deferred<void>();
  #answered = false;

  private constructor(options: {
    field: Field;
    plan: Plan;
    subject: Subject;
    targets: readonly Host[];
    parentPid: number;
  }) {
    const { field, plan, subject, targets } = options;
    this.#field = field;
    this.plan = plan;
    this.subject = subject;
    this.source = subject.host;
    this.targets = targets;
    const migrates = isMigration(plan.operation);
    // Child number i gets the first child's port plus i.
    const port = migrates ? subject.port : Math.max(...targets.map(() => field.port())) - targets.length + 1;
    this.children = targets.map((host, index) =>
      subject.child({
        name: migrates ? subject.name : `${subject.name}-${plan.index}${"xy"[index] ?? ""}`,
        host,
        port: port + index,
      }),
    );
    this.#stopListening = field.onTransfer((host, view) => this.#onTransfer(host, view));
    this.#twins = migrates
      ? new TwinWatch({ directory: field.directory, parent: options.parentPid })
      : undefined;
    this.answer = this.#command(port).then(
      ({ transfers }) => ({ outcomes: transfers }),
      (error: unknown) => ({ code: codeOf(error), message: messageOf(error) }),
    );
    void this.answer.then(() => {
      this.#answered = true;
      this.#tell();
    });
  }

  /** Whether the command has come back, well or not. */
  get isAnswered(): boolean {
    return this.#answered;
  }

  /** Whether a child may have been told to run. */
  get hasStarted(): boolean {
    return rankOf(this.#phase()) >= ORDER.indexOf("starting");
  }

  /** What the parent's agent said last of the transfer to a child. */
  parentView(child: string): TransferView | undefined {
    return this.#parentViews().findLast(({ peerGuest }) => peerGuest === child);
  }

  /** Gives the command. */
  static async begin(options: {
    field: Field;
    plan: Plan;
    subject: Subject;
    targets: readonly Host[];
  }): Promise<Running> {
    const { guest } = await options.subject.host.call("guest.show", { name: options.subject.name });
    return new Running({ ...options, parentPid: guest.pid ?? 0 });
  }

  /** Waits for the state, and a moment of the seed within it. */
  async reach(random: SeededRandom): Promise<void> {
    const { state } = this.plan;
    try {
      await withDeadline(realClock, REACH_DEADLINE_MS, `the state ${state}`, this.#reach(state, random));
    } finally {
      this.reached = this.#phase() ?? "not begun";
    }
  }

  /** Lets the sweep go on that was held for the state; an agent that is just being restarted is asked again later. */
  async letSweep(): Promise<void> {
    if (this.plan.state !== "faulting") return;
    for (const view of this.#parentViews()) {
      if (isFinal(view.phase) || this.source.ending !== undefined) continue;
      await this.source.call("transfer.sweep", { transfer: view.id, sweep: "on" }).catch(() => {});
    }
  }

  /** Ends the listening. True when parent and child of a migration ran at the same time. */
  async end(): Promise<boolean> {
    this.#stopListening();
    await Promise.all(this.#readings);
    return (await this.#twins?.end()) ?? false;
  }

  #command(port: number) {
    const { plan, source, subject, targets } = this;
    const slow = ["precopying", "sweeping", "late"].includes(plan.state);
    const rate = slow ? { rateLimitBytesPerSecond: SLOW_BYTES_PER_S } : {};
    const verify = plan.seed % 4 !== 0;
    if (isMigration(plan.operation)) {
      const to = targets[0]?.name ?? "";
      return source.client.call(
        "guest.migrate",
        { name: subject.name, to, verify, precopy: plan.operation === "precopy", ...rate },
        { deadlineMs: CALL_DEADLINE_MS },
      );
    }
    return source.client.call(
      "guest.fork",
      {
        name: subject.name,
        to: targets.map(({ name }) => name),
        names: this.children.map(({ name }) => name),
        forwards: [`${port}:80`],
        verify,
        memory: plan.operation === "fork-shared" ? "shared" : "copied",
        relay: "chain",
        sweep: plan.state === "faulting" ? "held" : "on",
        ...rate,
      },
      { deadlineMs: CALL_DEADLINE_MS },
    );
  }

  #onTransfer(host: Host, view: TransferView): void {
    const names = view.role === "parent" ? [this.subject.name] : this.children.map(({ name }) => name);
    if (!names.includes(view.guest) || this.#isOld(view)) return;
    this.views.set(`${view.id} ${view.role} ${host.name}`, view);
    this.#tell();
  }

  /** Something has changed: whoever waits looks again. */
  #tell(): void {
    const { resolve } = this.#heard;
    this.#heard = deferred();
    resolve();
  }

  /** A subject takes part in many transfers, one after the other. */
  #isOld(view: TransferView): boolean {
    return this.#field.seen.has(view.id);
  }

  #parentViews(): TransferView[] {
    return [...this.views.values()].filter(({ role }) => role === "parent");
  }

  /** The latest phase of all its children on the parent's side; final ones that are not good count as the last. */
  #phase(): TransferPhase | undefined {
    const phases = this.#parentViews().map(({ phase }) => phase);
    return phases.toSorted((left, right) => rankOf(right) - rankOf(left))[0];
  }

  async #until(isThere: () => boolean): Promise<void> {
    while (!isThere()) {
      const failed = this.#answered && "code" in (await this.answer);
      if (failed) return;
      await this.#heard.promise;
    }
  }

  async #reach(state: State, random: SeededRandom): Promise<void> {
    const isAt = (phase: TransferPhase) => () => rankOf(this.#phase()) >= ORDER.indexOf(phase);
    switch (state) {
      case "idle":
        return;
      case "preparing":
        await this.#until(isAt("preparing"));
        return sleep(realClock, random.below(150));
      case "arming":
      case "pausing":
      case "starting":
      case "complete":
        return this.#until(isAt(state));
      case "precopying":
        await this.#until(isAt("precopying"));
        return sleep(realClock, random.below(700));
      case "sweeping":
        await this.#until(isAt("paging"));
        return sleep(realClock, random.below(1000));
      case "faulting":
        await this.#until(isAt("paging"));
        await this.#read();
        return sleep(realClock, 20 + random.below(200));
      case "late":
        await this.#until(isAt("paging"));
        return this.#untilNearlyComplete();
    }
  }

  /** Every child reads all it has written, in an order of its own; what it finds out is asked for again later. */
  async #read(): Promise<void> {
    for (const child of this.children) this.#readings.push(child.verify());
    if (!isMigration(this.plan.operation)) return;
    for (const { id } of this.#parentViews())
      await this.source.call("transfer.sweep", { transfer: id, sweep: "held" }).catch(() => {});
  }

  async #untilNearlyComplete(): Promise<void> {
    for (;;) {
      const views = this.#parentViews();
      const isNear = ({ phase, pages }: TransferView): boolean =>
        isFinal(phase) || pages.received >= pages.total * NEARLY;
      if (views.some(isNear)) return;
      for (const { id } of views) {
        const { transfer } = await this.source.call("transfer.show", { transfer: id, role: "parent" });
        this.#onTransfer(this.source, transfer);
      }
      await sleep(realClock, LOOK_INTERVAL_MS);
    }
  }
}

function rankOf(phase: TransferPhase | undefined): number {
  if (phase === undefined) return -1;
  const rank = ORDER.indexOf(phase);
  return rank === -1 ? ORDER.length : rank;
}
