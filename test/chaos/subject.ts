import type { Host } from "../support/hosts.js";
import type { Counter } from "../support/sample-guest.js";

const ANSWER_DEADLINE_MS = 10_000;

/** What a guest says of its own memory's checks. */
interface StampStatus {
  checking: boolean;
  checked_pages: number;
  written_pages: number;
  wrong_pages: number;
  first_wrong: number;
}

interface Verified {
  checked: number;
  bad: number;
}

/** A guest under test, and how far it was when last looked at. */
export class Subject {
  readonly name: string;
  readonly port: number;
  host: Host;
  #counter = 0;
  #ticks = 0;
  #written = 0;
  #bootId: string | undefined;

  constructor(options: { name: string; host: Host; port: number; from?: Subject }) {
    this.name = options.name;
    this.host = options.host;
    this.port = options.port;
    const { from } = options;
    if (from === undefined) return;
    this.#counter = from.#counter;
    this.#ticks = from.#ticks;
    this.#written = from.#written;
    this.#bootId = from.#bootId;
  }

  /** The guest that its fork makes: it goes on from where this one was last seen. */
  child(options: { name: string; host: Host; port: number }): Subject {
    return new Subject({ ...options, from: this });
  }

  /** Asks the guest over HTTP, on a connection of its own. */
  async ask<T>(path: string, deadlineMs = ANSWER_DEADLINE_MS): Promise<T> {
    const answer = await fetch(`http://${this.host.address}:${this.port}${path}`, {
      headers: { connection: "close" },
      signal: AbortSignal.timeout(deadlineMs),
    });
    return (await answer.json()) as T;
  }

  /**
   * Looks how the guest is: that it answers, that its time and its work went on and never went back, and that its own checks found nothing.
   * Returns what is wrong, in words.
   */
  async look(): Promise<string[]> {
    const wrong: string[] = [];
    try {
      const counter = await this.ask<Counter>("/counter");
      const status = await this.ask<StampStatus>("/stamp/status");
      if (this.#bootId !== undefined && counter.boot_id !== this.#bootId) wrong.push("it has booted again");
      if (counter.counter <= this.#counter)
        wrong.push(`its counter went from ${this.#counter} to ${counter.counter}`);
      if (counter.ticks <= this.#ticks) wrong.push(`its time went from ${this.#ticks} to ${counter.ticks}`);
      if (status.written_pages < this.#written)
        wrong.push(`its work went back from ${this.#written} to ${status.written_pages}`);
      if (status.wrong_pages > 0)
        wrong.push(`${status.wrong_pages} pages were wrong, the first of them ${status.first_wrong}`);
      if (!status.checking) wrong.push("it does not check itself any more");
      this.#counter = counter.counter;
      this.#ticks = counter.ticks;
      this.#written = status.written_pages;
      this.#bootId = counter.boot_id;
    } catch (error) {
      wrong.push(`it does not answer: ${error instanceof Error ? error.message : String(error)}`);
    }
    return wrong.map((what) => `guest ${this.name} on ${this.host.name}: ${what}`);
  }

  /** Has the guest read and check all of its stamped memory. Returns what is wrong. */
  async verify(): Promise<string[]> {
    try {
      const { checked, bad } = await this.ask<Verified>("/stamp/verify?order=random", 20_000);
      if (bad === 0 && checked > 0) return [];
      return [`guest ${this.name} on ${this.host.name}: ${bad} of its ${checked} pages are wrong`];
    } catch (error) {
      return [`guest ${this.name} on ${this.host.name} cannot check itself: ${String(error)}`];
    }
  }
}
