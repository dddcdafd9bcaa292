import { Command } from "commander";
import type { Cli } from "../cli.js";
import { printable } from "../format/text.js";
import { formatMs } from "../format/units.js";

/** `ramet rollback NAME`: undoes a migration that is not complete; without `--yes` it only says what that would mean. */
export function rollbackCommand(cli: Cli): Command {
  const command = new Command("rollback")
    .description("undo a migration that is not complete: the guest runs on here, as it was when it left")
    .argument("<name>", "name of the guest, on the host it left")
    .option("-y, --yes", "do it; without this, only say what would be lost")
    .option(
      "--force",
      "without the word of the other host, because you know that the guest runs nowhere else",
    );
  return command.action(async (name: string, options: { yes?: boolean; force?: boolean }) => {
    const context = cli.context(command);
    const params = { name, dryRun: options.yes !== true, force: options.force === true };
    context.answer(await context.call("guest.rollback", params), ({ host, switchedAtMs, done }) => {
      const since =
        switchedAtMs === undefined
          ? "since it was switched over"
          : `since ${new Date(switchedAtMs).toISOString()}, ${formatMs(Math.max(0, cli.environment.clock.wallMs() - switchedAtMs))} ago`;
      const lost = printable(`what ${name} did on ${host} ${since}`);
      if (done) return [`${name} runs on here; lost is ${lost}`];
      return [
        `This would be lost: ${lost}.`,
        `The child on ${printable(host)} would stand still for good; ${name} would run on here as it was then.`,
        `Nothing was done. To do it: ramet rollback ${name} --yes`,
      ];
    });
  });
}
