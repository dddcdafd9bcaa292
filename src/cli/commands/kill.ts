import { Command } from "commander";
import type { Cli } from "../cli.js";

/** `ramet kill NAME`: ends the emulator at once. */
export function killCommand(cli: Cli): Command {
  const command = new Command("kill")
    .description("end a guest at once, as if its power was cut")
    .argument("<name>", "name of the guest");
  return command.action(async (name: string) => {
    const context = cli.context(command);
    context.answer(await context.call("guest.kill", { name }), ({ guest }) => [
      `${guest.name} is ${guest.state}`,
    ]);
  });
}
