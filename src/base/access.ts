/**
 * What a certificate allows its holder. `observe`, `operate` and `admin` are for people and tools, each with what the one before has; `peer` is for
 * agents, stands beside them and gives none of them.
 */
export const ACCESS_ROLES = ["observe", "operate", "admin", "peer"] as const;
export type AccessRole = (typeof ACCESS_ROLES)[number];

/** Who is at the other end of a connection. */
export interface Identity {
  /** Shown by a certificate, by the pre-shared key of plain connections, or by being let at the unix socket. */
  readonly kind: "certificate" | "key" | "local";
  /** A certificate's subject, all of it: two connections are of one holder when this and `kind` are equal. */
  readonly name: string;
  readonly roles: readonly AccessRole[];
  /** Whose things this holder may see and change, and nobody else's; without it, anybody's. */
  readonly tenant?: string | undefined;
}

/** What belongs to nobody in particular belongs to this tenant: that of whoever runs the host. */
export const DEFAULT_TENANT = "default";

/** In lower case only, because tenants name files too. */
export const TENANT_PATTERN = /^[a-z0-9][a-z0-9._-]{0,62}$/;

/** What is wrong with a tenant's name, as a sentence; undefined when nothing is. */
export function tenantProblem(name: string): string | undefined {
  if (TENANT_PATTERN.test(name)) return undefined;
  return `"${name}" cannot name a tenant: a name has 1 to 63 lower-case letters, digits, dots, dashes or underscores, and begins with a letter or digit`;
}

/** Who somebody is, without what he may do: this lasts, and is kept in files. */
export type Holder = Pick<Identity, "kind" | "name">;

/** Whoever may open the agent's unix socket. */
export const LOCAL_IDENTITY: Identity = {
  kind: "local",
  name: "a user of the unix socket",
  roles: ["admin", "peer"],
};

/** Whoever has the pre-shared key of plain connections. */
export const KEY_IDENTITY: Identity = {
  kind: "key",
  name: "a holder of the pre-shared key",
  roles: ["admin", "peer"],
};

const LADDER: readonly AccessRole[] = ["observe", "operate", "admin"];

/** Whether somebody has a role, or one that includes it. */
export function hasRole(identity: Identity, role: AccessRole): boolean {
  if (role === "peer") return identity.roles.includes("peer");
  return identity.roles.some((held) => held !== "peer" && LADDER.indexOf(held) >= LADDER.indexOf(role));
}

/** Whether two connections are of the same holder. */
export function isSame(one: Holder, other: Holder): boolean {
  return one.kind === other.kind && one.name === other.name;
}
