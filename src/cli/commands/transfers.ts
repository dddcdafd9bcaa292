import { Command } from "commander";
import type { Cli } from "../cli.js";
import { formatTransfers } from "../format/transfer.js";

/** `ramet transfers`: forks and migrations of the agent, past and present. */
export function transfersCommand(cli: Cli): Command {
  const command = new Command("transfers")
    .description("list the forks and migrations that the agent takes part in")
    .option("--active", "only those that are not over")
    .option("-q, --quiet", "print ids only");
  return command.action(async (options: { active?: boolean; quiet?: boolean }) => {
    const context = cli.context(command);
    const result = await context.call("transfer.list", { active: options.active ?? false });
    context.answer(result, ({ transfers }) =>
      options.quiet ? [...new Set(transfers.map((view) => String(view.id)))] : formatTransfers(transfers),
    );
  });
}
