import { Command } from "commander";
import type { Cli } from "../cli.js";
import { formatDisks, formatLayer } from "../format/disk.js";

/** `ramet disk …`: the differencing disks of a host. */
export function diskCommand(cli: Cli): Command {
  const command = new Command("disk").description("show the differencing disks of a host");
  for (const sub of [listDisks(cli), showChain(cli)]) command.addCommand(sub.copyInheritedSettings(command));
  return command;
}

function listDisks(cli: Cli): Command {
  const command = new Command("list").alias("ls").description("list the differencing disks of a host");
  return command.action(async () => {
    const context = cli.context(command);
    context.answer(await context.call("disk.list", {}), ({ disks }) => formatDisks(disks));
  });
}

function showChain(cli: Cli): Command {
  const command = new Command("chain")
    .description("show what a disk stands on, the newest first")
    .argument("<disk>", "uuid of the disk");
  return command.action(async (disk: string) => {
    const context = cli.context(command);
    context.answer(await context.call("disk.chain", { disk }), ({ chain }) => chain.map(formatLayer));
  });
}
