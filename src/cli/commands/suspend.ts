import { Command } from "commander";
import { codeOf, messageOf } from "../../base/index.js";
import type { GuestState, GuestView, ResumeOutcome } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { WORK_DEADLINE_MS, type Context } from "../context.js";
import { CliError } from "../errors.js";
import { formatPlain } from "../format/transfer.js";
import { formatBytes } from "../format/units.js";

const MS_PER_SECOND = 1000;

/** Most that a transfer's number can be. */
const MAX_TRANSFER = 0xffffffff;

/** What could not be done for one of several guests. */
interface Failure {
  name: string;
  code: string;
  message: string;
}

/** `ramet suspend NAME`: takes a guest out of its emulator, which ends. */
export function suspendCommand(cli: Cli): Command {
  const command = new Command("suspend")
    .description("suspend a guest in memory: it stands still with no emulator, until ramet resume")
    .argument("[name]", "name of the guest")
    .option("--all", "every guest that runs")
    .addHelpText(
      "after",
      "\nExample:\n  ramet suspend web && ramet resume web\n  ramet suspend --all, before the host is rebooted with its memory kept",
    );
  return command.action(async (name: string | undefined, { all }: { all?: true }) => {
    const context = cli.context(command);
    const suspend = (one: string) => context.call("guest.suspend", { name: one }, WORK_DEADLINE_MS);
    if (requireOneOrAll(name, all)) return answerAll(context, "running", suspend, formatSuspended);
    context.answer(await suspend(name ?? ""), formatSuspended);
  });
}

/** `ramet resume NAME`, or `TRANSFER`: lets a suspended guest, or a child that was made with --paused, run. */
export function resumeCommand(cli: Cli): Command {
  const command = new Command("resume")
    .description("let a suspended guest run on, or a child that was forked with --paused run")
    .argument("[name]", "name of the guest; or id of the child's transfer, as ramet transfers shows it")
    .option("--all", "every guest that is suspended")
    .option(
      "-e, --emulator <which>",
      "path or version of the emulator (ramet emulators); without it the one that guests start on",
    )
    .addHelpText("after", "\nExample:\n  ramet resume web --emulator 10.0");
  return command.action(async (what: string | undefined, options: { all?: true; emulator?: string }) => {
    const context = cli.context(command);
    const { emulator } = options;
    const resume = (name: string): Promise<ResumeOutcome> =>
      context.call(
        "guest.resume",
        { name, ...(emulator === undefined ? {} : { emulator }) },
        WORK_DEADLINE_MS,
      );
    if (requireOneOrAll(what, options.all)) return answerAll(context, "suspended", resume, formatResumed);
    const name = what ?? "";
    if (await isTransfer(context, name)) {
      const result = await context.call("transfer.run", { transfer: Number(name) });
      return context.answer(result, ({ transfer }) => [formatPlain(transfer)]);
    }
    context.answer(await resume(name), formatResumed);
  });
}

/** A guest may be called like a number, too; then it is the guest. */
async function isTransfer(context: Context, what: string): Promise<boolean> {
  if (!/^\d{1,10}$/.test(what) || Number(what) > MAX_TRANSFER) return false;
  const { guests } = await context.call("guest.list", {});
  const whole = context.guestName(what);
  return !guests.some(({ name }) => name === whole);
}

/** @throws CliError `usage` unless it is one of both. */
function requireOneOrAll(name: string | undefined, all: true | undefined): boolean {
  if ((name === undefined) === (all === true)) return all === true;
  throw new CliError("usage", "name one guest, or give --all");
}

/** Does it for every guest in this state, one after the other; one that cannot be keeps no other from it. */
async function answerAll<T>(
  context: Context,
  state: GuestState,
  act: (name: string) => Promise<T>,
  text: (result: T) => string[],
): Promise<void> {
  const { guests } = await context.call("guest.list", {});
  const done: T[] = [];
  const failed: Failure[] = [];
  for (const { name } of guests.filter((guest) => guest.state === state)) {
    try {
      const result = await act(name);
      done.push(result);
      if (!context.json) context.answer(result, text);
    } catch (error) {
      failed.push({ name, code: codeOf(error) ?? "internal", message: messageOf(error) });
    }
  }
  const others = guests.filter((guest) => guest.state !== state).map(({ name, state }) => ({ name, state }));
  const skipped = others.map(({ name, state }) => `${name} is ${state}: nothing was done`);
  const lines = [...skipped, ...failed.map(({ name, message }) => `${name}: ${message}`)];
  if (context.json) context.printJson({ done, failed, others });
  else context.answer(lines, (all) => (all.length + done.length === 0 ? ["no guests"] : all));
  if (failed.length === 0) return;
  const names = failed.map(({ name }) => name).join(", ");
  throw new CliError("failed", `${failed.length} of ${failed.length + done.length} guests failed: ${names}`);
}

function formatSuspended({ guest: { name, state, suspended } }: { guest: GuestView }): string[] {
  if (suspended === undefined) return [`${name} is ${state}`];
  const { allocatedBytes, stateBytes } = suspended;
  return [
    `${name} is suspended: ${formatBytes(allocatedBytes)} of memory and ${formatBytes(stateBytes)} of device state`,
  ];
}

function formatResumed({ guest, emulator, stoodStillMs, message }: ResumeOutcome): string[] {
  const stood =
    stoodStillMs === undefined ? "" : `; it stood still for ${(stoodStillMs / MS_PER_SECOND).toFixed(1)} s`;
  const line = `${guest.name} runs in ${emulator.path} (${emulator.version})${stood}`;
  return message === undefined ? [line] : [line, message];
}
