import { tenantOfGuest } from "../../base/index.js";
import {
  ControlError,
  type CallContext,
  type Forward,
  type Params,
  type Result,
  type TenantMethod,
} from "../../control/index.js";
import { tenantOfDisk } from "../../disk/index.js";
import { urlOf } from "../api/agent-handlers.js";
import type { Services } from "../services.js";
import { noSuchTransfer } from "../transfers/transfer-book.js";
import type { TransferEntry } from "../transfers/transfer-entry.js";
import { outcomeFor } from "./refusals.js";
import { ownName, ownOf } from "./own.js";

/** What the rules look at of the agent. */
export interface TenantServices {
  readonly book: Pick<Services["book"], "find" | "active">;
  readonly peers: Pick<Services["peers"], "resolve">;
  readonly configuration: Pick<Services["configuration"], "name" | "peers" | "tenantNetwork">;
  readonly isolation: Pick<Services["isolation"], "confines">;
  readonly disks: { readonly store: Pick<Services["disks"]["store"], "find" | "get"> };
}

/** A call of a tenant's holder. */
export interface TenantCall<Name extends TenantMethod> {
  readonly tenant: string;
  readonly params: Params<Name>;
  readonly services: TenantServices;
  readonly context: CallContext;
  /** Has it carried out as for who runs the host. */
  carryOut(params: Params<Name>): Promise<Result<Name>>;
}

/** Below that ports are for root, whatever the host lets others do. */
const LEAST_USER_PORT = 1024;

/** The address of a forward that names none; the agent then takes the one of its configuration. */
const UNNAMED_ADDRESS = "127.0.0.1";

/** The subscription itself is the session's; what comes of it is told apart where it is sent. */
export type RuledMethod = Exclude<TenantMethod, "events.subscribe">;

type Rule<Name extends RuledMethod> = (call: TenantCall<Name>) => Promise<Result<Name>>;

/** Methods on one guest, which their parameter `name` names. */
type OnGuest = { [Name in RuledMethod]: Params<Name> extends { name: string } ? Name : never }[RuledMethod];
/** Methods on one guest's disks. */
type OnDisks = "disk.flatten" | "disk.commit";
type OnTransfer = "transfer.cancel" | "transfer.sweep" | "transfer.steer" | "transfer.run";

/**
 * What becomes of each call of a tenant's holder: names are taken for names of the tenant's own guests, what others have is not there, and lists are of the tenant's own. It is made certain here that there is one for each
 * method that such a holder may call.
 */
export const TENANT_RULES: { readonly [Name in RuledMethod]: Rule<Name> } = {
  "guest.list": async ({ tenant, params, carryOut }) => {
    const { guests } = await carryOut(params);
    return { guests: ownOf(tenant, guests, ({ name }) => name) };
  },
  "guest.run": ({ tenant, params, services, carryOut }) => {
    const name = ownName(tenant, params.name);
    requireConfined(services);
    requireNothingOfHost(params);
    if (params.network.mode === "user") requireNetwork(services);
    return carryOut({ ...params, name });
  },
  "guest.show": onGuest,
  "guest.stop": onGuest,
  "guest.kill": onGuest,
  "guest.freeze": onGuest,
  "guest.thaw": onGuest,
  "guest.exchange": onGuest,
  "guest.suspend": onGuest,
  "guest.resume": onGuest,
  "guest.remove": onGuest,
  "guest.logs": onGuest,
  "guest.console.open": onGuest,
  // A console's number is one of the connection, which has opened it by the name of its guest.
  "guest.console.input": asItIs,
  "guest.console.close": asItIs,
  "guest.swap": ({ tenant, params, carryOut }) =>
    carryOut({ name: ownName(tenant, params.name), child: ownName(tenant, params.child) }),
  "guest.fork": async ({ tenant, params, services, carryOut }) => {
    const { names, to, priority, forwards, network } = params;
    const name = ownName(tenant, params.name);
    const children = names?.map((child) => ownName(tenant, child));
    for (const host of to) requireNamedHost(services, host);
    requireConfined(services);
    requireNoPrecedence(priority);
    requireUserPorts(forwards);
    if (forwards.length > 0 || network === "attached") requireNetwork(services);
    const own = { ...params, name, ...(children === undefined ? {} : { names: children }) };
    const { transfers } = await carryOut(own);
    return { transfers: transfers.map(outcomeFor) };
  },
  "emulator.list": async ({ tenant, params, carryOut }) => {
    const emulators = (await carryOut(params)).emulators.map((emulator) => ({
      ...emulator,
      guests: ownOf(tenant, emulator.guests, (name) => name),
    }));
    // Whose files are not there any more are listed for the guests that run on them.
    return { emulators: emulators.filter(({ path, guests }) => path !== undefined || guests.length > 0) };
  },
  "exchange.show": async ({ tenant, params, carryOut }) => {
    const { run } = await carryOut(params);
    return run === undefined
      ? {}
      : { run: { ...run, guests: ownOf(tenant, run.guests, ({ name }) => name) } };
  },
  // Images have a tenant of their own, which their commands look at.
  "image.list": asItIs,
  "image.show": asItIs,
  "image.verify": asItIs,
  "image.remove": asItIs,
  "disk.list": async ({ tenant, params, services, carryOut }) => {
    const { disks } = await carryOut(params);
    return { disks: disks.filter(({ id }) => hasDisk(services, tenant, id)) };
  },
  "disk.chain": async ({ tenant, params, services, carryOut }) => {
    services.disks.store.get(params.disk, tenant);
    return carryOut(params);
  },
  "disk.loans": async ({ tenant, params, services, carryOut }) => {
    const { loans } = await carryOut(params);
    return { loans: loans.filter(({ disk }) => hasDisk(services, tenant, disk)) };
  },
  "disk.flatten": onDisks,
  "disk.commit": onDisks,
  "transfer.list": async ({ tenant, params, carryOut }) => {
    const { transfers } = await carryOut(params);
    return { transfers: ownOf(tenant, transfers, ({ guest }) => guest) };
  },
  "transfer.show": async ({ tenant, params, services, carryOut }) => {
    requireTransfer(services, tenant, params);
    return carryOut(params);
  },
  "transfer.cancel": onTransfer,
  "transfer.sweep": onTransfer,
  "transfer.steer": async (call) => {
    requireNoPrecedence(call.params.priority);
    return onTransfer(call);
  },
  "transfer.run": onTransfer,
  "peer.list": async ({ tenant, params, services, carryOut }) => {
    const { book, configuration, peers } = services;
    const named = new Set(Object.keys(configuration.peers).map((name) => urlOf(peers, name)));
    const own = ownOf(tenant, book.active, ({ guest }) => guest).map(({ host }) => urlOf(peers, host));
    const all = (await carryOut(params)).peers.filter(({ address }) => named.has(address));
    return {
      peers: all.map((peer) => ({ ...peer, transfers: own.filter((url) => url === peer.address).length })),
    };
  },
};

async function asItIs<Name extends RuledMethod>({
  params,
  carryOut,
}: TenantCall<Name>): Promise<Result<Name>> {
  return carryOut(params);
}

async function onGuest<Name extends OnGuest>({
  tenant,
  params,
  carryOut,
}: TenantCall<Name>): Promise<Result<Name>> {
  const { name } = params;
  return carryOut({ ...params, name: ownName(tenant, name) });
}

async function onDisks<Name extends OnDisks>({
  tenant,
  params,
  carryOut,
}: TenantCall<Name>): Promise<Result<Name>> {
  return carryOut({ ...params, guest: ownName(tenant, params.guest) });
}

/** @throws ControlError `forbidden` for a migration, which is the host's: who began it says how it goes on. */
async function onTransfer<Name extends OnTransfer>({
  tenant,
  params,
  services,
  carryOut,
}: TenantCall<Name>): Promise<Result<Name>> {
  const { transfer } = params;
  const { kind } = requireTransfer(services, tenant, { transfer });
  if (kind === "fork") return carryOut(params);
  throw new ControlError(
    "forbidden",
    `transfer ${transfer} is a migration, which whoever runs the host has begun and alone may change`,
  );
}

/** @throws AgentError `no-such-transfer`, also for another tenant's. */
function requireTransfer(
  { book }: TenantServices,
  tenant: string,
  { transfer, role }: Params<"transfer.show">,
): TransferEntry {
  const entry = book.find(transfer, role);
  if (tenantOfGuest(entry.guest) === tenant) return entry;
  throw noSuchTransfer(transfer);
}

function hasDisk({ disks }: TenantServices, tenant: string, id: string): boolean {
  const disk = disks.store.find(id);
  return disk !== undefined && tenantOfDisk(disk) === tenant;
}

/** @throws ControlError `forbidden` for what a tenant's guest is run with that is the host's. */
function requireNothingOfHost({ kernel, initrd, disks, network }: Params<"guest.run">): void {
  const refuse = (what: string, instead: string): never => {
    throw new ControlError(
      "forbidden",
      `${what} is the host's, and a tenant names nothing of it: ${instead}`,
    );
  };
  for (const path of [kernel, initrd])
    if (path !== undefined) refuse(path, "its guests boot from their first disk");
  for (const { from } of disks)
    if (from !== undefined) refuse(`from=${from}`, "its disks stand on images that this host finds for it");
  if (network.mode === "tap") refuse("a tap interface", "its guests have a user network");
  if (network.mode === "user") requireUserPorts(network.forwards);
}

/** Strangers' guests are not run where an emulator that one of them breaks out of can read everything. @throws ControlError `forbidden`. */
function requireConfined({ isolation }: TenantServices): void {
  if (isolation.confines) return;
  throw new ControlError(
    "forbidden",
    "this host does not keep emulators apart (isolation.mode in its agent's configuration), and runs no tenant's guests",
  );
}

/** @throws ControlError `forbidden` unless the host's configuration gives tenants' guests a network. */
function requireNetwork({ configuration }: TenantServices): void {
  if (configuration.tenantNetwork === "user") return;
  throw new ControlError(
    "forbidden",
    "a guest with a network reaches whatever its host reaches, which is for whoever runs the host to give (tenantNetwork in its agent's configuration)",
  );
}

/** @throws ControlError `forbidden`. */
function requireUserPorts(forwards: readonly Forward[]): void {
  const low = forwards.find(({ hostPort }) => hostPort < LEAST_USER_PORT);
  if (low !== undefined)
    throw new ControlError(
      "forbidden",
      `port ${low.hostPort} is the host's, and a tenant's guests have ports from ${LEAST_USER_PORT} on`,
    );
  const elsewhere = forwards.find(({ address }) => address !== UNNAMED_ADDRESS);
  if (elsewhere === undefined) return;
  throw new ControlError(
    "forbidden",
    `the address ${elsewhere.address} is the host's: a tenant's forwards name ports only, and the host says where it listens (forwardAddress)`,
  );
}

/** An address would have the host dial whatever a tenant names. @throws ControlError `forbidden`. */
function requireNamedHost({ configuration }: TenantServices, host: string): void {
  if (host === configuration.name || Object.hasOwn(configuration.peers, host)) return;
  throw new ControlError(
    "forbidden",
    `${host} is no name of a peer of this host, and a tenant's guests are forked to those only (ramet peers)`,
  );
}

/** @throws ControlError `forbidden`. */
function requireNoPrecedence(priority: string | undefined): void {
  if (priority !== "high") return;
  throw new ControlError(
    "forbidden",
    "priority: high is before what other tenants send, which is for whoever runs the host to say",
  );
}
