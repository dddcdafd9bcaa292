import { resolve } from "node:path";
import { Command, Option } from "commander";
import { IMAGE_FORMATS, type ImageView } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { formatImage, formatImages, formatPruned, formatStored, imageName } from "../format/image.js";
import { formatBytes } from "../format/units.js";
import { durationMs, given } from "../options.js";
import { followImageWork } from "../image-follower.js";

const EXAMPLES = `
Examples:
  ramet image import /srv/debian-12.qcow2 --name debian-12
  ramet image pull debian-12 --from hostb
  ramet image list
  ramet image verify debian-12
  ramet image prune --unused-for 30d --dry-run`;

interface TenantOptions {
  tenant?: string;
}

/** `ramet image`: base disks of the host. */
export function imageCommand(cli: Cli): Command {
  const command = new Command("image")
    .description("import, list, check and remove base disks")
    .addHelpText("after", EXAMPLES);
  for (const inner of [
    importCommand(cli),
    pullCommand(cli),
    listCommand(cli),
    showCommand(cli),
    verifyCommand(cli),
    removeCommand(cli),
  ])
    command.addCommand(
      inner.option("--tenant <tenant>", "whose image (default: that of your certificate, or default)"),
    );
  command.addCommand(pruneCommand(cli));
  return command;
}

function importCommand(cli: Cli): Command {
  const command = new Command("import")
    .description("make an image of a raw or qcow2 file of the agent's machine")
    .argument("<file>", "the disk, on the agent's machine")
    .option("--name <identifier>", "what to call it (default: no name, only its digest)")
    .addOption(
      new Option("--format <format>", "what the file is, other than its first bytes say").choices(
        IMAGE_FORMATS,
      ),
    );
  return command.action(
    async (file: string, options: TenantOptions & { name?: string; format?: "raw" | "qcow2" }) => {
      const context = cli.context(command);
      const params = {
        path: context.address.shown === "nothing" ? resolve(file) : file,
        ...given({ identifier: options.name, tenant: options.tenant, format: options.format }),
      };
      const result = await followImageWork(context, `importing ${file}`, (work, deadlineMs) =>
        context.call("image.import", { ...params, work }, deadlineMs),
      );
      context.answer(result, ({ image }) => [`${imageName(image)} is here`, ...formatImage(image)]);
    },
  );
}

function pullCommand(cli: Cli): Command {
  const command = new Command("pull")
    .description("copy an image from another host, unless its bytes are here")
    .argument(...REFERENCE)
    .requiredOption("--from <host>", "a host that has it, as the configuration names peers, or HOST:PORT")
    .option("--name <identifier>", "what to call it here (default: as there)");
  return command.action(
    async (reference: string, options: TenantOptions & { from: string; name?: string }) => {
      const context = cli.context(command);
      const params = {
        reference,
        from: options.from,
        ...given({ identifier: options.name, tenant: options.tenant }),
      };
      const title = `${reference} from ${options.from}`;
      const result = await followImageWork(context, title, (work, deadlineMs) =>
        context.call("image.pull", { ...params, work }, deadlineMs),
      );
      context.answer(result, ({ image, wireBytes }) => [
        wireBytes === 0
          ? `${imageName(image)} is here; its bytes were before`
          : `${imageName(image)} is here; ${formatBytes(wireBytes)} came over the network`,
        ...formatImage(image),
      ]);
    },
  );
}

function listCommand(cli: Cli): Command {
  const command = new Command("list")
    .alias("ls")
    .description("list the images of a tenant")
    .option("--all", "all images of the host, with who has and uses them")
    .option("-q, --quiet", "print names only; digests of images without one");
  return command.action(async (options: TenantOptions & { all?: true; quiet?: true }) => {
    const context = cli.context(command);
    if (options.all === true) {
      const answer = await context.call("image.stored", {});
      return context.answer(answer, ({ images }) =>
        options.quiet === true ? images.map(({ digest }) => digest) : formatStored(images),
      );
    }
    const answer = await context.call("image.list", given({ tenant: options.tenant }));
    return context.answer(answer, ({ images }) =>
      options.quiet === true
        ? images.map(({ identifier, digest }) => identifier ?? digest)
        : formatImages(images, context.environment.clock.wallMs()),
    );
  });
}

const REFERENCE = ["<image>", "its name, or the first 8 or more digits of its digest"] as const;

function showCommand(cli: Cli): Command {
  const command = new Command("show").description("show an image").argument(...REFERENCE);
  return command.action(async (reference: string, options: TenantOptions) => {
    const context = cli.context(command);
    const answer = await context.call("image.show", { reference, ...given({ tenant: options.tenant }) });
    context.answer(answer, ({ image }) => formatImage(image));
  });
}

function verifyCommand(cli: Cli): Command {
  const command = new Command("verify")
    .description("read all of an image, and see whether it is what it was")
    .argument(...REFERENCE);
  return command.action(async (reference: string, options: TenantOptions) => {
    const context = cli.context(command);
    const params = { reference, ...given({ tenant: options.tenant }) };
    const answer = await followImageWork(context, `reading ${reference}`, (work, deadlineMs) =>
      context.call("image.verify", { ...params, work }, deadlineMs),
    );
    context.answer(answer, ({ image }) => [`${imageName(image)} is what it was`]);
  });
}

function removeCommand(cli: Cli): Command {
  const command = new Command("remove")
    .alias("rm")
    .description("take an image from a tenant; its bytes stay until they are pruned")
    .argument(...REFERENCE);
  return command.action(async (reference: string, options: TenantOptions) => {
    const context = cli.context(command);
    const answer = await context.call("image.remove", { reference, ...given({ tenant: options.tenant }) });
    context.answer(answer, ({ image }: { image: ImageView }) => [
      `${imageName(image)} is removed; its bytes stay until they are pruned: ramet image prune --unused-for 0s --keep-owned`,
    ]);
  });
}

function pruneCommand(cli: Cli): Command {
  const command = new Command("prune")
    .description("delete images that no disk has stood on for some time, on any host that shares them")
    .requiredOption(
      "--unused-for <time>",
      "how long, such as 12h or 30d; 0s for all that are unused now",
      durationMs,
    )
    .option("--keep-owned", "keep those that a tenant has, by name or without one")
    .option("--dry-run", "only say which would be deleted");
  return command.action(async (options: { unusedFor: number; keepOwned?: true; dryRun?: true }) => {
    const context = cli.context(command);
    const dryRun = options.dryRun === true;
    const params = { unusedForMs: options.unusedFor, keepOwned: options.keepOwned === true, dryRun };
    const answer = await context.call("image.prune", params, PRUNE_DEADLINE_MS);
    context.answer(answer, ({ images, left }) => formatPruned(images, { dryRun, left }));
  });
}

/** Deleting large files takes its time on some file systems. */
const PRUNE_DEADLINE_MS = 3_600_000;
