import type { Command } from "commander";

/** An option as a shell needs to know it. */
export interface OptionDescription {
  /** `-m` and `--memory`, as far as there are. */
  flags: string[];
  description: string;
  takesValue: boolean;
  choices: readonly string[];
}

/** What a shell can offer for an argument. */
export type Offer = "guests" | "transfers" | "nothing" | readonly string[];

/** A command as a shell needs to know it. */
export interface CommandDescription {
  name: string;
  description: string;
  options: OptionDescription[];
  arguments: Offer[];
}

/** Describes every command of the program; the options of the program itself belong to each. */
export function describeCommands(program: Command): CommandDescription[] {
  const shared = optionsOf(program).filter((option) => !option.flags.includes("--version"));
  return program.commands.map((command) => ({
    name: command.name(),
    description: command.description(),
    options: [...unique([command, ...command.commands].flatMap(optionsOf)), ...shared],
    arguments:
      command.commands.length > 0 ? [command.commands.map((inner) => inner.name())] : argumentsOf(command),
  }));
}

/** Commands within a command share some options. */
function unique(options: readonly OptionDescription[]): OptionDescription[] {
  return [...new Map(options.map((option) => [option.flags.join(), option])).values()];
}

function argumentsOf(command: Command): Offer[] {
  return command.registeredArguments.map((argument) => {
    if (argument.argChoices) return argument.argChoices;
    if (argument.name() === "transfer") return "transfers";
    const isGuest = ["name", "parent", "child"].includes(argument.name());
    return isGuest && command.name() !== "run" ? "guests" : "nothing";
  });
}

function optionsOf(command: Command): OptionDescription[] {
  return command.options.map((option) => ({
    flags: [option.short, option.long].filter((flag) => flag !== undefined && flag !== null),
    description: option.description,
    takesValue: option.required || option.optional,
    choices: option.argChoices ?? [],
  }));
}

/** A text within single quotes of a POSIX shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The command that prints the names to offer, or the fixed ones. */
export function offerOf(offer: Offer | undefined): { run: string } | { words: readonly string[] } {
  if (offer === "guests") return { run: "ramet list --quiet 2>/dev/null" };
  if (offer === "transfers") return { run: "ramet transfers --quiet 2>/dev/null" };
  return { words: offer === undefined || offer === "nothing" ? [] : offer };
}
