import { Command, Option } from "commander";
import { MAX_CHILDREN } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { collect, given, wholeNumber } from "../options.js";
import { addPagingOptions, pagingParams, type PagingOptions } from "./paging-options.js";
import { carryOut } from "./transfer-work.js";

interface ForkOptions extends PagingOptions {
  to?: string[];
  count?: number;
  name?: string[];
  forward?: string[];
  network: "isolated" | "attached";
  memory: "shared" | "copied";
  verify?: boolean;
  paused?: boolean;
  sweep: "on" | "held";
  relay: "chain" | "tree" | "none";
  wait: boolean;
}

/** `ramet fork NAME`: makes children of a running guest. */
export function forkCommand(cli: Cli): Command {
  const command = new Command("fork")
    .description("fork a running guest into one or many children, here or on other hosts")
    .argument("<name>", "name of the parent")
    .option(
      "-t, --to <host>",
      "host of a child: a peer's name or host:port; repeatable (default: this host)",
      collect,
    )
    .option(
      "-c, --count <count>",
      "children in all, placed on the hosts in turn",
      wholeNumber(1, MAX_CHILDREN),
    )
    .option("-n, --name <name>", "name of a child, repeatable (default: NAME-1, NAME-2, …)", collect)
    .option(
      "-p, --forward <forward>",
      "[ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp] of the first child, the next has HOSTPORT+1 …",
      collect,
    )
    .addOption(networkOption())
    .addOption(memoryOption())
    .option("--verify", "compare every page's hash at the instant of the fork with what each child was given")
    .option("--paused", "load the children, but hold them until ramet resume")
    .addOption(
      new Option("--sweep <mode>", "held sends pages only when they are needed")
        .choices(["on", "held"])
        .default("on"),
    )
    .addOption(relayOption())
    .option("--no-wait", "end as soon as the children run, not when their memory is complete")
    .addHelpText("after", "\nExample:\n  ramet fork web --to hostb --count 2 --name web-a,web-b");
  return addPagingOptions(command).action(async (name: string, options: ForkOptions) => {
    const { network, memory, sweep, relay, to, count, forward } = options;
    const context = cli.context(command);
    await carryOut(context, {
      kind: "fork",
      guest: context.guestName(name),
      // A held sweep never ends by itself.
      wait: options.wait && sweep === "on",
      start: (client, deadline) =>
        client.call(
          "guest.fork",
          {
            name,
            network,
            memory,
            sweep,
            relay,
            ...pagingParams(options),
            verify: options.verify ?? false,
            paused: options.paused ?? false,
            ...given({
              to,
              count,
              names: options.name,
              forwards: forward,
            }),
          },
          deadline,
        ),
    });
  });
}

/** `--memory`, of children on the parent's own host. */
function memoryOption(): Option {
  return new Option("--memory <kind>", "of children on this host: shared until one side writes, or copied")
    .choices(["shared", "copied"])
    .default("shared");
}

function networkOption(): Option {
  return new Option("--network <kind>", "isolated cuts the children off")
    .choices(["isolated", "attached"])
    .default("isolated");
}

function relayOption(): Option {
  return new Option(
    "--relay <shape>",
    "how children on other hosts pass on to each other what they are given",
  )
    .choices(["chain", "tree", "none"])
    .default("chain");
}
