import { X509Certificate } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { isIP } from "node:net";
import { join } from "node:path";
import type { AccessRole, Clock } from "../../base/index.js";
import { rolesOf, tenantOf } from "../../lane/index.js";
import { CliError } from "../errors.js";
import { readIndex, type IndexEntry } from "./index-file.js";
import { whileLocked } from "./lock.js";
import { openssl } from "./openssl.js";

/** The files of a directory of credentials, as the agent and the command line take them. */
export const CREDENTIAL_NAMES = {
  certificate: "certificate.pem",
  key: "key.pem",
  authority: "authority.pem",
  revoked: "revoked.pem",
} as const;

export const NAME_RULE = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$/;

const CONFIGURATION = `# Written by ramet pki init.
[ca]
default_ca = ramet
[ramet]
database = index.txt
new_certs_dir = certificates
certificate = authority.pem
private_key = authority-key.pem
crlnumber = crlnumber
rand_serial = yes
unique_subject = no
default_md = sha256
default_crl_days = 3650
crl_extensions = list
policy = subject
copy_extensions = none
[subject]
organizationName = optional
commonName = supplied
[list]
authorityKeyIdentifier = keyid
[req]
distinguished_name = empty
prompt = no
[empty]
[authority]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
`;

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/** What a certificate is to say. */
export interface Wanted {
  name: string;
  roles: readonly AccessRole[];
  /** Whose things alone the holder sees and changes. */
  tenant?: string | undefined;
  /** Host names and IP addresses under which the holder is dialled. */
  addresses: readonly string[];
  days: number;
  /** In place of `days`, as `YYYYMMDDHHMMSSZ`. */
  validity?: { from: string; until: string };
}

/** A certificate the authority has issued. */
export interface Issued extends IndexEntry {
  roles: AccessRole[];
  tenant?: string;
  addresses: string[];
}

/**
 * A certificate authority in a directory, run by the program openssl.
 *
 *     authority.pem, authority-key.pem   its certificate and key
 *     revoked.pem                        its list of revoked certificates
 *     certificates/SERIAL.pem            all it has issued; index.txt says what became of them
 *     issued/NAME/                       what the holder NAME needs: certificate.pem, key.pem, authority.pem, revoked.pem
 */
export class Authority {
  readonly directory: string;
  readonly #clock: Clock;

  private constructor(directory: string, clock: Clock) {
    this.directory = directory;
    this.#clock = clock;
  }

  /** @throws CliError `failed` when there is none. */
  static open(directory: string, clock: Clock): Authority {
    if (existsSync(join(directory, "authority.pem"))) return new Authority(directory, clock);
    throw new CliError("failed", `there is no authority in ${directory}`, {
      hint: `make one with: ramet pki init --directory ${directory}`,
    });
  }

  /** Makes an authority where there is none. Its certificate is the last thing that comes to be, so a half-made one is made again. */
  static create(
    directory: string,
    options: { name: string; days: number; clock: Clock },
  ): { authority: Authority; created: boolean } {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return whileLocked(directory, () => {
      const authority = new Authority(directory, options.clock);
      if (existsSync(join(directory, "authority.pem"))) return { authority, created: false };
      chmodSync(directory, 0o700);
      for (const inner of ["certificates", "issued"]) {
        mkdirSync(join(directory, inner), { recursive: true, mode: 0o700 });
      }
      authority.#write("openssl.cnf", CONFIGURATION);
      authority.#write("index.txt", "");
      authority.#write("crlnumber", "01\n");
      authority.#openssl(
        ...["req", "-x509", "-config", "openssl.cnf", "-extensions", "authority", ...NEW_KEY],
        ...["-keyout", "authority-key.pem", "-out", "authority.pem.new", "-sha256"],
        ...["-days", String(options.days), "-subj", `/O=Ramet/CN=${options.name}`],
      );
      renameSync(join(directory, "authority.pem.new"), join(directory, "authority.pem"));
      authority.#writeList();
      return { authority, created: true };
    });
  }

  /** Where the files of a holder lie. */
  directoryOf(name: string): string {
    return join(this.directory, "issued", name);
  }

  /**
   * Issues a certificate with a new key.
   * @throws CliError `failed` when the name has one that is good and `renew` is not set.
   */
  issue(wanted: Wanted, options: { renew: boolean }): { issued: Issued; created: boolean } {
    return whileLocked(this.directory, () => {
      const former = this.list().find(({ name, state }) => name === wanted.name && state === "valid");
      if (former !== undefined && !options.renew) {
        if (isSameAs(former, wanted)) return { issued: former, created: false };
        throw new CliError(
          "failed",
          `${wanted.name} has a certificate already, with other roles, addresses or another tenant`,
          {
            hint: "issue another with --renew, and revoke the former by its serial number: ramet pki list",
          },
        );
      }
      this.#issue(wanted);
      const issued = this.list().findLast(({ name }) => name === wanted.name);
      if (issued === undefined)
        throw new CliError("failed", `openssl did not record the certificate of ${wanted.name}`);
      return { issued, created: true };
    });
  }

  /**
   * Revokes every certificate of a name, or the one of a serial number, and writes the list anew.
   * @returns those revoked now; none when they were before.
   * @throws CliError `failed` when there is no such certificate.
   */
  revoke(nameOrSerial: string): Issued[] {
    return whileLocked(this.directory, () => {
      const serial = nameOrSerial.replaceAll(":", "").toUpperCase();
      const meant = this.list().filter((one) => one.name === nameOrSerial || one.serial === serial);
      if (meant.length === 0) {
        throw new CliError(
          "failed",
          `the authority has issued no certificate to or with the number ${nameOrSerial}`,
          {
            hint: "ramet pki list shows all it has issued",
          },
        );
      }
      const revoking = meant.filter(({ state }) => state !== "revoked");
      for (const one of revoking) {
        this.#openssl("ca", "-config", "openssl.cnf", "-revoke", join("certificates", `${one.serial}.pem`));
      }
      this.#writeList();
      return revoking;
    });
  }

  /** Every certificate issued, in the order of issue. */
  list(): Issued[] {
    const entries = readIndex(readFileSync(join(this.directory, "index.txt"), "utf8"));
    return entries.map((entry) => {
      const path = join(this.directory, "certificates", `${entry.serial}.pem`);
      const certificate = existsSync(path) ? new X509Certificate(readFileSync(path)) : undefined;
      const tenant = certificate === undefined ? undefined : tenantOf(certificate);
      const over = entry.state === "valid" && entry.expiresAtMs <= this.#clock.wallMs();
      return {
        ...entry,
        state: over ? "expired" : entry.state,
        roles: certificate === undefined ? [] : rolesOf(certificate),
        ...(tenant === undefined ? {} : { tenant }),
        addresses: certificate === undefined ? [] : addressesOf(certificate),
      };
    });
  }

  #issue(wanted: Wanted): void {
    const work = mkdtempSync(join(this.directory, "issued", ".new-"));
    try {
      writeFileSync(join(work, "extensions"), extensionsOf(wanted), { mode: 0o600 });
      const { certificate, key } = CREDENTIAL_NAMES;
      this.#openssl(
        ...["req", "-new", "-config", "openssl.cnf", ...NEW_KEY, "-keyout", join(work, key)],
        ...["-out", join(work, "request"), "-subj", `/O=Ramet/CN=${wanted.name}`],
      );
      const { validity } = wanted;
      this.#openssl(
        ...["ca", "-batch", "-notext", "-config", "openssl.cnf", "-extfile", join(work, "extensions")],
        ...(validity === undefined
          ? ["-days", String(wanted.days)]
          : ["-startdate", validity.from, "-enddate", validity.until]),
        ...["-in", join(work, "request"), "-out", join(work, certificate)],
      );
      this.#place(work, wanted.name);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }

  /** Key and certificate are replaced one after the other; an agent that sees one without the other keeps what it had. */
  #place(work: string, name: string): void {
    const target = this.directoryOf(name);
    mkdirSync(target, { recursive: true, mode: 0o700 });
    for (const file of [CREDENTIAL_NAMES.key, CREDENTIAL_NAMES.certificate]) {
      chmodSync(join(work, file), 0o600);
      renameSync(join(work, file), join(target, file));
    }
    this.#replace(join(this.directory, "authority.pem"), join(target, CREDENTIAL_NAMES.authority));
    this.#replace(join(this.directory, "revoked.pem"), join(target, CREDENTIAL_NAMES.revoked));
  }

  /** Makes the list of revoked certificates, and gives it to everybody who has files here. */
  #writeList(): void {
    this.#openssl("ca", "-config", "openssl.cnf", "-gencrl", "-out", "revoked.pem.new");
    const list = join(this.directory, "revoked.pem");
    renameSync(`${list}.new`, list);
    for (const name of readdirSync(join(this.directory, "issued"))) {
      if (!name.startsWith(".")) this.#replace(list, join(this.directoryOf(name), CREDENTIAL_NAMES.revoked));
    }
  }

  #replace(from: string, to: string): void {
    copyFileSync(from, `${to}.new`);
    chmodSync(`${to}.new`, 0o600);
    renameSync(`${to}.new`, to);
  }

  #write(name: string, text: string): void {
    writeFileSync(join(this.directory, name), text, { mode: 0o600 });
  }

  #openssl(...args: string[]): void {
    openssl(this.directory, ...args);
  }
}

/** Agents are dialled and dial; everybody else only dials. */
function extensionsOf({ roles, tenant, addresses }: Wanted): string {
  const uses = roles.includes("peer") ? "serverAuth,clientAuth" : "clientAuth";
  const uris = [
    ...roles.map((role) => `ramet:role:${role}`),
    ...(tenant === undefined ? [] : [`ramet:tenant:${tenant}`]),
  ];
  const names = [
    ...uris.map((uri, index) => `URI.${index + 1} = ${uri}`),
    ...addresses.map((address, index) => `${isIP(address) === 0 ? "DNS" : "IP"}.${index + 1} = ${address}`),
  ];
  return [
    "basicConstraints = critical,CA:false",
    "keyUsage = critical,digitalSignature",
    `extendedKeyUsage = ${uses}`,
    "subjectKeyIdentifier = hash",
    "authorityKeyIdentifier = keyid",
    "subjectAltName = @names",
    "[names]",
    ...names,
    "",
  ].join("\n");
}

function addressesOf(certificate: X509Certificate): string[] {
  return [...(certificate.subjectAltName ?? "").matchAll(/(?:DNS|IP Address):([^,]+)/g)].map(
    ([, address = ""]) => address,
  );
}

/** A name with an IPv6 address is never the same, since those have many spellings: it costs a needless `--renew`, no more. */
function isSameAs(former: Issued, wanted: Wanted): boolean {
  const sorted = (texts: readonly string[]): string => [...texts].sort().join(" ");
  return (
    former.tenant === wanted.tenant &&
    sorted(former.roles) === sorted(wanted.roles) &&
    sorted(former.addresses) === sorted(wanted.addresses)
  );
}
