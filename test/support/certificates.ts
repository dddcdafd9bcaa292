import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { realClock, silentLog, type AccessRole, type Clock, type Log } from "../../src/base/index.js";
import { Authority, CREDENTIAL_NAMES } from "../../src/cli/pki/authority.js";
import { Credentials, type CredentialFiles } from "../../src/lane/index.js";

/** With a list of revoked certificates. */
export type AllFiles = CredentialFiles & { revoked: string };

const LOOPBACK = ["127.0.0.1", "localhost"];
const PAST = { from: "20200101000000Z", until: "20210101000000Z" };

/** The four files of a directory that `ramet pki issue` has made. */
export function filesIn(directory: string): AllFiles {
  const at = (name: keyof typeof CREDENTIAL_NAMES): string => join(directory, CREDENTIAL_NAMES[name]);
  return {
    certificate: at("certificate"),
    key: at("key"),
    authority: at("authority"),
    revoked: at("revoked"),
  };
}

/** An authority in a directory of its own, which goes with the test file that made it. */
export class TestAuthority {
  readonly directory = mkdtempSync(join(tmpdir(), "ramet-pki-"));
  readonly #authority: Authority;

  constructor() {
    after(() => this.remove());
    const options = { name: "Tests", days: 30, clock: realClock };
    this.#authority = Authority.create(this.directory, options).authority;
  }

  /** The files of a holder, who is given a certificate when he has none. */
  files(
    name: string,
    options: { roles?: AccessRole[]; addresses?: string[]; expired?: boolean; renew?: boolean } = {},
  ): AllFiles {
    const { roles = ["peer"], addresses = LOOPBACK, expired = false, renew = false } = options;
    this.#authority.issue(
      { name, roles, addresses, days: 30, ...(expired ? { validity: PAST } : {}) },
      { renew },
    );
    return filesIn(this.#authority.directoryOf(name));
  }

  /** What a holder shows and trusts. */
  credentials(
    name: string,
    options: Parameters<TestAuthority["files"]>[1] & { clock?: Clock; log?: Log } = {},
  ): Credentials {
    const { clock = realClock, log = silentLog } = options;
    return Credentials.load(this.files(name, options), { clock, log });
  }

  revoke(name: string): void {
    this.#authority.revoke(name);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}
