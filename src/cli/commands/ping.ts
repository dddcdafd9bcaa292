import { Command } from "commander";
import type { Cli } from "../cli.js";
import { formatUs } from "../format/units.js";
import { wholeNumber } from "../options.js";

/** `ramet ping PEER`: has the agent measure its way to another. */
export function pingCommand(cli: Cli): Command {
  const command = new Command("ping")
    .description("have the agent measure its round trip to a peer")
    .argument("<peer>", "a peer's name or host:port")
    .option("-c, --count <count>", "how many times", wholeNumber(1, 100), 4);
  return command.action(async (to: string, options: { count: number }) => {
    const context = cli.context(command);
    context.answer(await context.call("peer.ping", { to, count: options.count }), (result) => {
      const times = [...result.roundTripsUs].sort((a, b) => a - b);
      const middle = times[Math.floor(times.length / 2)];
      return [
        `${result.name} at ${result.address} runs ramet ${result.version}`,
        ...result.roundTripsUs.map((us, index) => `  ${index + 1}: ${formatUs(us)}`),
        middle === undefined
          ? "  no answer"
          : `  least ${formatUs(times[0] as number)}, median ${formatUs(middle)}, most ${formatUs(times.at(-1) as number)}`,
      ];
    });
  });
}
