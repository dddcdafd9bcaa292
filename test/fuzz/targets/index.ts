import type { Target } from "../engine/target.js";

/** A target, its part of a run's inputs, and where it is: a process imports only the one it fuzzes. */
interface Entry {
  name: string;
  share: number;
  load(): Promise<Target>;
}

export const TARGETS: readonly Entry[] = [
  { name: "wire-frame", share: 40, load: async () => (await import("./wire.js")).wireFrame },
  { name: "wire-lz4", share: 15, load: async () => (await import("./wire.js")).wireLz4 },
  { name: "lane-server", share: 5, load: async () => (await import("./lane.js")).laneServer },
  { name: "lane-client", share: 3, load: async () => (await import("./lane.js")).laneClient },
  { name: "lane-end", share: 10, load: async () => (await import("./lane.js")).laneEnd },
  { name: "lane-socket", share: 1, load: async () => (await import("./lane-socket.js")).laneSocket },
  { name: "control-message", share: 14, load: async () => (await import("./control.js")).controlMessage },
  { name: "control-request", share: 6, load: async () => (await import("./control.js")).controlRequest },
  { name: "control-reply", share: 4, load: async () => (await import("./control.js")).controlReply },
  { name: "guest-qmp", share: 3, load: async () => (await import("./guest.js")).guestQmp },
  { name: "guest-blocks", share: 10, load: async () => (await import("./guest.js")).guestMemoryBlocks },
  { name: "guest-device-state", share: 12, load: async () => (await import("./guest.js")).guestDeviceState },
  { name: "guest-config", share: 4, load: async () => (await import("./guest.js")).guestConfig },
  { name: "memory-maps", share: 10, load: async () => (await import("./memory.js")).memoryMaps },
  { name: "memory-addon", share: 10, load: async () => (await import("./memory.js")).memoryAddon },
  { name: "agent-record", share: 1, load: async () => (await import("./agent.js")).agentRecord },
  {
    name: "agent-configuration",
    share: 2,
    load: async () => (await import("./agent.js")).agentConfiguration,
  },
  { name: "agent-flags", share: 2, load: async () => (await import("./agent.js")).agentFlags },
  { name: "agent-notes", share: 4, load: async () => (await import("./agent.js")).agentNotes },
  { name: "cli-values", share: 8, load: async () => (await import("./cli.js")).cliValues },
  { name: "cli-arguments", share: 0.5, load: async () => (await import("./cli.js")).cliArguments },
  { name: "cli-answers", share: 1, load: async () => (await import("./cli-answers.js")).cliAnswers },
  { name: "agent-transfer", share: 2, load: async () => (await import("./agent.js")).agentTransfer },
  {
    name: "lane-revocation",
    share: 4,
    load: async () => (await import("./lane-certificates.js")).laneRevocation,
  },
  { name: "wire-blocks", share: 8, load: async () => (await import("./blocks.js")).wireBlocks },
  { name: "disk-nbd", share: 6, load: async () => (await import("./blocks.js")).diskNbd },
  { name: "disk-qcow2", share: 4, load: async () => (await import("./disk.js")).diskQcow2 },
  { name: "lane-refusal", share: 2, load: async () => (await import("./lane-certificates.js")).laneRefusal },
];

/** @throws Error when there is no such target. */
export async function loadTarget(name: string): Promise<Target> {
  const entry = TARGETS.find((candidate) => candidate.name === name);
  if (entry === undefined) throw new Error(`there is no target ${name}`);
  return entry.load();
}
