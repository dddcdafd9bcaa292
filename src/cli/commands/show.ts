import { Command } from "commander";
import type { Cli } from "../cli.js";
import { formatGuest } from "../format/guest.js";

/** `ramet show NAME`: everything about one guest. */
export function showCommand(cli: Cli): Command {
  const command = new Command("show").description("show one guest").argument("<name>", "name of the guest");
  return command.action(async (name: string) => {
    const context = cli.context(command);
    context.answer(await context.call("guest.show", { name }), ({ guest }) => formatGuest(guest));
  });
}
