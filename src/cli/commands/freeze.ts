import { Command } from "commander";
import type { Cli } from "../cli.js";
import { WORK_DEADLINE_MS } from "../context.js";

/** `ramet freeze NAME`: makes a template of a running guest. */
export function freezeCommand(cli: Cli): Command {
  const command = new Command("freeze")
    .description(
      "stop a running guest and keep it as a template, of which any number of children are forked at once",
    )
    .argument("<name>", "name of the guest")
    .addHelpText("after", "\nExample:\n  ramet freeze web && ramet fork web --count 32");
  return command.action(async (name: string) => {
    const context = cli.context(command);
    context.answer(await context.call("guest.freeze", { name }, WORK_DEADLINE_MS), ({ guest }) => [
      `${guest.name} is ${guest.state}`,
    ]);
  });
}

/** `ramet thaw NAME`: lets a template run on. */
export function thawCommand(cli: Cli): Command {
  const command = new Command("thaw")
    .description("let a frozen guest run on; its children keep what they have")
    .argument("<name>", "name of the guest");
  return command.action(async (name: string) => {
    const context = cli.context(command);
    context.answer(await context.call("guest.thaw", { name }, WORK_DEADLINE_MS), ({ guest }) => [
      `${guest.name} is ${guest.state}`,
    ]);
  });
}
