import { Command } from "commander";
import {
  MAX_EXCHANGE_WAIT_MS,
  MAX_PARALLEL_EXCHANGES,
  type ExchangeOutcome,
  type ExchangeRunView,
} from "../../control/index.js";
import type { Cli } from "../cli.js";
import { WORK_DEADLINE_MS, type Context } from "../context.js";
import { CliError } from "../errors.js";
import { followRun } from "../exchange-follower.js";
import { formatRun } from "../format/exchange.js";
import { formatUs } from "../format/units.js";
import { durationMs, given, wholeNumber } from "../options.js";

interface ExchangeOptions {
  emulator?: string;
  all?: true;
  parallel?: number;
  wait?: number;
  status?: true;
  follow?: true;
  stop?: true;
}

const EXAMPLES = `
Examples:
  ramet exchange web --emulator 10.0
  ramet exchange --all --emulator 10.0 --parallel 4
  ramet exchange --status --follow
  ramet exchange --stop`;

/** `ramet exchange NAME`, `ramet exchange --all`: brings a running guest, or every one of the host, to another emulator. */
export function exchangeCommand(cli: Cli): Command {
  const command = new Command("exchange")
    .description(
      "bring a running guest, or all guests, to another emulator of the host; memory and disks stay where they are",
    )
    .argument("[name]", "name of the guest")
    .option(
      "-e, --emulator <which>",
      "path or version of the emulator (ramet emulators); without it the one that guests start on",
    )
    .option("-a, --all", "every guest of the host; goes on without this command, and with the next agent")
    .option(
      "--parallel <count>",
      "with --all: how many guests at a time (default: 2)",
      wholeNumber(1, MAX_PARALLEL_EXCHANGES),
    )
    .option(
      "--wait <time>",
      "with --all: how long to wait for a guest that is busy (default: 10m)",
      durationMs,
    )
    .option("--status", "show how far the exchange of all guests is, or how the latest one went")
    .option("-f, --follow", "with --status: until it is over")
    .option("--stop", "begin with no further guest; those under way are finished")
    .addHelpText("after", EXAMPLES);
  return command.action(async (name: string | undefined, options: ExchangeOptions) => {
    requireOne(name, options);
    const context = cli.context(command);
    if (options.all === true) return exchangeAll(context, options);
    if (options.status === true) return showRun(context, options);
    if (options.stop === true) return stopRun(context);
    const params = { name: name ?? "", ...given({ emulator: options.emulator }) };
    context.answer(await context.call("guest.exchange", params, WORK_DEADLINE_MS), format);
  });
}

/** @throws CliError `usage` unless the command line asks for one thing, with options of that. */
function requireOne(name: string | undefined, options: ExchangeOptions): void {
  const { all, status, stop } = options;
  const asked = [
    ...(name === undefined ? [] : ["a guest"]),
    ...(all === true ? ["--all"] : []),
    ...(status === true ? ["--status"] : []),
    ...(stop === true ? ["--stop"] : []),
  ];
  if (asked.length === 0)
    throw new CliError("usage", "exchange needs the name of a guest, --all, --status or --stop");
  if (asked.length > 1) throw new CliError("usage", `exchange takes one of ${asked.join(" and ")} at a time`);
  const misplaced = [
    ...(all !== true && options.parallel !== undefined ? ["--parallel is for --all"] : []),
    ...(all !== true && options.wait !== undefined ? ["--wait is for --all"] : []),
    ...(status !== true && options.follow !== undefined ? ["--follow is for --status"] : []),
    ...((status ?? stop) === true && options.emulator !== undefined
      ? ["--emulator is for a guest or --all"]
      : []),
    ...((options.wait ?? 0) > MAX_EXCHANGE_WAIT_MS ? ["--wait is at most 24h"] : []),
  ];
  if (misplaced[0] !== undefined) throw new CliError("usage", misplaced[0]);
}

async function exchangeAll(context: Context, options: ExchangeOptions): Promise<void> {
  const { emulator, parallel, wait: waitMs } = options;
  const { run } = await context.call("exchange.start", given({ emulator, parallel, waitMs }));
  conclude(context, await followRun(context, run, { stream: false }), { isNews: true });
}

async function showRun(context: Context, { follow }: ExchangeOptions): Promise<void> {
  const { run } = await context.call("exchange.show", {});
  if (run !== undefined && follow === true && run.endedAtMs === undefined) {
    const last = await followRun(context, run, { stream: context.json });
    return conclude(context, last, { isNews: !context.json });
  }
  context.answer(run === undefined ? {} : { run }, () =>
    run === undefined ? ["no exchange of all guests was asked for yet"] : lines(context, run),
  );
}

async function stopRun(context: Context): Promise<void> {
  const { run } = await context.call("exchange.stop", {});
  const last = await followRun(context, run, { stream: false });
  context.answer({ run: last }, () => lines(context, last));
}

/** Prints the report, and fails when a guest is not where it was to be. */
function conclude(context: Context, run: ExchangeRunView, { isNews }: { isNews: boolean }): void {
  if (isNews) context.answer({ run }, () => lines(context, run));
  const notThere = run.guests.filter(({ standing }) => ["refused", "failed", "left"].includes(standing));
  if (notThere.length === 0) return;
  throw new CliError("failed", `${notThere.length} of ${run.guests.length} guests were not exchanged`, {
    hint: "the report says why; ramet exchange --all again takes up those that are not there",
  });
}

function lines(context: Context, run: ExchangeRunView): string[] {
  return formatRun(run, context.environment.clock.wallMs());
}

function format({ guest, from, to, pauseUs, message }: ExchangeOutcome): string[] {
  const line = `${guest.name} runs in ${to.path} (${to.version}) since a pause of ${formatUs(pauseUs)}; before it was ${from.version}`;
  return message === undefined ? [line] : [line, message];
}
