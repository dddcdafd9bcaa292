import { readFileSync } from "node:fs";
import { messageOf } from "../base/index.js";
import { CliError } from "./errors.js";

/**
 * Reads a pre-shared key: the text of the file without white space around it, as `rametd` reads it.
 * @throws CliError `usage`.
 */
export function readKey(path: string): Buffer {
  let text: string;
  try {
    text = readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new CliError("usage", `the key file cannot be read: ${messageOf(error)}`, { cause: error });
  }
  if (text.length > 0) return Buffer.from(text);
  throw new CliError("usage", `the key file ${path} is empty`, {
    hint: "it must hold the same key as the agent's keyFile",
  });
}
