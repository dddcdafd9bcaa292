import type { X509Certificate } from "node:crypto";
import { ACCESS_ROLES, TENANT_PATTERN, type AccessRole, type Identity } from "../base/index.js";
import { LaneError } from "./errors.js";

/** A role in a certificate: a subject alternative name of the kind URI (RFC 5280, 4.2.1.6), once for each role. */
const ROLE_URI = /^ramet:role:([a-z]+)$/;

/** The tenant a holder belongs to, in the same place; at most once. */
const TENANT_URI = /^ramet:tenant:(.*)$/;

/** One name as Node writes it: quoted as JSON when it holds anything that could be taken for a separator. */
const ALTERNATIVE_NAME = /(?:^|, )([A-Za-z0-9 ]+):("(?:[^"\\]|\\.)*"|[^,"]*)/gy;

/**
 * Who holds a certificate that was found right.
 * @throws LaneError `certificate-role` when it has no subject to be known by.
 */
export function identityOf(certificate: X509Certificate): Identity {
  const name = subjectOf(certificate);
  if (name === "") {
    throw new LaneError(
      "certificate-role",
      `the certificate ${certificate.serialNumber} has no subject: nobody could be told by it`,
    );
  }
  const tenant = tenantOf(certificate);
  const identity: Identity = { kind: "certificate", name, roles: rolesOf(certificate) };
  return tenant === undefined ? identity : { ...identity, tenant };
}

/**
 * The tenant a certificate names; undefined when it names none.
 * @throws LaneError `certificate-role` when what it names is no tenant, or more than one: taken for none, it would give more than it should.
 */
export function tenantOf(certificate: X509Certificate): string | undefined {
  const named = uniformResourceIdentifiers(certificate)
    .filter((uri) => /^ramet:tenant/i.test(uri))
    .map((uri) => TENANT_URI.exec(uri)?.[1] ?? "");
  const [tenant] = named;
  if (tenant === undefined) return undefined;
  if (named.length === 1 && TENANT_PATTERN.test(tenant)) return tenant;
  throw new LaneError(
    "certificate-role",
    `the certificate ${certificate.serialNumber} names ${named.length === 1 ? "no tenant" : "more than one tenant"} where it names a tenant`,
  );
}

/** The subject on one line, such as `O=Ramet, CN=hosta`. */
export function subjectOf(certificate: X509Certificate): string {
  return (certificate.subject ?? "").split("\n").join(", ");
}

/** The roles a certificate names; texts that are no role of this version are left out. */
export function rolesOf(certificate: X509Certificate): AccessRole[] {
  const named = uniformResourceIdentifiers(certificate).map((uri) => ROLE_URI.exec(uri)?.[1]);
  return ACCESS_ROLES.filter((role) => named.includes(role));
}

function uniformResourceIdentifiers(certificate: X509Certificate): string[] {
  const names = certificate.subjectAltName ?? "";
  const found = [...names.matchAll(ALTERNATIVE_NAME)];
  // What stands behind one that cannot be read may be the tenant that the holder is bound to.
  if (found.reduce((sum, [all]) => sum + all.length, 0) !== names.length)
    throw new LaneError(
      "certificate-role",
      `the certificate ${certificate.serialNumber} has alternative names that cannot be read`,
    );
  return found
    .filter(([, kind]) => kind === "URI")
    .map(([, , text = ""]) => (text.startsWith('"') ? String(JSON.parse(text)) : text));
}

/** When a certificate ends, in milliseconds since 1970. */
export function endsAtMs(certificate: X509Certificate): number {
  return Date.parse(certificate.validTo);
}
