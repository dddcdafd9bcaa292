import type { Log } from "../../base/index.js";
import type { AuditEntry } from "../../control/index.js";
import { AuditLog } from "./audit-log.js";

/**
 * The log of those who run the host, and one of all tenants' holders beside it: a log has a bound, and whoever may only be refused could otherwise have everybody's lines rotated away.
 * Never throws, as `AuditLog`.
 */
export class AuditLogs {
  readonly #host: AuditLog;
  readonly #tenants: AuditLog;

  /** @param path of the first; the other is beside it. */
  constructor(path: string, log: Log) {
    this.#host = new AuditLog(path, log);
    this.#tenants = new AuditLog(`${path}-tenants`, log);
  }

  append(entry: AuditEntry, tenant: string | undefined): void {
    (tenant === undefined ? this.#host : this.#tenants).append(entry);
  }

  /** The last entries of both, the oldest of them first. */
  last(count: number): AuditEntry[] {
    const all = [...this.#host.last(count), ...this.#tenants.last(count)];
    return all.sort((one, other) => Date.parse(one.at) - Date.parse(other.at)).slice(-count);
  }
}
