import { CodedError, guestNameIn, messageOf, silentLog } from "../base/index.js";
import { RpcClient, type MethodName, type ParamsInput, type Result } from "../control/index.js";
import { DEFAULT_AGENT, parseAgentAddress, type AgentAddress } from "./agent-address.js";
import { credentialFiles, type CredentialOptions } from "./credentials.js";
import type { Environment } from "./environment.js";
import { CliError } from "./errors.js";
import { printable } from "./format/text.js";
import { readKey } from "./key.js";
import { tenantOfFile } from "./own-tenant.js";
import { reachHint } from "./reach-hint.js";

/** How long connecting, and a command that only asks, may take. */
const CONNECT_DEADLINE_MS = 10_000;
export const ASK_DEADLINE_MS = 30_000;

/** How long a command may take that starts emulators, copies boot files and waits for children. */
export const WORK_DEADLINE_MS = 600_000;

/** The options every command has. */
export interface GlobalOptions extends CredentialOptions {
  agent?: string;
  keyFile?: string;
  json?: boolean;
}

/** What a command works with: its surroundings, the connection to the agent, and what has to be undone at the end. */
export class Context {
  readonly environment: Environment;
  readonly json: boolean;
  readonly address: AgentAddress;
  /** Said when the user interrupts, where the work goes on without the command. */
  interruptHint: string | undefined;
  readonly #options: GlobalOptions;
  readonly #deferred: (() => void)[] = [];
  #client: Promise<RpcClient> | undefined;

  constructor(environment: Environment, options: GlobalOptions) {
    this.environment = environment;
    this.json = options.json ?? false;
    this.address = parseAgentAddress(options.agent ?? environment.variables.RAMET_AGENT ?? DEFAULT_AGENT);
    this.#options = options;
  }

  /** Whether to paint progress in place. */
  get live(): boolean {
    return this.environment.stdout.isTerminal && !this.json;
  }

  /**
   * The connection to the agent, made when first asked for and closed when the command ends.
   * @throws CliError `unreachable`.
   */
  connect(): Promise<RpcClient> {
    this.#client ??= this.#dial();
    return this.#client;
  }

  /** Calls a method of the agent. Errors as RpcClient.call, and CliError `unreachable`. */
  async call<Name extends MethodName>(
    method: Name,
    params: ParamsInput<Name>,
    deadlineMs = ASK_DEADLINE_MS,
  ): Promise<Result<Name>> {
    const client = await this.connect();
    return client.call(method, params, { deadlineMs });
  }

  /** The name by which the agent tells of a guest: it takes a plain name for that of a guest of the tenant that the certificate names. */
  guestName(name: string): string {
    if (this.address.shown !== "certificate") return name;
    const files = credentialFiles(this.#options, this.environment.variables);
    const tenant = files === undefined ? undefined : tenantOfFile(files.certificate);
    return tenant === undefined ? name : guestNameIn(tenant, name);
  }

  /** Prints lines to standard output. */
  print(...lines: string[]): void {
    this.environment.stdout.write(lines.map((line) => `${line}\n`).join(""));
  }

  /** Prints one JSON document, indented for people. */
  printJson(value: unknown): void {
    this.print(JSON.stringify(value, undefined, 2));
  }

  /** Prints one JSON document on one line, for streams of them. */
  printJsonLine(value: unknown): void {
    this.print(JSON.stringify(value));
  }

  /** The result as JSON where that was asked for; otherwise the lines `text` makes of it, without anything that would steer a terminal. */
  answer<T>(result: T, text: (result: T) => string[]): void {
    if (this.json) this.printJson(result);
    else this.print(...text(result).map(printable));
  }

  /** Has something undone when the command ends, however it does; the last first. */
  defer(undo: () => void): void {
    this.#deferred.push(undo);
  }

  /** Undoes what was deferred. May be called twice. */
  close(): void {
    for (let undo = this.#deferred.pop(); undo; undo = this.#deferred.pop()) undo();
  }

  async #dial(): Promise<RpcClient> {
    const { url, shown } = this.address;
    const { variables } = this.environment;
    const keyFile = this.#options.keyFile ?? variables.RAMET_KEY_FILE;
    const key = shown !== "key" || keyFile === undefined ? undefined : readKey(keyFile);
    const credentials = shown === "certificate" ? credentialFiles(this.#options, variables) : undefined;
    try {
      const channel = await this.environment.dial({ url, key, credentials, deadlineMs: CONNECT_DEADLINE_MS });
      const client = new RpcClient(channel, { clock: this.environment.clock, log: silentLog });
      this.defer(() => client.close());
      return client;
    } catch (error) {
      if (!(error instanceof CodedError)) throw error;
      throw new CliError("unreachable", `no connection to the agent at ${url}: ${messageOf(error)}`, {
        hint: reachHint(error.code, this.address, { hasKey: keyFile !== undefined }),
        cause: error,
      });
    }
  }
}
