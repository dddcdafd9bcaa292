import { Command } from "commander";
import { deferred } from "../../base/index.js";
import { MAX_CONSOLE_BYTES, type RpcClient } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { ASK_DEADLINE_MS, type Context } from "../context.js";
import { CliError } from "../errors.js";
import { printable } from "../format/text.js";
import { connectionEnd } from "../transfer-follower.js";

/** Ctrl-] as a terminal sends it, the key that telnet and virsh use too. */
const DETACH_KEY = 0x1d;

/** Once piped input has ended, the console is left when it has been silent for so long. */
const QUIET_MS = 1000;

/** `ramet console NAME`: joins the terminal to the guest's serial console. */
export function consoleCommand(cli: Cli): Command {
  const command = new Command("console")
    .description("join the terminal to a guest's serial console; Ctrl-] leaves it")
    .argument("<name>", "name of the guest")
    .option("--follow", "with piped input: stay until Ctrl-C, not until the console falls silent");
  return command.action(async (name: string, options: { follow?: boolean }) => {
    const context = cli.context(command);
    if (context.json) throw new CliError("usage", "console has no JSON output");
    const client = await context.connect();
    const session = new ConsoleSession(context, client, options.follow ?? false);
    await session.run(name);
  });
}

/** One console, open until someone ends it. */
class ConsoleSession {
  readonly #context: Context;
  readonly #client: RpcClient;
  readonly #follow: boolean;
  readonly #left = deferred<string>();
  readonly #early: { console: number; data: Uint8Array; end?: string }[] = [];
  #console: number | undefined;
  #inputEnded = false;
  #cancelQuiet: () => void = () => {};

  constructor(context: Context, client: RpcClient, follow: boolean) {
    this.#context = context;
    this.#client = client;
    this.#follow = follow;
  }

  async run(name: string): Promise<void> {
    const { stdin, stderr } = this.#context.environment;
    this.#client.onEvent((event) => {
      if (event.event === "console") this.#onOutput(event.data);
      if (event.event === "lagged") stderr.write("\r\nramet: some output was lost\r\n");
    });
    const opened = await this.#client.call("guest.console.open", { name }, { deadlineMs: ASK_DEADLINE_MS });
    this.#console = opened.console;
    for (const output of this.#early.splice(0)) this.#onOutput(output);
    if (stdin.isTerminal) {
      stderr.write(`Console of ${name}. Ctrl-] leaves it.\r\n`);
      stdin.setRaw(true);
      this.#context.defer(() => stdin.setRaw(false));
    }
    this.#context.defer(
      stdin.read({ onData: (bytes) => this.#onInput(bytes), onEnd: () => this.#onInputEnd() }),
    );
    this.#context.defer(() => this.#cancelQuiet());
    const why = await Promise.race([this.#left.promise, connectionEnd(this.#client)]);
    if (stdin.isTerminal) stderr.write(`\r\n${why}\r\n`);
  }

  #onOutput(output: { console: number; data: Uint8Array; end?: string }): void {
    if (this.#console === undefined) {
      this.#early.push(output);
      return;
    }
    if (output.console !== this.#console) return;
    if (output.data.length > 0) this.#context.environment.stdout.write(output.data);
    if (output.end !== undefined) this.#left.resolve(`The console ended: ${printable(output.end)}`);
    if (this.#inputEnded) this.#waitForQuiet();
  }

  #onInput(bytes: Uint8Array): void {
    const { stdin } = this.#context.environment;
    const detach = stdin.isTerminal ? bytes.indexOf(DETACH_KEY) : -1;
    const data = detach === -1 ? bytes : bytes.subarray(0, detach);
    stdin.pause();
    this.#send(data).then(
      () => (detach === -1 ? stdin.resume() : this.#left.resolve("Left the console; the guest runs on.")),
      (error: Error) => this.#left.reject(error),
    );
  }

  /** In order: no more input is read until this has been answered. */
  async #send(data: Uint8Array): Promise<void> {
    for (let offset = 0; offset < data.length; offset += MAX_CONSOLE_BYTES) {
      await this.#client.call(
        "guest.console.input",
        { console: this.#console as number, data: data.subarray(offset, offset + MAX_CONSOLE_BYTES) },
        { deadlineMs: ASK_DEADLINE_MS },
      );
    }
  }

  #onInputEnd(): void {
    this.#inputEnded = true;
    this.#waitForQuiet();
  }

  #waitForQuiet(): void {
    if (this.#follow) return;
    this.#cancelQuiet();
    const timer = this.#context.environment.clock.after(QUIET_MS, () =>
      this.#left.resolve("The input has ended."),
    );
    this.#cancelQuiet = () => timer.cancel();
  }
}
