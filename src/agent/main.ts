#!/usr/bin/env node
import "./compile-early.js";
import { existsSync } from "node:fs";
import { CodedError, createLog, messageOf, realClock, silentLog } from "../base/index.js";
import { Agent } from "./agent.js";
import { readCommandLine, USAGE, type LoadedConfiguration } from "./configuration/index.js";
import { raisePriority } from "./priority.js";
import { notify, startSuccessor } from "./service-manager.js";
import { takeOver } from "./takeover.js";
import { AGENT_VERSION } from "./version.js";

const DEFAULT_FILE = "/etc/ramet/rametd.json";

/** Exit codes, as sysexits.h has them: the command line or file is wrong; what is needed is missing; we are. */
const EXIT = { configuration: 64, unavailable: 69, internal: 70 } as const;

function fail(error: unknown): never {
  const code = error instanceof CodedError ? error.code : "internal";
  process.stderr.write(`rametd: ${messageOf(error)}\n`);
  if (!(error instanceof CodedError) && error instanceof Error)
    process.stderr.write(`${error.stack ?? ""}\n`);
  process.exit(
    code === "bad-configuration"
      ? EXIT.configuration
      : code === "internal"
        ? EXIT.internal
        : EXIT.unavailable,
  );
}

async function run(configuration: LoadedConfiguration, takeover: boolean): Promise<void> {
  const log = configuration.logLevel === "silent" ? silentLog : createLog(configuration.logLevel);
  process.on("uncaughtException", (error) => {
    log.fatal({ err: error }, "the agent is wrong about something and stops; guests run on");
    process.exit(EXIT.internal);
  });
  raisePriority(log);
  const inheritance = takeover
    ? await takeOver(configuration, { clock: realClock, log, beforeIt: () => notify(log, "--pid") })
    : undefined;
  const leave = (): void => {
    log.info("another agent takes over");
    agent.leave().then(
      () => process.exit(0),
      (error: unknown) => fail(error),
    );
  };
  const agent = await Agent.start({
    configuration,
    clock: realClock,
    log,
    onLeave: leave,
    ...(inheritance === undefined ? {} : { inheritance }),
  });
  const stop = (signal: NodeJS.Signals): void => {
    log.info({ signal }, "asked to stop");
    agent.stop().then(
      () => process.exit(0),
      (error: unknown) => fail(error),
    );
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", () => startSuccessor(log));
  process.stdout.write(`rametd ${AGENT_VERSION} is ready: ${describe(agent, configuration)}\n`);
  await notify(log, "--ready");
  agent.rehearse();
}

function describe({ url, takeover }: Agent, { socket }: LoadedConfiguration): string {
  const addresses = [...(url === undefined ? [] : [url]), `unix:${socket}`].join(", ");
  if (takeover === undefined) return addresses;
  return `${addresses}; took over from process ${takeover.pid} within ${takeover.waitedMs.toFixed(1)} ms`;
}

try {
  const invocation = readCommandLine(
    process.argv.slice(2),
    existsSync(DEFAULT_FILE) ? DEFAULT_FILE : undefined,
  );
  switch (invocation.action) {
    case "help":
      process.stdout.write(USAGE);
      break;
    case "version":
      process.stdout.write(`rametd ${AGENT_VERSION}\n`);
      break;
    case "run":
      await run(invocation.configuration, invocation.takeover);
      break;
  }
} catch (error) {
  fail(error);
}
