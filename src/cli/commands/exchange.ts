import { Command } from "commander";
import type { ExchangeOutcome } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { WORK_DEADLINE_MS } from "../context.js";
import { formatUs } from "../format/units.js";

/** `ramet exchange NAME`: brings a running guest to another emulator of its host. */
export function exchangeCommand(cli: Cli): Command {
  const command = new Command("exchange")
    .description(
      "bring a running guest to another emulator of its host; memory and disks stay where they are",
    )
    .argument("<name>", "name of the guest")
    .option(
      "-e, --emulator <which>",
      "path or version of the emulator (ramet emulators); without it the one that guests start on",
    )
    .addHelpText("after", "\nExample:\n  ramet exchange web --emulator 10.0");
  return command.action(async (name: string, { emulator }: { emulator?: string }) => {
    const context = cli.context(command);
    const params = { name, ...(emulator === undefined ? {} : { emulator }) };
    context.answer(await context.call("guest.exchange", params, WORK_DEADLINE_MS), format);
  });
}

function format({ guest, from, to, pauseUs, message }: ExchangeOutcome): string[] {
  const line = `${guest.name} runs in ${to.path} (${to.version}) since a pause of ${formatUs(pauseUs)}; before it was ${from.version}`;
  return message === undefined ? [line] : [line, message];
}
