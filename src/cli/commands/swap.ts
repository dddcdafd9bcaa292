import { Command } from "commander";
import type { GuestView, SwapOutcome } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { WORK_DEADLINE_MS } from "../context.js";
import { formatNetwork } from "../format/guest.js";
import { formatUs } from "../format/units.js";

/** `ramet swap PARENT CHILD`: two running guests of one host exchange their roles; the same again takes it back. */
export function swapCommand(cli: Cli): Command {
  const command = new Command("swap")
    .description(
      "exchange names and places in the network of a guest and its tried child; again to take it back",
    )
    .argument("<parent>", "name of the guest in production")
    .argument("<child>", "name of the guest that is to take its place, on the same host")
    .addHelpText(
      "after",
      "\nExample:\n  ramet fork web --name web-next --forward 8081:80\n  ramet swap web web-next",
    );
  return command.action(async (parent: string, child: string) => {
    const context = cli.context(command);
    const outcome = await context.call("guest.swap", { name: parent, child }, WORK_DEADLINE_MS);
    context.answer(outcome, format);
  });
}

function format({ guest, other, gapUs, cut, message }: SwapOutcome): string[] {
  const gone = cut === 0 ? "" : `; ${cut} of its connections were ended`;
  return [
    `${guest.name} is now the guest that was ${other.name}, after ${formatUs(gapUs)} in which neither was at its place${gone}`,
    ...[guest, other].map((one) => `  ${one.name}  ${placeOf(one)}`),
    ...(message === undefined ? [] : [message]),
    `To take it back: ramet swap ${guest.name} ${other.name}`,
  ];
}

function placeOf(guest: GuestView): string {
  return formatNetwork(guest.network);
}
