import { Command, Option } from "commander";
import { MAX_CHILDREN } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { WORK_DEADLINE_MS } from "../context.js";
import { plural } from "../format/units.js";
import { collect, wholeNumber } from "../options.js";

/** `ramet warm NAME`: keeps emulators ready for a fork. */
export function warmCommand(cli: Cli): Command {
  const command = new Command("warm")
    .description("keep emulators ready for children of a guest, so that a fork starts at once")
    .argument("<name>", "name of the guest")
    .option("-t, --to <host>", "host to keep them at, repeatable (default: this host)", collect)
    .option("-c, --count <count>", "how many at each host; 0 ends them", wholeNumber(0, MAX_CHILDREN), 1)
    .addOption(
      new Option("--network <kind>", "isolated, or attached for children with a network or forwards")
        .choices(["isolated", "attached"])
        .default("isolated"),
    );
  return command.action(
    async (name: string, options: { to?: string[]; count: number; network: "isolated" | "attached" }) => {
      const context = cli.context(command);
      const result = await context.call(
        "guest.warm",
        { name, to: options.to ?? [], count: options.count, network: options.network },
        WORK_DEADLINE_MS,
      );
      context.answer(result, ({ warm }) =>
        warm.map(({ host, count }) => `${host} has ${plural(count, "emulator")} ready`),
      );
    },
  );
}
