import { CodedError, messageOf, type Clock, type Log } from "../base/index.js";
import { digestMemory, type PageDigests } from "./digests.js";
import { TransferError } from "./errors.js";
import { prepareTargets, throwIfCancelled, waitForLanes, type ForkChild, type ParentStep } from "./fork.js";
import type { Instant } from "./instant.js";
import type { ChildStarted, ParentEmulator, TrackedMemory } from "./ports.js";
import type { PrecopySource } from "./precopy-source.js";

/** The parts of the parent that must not work at two places at once, besides its processors. */
export interface ParentSwitch {
  /** Takes the stopped parent off its network, so that the child can take its place. */
  detach(): Promise<void>;
  /** Puts it back, when the parent is to run on after all. */
  attach(): Promise<void>;
}

export interface MigrateOptions {
  emulator: ParentEmulator;
  memory: TrackedMemory;
  instant: Instant;
  child: ForkChild;
  network: ParentSwitch;
  /** Copies memory to the child while the parent still runs, so that the switch leaves only the rest to be sent. */
  precopy?: PrecopySource;
  /** Digest all memory while the guest is stopped, for the child to compare. Makes the downtime as long as that takes. */
  verify: boolean;
  /** Given the digests, where those are made, before the child is started. */
  onDigests?: (digests: PageDigests) => void;
  clock: Clock;
  log: Log;
  onStep(step: ParentStep): void;
  signal: AbortSignal;
}

export interface MigrateOutcome {
  started: ChildStarted;
  /** Microseconds in which the guest ran nowhere: from the parent's stop to the answer that the child runs. */
  downtimeUs: number;
  firstInstructionUs: number;
}

/**
 * Migrates a running guest: like a fork whose parent never resumes. Until the child is told to run, every failure lets the parent run on. When it cannot be
 * known whether the child got that word, the child is cancelled; only when its host confirms that does the parent run on.
 * @throws TransferError `prepare-failed`, `cancelled`, `child-failed`, `parent-failed`: the parent runs on. `undecided`: the parent stays stopped and keeps
 *   its memory, because the child may run.
 */
export async function migrateGuest(options: MigrateOptions): Promise<MigrateOutcome> {
  const { emulator, instant, clock } = options;
  const { target, session } = options.child;
  const beganUs = clock.nowUs();
  let stopped = false;
  let detached = false;
  let told = false;
  try {
    options.onStep("preparing");
    const children = { children: [options.child], clock, signal: options.signal };
    await prepareTargets(children);
    await Promise.all([
      waitForLanes(children),
      emulator.prepareDeviceState({ handOver: true }),
      instant.arm(),
    ]);
    if (options.precopy !== undefined) {
      options.onStep("precopying");
      await options.precopy.run(options.signal);
    }
    throwIfCancelled(options.signal);
    options.onStep("pausing");
    stopped = true;
    await emulator.stop();
    const stoppedUs = clock.nowUs();
    detached = true;
    await options.network.detach();
    const saved = await emulator.saveDeviceState({ handOver: true });
    instant.freeze();
    const digests = options.verify ? await digestMemory(options.memory, clock) : undefined;
    if (digests !== undefined) options.onDigests?.(digests);
    session.begin(digests === undefined ? {} : { digests });
    options.onStep("starting");
    const lacking = options.precopy?.finish();
    await target.start(saved.compose(), { run: false, ...(lacking === undefined ? {} : { lacking }) });
    throwIfCancelled(options.signal);
    told = true;
    const started = await target.run();
    const ranUs = clock.nowUs();
    options.onStep("paging");
    await letParentMemoryGo(options);
    return { started, downtimeUs: ranUs - stoppedUs, firstInstructionUs: ranUs - beganUs };
  } catch (thrown) {
    const error =
      thrown instanceof CodedError
        ? thrown
        : new TransferError("parent-failed", messageOf(thrown), { cause: thrown });
    await cancelOrStayStopped(options, told, error);
    session.fail(new TransferError("cancelled", error.message, { cause: error }));
    instant.release();
    options.precopy?.release();
    if (detached) await attachOrGoWithout(options);
    if (stopped) await emulator.resume();
    throw error;
  }
}

/** Once the child runs, nothing that befalls the parent's emulator is a reason to end it. */
async function letParentMemoryGo({ precopy, log }: MigrateOptions): Promise<void> {
  try {
    await precopy?.releaseSlowly();
  } catch (thrown) {
    log.warn(
      { problem: messageOf(thrown) },
      "the memory of a parent that has moved away could not be let go of",
    );
  }
}

/** A guest that runs without its network can be helped; one that stays stopped because of it serves nobody. */
async function attachOrGoWithout(options: MigrateOptions): Promise<void> {
  try {
    await options.network.attach();
  } catch (thrown) {
    options.log.error(
      { problem: messageOf(thrown) },
      "the parent runs on, but not at its place in the network",
    );
  }
}

/** Makes sure that the child does not run. One that was never told to run does not, confirmed or not: its host removes it by itself. */
async function cancelOrStayStopped(options: MigrateOptions, told: boolean, error: CodedError): Promise<void> {
  const { target } = options.child;
  try {
    await target.cancel(error.message);
  } catch (thrown) {
    if (!told) {
      options.log.warn(
        { transfer: target.transfer, message: messageOf(thrown) },
        "child could not be cancelled; it was never started",
      );
      return;
    }
    const message = `the migration failed (${error.message}) and ${target.host} does not confirm that the child is gone; the parent stays stopped`;
    throw new TransferError("undecided", message, { cause: thrown });
  }
}
