import { offerOf, quoted, type CommandDescription, type OptionDescription } from "./describe.js";

/** A script for fish 3 and newer. */
export function fishScript(commands: readonly CommandDescription[]): string {
  const names = commands.map((command) => command.name).join(" ");
  const lines = ["# fish completion of ramet; made by: ramet completion fish"];
  for (const command of commands) {
    lines.push(
      `complete -c ramet -f -n ${quoted(`not __fish_seen_subcommand_from ${names}`)} -a ${command.name} -d ${quoted(command.description)}`,
    );
    const seen = `-n ${quoted(`__fish_seen_subcommand_from ${command.name}`)}`;
    for (const offered of command.arguments) {
      const offer = offerOf(offered);
      const words = "run" in offer ? `(${offer.run})` : offer.words.join(" ");
      if (words !== "") lines.push(`complete -c ramet -f ${seen} -a ${quoted(words)}`);
    }
    for (const option of command.options) lines.push(`complete -c ramet ${seen} ${fishOption(option)}`);
  }
  return `${lines.join("\n")}\n`;
}

function fishOption(option: OptionDescription): string {
  const flags = option.flags.map((flag) =>
    flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
  );
  const value = option.takesValue ? " -r" : "";
  const choices = option.choices.length === 0 ? "" : ` -f -a ${quoted(option.choices.join(" "))}`;
  return `${flags.join(" ")}${value}${choices} -d ${quoted(option.description)}`;
}
