import type { X509Certificate } from "node:crypto";
import { DER, derChildren, derValues, type DerValue } from "./der.js";
import { LaneError } from "./errors.js";

/**
 * The serial numbers that certificate revocation lists name, by issuer. OpenSSL checks lists when a connection is made; this is for
 * connections that are open when a list is renewed. Signatures are not looked at here: lists come from files the agent's operator owns.
 */
export class RevokedSerials {
  readonly #entries: ReadonlySet<string>;

  private constructor(entries: ReadonlySet<string>) {
    this.#entries = entries;
  }

  static readonly none = new RevokedSerials(new Set());

  /** @throws LaneError `bad-credentials` when one of the lists is none. */
  static fromPem(lists: readonly string[]): RevokedSerials {
    return new RevokedSerials(new Set(lists.flatMap((list) => entriesOf(list))));
  }

  get count(): number {
    return this.#entries.size;
  }

  has(certificate: X509Certificate): boolean {
    if (this.#entries.size === 0) return false;
    const [body] = derChildren(derValues(certificate.raw)[0], DER.sequence);
    const fields = derChildren(body, DER.sequence).filter(({ tag }) => tag !== VERSION_TAG);
    // RFC 5280, 4.1: [0] version, serialNumber, signature, issuer, …
    const [serial, , issuer] = fields;
    return serial !== undefined && issuer !== undefined && this.#entries.has(entry(issuer, serial));
  }
}

const VERSION_TAG = 0xa0;
const PEM_BLOCK = /-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]*)-----END X509 CRL-----/g;

/** The lists of a PEM file, one by one, as Node takes them. @throws LaneError `bad-credentials` when there is none. */
export function splitLists(pem: string): string[] {
  const lists = [...pem.matchAll(PEM_BLOCK)].map(([block]) => block);
  if (lists.length > 0) return lists;
  throw new LaneError("bad-credentials", "it has no revocation list in PEM (-----BEGIN X509 CRL-----)");
}

/** RFC 5280, 5.1: version (optional), signature, issuer, thisUpdate, nextUpdate (optional), revokedCertificates (optional), [0] extensions. */
function entriesOf(list: string): string[] {
  const base64 = list.replace(PEM_BLOCK, "$1");
  const [body] = derChildren(derValues(Buffer.from(base64, "base64"))[0], DER.sequence);
  const fields = derChildren(body, DER.sequence);
  if (fields[0]?.tag === DER.integer) fields.shift();
  const [, issuer, , ...rest] = fields;
  if (rest[0]?.tag === DER.utcTime || rest[0]?.tag === DER.generalizedTime) rest.shift();
  const [revoked] = rest;
  if (issuer === undefined || revoked?.tag !== DER.sequence) return [];
  return derValues(revoked.content).map((one) => {
    const [serial] = derChildren(one, DER.sequence);
    if (serial === undefined)
      throw new LaneError("bad-credentials", "a revocation list has an entry without a serial number");
    return entry(issuer, serial);
  });
}

function entry(issuer: DerValue, serial: DerValue): string {
  return `${issuer.bytes.toString("base64")} ${serial.content.toString("hex")}`;
}
