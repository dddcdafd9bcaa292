import { CodedError, codeOf, messageOf, withDeadline, type Clock, type Log } from "../base/index.js";
import { digestMemory, type PageDigests } from "./digests.js";
import { TransferError } from "./errors.js";
import type { Instant } from "./instant.js";
import type { SessionPhase } from "./session-options.js";
import type { ChildStarted, ChildTarget, ParentEmulator, TrackedMemory } from "./ports.js";

/** How long the page lanes may take to arrive after the child's host said it is prepared. */
const LINK_DEADLINE_MS = 10_000;

/** How long nothing but answers is sent to a child that starts: its host and its parent's have that to do. */
const START_QUIET_MS = 5;

/** What gives a child its parent's memory. */
export interface ChildSession {
  readonly phase: SessionPhase;
  /** Resolves when nothing but the instant is lacking; rejects when the session ends before. */
  readonly linked: Promise<void>;
  /** The guest is stopped and all of its memory is protected. */
  atInstant?(): void;
  /** The instant is there: the child may be given its memory. */
  begin(options: { digests?: PageDigests; quietMs?: number }): void;
  fail(error: TransferError): void;
}

/** One child to be, with the session that will feed it. */
export interface ForkChild {
  target: ChildTarget;
  session: ChildSession;
}

/** Where a parent stands while it is forked or migrated; `paging` is reached only when some child runs. */
export type ParentStep = "preparing" | "precopying" | "arming" | "pausing" | "starting" | "paging";

export interface ForkOptions {
  emulator: ParentEmulator;
  memory: TrackedMemory;
  instant: Instant;
  children: readonly ForkChild[];
  /** Digest all memory in the pause, for the children to compare. Makes the pause as long as that takes. */
  verify: boolean;
  /** When the command arrived, by `clock`. */
  arrivedUs: number;
  /** Given the digests, where those are made, before any child is started. */
  onDigests?: (digests: PageDigests) => void;
  /** Leave the children loaded but stopped. */
  paused: boolean;
  clock: Clock;
  log: Log;
  onStep(step: ParentStep): void;
  /** Called when every child is prepared; the instant waits for it, as it does for the arming. Never rejects. */
  onPrepared?: () => Promise<void>;
  /** Aborting before the instant fails the fork with `cancelled`; after it, children are cancelled one by one through their sessions. */
  signal: AbortSignal;
}

/** Microseconds of a pause, by what it was spent on. `total` is the emulator's own time from stopped to resumed. */
export interface PauseParts {
  total: number;
  stop: number;
  rearm: number;
  save: number;
  verify: number;
  resume: number;
  /** Pages protected again in the pause. */
  rearmedPages: number;
}

export type ChildOutcome = { target: ChildTarget } & (
  { started: ChildStarted; firstInstructionUs: number } | { error: CodedError }
);

/** What a fork comes to on its way to the child's first instruction; some of it goes on side by side. */
export type ForkMark =
  "prepared" | "linked" | "sentAhead" | "described" | "armed" | "converged" | "resumed" | "composed";

/** When each of them was reached, in microseconds from the command's arrival. */
export type ForkMarks = Partial<Record<ForkMark, number>>;

export interface ForkOutcome {
  pause: PauseParts;
  marks: ForkMarks;
  children: ChildOutcome[];
}

/**
 * Forks a running guest: prepares every child, protects memory while the guest runs, stops it, saves the device state, lets it run on and starts the
 * children. Resolves when each child runs or has failed by itself; the sessions go on paging afterwards.
 *
 * Until the instant the fork fails as a whole and leaves the parent as it was.
 * @throws TransferError `prepare-failed`, `cancelled` or `parent-failed`; all children are cancelled and the instant is released then.
 */
export async function forkGuest(options: ForkOptions): Promise<ForkOutcome> {
  const marks = new Marks(options);
  try {
    options.onStep("preparing");
    // Each page that the guest writes from now on costs it a fault, once, however long the children's hosts take.
    const head = options.emulator.prepareDeviceState({ handOver: false });
    await settleAll([
      prepareChildren(options, marks),
      describe(options, head, marks),
      arm(options).then(() => marks.set("armed")),
    ]);
    await options.instant.converge();
    marks.set("converged");
    throwIfCancelled(options.signal);
    throwIfChildLost(options);
    options.onStep("pausing");
    const { pause, deviceState, digests } = await pauseAndSave(options, marks);
    if (digests !== undefined) options.onDigests?.(digests);
    const beginning = { quietMs: START_QUIET_MS, ...(digests === undefined ? {} : { digests }) };
    for (const { session } of options.children) session.begin(beginning);
    options.onStep("starting");
    const children = await Promise.all(
      options.children.map((child) => startChild(options, child, deviceState)),
    );
    options.onStep("paging");
    options.log.debug({ marks: marks.all, pause }, "forked");
    // Children that were lost during the pause left an instant that was not there yet; those that share the memory need no copies of it.
    if (options.children.every(({ session }) => isOver(session))) options.instant.release();
    return { pause, marks: marks.all, children };
  } catch (thrown) {
    const error =
      thrown instanceof CodedError
        ? thrown
        : new TransferError("parent-failed", messageOf(thrown), { cause: thrown });
    options.instant.release();
    await cancelAll(options, error);
    throw error;
  }
}

/** Has every child prepared, and waits for the lanes. */
async function prepareChildren(options: ForkOptions, marks: Marks): Promise<void> {
  await prepareTargets(options);
  marks.set("prepared");
  options.onStep("arming");
  await Promise.all([waitForLanes(options).then(() => marks.set("linked")), options.onPrepared?.()]);
}

/** Sends the first part of the device state ahead when that is known, however far the children's hosts are. */
async function describe(options: ForkOptions, head: Promise<Uint8Array>, marks: Marks): Promise<void> {
  const bytes = await head;
  marks.set("described");
  if (bytes.length > 0) await forEachChild(options, ({ target }) => target.sendAhead(bytes));
  marks.set("sentAhead");
}

/** After the children's hosts have been asked, which then work at the same time. */
async function arm({ instant, clock }: ForkOptions): Promise<void> {
  await new Promise<void>((resolve) => clock.soon(resolve));
  // The agent may have begun to leave.
  if (instant.phase === "idle") await instant.arm();
}

/** Waits for all of them, so that nothing goes on when one fails; then fails as the first in the row that did. */
async function settleAll(works: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(works)) if (result.status === "rejected") throw result.reason;
}

/** Notes when a fork came to what. */
class Marks {
  readonly all: ForkMarks = {};
  readonly #options: ForkOptions;

  constructor(options: ForkOptions) {
    this.#options = options;
  }

  set(mark: ForkMark): void {
    const { clock, arrivedUs } = this.#options;
    this.all[mark] = clock.nowUs() - arrivedUs;
  }
}

/** Prepares all children side by side. */
export async function prepareTargets(options: Pick<ForkOptions, "children" | "signal">): Promise<void> {
  throwIfCancelled(options.signal);
  await forEachChild(options, ({ target }) => target.prepare());
}

/** Waits until each child has its page lanes. */
export function waitForLanes(options: Pick<ForkOptions, "children" | "signal" | "clock">): Promise<void> {
  return forEachChild(options, ({ target, session }) =>
    withDeadline(
      options.clock,
      LINK_DEADLINE_MS,
      `the arrival of the page lanes from ${target.host}`,
      session.linked,
    ),
  );
}

/** Does something for all children side by side and waits for all of them, so that nothing goes on when it fails. */
async function forEachChild(
  options: Pick<ForkOptions, "children" | "signal">,
  act: (child: ForkChild) => Promise<void>,
): Promise<void> {
  const results = await Promise.allSettled(options.children.map(act));
  throwIfCancelled(options.signal);
  for (const [index, result] of results.entries()) {
    if (result.status === "fulfilled") continue;
    const host = options.children[index]?.target.host ?? "";
    const message = `host ${host} cannot take the child: ${messageOf(result.reason)}`;
    throw new TransferError("prepare-failed", message, { cause: result.reason });
  }
}

interface Paused {
  pause: PauseParts;
  deviceState: Uint8Array;
  digests: PageDigests | undefined;
}

async function pauseAndSave(options: ForkOptions, marks: Marks): Promise<Paused> {
  const { emulator, instant, clock } = options;
  const nowUs = () => clock.nowUs();
  const at = { began: nowUs(), stopped: 0, rearmed: 0, saved: 0, verified: 0 };
  const rearmedBefore = instant.counters.rearmed;
  let digests: PageDigests | undefined;
  try {
    const snapshot = await emulator.snapshot({
      // The emulator saves on one processor while this one protects again what was written since; the freeze afterwards covers what saving wrote.
      onStopped() {
        at.stopped = nowUs();
        instant.rearm();
        at.rearmed = nowUs();
      },
      async atInstant() {
        instant.freeze();
        for (const { session } of options.children) session.atInstant?.();
        at.saved = nowUs();
        if (options.verify) digests = await digestMemory(options.memory, clock);
        at.verified = nowUs();
      },
    });
    marks.set("resumed");
    const pause = {
      total: snapshot.resumedAtUs - snapshot.stoppedAtUs,
      stop: at.stopped - at.began,
      rearm: at.rearmed - at.stopped,
      save: at.saved - at.rearmed,
      verify: at.verified - at.saved,
      resume: nowUs() - at.verified,
      rearmedPages: instant.counters.rearmed - rearmedBefore,
    };
    const deviceState = snapshot.compose();
    marks.set("composed");
    return { pause, deviceState, digests };
  } catch (thrown) {
    // Writers must be let through before the guest can run on.
    instant.release();
    await emulator.resume();
    throw thrown;
  }
}

async function startChild(
  options: ForkOptions,
  child: ForkChild,
  deviceState: Uint8Array,
): Promise<ChildOutcome> {
  const { target, session } = child;
  try {
    throwIfLost(session);
    const started = await target.start(deviceState, { run: !options.paused });
    throwIfLost(session);
    return { target, started, firstInstructionUs: options.clock.nowUs() - options.arrivedUs };
  } catch (thrown) {
    const error = new TransferError(
      "child-failed",
      `the child on ${target.host} did not start: ${messageOf(thrown)}`,
      { cause: thrown },
    );
    options.log.warn(
      { transfer: target.transfer, code: codeOf(thrown), message: error.message },
      "child did not start",
    );
    session.fail(error);
    await cancelQuietly(options.log, target, error.message);
    return { target, error };
  }
}

async function cancelAll(options: ForkOptions, error: CodedError): Promise<void> {
  await Promise.all(
    options.children.map(async ({ target, session }) => {
      session.fail(new TransferError("cancelled", error.message, { cause: error }));
      await cancelQuietly(options.log, target, error.message);
    }),
  );
}

/** Cancels a child whose host may be the very thing that failed; it removes an abandoned child by itself. */
async function cancelQuietly(log: Log, target: ChildTarget, reason: string): Promise<void> {
  try {
    await target.cancel(reason);
  } catch (thrown) {
    log.warn(
      { transfer: target.transfer, host: target.host, message: messageOf(thrown) },
      "child could not be cancelled",
    );
  }
}

function isOver({ phase: { phase } }: ChildSession): boolean {
  return phase === "failed" || phase === "complete";
}

/** A child that was cancelled or lost in the pause is not to run, and one that was lost while it started is not to be left there. */
function throwIfLost(session: ChildSession): void {
  if (session.phase.phase === "failed") throw session.phase.error;
}

function throwIfChildLost(options: ForkOptions): void {
  for (const { target, session } of options.children) {
    if (session.phase.phase !== "failed") continue;
    const message = `host ${target.host} lost the child before the fork: ${session.phase.error.message}`;
    throw new TransferError("prepare-failed", message, { cause: session.phase.error });
  }
}

/** @throws TransferError `cancelled` when an operator has cancelled. */
export function throwIfCancelled(signal: AbortSignal): void {
  if (signal.aborted)
    throw new TransferError("cancelled", "the transfer was cancelled before the switch; the parent runs on");
}
