import { Argument, Command, Option } from "commander";
import type { Cli } from "../cli.js";
import { CliError } from "../errors.js";
import { formatPlain } from "../format/transfer.js";
import { given, priorityOption, rateOrNone, wholeNumber, type Priority } from "../options.js";

const transferId = () =>
  new Argument("<transfer>", "id, as ramet transfers shows it").argParser(wholeNumber(0, 0xffffffff));

/** `ramet cancel TRANSFER`: ends a fork or migration; the parent runs on. */
export function cancelCommand(cli: Cli): Command {
  const command = new Command("cancel")
    .description("end a fork or migration; the parent runs on, the incomplete child ends")
    .addArgument(transferId())
    .option("--reason <text>", "noted with the transfer");
  return command.action(async (transfer: number, options: { reason?: string }) => {
    const context = cli.context(command);
    const params = options.reason === undefined ? { transfer } : { transfer, reason: options.reason };
    context.answer(await context.call("transfer.cancel", params), (result) => [formatPlain(result.transfer)]);
  });
}

/** `ramet sweep TRANSFER on|held`: lets the background copying go on, or holds it. */
export function sweepCommand(cli: Cli): Command {
  const command = new Command("sweep")
    .description("let the background copying of a transfer go on, or hold it")
    .addArgument(transferId())
    .addArgument(new Argument("<mode>", "on or held").choices(["on", "held"]));
  return command.action(async (transfer: number, sweep: "on" | "held") => {
    const context = cli.context(command);
    const result = await context.call("transfer.sweep", { transfer, sweep });
    context.answer(result, () => [formatPlain(result.transfer)]);
  });
}

interface SteerOptions {
  rateLimit?: number;
  priority?: Priority;
  sweep?: "on" | "held";
  compression?: "auto" | "lz4" | "none";
}

/** `ramet steer TRANSFER`: changes how the memory of a transfer is sent while it is. */
export function steerCommand(cli: Cli): Command {
  const command = new Command("steer")
    .description("change how the memory of a transfer is sent, from now on")
    .addArgument(transferId())
    .option("--rate-limit <bytes>", "most bytes of bulk each second, such as 50M, or none", rateOrNone)
    .addOption(priorityOption())
    .addOption(new Option("--sweep <mode>", "as for fork").choices(["on", "held"]))
    .addOption(new Option("--compression <kind>", "as for fork").choices(["auto", "lz4", "none"]))
    .addHelpText("after", "\nExample:\n  ramet steer 7 --rate-limit 100MiB --priority low");
  return command.action(async (transfer: number, options: SteerOptions) => {
    const context = cli.context(command);
    const { rateLimit: rateLimitBytesPerSecond, ...others } = options;
    const change = given({ rateLimitBytesPerSecond, ...others });
    if (Object.keys(change).length === 0) {
      throw new CliError(
        "usage",
        "steer changes nothing without --rate-limit, --priority, --sweep or --compression",
      );
    }
    const result = await context.call("transfer.steer", { transfer, ...change });
    context.answer(result, () => [formatPlain(result.transfer)]);
  });
}
