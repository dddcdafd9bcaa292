import { DEFAULT_TENANT, hasRole, type AccessRole, type Identity } from "../base/index.js";
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
 * What a holder who belongs to a tenant may call, and the role it takes; `host` is what it may not, because it is of the host, or of all that are on it. Here no more than `operate` is needed: the paths for which others
 * need `admin` a tenant does not name. What such a call sees and changes is the tenant's own; the agent has a rule for each.
 */
export const TENANT_ACCESS = {
  "agent.info": "host",
  "agent.audit": "host",
  "agent.reload": "host",
  "agent.offer": "host",
  "agent.leave": "host",
  "events.subscribe": "observe",
  "guest.run": "operate",
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
  "guest.remove": "operate",
  "guest.logs": "operate",
  "guest.console.open": "operate",
  "guest.console.input": "operate",
  "guest.console.close": "operate",
  "guest.warm": "host",
  "guest.fork": "operate",
  "guest.migrate": "host",
  "guest.rollback": "host",
  "emulator.list": "observe",
  "exchange.start": "host",
  "exchange.show": "observe",
  "exchange.stop": "host",
  "image.import": "host",
  "image.list": "observe",
  "image.show": "observe",
  "image.verify": "operate",
  "image.remove": "operate",
  "image.stored": "host",
  "image.prune": "host",
  "image.pull": "host",
  "disk.list": "observe",
  "disk.chain": "observe",
  "disk.loans": "observe",
  "disk.release": "host",
  "disk.flatten": "operate",
  "disk.commit": "operate",
  "disk.adopt": "host",
  "transfer.list": "observe",
  "transfer.show": "observe",
  "transfer.cancel": "operate",
  "transfer.sweep": "operate",
  "transfer.steer": "operate",
  "transfer.run": "operate",
  "peer.list": "observe",
  "peer.ping": "host",
  "peer.info": "host",
  "peer.findImage": "host",
  "peer.openImage": "host",
  "peer.closeBlocks": "host",
  "peer.openLayer": "host",
  "peer.returnLayer": "host",
  "peer.prepare": "host",
  "peer.putFile": "host",
  "peer.lacks": "host",
  "peer.ahead": "host",
  "peer.relayTo": "host",
  "peer.relayFrom": "host",
  "peer.start": "host",
  "peer.run": "host",
  "peer.show": "host",
  "peer.cancel": "host",
  "peer.fence": "host",
  "peer.warm": "host",
  "peer.spare": "host",
} as const satisfies { readonly [Name in MethodName]: AccessRole | "host" };

/** The methods that a tenant's holder may call. */
export type TenantMethod = {
  [Name in MethodName]: (typeof TENANT_ACCESS)[Name] extends "host" ? never : Name;
}[MethodName];

/** Whether a tenant's holder may call a method, when it has the role. */
export function isForTenants(method: MethodName): method is TenantMethod {
  return TENANT_ACCESS[method] !== "host";
}

/** @throws ControlError `forbidden`, naming who lacks what. */
export function requireAccess(identity: Identity, method: MethodName): void {
  const role = roleFor(identity, method);
  if (role === "host") {
    throw new ControlError(
      "forbidden",
      `${method} is not for tenants; ${identity.name} belongs to the tenant ${identity.tenant}`,
    );
  }
  if (hasRole(identity, role)) return;
  throw new ControlError(
    "forbidden",
    `${method} needs the role ${role}; ${identity.name} has ${identity.roles.join(", ") || "none"}`,
  );
}

function roleFor({ tenant }: Identity, method: MethodName): AccessRole | "host" {
  if (tenant === undefined) return METHOD_ACCESS[method];
  const role = TENANT_ACCESS[method];
  // The guests of that tenant are those of whoever runs the host: no less is needed for them than of anybody else.
  return tenant === DEFAULT_TENANT && role !== "host" ? METHOD_ACCESS[method] : role;
}

/** @throws ControlError `forbidden`, naming the topic. A tenant's holder is told of its own guests. */
export function requireTopic(identity: Identity, topic: Topic): void {
  const role = TOPIC_ACCESS[topic];
  if (hasRole(identity, role)) return;
  throw new ControlError(
    "forbidden",
    `events of ${topic} need the role ${role}, which ${identity.name} lacks`,
  );
}
