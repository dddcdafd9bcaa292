import { Option, type Command } from "commander";
import { MAX_LINK_DEADLINE_MS } from "../../control/index.js";
import { given, priorityOption, sizeBytes, wholeNumber, type Priority } from "../options.js";

/** How memory is sent, as one may choose for a fork and for a migration. */
export interface PagingOptions {
  compression: "auto" | "lz4" | "none";
  rateLimit?: number;
  priority?: Priority;
  workingSet: boolean;
  linkDeadline?: number;
}

/** The options that `fork` and `migrate` share. */
export function addPagingOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--compression <kind>", "of swept pages").choices(["auto", "lz4", "none"]).default("auto"),
    )
    .option("--rate-limit <bytes>", "most bytes of bulk each second and child, such as 50M", sizeBytes)
    .addOption(priorityOption())
    .option("--no-working-set", "do not send ahead what earlier children of the guest touched first")
    .addOption(
      new Option(
        "--link-deadline <seconds>",
        "give a child up that is out of reach for so long (default: wait for it)",
      ).argParser(wholeNumber(1, MAX_LINK_DEADLINE_MS / 1000)),
    );
}

/** What those options are as parameters. What was not chosen is left to the agent. */
export function pagingParams(options: PagingOptions) {
  const { compression, rateLimit, priority, workingSet, linkDeadline } = options;
  return {
    compression,
    ...given({
      rateLimitBytesPerSecond: rateLimit,
      priority,
      workingSet: workingSet ? undefined : false,
      linkDeadlineMs: linkDeadline === undefined ? undefined : linkDeadline * 1000,
    }),
  };
}
