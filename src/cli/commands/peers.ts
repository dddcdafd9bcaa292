import { Command } from "commander";
import type { Cli } from "../cli.js";
import { formatTable } from "../format/table.js";
import { formatUs } from "../format/units.js";

/** `ramet peers`: the other agents that this one knows. */
export function peersCommand(cli: Cli): Command {
  const command = new Command("peers").description("list the other agents that this one knows");
  return command.action(async () => {
    const context = cli.context(command);
    context.answer(await context.call("peer.list", {}), ({ peers }) => {
      if (peers.length === 0) return ["no peers; host:port names one without configuration"];
      return formatTable(
        [
          { title: "NAME" },
          { title: "ADDRESS" },
          { title: "STATE" },
          { title: "VERSION" },
          { title: "ROUND TRIP", right: true },
          { title: "TRANSFERS", right: true },
          { title: "MESSAGE" },
        ],
        peers.map((peer) => [
          peer.name ?? "-",
          peer.address,
          peer.state,
          peer.version ?? "-",
          peer.roundTripUs === undefined ? "-" : formatUs(peer.roundTripUs),
          String(peer.transfers),
          peer.message ?? "",
        ]),
      );
    });
  });
}
