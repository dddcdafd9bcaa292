import { DEFAULT_TENANT, tenantProblem } from "./access.js";

/** The longest name of a guest without its tenant. */
export const MAX_PLAIN_NAME_CHARACTERS = 63;

/** The longest name of a guest: a plain one, `@` and a tenant's. */
export const MAX_GUEST_NAME_CHARACTERS = 2 * 63 + 1;

const SEPARATOR = "@";

/** Also a host name and a directory name, hence the rule (RFC 1123, in lower case). */
const PLAIN_NAME = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

/**
 * What is wrong with a guest's name, as the end of a sentence that begins with it; undefined when nothing is. A guest's tenant is part of its name: `web@acme` is the guest `web` of the tenant acme, and `web` that of the tenant
 * `default`, which has no other name.
 */
export function guestNameProblem(name: string): string | undefined {
  const plain = plainNameOf(name);
  if (plain.length > MAX_PLAIN_NAME_CHARACTERS)
    return `must have at most ${MAX_PLAIN_NAME_CHARACTERS} characters`;
  if (!PLAIN_NAME.test(plain))
    return "must be made of lower-case letters, digits and dashes, with a letter or digit first and last";
  if (plain === name) return undefined;
  const tenant = name.slice(plain.length + SEPARATOR.length);
  if (tenant === DEFAULT_TENANT)
    return `must not name the tenant ${DEFAULT_TENANT}, whose guests have plain names: ${plain}`;
  const problem = tenantProblem(tenant);
  return problem === undefined ? undefined : `must name a tenant after the ${SEPARATOR}: ${problem}`;
}

/** Whose a guest of this name is. */
export function tenantOfGuest(name: string): string {
  const at = name.indexOf(SEPARATOR);
  return at === -1 ? DEFAULT_TENANT : name.slice(at + SEPARATOR.length);
}

/** What a guest of this name is called by its tenant. */
export function plainNameOf(name: string): string {
  const at = name.indexOf(SEPARATOR);
  return at === -1 ? name : name.slice(0, at);
}

/** The name of a tenant's guest. A name that says whose it is stays as it is. */
export function guestNameIn(tenant: string, name: string): string {
  return tenant === DEFAULT_TENANT || name.includes(SEPARATOR) ? name : `${name}${SEPARATOR}${tenant}`;
}
