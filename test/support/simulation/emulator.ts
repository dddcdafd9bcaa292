import { TransferError, type ParentEmulator } from "../../../src/transfer/index.js";
import { snapshotInSteps } from "../../../src/guest/snapshot.js";
import type { SimulatedGuest } from "./guest.js";
import type { Life } from "./host.js";
import type { Plan } from "./plan.js";
import type { Scheduler } from "./scheduler.js";

export interface EmulatorOptions {
  plan: Plan;
  scheduler: Scheduler;
  guest: SimulatedGuest;
  /** Saves the device state: the content of memory when this ends is that of the instant. */
  save(): Promise<void>;
}

/** A parent's emulator as one life of its agent commands it. */
export function emulatorOf(life: Life, options: EmulatorOptions): ParentEmulator {
  const { guest, plan, scheduler } = options;
  const save = async () => {
    if (scheduler.random.chance(plan.saveFails))
      throw new TransferError("parent-failed", "the simulated save failed");
    await options.save();
  };
  return {
    prepareDeviceState: () => life.lag().then(() => new Uint8Array(4)),
    async snapshot(work) {
      if (scheduler.random.chance(0.3)) return snapshotInSteps(this, work);
      const stoppedAtUs = scheduler.nowUs();
      await guest.snapshot(life, work, save);
      return { compose: () => new Uint8Array(8), stoppedAtUs, resumedAtUs: scheduler.nowUs() };
    },
    stop: async () => {
      await guest.stop(life);
      return { stoppedAtUs: scheduler.nowUs() };
    },
    saveDeviceState: async () => {
      await guest.command(life, save);
      return { compose: () => new Uint8Array(8) };
    },
    resume: async () => {
      await guest.resume(life);
      return { resumedAtUs: scheduler.nowUs() };
    },
  };
}
