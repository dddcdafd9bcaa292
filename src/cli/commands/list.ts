import { Command } from "commander";
import type { Cli } from "../cli.js";
import { formatGuests } from "../format/guest.js";

/** `ramet list`: the guests of the agent. */
export function listCommand(cli: Cli): Command {
  const command = new Command("list")
    .alias("ls")
    .description("list the guests of the agent")
    .option("-q, --quiet", "print names only");
  return command.action(async (options: { quiet?: boolean }) => {
    const context = cli.context(command);
    const result = await context.call("guest.list", {});
    context.answer(result, ({ guests }) =>
      options.quiet ? guests.map((guest) => guest.name) : formatGuests(guests),
    );
  });
}
