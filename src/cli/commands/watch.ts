import { Argument, Command } from "commander";
import { isFinal } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { wholeNumber } from "../options.js";
import { openDisplay } from "../transfer-display.js";
import { connectionEnd, TransferFollower } from "../transfer-follower.js";

/** `ramet watch [TRANSFER…]`: live progress by lane. */
export function watchCommand(cli: Cli): Command {
  const parse = wholeNumber(0, 0xffffffff);
  const command = new Command("watch")
    .description("show forks and migrations as they go on, by lane; with ids, until those are over")
    .addArgument(
      new Argument("[transfer...]", "ids (default: all, until Ctrl-C)").argParser(
        (text, before?: number[]) => [...(before ?? []), parse(text)],
      ),
    );
  return command.action(async (transfers: number[] | undefined) => {
    const context = cli.context(command);
    const client = await context.connect();
    const ids = new Set(transfers ?? []);
    // An unknown id is an error now, and would be waited for for ever.
    for (const transfer of ids) await context.call("transfer.show", { transfer });
    const old = new Set<string>();
    const follower = await TransferFollower.open(client, (view) => {
      if (ids.size > 0) return ids.has(view.id);
      // Those that were over before are not news.
      const key = `${view.id} ${view.role}`;
      if (isFinal(view.phase) && !old.has(key)) return false;
      old.add(key);
      return true;
    });
    const display = openDisplay(context, follower);
    for (const view of follower.views) display.update(view);
    if (ids.size > 0) await follower.untilFinal(ids);
    else {
      if (context.live && follower.views.length === 0)
        display.say(["No transfer is under way. Ctrl-C ends the watch."]);
      await connectionEnd(client);
    }
  });
}
