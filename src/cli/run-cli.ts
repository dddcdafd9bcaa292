import { CommanderError, type Command } from "commander";
import { codeOf, messageOf } from "../base/index.js";
import { Cli } from "./cli.js";
import type { Environment } from "./environment.js";
import { CliError } from "./errors.js";
import { EXIT, exitCodeOf, type ExitCode } from "./exit-codes.js";
import { printable } from "./format/text.js";
import { hintFor } from "./hints.js";
import { createProgram } from "./program.js";

/**
 * Carries out one command line. Never rejects: what went wrong is printed to standard error and is the exit code.
 * @param argv the arguments, without interpreter and script.
 */
export async function runCli(argv: readonly string[], environment: Environment): Promise<ExitCode> {
  const cli = new Cli(environment);
  const program = createProgram(cli);
  forEachCommand(program, (command) => {
    command.exitOverride().configureOutput({
      writeOut: (text) => environment.stdout.write(text),
      // Said by this function, once.
      writeErr: () => {},
    });
  });
  let takeBack = () => {};
  const interrupted = new Promise<never>((_, reject) => {
    takeBack = environment.onInterrupt(() => reject(new CliError("interrupted", "interrupted")));
  });
  try {
    await Promise.race([program.parseAsync([...argv], { from: "user" }), interrupted]);
    return EXIT.ok;
  } catch (thrown) {
    if (isHelp(thrown)) return EXIT.ok;
    cli.current?.close();
    const error = thrown instanceof CommanderError ? usageError(program, thrown) : thrown;
    const code = exitCodeOf(error);
    report(cli, error, { json: cli.current?.json ?? argv.includes("--json"), code });
    return code;
  } finally {
    takeBack();
    cli.current?.close();
  }
}

function forEachCommand(command: Command, visit: (command: Command) => void): void {
  visit(command);
  for (const inner of command.commands) forEachCommand(inner, visit);
}

/** Help and version are thrown by commander like errors, with exit code 0. */
function isHelp(thrown: unknown): boolean {
  return thrown instanceof CommanderError && thrown.exitCode === 0;
}

function usageError(program: Command, error: CommanderError): CliError {
  if (error.code === "commander.help") {
    return new CliError("usage", "no command was given", {
      hint: `commands: ${program.commands.map((command) => command.name()).join(", ")}; ramet --help tells more`,
    });
  }
  const message = error.message.replace(/^error: /, "").replaceAll(/\s*\n\s*/g, " ");
  return new CliError("usage", message, { hint: "ramet help COMMAND shows what it takes", cause: error });
}

function report(cli: Cli, error: unknown, options: { json: boolean; code: ExitCode }): void {
  const { stderr } = cli.environment;
  const hint = options.code === EXIT.interrupted ? cli.current?.interruptHint : hintFor(error);
  if (options.code === EXIT.interrupted && hint === undefined) return;
  if (options.json) {
    const document = {
      error: {
        code: codeOf(error),
        message: messageOf(error),
        exitCode: options.code,
        ...(hint ? { hint } : {}),
      },
    };
    stderr.write(`${JSON.stringify(document)}\n`);
    return;
  }
  if (options.code === EXIT.interrupted) {
    stderr.write(`ramet: ${hint}\n`);
    return;
  }
  stderr.write(`ramet: ${printable(messageOf(error))}\n`);
  if (hint !== undefined) stderr.write(`  ${hint}\n`);
}
