import { Command } from "commander";
import { DEFAULT_STOP_DEADLINE_MS } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { ASK_DEADLINE_MS } from "../context.js";
import { wholeNumber } from "../options.js";

/** `ramet stop NAME`: presses the power button. */
export function stopCommand(cli: Cli): Command {
  const command = new Command("stop")
    .description("shut a guest down by its power button, and wait until it is off")
    .argument("<name>", "name of the guest")
    .option(
      "-t, --timeout <seconds>",
      "how long to wait",
      wholeNumber(1, 600),
      DEFAULT_STOP_DEADLINE_MS / 1000,
    );
  return command.action(async (name: string, options: { timeout: number }) => {
    const context = cli.context(command);
    const deadlineMs = options.timeout * 1000;
    const result = await context.call("guest.stop", { name, deadlineMs }, deadlineMs + ASK_DEADLINE_MS);
    context.answer(result, ({ guest }) => [`${guest.name} is ${guest.state}`]);
  });
}
