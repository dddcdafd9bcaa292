import { codeOf, messageOf, sleep } from "../../base/index.js";
import type { DiskParent, DiskStore } from "../../disk/index.js";
import { nodeOf, type DiskLayer, type GuestDisk } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import { readChainWork, removeChainWork, stageOf, type ChainWorkRecord } from "./chain-work-record.js";
import { syncFile } from "./fork-disks.js";
import { layersOf } from "./guest-disks.js";

const JOB_POLL_MS = 20;
const JOB_END_DEADLINE_MS = 60_000;
const RETRY_MS = 1000;

export type ChainServices = Pick<Services, "disks" | "registry" | "paths" | "clock">;

/**
 * Brings what was being done to the chain of a guest's disk to an end, whoever began it and however far it came, and all that is known of the chain to what the emulator has. A job that was
 * not told to finish is ended. Of a guest without an emulator its record says what it has. May be done twice.
 * @returns whether the chain is what it was to be.
 * @throws AgentError `bad-record`, `timeout`; GuestError; or the file system's error.
 */
export async function settleChain(
  services: ChainServices,
  guest: Guest,
  { isSaved = false }: { isSaved?: boolean } = {},
): Promise<boolean> {
  const path = services.paths.chainWork(guest.id);
  const work = readChainWork(path);
  if (work === undefined) return false;
  const disk = guest.config.disks.find(({ name }) => name === work.disk);
  if (disk === undefined) throw unknown(guest, work, "the guest has no such disk");
  const noted = stageOf(work, disk.chain);
  const at = guest.hasEmulator ? await settleJob(services, guest, { work, disk, noted }) : noted;
  const chain = work.stages[at];
  if (chain === undefined) throw unknown(guest, work, `its chain is none of those it was to go through`);
  const gone = layersBut(work, chain);
  if (guest.hasEmulator) await settleLayers(guest, { work, disk: { ...disk, chain }, at, gone });
  if (!isSaved || at !== noted) await noteChain(guest, work.disk, chain);
  await settleStore(services, guest, { chain, gone });
  await removeChainWork(path);
  return at === work.stages.length - 1;
}

/** As `settleChain`, again and again until it is done, or this agent is to end. Nothing is thrown. */
export async function settleChainSoon(
  services: ChainServices,
  guest: Guest,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await settleChain(services, guest);
      return;
    } catch (error) {
      // It is for a person to see what became of it; nothing of it is touched.
      if (codeOf(error) === "bad-record") {
        guest.log.error({ problem: messageOf(error) }, "what was done to a disk's chain is left as it is");
        return;
      }
      guest.log.warn({ problem: messageOf(error) }, "what was done to a disk's chain is not settled yet");
    }
    await sleep(services.clock, RETRY_MS);
  }
}

/** From here on the guest's record says that this is the chain. */
export function noteChain(guest: Guest, name: string, chain: readonly DiskLayer[]): Promise<void> {
  const disks = guest.config.disks.map((each) =>
    each.name === name ? { ...each, chain: [...chain] } : each,
  );
  return guest.update({ disks });
}

/** Ends the job, if there is one. @returns the stage that the emulator has. */
async function settleJob(
  { clock }: ChainServices,
  guest: Guest,
  { work, disk, noted }: { work: ChainWorkRecord; disk: GuestDisk; noted: number },
): Promise<number> {
  const { jobs } = guest.live.emulator.disks;
  // What its record says already is not taken back.
  const isToFinish = noted === work.stages.length - 1;
  const untilUs = clock.nowUs() + JOB_END_DEADLINE_MS * 1000;
  let isTold = false;
  for (let state = await jobs.state(disk); state !== undefined; state = await jobs.state(disk)) {
    if (state.status === "concluded") {
      await jobs.dismiss(disk);
      break;
    }
    if (!isTold) await (state.status === "pending" && isToFinish ? jobs.finalize(disk) : jobs.cancel(disk));
    isTold = true;
    if (clock.nowUs() > untilUs)
      throw new AgentError(
        "timeout",
        `the emulator's job on ${disk.name} of guest ${guest.name} does not end`,
      );
    await sleep(clock, JOB_POLL_MS);
  }
  const nodes = (await jobs.nodes(disk)).join();
  return work.stages.findIndex((chain) => chain.map((layer) => nodeOf(disk, layer)).join() === nodes);
}

/** Has the emulator have its layers open as those of such a chain are, and no others. */
async function settleLayers(
  guest: Guest,
  {
    work,
    disk,
    at,
    gone,
  }: { work: ChainWorkRecord; disk: GuestDisk; at: number; gone: readonly DiskLayer[] },
): Promise<void> {
  const { jobs } = guest.live.emulator.disks;
  const { chain } = disk;
  const target = work.kind === "commit" ? work.stages.at(-1)?.[0]?.id : undefined;
  const index = chain.findIndex(({ id }) => id === target);
  const layer = chain[index];
  // QEMU 7.2 leaves what it copied into open for writing when a commit failed; and what the guest writes is opened otherwise than what it only reads.
  if (layer !== undefined) await syncFile(layer.path);
  await whileStill(guest, async () => {
    const options = { backing: chain[index + 1], readOnly: at < work.stages.length - 1 };
    if (layer !== undefined) await jobs.reopen(disk, layer, options);
    await jobs.close(disk, gone);
  });
}

/**
 * Opens or closes layers of a guest's disk while the guest stands still, unless it does already. QEMU 7.2 may open the file of a layer anew when one is closed that stood on it, and does not wait for
 * the guest's requests then: what is under way finds the file closed (EBADF), and the disk stops the guest.
 */
export async function whileStill(guest: Guest, work: () => Promise<void>): Promise<void> {
  const { emulator } = guest.live;
  const isRunning = (await emulator.status()) === "running";
  if (isRunning) await emulator.stop();
  try {
    await work();
  } finally {
    if (isRunning) await emulator.resume();
  }
}

/** Brings what is kept of the layers to the chain. */
async function settleStore(
  { disks, registry }: ChainServices,
  guest: Guest,
  { chain, gone }: { chain: readonly DiskLayer[]; gone: readonly DiskLayer[] },
): Promise<void> {
  const { store } = disks;
  for (const [index, { id, format }] of chain.entries()) {
    if (format === "raw") continue;
    await restand(store, id, parentOf(chain[index + 1]));
    if (index > 0) await store.freeze(id);
  }
  const used = layersOf(registry.list());
  const isUsed = ({ id, writer }: { id: string; writer?: string }): boolean =>
    used.has(id) || (writer !== undefined && writer !== guest.id);
  const ids = gone.filter(({ format }) => format === "qcow2").map(({ id }) => id);
  await store.removeUnused(ids, isUsed);
  await disks.arrivals.dropRemoved();
}

async function restand(store: DiskStore, id: string, parent: DiskParent | undefined): Promise<void> {
  if (JSON.stringify(store.get(id).parent) !== JSON.stringify(parent)) await store.restand(id, parent);
}

function parentOf(below: DiskLayer | undefined): DiskParent | undefined {
  if (below === undefined) return undefined;
  return below.format === "raw" ? { image: below.id } : { disk: below.id };
}

/** The layers of all stages that are not in a chain, the newest first. */
function layersBut({ stages }: ChainWorkRecord, chain: readonly DiskLayer[]): DiskLayer[] {
  const layers = new Map(stages.flat().map((layer) => [layer.id, layer]));
  for (const { id } of chain) layers.delete(id);
  return [...layers.values()];
}

function unknown(guest: Guest, { disk, kind }: ChainWorkRecord, why: string): AgentError {
  return new AgentError("bad-record", `${kind} of ${disk} of guest ${guest.name} cannot be settled: ${why}`);
}
