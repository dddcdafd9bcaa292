import { parseArgs } from "node:util";
import { messageOf } from "../../base/index.js";
import { AgentError } from "../errors.js";
import { type LoadedConfiguration, loadConfiguration, type Overrides } from "./load.js";

/** What `rametd --help` says. */
export const USAGE = `rametd runs guests on this host, forks them and migrates them to other hosts.

Usage: rametd [flags]

  --config FILE             JSON configuration (default: /etc/ramet/rametd.json where that exists)
  --name NAME               what this host is called (default: the machine's name)
  --state-directory DIR     guests' directories (default: /var/lib/ramet)
  --memory-directory DIR    guests' memory, on tmpfs (default: /dev/shm/ramet)
  --socket PATH             unix socket for local clients (default: /run/ramet/rametd.sock)
  --listen HOST:PORT        where peers and clients connect (default: 127.0.0.1:7070), with the next four or with --plain
  --tls-certificate FILE    what this agent shows
  --tls-key FILE            its private key
  --tls-authority FILE      the authority whose certificates are let in
  --tls-revoked FILE        the authority's list of revoked certificates
  --plain                   no certificates and no encryption: on loopback only, with a pre-shared key
  --key-file FILE           the pre-shared key of plain connections
  --memory-limit-mib N      most guest memory (default: what the memory directory has, less a reserve)
  --rehearsal-ms N          processor time for transfers it plays with itself before its first real one (default: 2000; 0 for none)
  --log-level LEVEL         trace, debug, info, warn, error or silent (default: info)
  --takeover                go on in the place of the agent that runs with this configuration, which ends
  --help, --version

A flag wins over the file. The fields of the file are described in docs/configuration.md.
`;

const OPTIONS = {
  config: { type: "string" },
  name: { type: "string" },
  "state-directory": { type: "string" },
  "memory-directory": { type: "string" },
  listen: { type: "string" },
  socket: { type: "string" },
  "tls-certificate": { type: "string" },
  "tls-key": { type: "string" },
  "tls-authority": { type: "string" },
  "tls-revoked": { type: "string" },
  plain: { type: "boolean" },
  "key-file": { type: "string" },
  "memory-limit-mib": { type: "string" },
  "rehearsal-ms": { type: "string" },
  "log-level": { type: "string" },
  takeover: { type: "boolean" },
  help: { type: "boolean" },
  version: { type: "boolean" },
} as const;

/** What the command line asks for. */
export type Invocation =
  | { action: "run"; configuration: LoadedConfiguration; takeover: boolean }
  | { action: "help" }
  | { action: "version" };

/**
 * Reads the command line and, through it, the configuration.
 * @param defaultFile is read when no `--config` is given; undefined for none.
 * @throws AgentError `bad-configuration`.
 */
export function readCommandLine(argv: readonly string[], defaultFile?: string): Invocation {
  const flags = parse(argv);
  if (flags.help === true) return { action: "help" };
  if (flags.version === true) return { action: "version" };
  const tls = {
    ...(flags["tls-certificate"] === undefined ? {} : { certificate: flags["tls-certificate"] }),
    ...(flags["tls-key"] === undefined ? {} : { key: flags["tls-key"] }),
    ...(flags["tls-authority"] === undefined ? {} : { authority: flags["tls-authority"] }),
    ...(flags["tls-revoked"] === undefined ? {} : { revoked: flags["tls-revoked"] }),
  };
  const overrides: Overrides = {
    ...(Object.keys(tls).length === 0 ? {} : { tls }),
    ...(flags.plain === undefined ? {} : { plain: flags.plain }),
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags["state-directory"] === undefined ? {} : { stateDirectory: flags["state-directory"] }),
    ...(flags["memory-directory"] === undefined ? {} : { memoryDirectory: flags["memory-directory"] }),
    ...(flags.listen === undefined ? {} : { listen: flags.listen }),
    ...(flags.socket === undefined ? {} : { socket: flags.socket }),
    ...(flags["key-file"] === undefined ? {} : { keyFile: flags["key-file"] }),
    ...(flags["log-level"] === undefined ? {} : { logLevel: flags["log-level"] }),
    ...(flags["rehearsal-ms"] === undefined ? {} : { rehearsalMs: Number(flags["rehearsal-ms"]) }),
    ...(flags["memory-limit-mib"] === undefined ? {} : { memoryMib: Number(flags["memory-limit-mib"]) }),
  };
  return {
    action: "run",
    configuration: loadConfiguration(flags.config ?? defaultFile, overrides),
    takeover: flags.takeover === true,
  };
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new AgentError("bad-configuration", `${messageOf(error)}\nrametd --help lists the flags`, {
      cause: error,
    });
  }
}
