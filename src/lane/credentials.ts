import { constants, createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { messageOf, type Clock, type Identity, type Log, type Timer } from "../base/index.js";
import { endsAtMs, identityOf, subjectOf } from "./certificate.js";
import type { ConnectionEnd } from "./end.js";
import { LaneError } from "./errors.js";
import { CREDENTIALS_POLL_MS } from "./limits.js";
import { RevokedSerials, splitLists } from "./revocation.js";

/** Where what a side shows and what it trusts lie, in PEM. */
export interface CredentialFiles {
  /** Its own certificate, followed by those between it and the authority where there are such. */
  certificate: string;
  /** The private key of the certificate, readable by its owner only. */
  key: string;
  /** The certificates of the authorities whose holders are let in. */
  authority: string;
  /** The authorities' lists of revoked certificates; with it, every authority in a chain must have one that is not out of date. */
  revoked?: string | undefined;
}

/** A connection that lasts only as long as the other side's certificate. */
export interface Holding {
  certificate: X509Certificate;
  end(end: ConnectionEnd): void;
}

interface Loaded {
  options: SecureContextOptions;
  context: SecureContext;
  certificate: X509Certificate;
  identity: Identity;
  revoked: RevokedSerials;
}

const EXPIRY_WARNING_MS = 30 * 24 * 3600 * 1000;

/**
 * What a side shows of itself and whom it trusts, for TLS. The files are looked at every few seconds: a renewed certificate or a longer list of
 * revoked ones counts from then on, and connections whose certificate is revoked or has expired are ended. When new files cannot
 * be used (a certificate is there and its key not yet) the former ones stay in force.
 */
export class Credentials {
  readonly #files: CredentialFiles;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #holdings = new Set<Holding>();
  readonly #listeners = new Set<() => void>();
  #loaded: Loaded;
  #stamp: string;
  #timer: Timer | undefined;

  private constructor(files: CredentialFiles, options: { clock: Clock; log: Log }) {
    this.#files = files;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#stamp = stampOf(files);
    this.#loaded = load(files);
    this.#warnOfExpiry();
  }

  /** @throws LaneError `bad-credentials`, naming the file and what is wrong with it. */
  static load(files: CredentialFiles, options: { clock: Clock; log: Log }): Credentials {
    return new Credentials(files, options);
  }

  /** Who this side is to the others. */
  get identity(): Identity {
    return this.#loaded.identity;
  }

  /** When this side's own certificate ends, in milliseconds since 1970. */
  get endsAtMs(): number {
    return endsAtMs(this.#loaded.certificate);
  }

  /** What a server is made with. */
  get options(): SecureContextOptions {
    return this.#loaded.options;
  }

  /** What a client dials with. */
  get context(): SecureContext {
    return this.#loaded.context;
  }

  /** Looks at the files from now on, until `close`. */
  watch(): void {
    this.#timer = this.#clock.after(CREDENTIALS_POLL_MS, () => {
      this.#poll();
      this.watch();
    });
  }

  /** Reads the files again now. @throws LaneError `bad-credentials`; the former ones stay in force then. */
  reload(): void {
    this.#stamp = stampOf(this.#files);
    this.#loaded = load(this.#files);
    this.#warnOfExpiry();
    this.#log.info(
      {
        subject: this.#loaded.identity.name,
        endsAt: this.#loaded.certificate.validTo,
        revoked: this.#loaded.revoked.count,
      },
      "certificates were read again",
    );
    for (const listener of this.#listeners) listener();
    this.#review();
  }

  /** Calls `listener` whenever the files were read again. Returns what ends that. */
  onReload(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Ends a connection when its certificate is revoked or expires. Returns what ends that. */
  hold(holding: Holding): () => void {
    this.#holdings.add(holding);
    return () => this.#holdings.delete(holding);
  }

  /** Whether a certificate that is right otherwise is on the list. */
  isRevoked(certificate: X509Certificate): boolean {
    return this.#loaded.revoked.has(certificate);
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#listeners.clear();
    this.#holdings.clear();
  }

  #poll(): void {
    if (stampOf(this.#files) === this.#stamp) return this.#review();
    try {
      this.reload();
    } catch (error) {
      this.#log.error(
        { problem: messageOf(error) },
        "changed certificates cannot be used; the former ones stay in force",
      );
      this.#review();
    }
  }

  #review(): void {
    for (const holding of [...this.#holdings]) {
      const { certificate } = holding;
      const revoked = this.isRevoked(certificate);
      if (!revoked && endsAtMs(certificate) > this.#clock.wallMs()) continue;
      this.#holdings.delete(holding);
      const subject = subjectOf(certificate);
      this.#log.warn(
        { subject, serial: certificate.serialNumber, revoked },
        "a connection's certificate is no longer good",
      );
      holding.end(
        revoked
          ? {
              code: "certificate-revoked",
              message: `the certificate of ${subject} was revoked`,
              fatal: false,
            }
          : {
              code: "certificate-expired",
              message: `the certificate of ${subject} has expired`,
              fatal: false,
            },
      );
    }
  }

  #warnOfExpiry(): void {
    const leftMs = this.endsAtMs - this.#clock.wallMs();
    if (leftMs > EXPIRY_WARNING_MS) return;
    const line = {
      subject: this.identity.name,
      endsAt: this.#loaded.certificate.validTo,
      file: this.#files.certificate,
    };
    if (leftMs <= 0)
      this.#log.error(line, "this side's certificate has expired: nobody lets it in; renew it");
    else this.#log.warn(line, "this side's certificate expires soon; renew it");
  }
}

function load(files: CredentialFiles): Loaded {
  const certificatePem = readPem("certificate", files.certificate);
  const keyPem = readPem("key", files.key, { secret: true });
  const authorityPem = readPem("authority", files.authority);
  const crl =
    files.revoked === undefined
      ? undefined
      : read("revoked", files.revoked, () => splitLists(readFileSync(files.revoked as string, "utf8")));
  const certificate = read("certificate", files.certificate, () => new X509Certificate(certificatePem));
  read("authority", files.authority, () => new X509Certificate(authorityPem));
  const key = read("key", files.key, () => createPrivateKey(keyPem));
  if (!certificate.checkPrivateKey(key))
    throw badFile("key", files.key, `it is not the key of the certificate ${files.certificate}`);
  const options: SecureContextOptions = {
    cert: certificatePem,
    key: keyPem,
    ca: authorityPem,
    ...(crl === undefined ? {} : { crl }),
    minVersion: "TLSv1.3",
    // No session is ever taken up again: who comes back is looked at anew.
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
  const context = read("certificate", files.certificate, () => createSecureContext(options));
  const revoked =
    crl === undefined
      ? RevokedSerials.none
      : read("revoked", files.revoked as string, () => RevokedSerials.fromPem(crl));
  return { options, context, certificate, identity: identityOf(certificate), revoked };
}

type Field = "certificate" | "key" | "authority" | "revoked";

function readPem(field: Field, path: string, options: { secret?: boolean } = {}): string {
  return read(field, path, () => {
    if (options.secret === true && (statSync(path).mode & 0o077) !== 0)
      throw new LaneError(
        "bad-credentials",
        `it can be read by others than its owner; run: chmod 600 ${path}`,
      );
    return readFileSync(path, "utf8");
  });
}

/** Does something with a file; what goes wrong names the file. */
function read<T>(field: Field, path: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw badFile(field, path, messageOf(error));
  }
}

function badFile(field: Field, path: string, problem: string): LaneError {
  return new LaneError("bad-credentials", `the file for ${field}, ${path}, cannot be used: ${problem}`);
}

/** Changes whenever one of the files does. */
function stampOf(files: CredentialFiles): string {
  const paths = [files.certificate, files.key, files.authority, files.revoked];
  return paths
    .map((path) => {
      const stat = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
      return stat === undefined ? "none" : `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
    })
    .join("; ");
}
