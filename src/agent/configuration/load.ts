import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type z } from "zod";
import { messageOf } from "../../base/index.js";
import { AgentError } from "../errors.js";
import { checkTransport } from "./transport.js";
import { type Configuration, configurationSchema } from "./schema.js";

/** Values from the command line, named as in the file; each one wins over the file's. */
export type Overrides = Partial<
  Record<"stateDirectory" | "memoryDirectory" | "listen" | "socket" | "name" | "keyFile" | "logLevel", string>
> & {
  memoryMib?: number;
  plain?: boolean;
  tls?: Partial<Record<"certificate" | "key" | "authority" | "revoked", string>>;
};

/** Most bytes in the path of a unix socket on Linux (sun_path less its terminator; unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/** The longest name a guest's socket has below its directory. */
const LONGEST_SOCKET_NAME = "run/console.sock";

/** Fewest bytes of a pre-shared key: less can be guessed by trying. */
const MIN_KEY_BYTES = 16;

/** A configuration with its key read. */
export interface LoadedConfiguration extends Configuration {
  key: Buffer | undefined;
}

/**
 * Reads, completes and checks the configuration.
 * @param file path of a JSON file; undefined for defaults only.
 * @throws AgentError `bad-configuration` with one line per bad field, each naming the field and the rule.
 */
export function loadConfiguration(file: string | undefined, overrides: Overrides = {}): LoadedConfiguration {
  const { memoryMib, tls, ...top } = overrides;
  const content = file === undefined ? {} : readConfigurationFile(file);
  const limits = memoryMib === undefined ? {} : { limits: { ...objectOf(content["limits"]), memoryMib } };
  const tlsFiles = tls === undefined ? {} : { tls: { ...objectOf(content["tls"]), ...tls } };
  const parsed = configurationSchema.safeParse({ ...content, ...top, ...tlsFiles, ...limits });
  if (!parsed.success) {
    throw badConfiguration(file, parsed.error.issues.flatMap(describeIssue));
  }
  const problems = [...checkSockets(parsed.data), ...checkTransport(parsed.data)];
  const key = parsed.data.keyFile === undefined ? undefined : readKey(parsed.data.keyFile, problems);
  if (problems.length > 0) throw badConfiguration(file, problems);
  return { ...parsed.data, key };
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function readConfigurationFile(file: string): Record<string, unknown> {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new AgentError(
      "bad-configuration",
      `the configuration file ${file} cannot be read as JSON: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new AgentError("bad-configuration", `the configuration file ${file} must hold one JSON object`);
  }
  return content as Record<string, unknown>;
}

function badConfiguration(file: string | undefined, problems: readonly string[]): AgentError {
  const where = file === undefined ? "the configuration" : `the configuration (${file} and flags)`;
  return new AgentError(
    "bad-configuration",
    `${where} is not valid:\n${problems.map((problem) => `  ${problem}`).join("\n")}`,
  );
}

/** `field: rule`, one for each field that is wrong. */
export function describeIssue(issue: z.core.$ZodIssue): string[] {
  const path = issue.path.map(String);
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => `${[...path, key].join(".")}: there is no such field`);
  }
  const field = path.length === 0 ? "(whole)" : path.join(".");
  if (issue.code === "invalid_key")
    return [`${field}: ${issue.issues.map((inner) => inner.message).join("; ")}`];
  if (issue.code === "invalid_type") return [`${field}: must be ${withArticle(issue.expected)}`];
  return [`${field}: ${issue.message}`];
}

function withArticle(type: string): string {
  if (type === "int" || type === "number") return "a whole number";
  return /^[aeiou]/.test(type) ? `an ${type}` : `a ${type}`;
}

/** Unix socket paths are short: better a clear word at start than a guest that cannot be run. */
function checkSockets(configuration: Configuration): string[] {
  const problems: string[] = [];
  const uuid = "00000000-0000-0000-0000-000000000000";
  const longest = Buffer.byteLength(join(configuration.stateDirectory, "guests", uuid, LONGEST_SOCKET_NAME));
  if (longest > MAX_SOCKET_PATH_BYTES) {
    const room = MAX_SOCKET_PATH_BYTES - (longest - Buffer.byteLength(configuration.stateDirectory));
    problems.push(
      `stateDirectory: must be at most ${room} bytes, because guests' sockets lie below it and a unix socket's path is limited to ${MAX_SOCKET_PATH_BYTES}`,
    );
  }
  if (Buffer.byteLength(configuration.socket) > MAX_SOCKET_PATH_BYTES) {
    problems.push(
      `socket: must be at most ${MAX_SOCKET_PATH_BYTES} bytes, the limit of a unix socket's path`,
    );
  }
  return problems;
}

function readKey(path: string, problems: string[]): Buffer | undefined {
  let key: Buffer;
  try {
    if ((statSync(path).mode & 0o077) !== 0) {
      problems.push(`keyFile: ${path} can be read by others than its owner; run: chmod 600 ${path}`);
      return undefined;
    }
    key = Buffer.from(readFileSync(path, "utf8").trim());
  } catch (error) {
    problems.push(`keyFile: ${messageOf(error)}`);
    return undefined;
  }
  if (key.length >= MIN_KEY_BYTES) return key;
  problems.push(
    `keyFile: ${path} must hold at least ${MIN_KEY_BYTES} characters; make one with: openssl rand -hex 32 > ${path}`,
  );
  return undefined;
}
