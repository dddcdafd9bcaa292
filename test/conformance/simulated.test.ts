/** The simulation's lanes and memory behave as the real ones do, or what it finds would say nothing of those. */
import { PAGE_BYTES, SeededRandom } from "../../src/base/index.js";
import { simulatedLane } from "../support/simulation/lane.js";
import { SimulatedMemory } from "../support/simulation/memory.js";
import { Scheduler } from "../support/simulation/scheduler.js";
import { laneConformance } from "./lane.js";
import { fillableMemoryConformance, trackedMemoryConformance, type MemorySubject } from "./memory.js";

const MAX_EVENTS = 100_000;

for (const seed of [1, 2, 3]) {
  laneConformance(`simulated lane, seed ${seed}`, async () => {
    const scheduler = new Scheduler(new SeededRandom(seed));
    const lane = simulatedLane(scheduler, 100);
    const settle = async (): Promise<void> => {
      let over = false;
      scheduler.after(1000, () => (over = true));
      await scheduler.runUntil(() => over, MAX_EVENTS);
    };
    return {
      child: lane.child,
      parent: lane.parent,
      break: () => lane.break(),
      until: (_what, condition) => scheduler.runUntil(condition, MAX_EVENTS),
      settle,
      dispose: () => Promise.resolve(),
    };
  });
}

/** Time passes by itself while a test waits, as it does for the real thing. */
function simulatedSubject(): Promise<MemorySubject<SimulatedMemory>> {
  const scheduler = new Scheduler(new SeededRandom(1));
  const memory = new SimulatedMemory(scheduler, 64);
  let closed = false;
  const pump = setInterval(() => void scheduler.runUntil(() => scheduler.idle || closed, MAX_EVENTS), 1);
  const touch = (page: number, bytes?: Uint8Array): Promise<void> =>
    new Promise((resolve) => memory.touch(page, bytes, resolve));
  return Promise.resolve({
    memory,
    guest: {
      async read(page) {
        await touch(page);
        return memory.content(page)[0] as number;
      },
      write: (page, value) => touch(page, new Uint8Array(PAGE_BYTES).fill(value)),
    },
    allocatedPages: () =>
      Array.from({ length: 64 }, (_, page) => page).filter((page) => !memory.isHole(page)).length,
    close() {
      closed = true;
      clearInterval(pump);
      return Promise.resolve();
    },
  });
}

trackedMemoryConformance("simulated", simulatedSubject);
fillableMemoryConformance("simulated", simulatedSubject);
