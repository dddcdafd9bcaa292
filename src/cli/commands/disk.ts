import { Command } from "commander";
import type { Cli } from "../cli.js";
import { followDiskWork } from "../disk-follower.js";
import { CliError } from "../errors.js";
import { formatChainOutcome, formatDisks, formatLayer, formatLoans } from "../format/disk.js";
import { plural } from "../format/units.js";
import { given, sizeBytes } from "../options.js";

const EXAMPLES = `
Examples:
  ramet disk list
  ramet disk flatten web
  ramet disk commit web disk1 --rate 50M`;

/** `ramet disk …`: the differencing disks of a host. */
export function diskCommand(cli: Cli): Command {
  const command = new Command("disk")
    .description("show the differencing disks of a host, and shorten the chains of guests")
    .addHelpText("after", EXAMPLES);
  for (const sub of [
    listDisks(cli),
    showChain(cli),
    listLoans(cli),
    flattenDisk(cli),
    commitDisk(cli),
    adoptDisks(cli),
  ])
    command.addCommand(sub.copyInheritedSettings(command));
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

function listLoans(cli: Cli): Command {
  const command = new Command("loans")
    .description("show which disks other hosts have on loan from this one, and take them back")
    .option("--release <host>", "end all loans of this host, as shown here, which is gone for good")
    .option("--force", "with --release: also while that host reads them, whose guests then stand still");
  return command.action(async ({ release: host, force = false }: { release?: string; force?: boolean }) => {
    const context = cli.context(command);
    if (force && host === undefined) throw new CliError("usage", "--force needs --release HOST");
    if (host === undefined) {
      context.answer(await context.call("disk.loans", {}), ({ loans }) => formatLoans(loans));
      return;
    }
    context.answer(await context.call("disk.release", { host, force }), ({ loans }) => [
      `${plural(loans.length, "loan")} of ${host} ended`,
    ]);
  });
}

interface ChainOptions {
  rate?: number;
  alone?: true;
}

function flattenDisk(cli: Cli): Command {
  const command = chainCommand("flatten")
    .description("copy into the disks of a running guest all that lies between them and their base disks")
    .option("--alone", "the base disk, too: it then stands on nothing");
  return command.action(async (guest: string, disk: string | undefined, options: ChainOptions) => {
    const context = cli.context(command);
    const params = { guest, alone: options.alone === true, ...given({ disk, rateBps: options.rate }) };
    const answer = await followDiskWork(context, `flattening ${guest}`, (work, deadlineMs) =>
      context.call("disk.flatten", { ...params, work }, deadlineMs),
    );
    context.answer(answer, ({ disks }) => disks.flatMap(formatChainOutcome));
  });
}

function commitDisk(cli: Cli): Command {
  const command = chainCommand("commit").description(
    "merge what a running guest has written into the layers below that nobody else stands on",
  );
  return command.action(async (guest: string, disk: string | undefined, options: ChainOptions) => {
    const context = cli.context(command);
    const params = { guest, ...given({ disk, rateBps: options.rate }) };
    const answer = await followDiskWork(context, `committing ${guest}`, (work, deadlineMs) =>
      context.call("disk.commit", { ...params, work }, deadlineMs),
    );
    context.answer(answer, ({ disks }) => disks.flatMap(formatChainOutcome));
  });
}

function chainCommand(name: string): Command {
  return new Command(name)
    .argument("<guest>", "name of the guest")
    .argument("[disk]", "disk0, disk1 and so on (default: all of its disks, one after the other)")
    .option("--rate <size>", "copy at the most so many bytes a second", sizeBytes);
}

function adoptDisks(cli: Cli): Command {
  const command = new Command("adopt")
    .description("take what a guest wrote on a host that is lost (ramet migrate --writes)")
    .argument("<directory>", "where it wrote")
    .requiredOption("-g, --guest <name>", "the guest, as it is kept here");
  return command.action(async (directory: string, { guest }: { guest: string }) => {
    const context = cli.context(command);
    context.answer(await context.call("disk.adopt", { directory, guest }), ({ disks }) => [
      ...disks.map(({ name, id }) => `${name}  ${id}`),
      `run another guest over them, one --disk parent=UUID for each in this order, and then ramet remove ${guest}`,
    ]);
  });
}
