import { readFileSync } from "node:fs";
import type { ReadStream, WriteStream } from "node:tty";
import { realClock, silentLog } from "../base/index.js";
import { Credentials, dial } from "../lane/index.js";
import type { Environment, Input, Output } from "./environment.js";
import { EXIT } from "./exit-codes.js";
import { Authority } from "./pki/authority.js";

const DEFAULT_COLUMNS = 100;
const DEFAULT_ROWS = 24;

/** The process's own surroundings. */
export function realEnvironment(): Environment {
  endWhenNobodyReads(process.stdout);
  endWhenNobodyReads(process.stderr);
  return {
    variables: process.env,
    stdin: inputOf(process.stdin),
    stdout: outputOf(process.stdout),
    stderr: outputOf(process.stderr),
    clock: realClock,
    version: readVersion(),
    authorities: Authority,
    // Asynchronous, so that files that cannot be used are a rejection as all else.
    dial: async ({ url, key, credentials, deadlineMs }) =>
      dial({
        url,
        hello: { purpose: "control", role: "client" },
        clock: realClock,
        deadlineMs,
        key,
        credentials:
          credentials === undefined
            ? undefined
            : Credentials.load(credentials, { clock: realClock, log: silentLog }),
      }),
    onInterrupt(handler) {
      const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
      for (const signal of signals) process.on(signal, handler);
      return () => {
        for (const signal of signals) process.off(signal, handler);
      };
    },
  };
}

/** `ramet list | head -1` ends ramet as any other tool. */
function endWhenNobodyReads(stream: WriteStream): void {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? EXIT.brokenPipe : EXIT.failed);
  });
}

function outputOf(stream: WriteStream): Output {
  return {
    write: (text) => void stream.write(text),
    get isTerminal() {
      return stream.isTTY === true;
    },
    get columns() {
      return stream.columns ?? DEFAULT_COLUMNS;
    },
    get rows() {
      return stream.rows ?? DEFAULT_ROWS;
    },
  };
}

function inputOf(stream: ReadStream): Input {
  return {
    get isTerminal() {
      return stream.isTTY === true;
    },
    read({ onData, onEnd }) {
      stream.on("data", onData);
      stream.once("end", onEnd);
      return () => {
        stream.off("data", onData);
        stream.off("end", onEnd);
        stream.pause();
      };
    },
    pause: () => void stream.pause(),
    resume: () => void stream.resume(),
    setRaw: (raw) => void stream.setRawMode(raw),
  };
}

/** From package.json, which lies two directories up from this file, compiled or not. */
function readVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
