import { hasRole, type AccessRole, type Identity } from "../base/index.js";
import { ControlError } from "./errors.js";
import type { MethodName } from "./methods.js";
import type { Topic } from "./schema/agent.js";

/**
 * Who may call what. `guest.run` and `image.import` take paths of the agent's machine, and `image.stored` shows what all tenants have, hence `admin`; a console and its log are the inside of a guest, hence
 * `operate`; a ping dials whatever address it is given, hence `operate` too. docs/security.md shows this table to people, and a test holds it to this one.
 */
export const METHOD_ACCESS: { readonly [Name in MethodName]: AccessRole } = {
  "agent.info": "observe",
  "agent.audit": "admin",
  "agent.reload": "admin",
  "agent.offer": "admin",
  "agent.leave": "admin",
  "events.subscribe": "observe",
  "guest.run": "admin",
  "guest.list": "observe",
  "guest.show": "observe",
  "guest.stop": "operate",
  "guest.kill": "operate",
  "guest.freeze": "operate",
  "guest.thaw": "operate",
  "guest.exchange": "operate",
  "guest.suspend": "operate",
  "guest.resume": "operate",
  "guest.swap": "operate",
  "guest.remove": "admin",
  "guest.logs": "operate",
  "guest.console.open": "operate",
  "guest.console.input": "operate",
  "guest.console.close": "operate",
  "guest.warm": "operate",
  "guest.fork": "operate",
  "guest.migrate": "operate",
  "guest.rollback": "operate",
  "emulator.list": "observe",
  "exchange.start": "operate",
  "exchange.show": "observe",
  "exchange.stop": "operate",
  "image.import": "admin",
  "image.list": "observe",
  "image.show": "observe",
  "image.verify": "operate",
  "image.remove": "operate",
  "image.stored": "admin",
  "image.prune": "admin",
  "image.pull": "admin",
  "disk.list": "observe",
  "disk.chain": "observe",
  "disk.loans": "observe",
  "disk.release": "admin",
  "disk.flatten": "operate",
  "disk.commit": "operate",
  "disk.adopt": "operate",
  "transfer.list": "observe",
  "transfer.show": "observe",
  "transfer.cancel": "operate",
  "transfer.sweep": "operate",
  "transfer.steer": "operate",
  "transfer.run": "operate",
  "peer.list": "observe",
  "peer.ping": "operate",
  "peer.info": "peer",
  "peer.findImage": "peer",
  "peer.openImage": "peer",
  "peer.closeBlocks": "peer",
  "peer.openLayer": "peer",
  "peer.returnLayer": "peer",
  "peer.prepare": "peer",
  "peer.putFile": "peer",
  "peer.lacks": "peer",
  "peer.ahead": "peer",
  "peer.relayTo": "peer",
  "peer.relayFrom": "peer",
  "peer.start": "peer",
  "peer.run": "peer",
  "peer.show": "peer",
  "peer.cancel": "peer",
  "peer.fence": "peer",
  "peer.warm": "peer",
  "peer.spare": "peer",
};

/** Who may have the events of a topic. All others come only to who has opened or begun something by a method. */
export const TOPIC_ACCESS: { readonly [Name in Topic]: AccessRole } = {
  guest: "observe",
  transfer: "observe",
};

/**
 * What a holder who belongs to a tenant may call, with the role it needs: what shows and changes nothing but the tenant's own. All else is of the host, or
 * of guests, which are not told apart by tenants yet.
 */
export const TENANT_METHODS: ReadonlySet<MethodName> = new Set([
  "image.list",
  "image.show",
  "image.verify",
  "image.remove",
]);

/** @throws ControlError `forbidden`, naming who lacks what. */
export function requireAccess(identity: Identity, method: MethodName): void {
  if (identity.tenant !== undefined && !TENANT_METHODS.has(method)) {
    throw new ControlError(
      "forbidden",
      `${method} is not for tenants; ${identity.name} belongs to the tenant ${identity.tenant}`,
    );
  }
  const role = METHOD_ACCESS[method];
  if (hasRole(identity, role)) return;
  throw new ControlError(
    "forbidden",
    `${method} needs the role ${role}; ${identity.name} has ${identity.roles.join(", ") || "none"}`,
  );
}

/** @throws ControlError `forbidden`, naming the topic. */
export function requireTopic(identity: Identity, topic: Topic): void {
  if (identity.tenant !== undefined)
    throw new ControlError("forbidden", `events of ${topic} are not for tenants, as ${identity.name} is one`);
  const role = TOPIC_ACCESS[topic];
  if (hasRole(identity, role)) return;
  throw new ControlError(
    "forbidden",
    `events of ${topic} need the role ${role}, which ${identity.name} lacks`,
  );
}
