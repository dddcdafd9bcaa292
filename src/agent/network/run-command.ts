import { execFile } from "node:child_process";
import { AgentError } from "../errors.js";

const COMMAND_DEADLINE_MS = 5000;

/**
 * Runs a system tool and returns its standard output.
 * @throws AgentError `network` with what the tool said.
 */
export function runCommand(command: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: COMMAND_DEADLINE_MS, encoding: "utf8" }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const said = stderr.trim() === "" ? error.message : stderr.trim();
      reject(new AgentError("network", `${[command, ...args].join(" ")}: ${said}`, { cause: error }));
    });
  });
}
