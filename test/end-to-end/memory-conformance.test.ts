import { PAGE_BYTES, silentLog } from "../../src/base/index.js";
import { GuestMemory } from "../../src/memory/index.js";
import {
  fillableMemoryConformance,
  trackedMemoryConformance,
  type MemorySubject,
} from "../conformance/memory.js";
import { allocatedBytes, MemoryStandIn } from "../support/memory-stand-in.js";

async function subject<Memory>(
  cut: boolean,
  pick: (memory: GuestMemory) => Memory,
): Promise<MemorySubject<Memory>> {
  const guest = await MemoryStandIn.start({ pageCount: 64, cut });
  const { pid, ramPath } = guest;
  const whole = GuestMemory.open({ pid, ramPath, log: silentLog });
  return {
    memory: pick(whole),
    guest,
    allocatedPages: () => allocatedBytes(ramPath) / PAGE_BYTES,
    async close() {
      whole.close();
      await guest.close();
    },
  };
}

for (const cut of [false, true]) {
  const name = cut ? "userfaultfd, several areas" : "userfaultfd";
  trackedMemoryConformance(name, () => subject(cut, (memory) => memory.tracked()));
  fillableMemoryConformance(name, () => subject(cut, (memory) => memory.fillable()));
}
