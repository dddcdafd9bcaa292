import { execFile, spawn } from "node:child_process";
import type { Log } from "../base/index.js";

const NOTIFY_DEADLINE_MS = 5000;

let successor: number | undefined;

/**
 * Starts the agent that is installed now, with this one's command line and `--takeover`. It asks this one to leave when it is ready to; when it cannot start, this
 * one goes on.
 */
export function startSuccessor(log: Log): void {
  if (successor !== undefined) {
    log.warn({ successor }, "asked to reload while a new agent starts already");
    return;
  }
  const [, program = "", ...flags] = process.argv;
  const command = [
    ...process.execArgv,
    program,
    ...flags.filter((flag) => flag !== "--takeover"),
    "--takeover",
  ];
  const child = spawn(process.execPath, command, { stdio: "inherit", detached: true });
  successor = child.pid;
  log.info({ successor }, "asked to reload: a new agent starts, to take over");
  child.once("error", (error) => {
    successor = undefined;
    log.error({ problem: error.message }, "a new agent could not be started; this one goes on");
  });
  child.once("exit", (code, signal) => {
    successor = undefined;
    log.error({ code, signal }, "the new agent has ended before it took over; this one goes on");
  });
  child.unref();
}

/**
 * Tells systemd, where that started us, that the service is ready (`--ready`), or which process it is from now on (`--pid`), so that systemd minds this one
 * (sd_notify(3), systemd-notify(1)).
 */
export function notify(log: Log, what: "--ready" | "--pid"): Promise<void> {
  if (process.env["NOTIFY_SOCKET"] === undefined) return Promise.resolve();
  return new Promise((resolve) => {
    const argument = what === "--pid" ? `--pid=${process.pid}` : what;
    execFile("systemd-notify", [argument], { timeout: NOTIFY_DEADLINE_MS }, (error) => {
      if (error !== null)
        log.warn({ what, problem: error.message }, "systemd could not be told of this process");
      resolve();
    });
  });
}
