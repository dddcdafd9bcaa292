import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import { DiskError, type DiskStore } from "../../disk/index.js";
import { isUnderWay, type DiskLayer, type GuestDisk } from "../../guest/index.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { GuestRegistry } from "../guests/registry.js";
import type { ChainWorkRecord } from "./chain-work-record.js";
import { layersOf } from "./guest-disks.js";

/** Bytes that `stat` counts by. */
const BLOCK_BYTES = 512;

/** What is to be done to a disk's chain. */
export interface ChainPlan {
  record: ChainWorkRecord;
  /** Whose content is copied. */
  copied: readonly DiskLayer[];
  /** A commit's: what is merged into, under the uuid it had and the one it gets, and what stands on it. */
  merge?: { old: DiskLayer; renewed: DiskLayer; above: DiskLayer };
}

/**
 * Everything between the newest layer and the base disk into the newest; with `alone`, the base disk, too.
 * @returns undefined when there is nothing to do.
 */
export function planFlatten(disk: GuestDisk, { alone }: { alone: boolean }): ChainPlan | undefined {
  const { chain } = disk;
  const base = alone || chain.length === 1 ? undefined : chain.findLast(({ format }) => format === "raw");
  const top = chain[0] as DiskLayer;
  const after = base === undefined ? [top] : [top, base];
  if (after.length === chain.length) return undefined;
  const copied = chain.slice(1, base === undefined ? undefined : -1);
  return { record: { version: 1, kind: "flatten", disk: disk.name, stages: [chain, after] }, copied };
}

/**
 * The newest layer, and all below it that only this guest stands on, into the lowest of those.
 * @throws DiskError `in-use` when there is none, and says why.
 */
export function planCommit(
  { store, registry }: { store: DiskStore; registry: GuestRegistry },
  guest: Guest,
  disk: GuestDisk,
): ChainPlan {
  const { chain } = disk;
  const others = layersOf(registry.list(), { but: guest.id });
  let depth = 0;
  let why = "it stands on nothing";
  for (const layer of chain.slice(1)) {
    const problem = whyNot(store, layer, others);
    if (problem !== undefined) {
      why = problem;
      break;
    }
    depth += 1;
  }
  const old = chain[depth];
  const above = chain[depth - 1];
  if (old === undefined || above === undefined)
    throw new DiskError(
      "in-use",
      `${disk.name} of guest ${guest.name} cannot be merged into the layer below: ${why}; ramet disk flatten shortens the chain without it`,
    );
  const id = randomUUID();
  const renewed: DiskLayer = { id, format: "qcow2", path: store.pathOf(id) };
  const below = chain.slice(depth + 1);
  const stages = [chain, [...chain.slice(0, depth), renewed, ...below], [renewed, ...below]];
  return {
    record: { version: 1, kind: "commit", disk: disk.name, stages },
    copied: chain.slice(0, depth),
    merge: { old, renewed, above },
  };
}

/** Why a layer of a guest's chain must not be written; undefined when nobody but the guest has it. */
function whyNot(
  store: DiskStore,
  { id, format }: DiskLayer,
  others: ReadonlySet<string>,
): string | undefined {
  if (format === "raw") return "that is a base disk, which is never written";
  const { lent, arriving } = store.get(id);
  const children = store.childrenOf(id).length;
  if (lent !== undefined)
    return `${lent.length === 1 ? "another host reads" : `${lent.length} other hosts read`} ${id}`;
  if (arriving !== undefined) return `${id} is on its way from another host`;
  if (children > 1) return `${children} disks stand on ${id}`;
  if (others.has(id)) return `another guest stands on ${id}`;
  return undefined;
}

/** What the files of layers take on the host, which is the most that copying them can take. */
export function usedBytes(layers: readonly DiskLayer[]): number {
  const blocks = layers.map(({ path }) => statSync(path, { throwIfNoEntry: false })?.blocks ?? 0);
  return blocks.reduce((sum, each) => sum + each * BLOCK_BYTES, 0);
}

/** @throws AgentError `not-ready` while a layer is on its way: what reads it is about to change. */
export function requireAllHere(guest: Guest, { name, chain }: GuestDisk): void {
  if (!chain.some(isUnderWay)) return;
  throw new AgentError(
    "not-ready",
    `${name} of guest ${guest.name} stands on what is on its way to this host (ramet show ${guest.name}); try again when it is here`,
  );
}
