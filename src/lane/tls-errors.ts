import type { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { codeOf, messageOf, type Identity } from "../base/index.js";
import { identityOf, subjectOf } from "./certificate.js";
import type { Credentials } from "./credentials.js";
import { LaneError, type LaneErrorCode } from "./errors.js";

/** Who is at the other end of a TLS connection, and what he has shown. */
export interface Shown {
  certificate: X509Certificate;
  identity: Identity;
}

/** What OpenSSL finds wrong with a certificate (X509_V_ERR_… as Node names it), and what it is called here. */
const FINDINGS: { [finding: string]: { code: LaneErrorCode; says: string } } = {
  CERT_HAS_EXPIRED: { code: "certificate-expired", says: "has expired" },
  CERT_NOT_YET_VALID: {
    code: "certificate-expired",
    says: "is not valid yet; compare the two machines' clocks",
  },
  CERT_REVOKED: { code: "certificate-revoked", says: "was revoked" },
  UNABLE_TO_GET_CRL: {
    code: "certificate-untrusted",
    says: "is not of an authority that is trusted, or of one without a list of revoked certificates here",
  },
  CRL_HAS_EXPIRED: {
    code: "certificate-untrusted",
    says: "cannot be checked, because the list of revoked certificates is out of date",
  },
  INVALID_PURPOSE: { code: "certificate-untrusted", says: "is not for this use (extended key usage)" },
};

const UNTRUSTED = { code: "certificate-untrusted", says: "is not of an authority that is trusted" } as const;

/** The end of the sentence that begins with whose certificate it is. */
function describe(finding: string): { code: LaneErrorCode; says: string } {
  const known = Object.hasOwn(FINDINGS, finding) ? FINDINGS[finding] : undefined;
  return known ?? { code: UNTRUSTED.code, says: `${UNTRUSTED.says} (${finding})` };
}

/**
 * Who has connected, as far as his certificate was found right.
 * @throws LaneError with what is wrong with it, to be told to him.
 */
export function requireTrusted(socket: TLSSocket, credentials: Credentials): Shown {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) {
    throw new LaneError("certificate-missing", "this agent asks for a certificate, and none was shown");
  }
  const whose = `the certificate of ${subjectOf(certificate)}`;
  if (!socket.authorized) {
    const { code, says } = describe(String(socket.authorizationError));
    throw new LaneError(code, `${whose} ${says}`);
  }
  if (socket.isSessionReused()) throw new LaneError("tls-failed", "TLS sessions are not taken up again here");
  if (credentials.isRevoked(certificate)) throw new LaneError("certificate-revoked", `${whose} was revoked`);
  return { certificate, identity: identityOf(certificate) };
}

/** What is wrong when a TLS connection that was dialled could not be made; undefined for errors of the network. */
export function dialProblem(url: string, error: Error): LaneError | undefined {
  const code = codeOf(error);
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return new LaneError(
      "certificate-name",
      `${url}: the agent's certificate is for another host: ${reasonOf(error)}`,
    );
  }
  if (code.startsWith("ERR_SSL_") || code === "EPROTO" || code.startsWith("ERR_TLS_")) {
    return new LaneError("tls-failed", `${url} does not speak TLS 1.3 as an agent does: ${messageOf(error)}`);
  }
  if (!/^[A-Z_]+$/.test(code) || /^(E[A-Z]+|EAI_[A-Z]+)$/.test(code)) return undefined;
  const { code: laneCode, says } = describe(code);
  return new LaneError(laneCode, `${url}: the agent's certificate ${says}`);
}

/** @throws LaneError `certificate-expired` when this side's own certificate has ended: nobody would let it in. */
export function requireNotExpired(credentials: Credentials, wallMs: number): void {
  if (credentials.endsAtMs > wallMs) return;
  const ended = new Date(credentials.endsAtMs).toISOString();
  throw new LaneError(
    "certificate-expired",
    `the certificate shown by this side, of ${credentials.identity.name}, has expired on ${ended}`,
  );
}

function reasonOf(error: Error): string {
  return "reason" in error && typeof error.reason === "string" ? error.reason : error.message;
}
