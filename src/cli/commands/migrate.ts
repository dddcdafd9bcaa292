import { Command } from "commander";
import type { Cli } from "../cli.js";
import { addPagingOptions, pagingParams, type PagingOptions } from "./paging-options.js";
import { carryOut } from "./transfer-work.js";

interface MigrateOptions extends PagingOptions {
  to: string;
  precopy?: boolean;
  verify?: boolean;
  wait: boolean;
  writes?: string;
}

/** `ramet migrate NAME --to HOST`: moves a running guest. */
export function migrateCommand(cli: Cli): Command {
  const command = new Command("migrate")
    .description("move a running guest to another host")
    .argument("<name>", "name of the guest")
    .requiredOption("-t, --to <host>", "where to: a peer's name or host:port")
    .option(
      "--precopy",
      "copy memory ahead while the guest runs, so that little depends on this host after the move",
    )
    .option("--verify", "compare every page's hash at the instant of the move with what arrived")
    .option(
      "--writes <directory>",
      "what the guest writes there goes to this directory, which both hosts have, until all of it is there",
    )
    .option("--no-wait", "end as soon as the guest runs there, not when its memory and disks are there");
  return addPagingOptions(command).action(async (name: string, options: MigrateOptions) => {
    const context = cli.context(command);
    await carryOut(context, {
      kind: "migrate",
      guest: context.guestName(name),
      wait: options.wait,
      start: (client, deadline) =>
        client.call(
          "guest.migrate",
          {
            name,
            to: options.to,
            precopy: options.precopy ?? false,
            verify: options.verify ?? false,
            ...(options.writes === undefined ? {} : { writes: options.writes }),
            ...pagingParams(options),
          },
          deadline,
        ),
    });
  });
}
