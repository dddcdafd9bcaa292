import { randomUUID } from "node:crypto";
import { tenantOfGuest } from "../../base/index.js";
import type { Params } from "../../control/index.js";
import { defaultMachine, parseGuestConfig, type GuestConfig } from "../../guest/index.js";
import type { ChainFollower } from "../disks/chain-works.js";
import { forgetDisks } from "../disks/fork-disks.js";
import { layersOf } from "../disks/guest-disks.js";
import { requireFreePort } from "../network/ports.js";
import { newTapName, requireBridge } from "../network/tap.js";
import { forwardHere } from "../network/translate.js";
import type { Services } from "../services.js";
import type { BootFileHold } from "../store/boot-store.js";
import { randomMac } from "./child-spec.js";
import type { RecordedBootFile } from "./guest-record.js";
import type { Guest } from "./guest.js";

const MIB = 1024 * 1024;

type RunParams = Omit<Params<"guest.run">, "work">;

/**
 * Starts a new guest; resolves when its processors run. When that fails, nothing of it is left.
 * @param follower of disks that are copied whole before: it is told how far they are, and may give it up.
 * @throws AgentError, or GuestError for a configuration that cannot be forked safely; DiskError for its disks.
 */
export async function runGuest(
  services: Services,
  params: RunParams,
  follower: ChainFollower,
): Promise<Guest> {
  services.registry.requireRoomFor(params.name);
  const checked = parseGuestConfig(await configFor(services, params));
  await requireNetwork(services, checked);
  const holds: BootFileHold[] = [];
  let handedOver = false;
  try {
    const config = { ...checked, disks: await makeDisks(services, params, checked.id) };
    const [kernel, initrd] = [
      await importFile(services, params.kernel, holds),
      await importFile(services, params.initrd, holds),
    ];
    const reservation = await services.starter.reserve(config.memoryBytes, `guest ${params.name}`);
    let guest: Guest;
    try {
      guest = await services.registry.add({
        version: 1,
        state: "starting",
        createdAtMs: services.clock.wallMs(),
        attached: true,
        boot: { ...(kernel === undefined ? {} : { kernel }), ...(initrd === undefined ? {} : { initrd }) },
        config: {
          ...config,
          ...(kernel === undefined ? {} : { kernel: services.boot.path(kernel.sha256) }),
          ...(initrd === undefined ? {} : { initrd: services.boot.path(initrd.sha256) }),
        },
      });
    } catch (error) {
      reservation.release();
      throw error;
    }
    handedOver = true;
    const whole = config.disks.filter((_, index) => params.disks[index]?.differencing === false);
    return await startGuest(services, guest, { reservation, holds, whole, follower });
  } finally {
    if (!handedOver) {
      for (const hold of holds) hold.letGo();
      await forgetDisks(services, checked.id);
    }
  }
}

function makeDisks(
  services: Services,
  { name, disks }: RunParams,
  guest: string,
): Promise<GuestConfig["disks"]> {
  const { registry } = services;
  return services.disks.make(disks, {
    guest,
    tenant: tenantOfGuest(name),
    isLive: (id) => registry.byId(id)?.isLive === true,
    used: layersOf(registry.list()),
  });
}

async function startGuest(
  services: Services,
  guest: Guest,
  {
    whole,
    follower,
    ...parts
  }: Pick<Parameters<Services["starter"]["start"]>[0], "reservation" | "holds"> & {
    whole: GuestConfig["disks"];
    follower: ChainFollower;
  },
): Promise<Guest> {
  try {
    const live = await services.starter.start({ config: guest.config, ...parts });
    guest.attach(live);
    await services.chains.makeWhole(services, guest, whole, follower);
    await live.emulator.resume();
    await guest.update({ state: "running" });
    return guest;
  } catch (error) {
    await services.registry.remove(guest);
    throw error;
  }
}

async function configFor(services: Services, params: RunParams): Promise<unknown> {
  const { architecture } = params;
  const machine = params.machine ?? defaultMachine(architecture, await services.catalogue.find(architecture));
  return {
    id: randomUUID(),
    name: params.name,
    architecture,
    machine,
    memoryBytes: params.memoryMiB * MIB,
    cpus: params.cpus,
    ...(params.kernel === undefined ? {} : { kernel: params.kernel }),
    ...(params.initrd === undefined ? {} : { initrd: params.initrd }),
    append: params.append,
    network: networkFor(params, services.configuration.forwardAddress),
    ...(architecture === "x86_64" ? { vmgenid: randomUUID() } : {}),
  };
}

function networkFor({ network }: RunParams, forwardAddress: string): GuestConfig["network"] {
  if (network.mode === "none") return network;
  const mac = network.mac ?? randomMac();
  if (network.mode === "user") {
    return {
      mode: "user",
      mac,
      forwards: network.forwards.map((forward) => forwardHere(forward, forwardAddress)),
    };
  }
  return {
    mode: "tap",
    mac,
    tap: newTapName(),
    ...(network.bridge === undefined ? {} : { bridge: network.bridge }),
  };
}

async function requireNetwork({ isolation }: Services, { network }: GuestConfig): Promise<void> {
  if (network.mode === "tap" && network.bridge !== undefined) requireBridge(network.bridge);
  if (network.mode !== "user") return;
  for (const forward of network.forwards) await requireFreePort(forward, { confined: isolation.confines });
}

async function importFile(
  services: Services,
  source: string | undefined,
  holds: BootFileHold[],
): Promise<RecordedBootFile | undefined> {
  if (source === undefined) return undefined;
  const hold = await services.boot.import(source);
  holds.push(hold);
  return { sha256: hold.digest, sizeBytes: await services.boot.sizeBytes(hold.digest), source };
}
