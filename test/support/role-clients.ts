import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { eventually } from "./hosts.js";

const ROOT = new URL("../..", import.meta.url).pathname;

/** What a client saw: who answered, in turn, and how often it had to ask again before that. */
export interface Seen {
  turns: { machine: string; answers: number; retries: number }[];
  /** Questions in the end that nobody answered. */
  unanswered: number;
}

/** A process that asks whoever is at an address who it is, for as long as it is let. */
export class RoleClient {
  readonly #process: ChildProcess;
  #output = "";

  constructor(url: string, options: { mode: "keep" | "anew"; prefix?: readonly string[] }) {
    const client = join(ROOT, "test/support/role-client.ts");
    const [program = "", ...args] = [
      ...(options.prefix ?? []),
      process.execPath,
      "--import",
      "tsx",
      client,
      url,
      options.mode,
    ];
    this.#process = spawn(program, args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
    this.#process.stdout?.on("data", (chunk: Buffer) => (this.#output += chunk.toString()));
  }

  /** Resolves when so many have answered, one after the other. */
  async whenAnswered(turns: number): Promise<void> {
    const by = (): number => this.#output.split("\n").length - 1;
    await eventually(`${turns} have answered`, () => by() >= turns);
  }

  async end(): Promise<Seen> {
    if (this.#process.exitCode !== null) return JSON.parse(this.#output) as Seen;
    const exited = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    await exited;
    return JSON.parse(this.#output) as Seen;
  }
}
