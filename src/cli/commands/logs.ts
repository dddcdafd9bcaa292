import { Command } from "commander";
import { DEFAULT_LOG_LINES, MAX_LOG_LINES } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { ASK_DEADLINE_MS } from "../context.js";
import { printable } from "../format/text.js";
import { wholeNumber } from "../options.js";
import { connectionEnd } from "../transfer-follower.js";

interface LogsOptions {
  lines: number;
  follow?: boolean;
  console?: boolean;
}

/** `ramet logs NAME`: what the emulator, or the guest on its console, has said. */
export function logsCommand(cli: Cli): Command {
  const command = new Command("logs")
    .description("show what a guest's emulator has logged, or its console has shown")
    .argument("<name>", "name of the guest")
    .option("-n, --lines <count>", "how many lines", wholeNumber(0, MAX_LOG_LINES), DEFAULT_LOG_LINES)
    .option("-f, --follow", "go on with later lines until Ctrl-C")
    .option("-c, --console", "the serial console instead of the emulator");
  return command.action(async (name: string, options: LogsOptions) => {
    const context = cli.context(command);
    const client = await context.connect();
    const guest = context.guestName(name);
    const follow = options.follow ?? false;
    const show = (lines: readonly string[]) => {
      if (!context.json) context.print(...lines.map(printable));
      else if (follow) context.printJsonLine({ guest, lines });
      else context.printJson({ lines });
    };
    // Later lines may arrive together with the answer, before its promise has been seen to resolve.
    const later: string[][] = [];
    let answered = false;
    client.onEvent((event) => {
      if (event.event !== "log" || event.data.guest !== guest) return;
      if (answered) show(event.data.lines);
      else later.push(event.data.lines);
    });
    const source = options.console ? "console" : "emulator";
    const { lines } = await client.call(
      "guest.logs",
      { name, source, lines: options.lines, follow },
      { deadlineMs: ASK_DEADLINE_MS },
    );
    show(lines);
    answered = true;
    for (const batch of later) show(batch);
    if (follow) await connectionEnd(client);
  });
}
