import { guestNameIn, tenantOfGuest, type Identity } from "../../base/index.js";
import { noSuchGuest } from "../guests/names.js";

/** Whether somebody may know of a guest: the holder of a tenant's certificate knows of that tenant's. */
export function isShownTo({ tenant }: Identity, guest: string): boolean {
  return tenant === undefined || tenantOfGuest(guest) === tenant;
}

/**
 * The whole name of the guest that a tenant's holder means.
 * @throws AgentError `no-such-guest` for another tenant's, before it is looked whether there is one.
 */
export function ownName(tenant: string, name: string): string {
  const whole = guestNameIn(tenant, name);
  if (tenantOfGuest(whole) !== tenant) throw noSuchGuest(name);
  return whole;
}

/** Those of a list that are a tenant's. */
export function ownOf<Item>(tenant: string, items: readonly Item[], nameOf: (item: Item) => string): Item[] {
  return items.filter((item) => tenantOfGuest(nameOf(item)) === tenant);
}
