import { codeOf } from "../../base/index.js";
import { TransferError, type FillableMemory } from "../../transfer/index.js";

/** The memory of a child, whose sudden end the parent's user is told in words of theirs. */
export function namingTheEnd(memory: FillableMemory, host: string): FillableMemory {
  const naming = (install: () => void): void => {
    try {
      install();
    } catch (error) {
      if (codeOf(error) !== "gone") throw error;
      throw new TransferError("child-failed", `the child's emulator on ${host} has ended`, { cause: error });
    }
  };
  return {
    pageCount: memory.pageCount,
    fill: (onMissingFaults) => memory.fill(onMissingFaults),
    installed: () => memory.installed(),
    install: (firstPage, bytes) => naming(() => memory.install(firstPage, bytes)),
    installZero: (range) => naming(() => memory.installZero(range)),
    wake: (range) => memory.wake(range),
    release: () => memory.release(),
  };
}
