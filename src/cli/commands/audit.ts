import { Command } from "commander";
import type { AuditEntry } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { printable } from "../format/text.js";
import { wholeNumber } from "../options.js";

const DEFAULT_COUNT = 20;
const MAX_COUNT = 1000;

/** `ramet audit`: who commanded what. */
export function auditCommand(cli: Cli): Command {
  const command = new Command("audit")
    .description("show who commanded what, and how it came out")
    .option("-n, --lines <count>", "how many of the last commands", wholeNumber(1, MAX_COUNT), DEFAULT_COUNT);
  return command.action(async ({ lines }: { lines: number }) => {
    const context = cli.context(command);
    context.answer(await context.call("agent.audit", { count: lines }), ({ entries }) => entries.map(format));
  });
}

function format({ at, who, from, method, params, outcome }: AuditEntry): string {
  return printable(`${at}  ${who} (${from})  ${method} ${params}  ${outcome}`);
}
