import { execFile } from "node:child_process";
import { AgentError } from "../errors.js";

const COMMAND_DEADLINE_MS = 5000;

/**
 * Runs a system tool and returns its standard output.
 * @throws AgentError `network` with what the tool said.
 */
export function runCommand(command: string, ...args: string[]): Promise<string> {
  return feedCommand("", command, ...args);
}

/** As `runCommand`, with a text as its standard input. */
export function feedCommand(input: string, command: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      args,
      { timeout: COMMAND_DEADLINE_MS, encoding: "utf8" },
      (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        const said = stderr.trim() === "" ? error.message : stderr.trim();
        reject(new AgentError("network", `${[command, ...args].join(" ")}: ${said}`, { cause: error }));
      },
    );
    // One that ended without reading it says why by itself.
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
  });
}
