import type { Command } from "commander";
import { Context, type GlobalOptions } from "./context.js";
import type { Environment } from "./environment.js";

/** What ties the commands together: each action gets a fresh context, and the runner can find it to clean up. */
export class Cli {
  readonly environment: Environment;
  /** The context of the command that runs, once one does. */
  current: Context | undefined;

  constructor(environment: Environment) {
    this.environment = environment;
  }

  /** Makes the context of a command from its options and those every command has. */
  context(command: Command): Context {
    this.current = new Context(this.environment, command.optsWithGlobals<GlobalOptions>());
    return this.current;
  }
}
