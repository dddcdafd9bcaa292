/** A line of the index an authority of openssl's keeps (openssl-ca(1)). */
export interface IndexEntry {
  name: string;
  /** In capital hexadecimal digits. */
  serial: string;
  state: "valid" | "expired" | "revoked";
  expiresAtMs: number;
  revokedAtMs?: number;
}

const STATES: { [letter: string]: IndexEntry["state"] } = { V: "valid", E: "expired", R: "revoked" };

/** Reads an index: state, expiry, revocation (with its reason), serial number, file, subject, each ended by a tab. */
export function readIndex(text: string): IndexEntry[] {
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [letter = "", expires = "", revoked = "", serial = "", , subject = ""] = line.split("\t");
      return {
        name: /\/CN=([^/]+)/.exec(subject)?.[1] ?? subject,
        serial,
        state: STATES[letter] ?? "expired",
        expiresAtMs: timeOf(expires),
        ...(revoked === "" ? {} : { revokedAtMs: timeOf(revoked.split(",")[0] as string) }),
      };
    });
}

/** `YYMMDDHHMMSSZ`, or with four digits of the year from 2050 on (RFC 5280, 4.1.2.5). */
function timeOf(text: string): number {
  const full = text.length === 13 ? `${Number(text.slice(0, 2)) < 50 ? "20" : "19"}${text}` : text;
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(full)?.map(Number) ?? [];
  return Date.UTC(year ?? 0, (month ?? 1) - 1, day, hour, minute, second);
}
