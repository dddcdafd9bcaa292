import { appendFileSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { codeOf, messageOf, type Log } from "../../base/index.js";
import type { AuditEntry } from "../../control/index.js";

/** Most bytes of one file, and how many are kept: the one that is written and those before it. */
export const MAX_AUDIT_BYTES = 4 * 1024 * 1024;
export const AUDIT_FILES = 5;

/**
 * Who commanded what, and how it went, as JSON lines in `audit.log`; when that is full it becomes `audit.log.1`, and so on. Never throws: a command
 * that has been carried out cannot be taken back because its line could not be written, which the agent's log says instead.
 */
export class AuditLog {
  readonly #path: string;
  readonly #log: Log;
  #sizeBytes: number;
  #failing = false;

  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
    this.#sizeBytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  }

  append(entry: AuditEntry): void {
    const line = `${JSON.stringify(entry)}\n`;
    try {
      if (this.#sizeBytes + line.length > MAX_AUDIT_BYTES) this.#rotate();
      appendFileSync(this.#path, line, { mode: 0o600 });
      this.#sizeBytes += Buffer.byteLength(line);
      this.#failing = false;
    } catch (error) {
      if (!this.#failing)
        this.#log.error({ entry, problem: messageOf(error) }, "the audit log cannot be written");
      this.#failing = true;
    }
  }

  /** The last entries, the oldest of them first. Lines that a crash cut short are left out. */
  last(count: number): AuditEntry[] {
    const entries: AuditEntry[] = [];
    for (let file = 0; file < AUDIT_FILES && entries.length < count; file += 1) {
      const lines = this.#linesOf(file).slice(-(count - entries.length));
      entries.unshift(...lines);
    }
    return entries;
  }

  #linesOf(file: number): AuditEntry[] {
    let text: string;
    try {
      text = readFileSync(this.#name(file), "utf8");
    } catch (error) {
      if (codeOf(error) === "ENOENT") return [];
      throw error;
    }
    return text.split("\n").flatMap((line) => {
      try {
        return [JSON.parse(line) as AuditEntry];
      } catch {
        return [];
      }
    });
  }

  #rotate(): void {
    rmSync(this.#name(AUDIT_FILES - 1), { force: true });
    for (let file = AUDIT_FILES - 2; file >= 0; file -= 1) {
      if (statSync(this.#name(file), { throwIfNoEntry: false }) !== undefined)
        renameSync(this.#name(file), this.#name(file + 1));
    }
    this.#sizeBytes = 0;
  }

  #name(file: number): string {
    return file === 0 ? this.#path : `${this.#path}.${file}`;
  }
}
