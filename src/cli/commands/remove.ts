import { Command } from "commander";
import type { Cli } from "../cli.js";

/** `ramet remove NAME`: deletes a guest that does not run. */
export function removeCommand(cli: Cli): Command {
  const command = new Command("remove")
    .alias("rm")
    .description("delete a guest that does not run, with its logs")
    .argument("<name>", "name of the guest")
    .option("-f, --force", "end it first, if it runs");
  return command.action(async (name: string, options: { force?: boolean }) => {
    const context = cli.context(command);
    if (options.force) await context.call("guest.kill", { name });
    context.answer(await context.call("guest.remove", { name }), () => [`${name} is removed`]);
  });
}
