import type { CodedError } from "../../../src/base/index.js";
import { LOCAL_IDENTITY, silentLog } from "../../../src/base/index.js";
import { RpcServerSession, type Handlers } from "../../../src/control/index.js";
import { CliError } from "../../../src/cli/errors.js";
import type { Authorities, DialRequest, Environment, Input, Output } from "../../../src/cli/environment.js";
import type { ExitCode } from "../../../src/cli/exit-codes.js";
import { runCli } from "../../../src/cli/run-cli.js";
import { channelPair, clientHandlers, ManualClock } from "../control/support.js";

/** An output that keeps what is written. */
export class FakeOutput implements Output {
  text = "";
  isTerminal = false;
  columns = 120;
  rows = 24;

  write(text: string | Uint8Array): void {
    this.text += typeof text === "string" ? text : Buffer.from(text).toString();
  }
}

/** An input that a test types into. */
export class FakeInput implements Input {
  isTerminal = false;
  raw = false;
  paused = false;
  handlers: { onData(bytes: Uint8Array): void; onEnd(): void } | undefined;

  read(handlers: { onData(bytes: Uint8Array): void; onEnd(): void }): () => void {
    this.handlers = handlers;
    return () => (this.handlers = undefined);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  setRaw(raw: boolean): void {
    this.raw = raw;
  }

  type(text: string): void {
    this.handlers?.onData(Buffer.from(text));
  }
}

/** A command line with a fake agent at its other end, all in memory. */
export class FakeSetting {
  readonly stdout = new FakeOutput();
  readonly stderr = new FakeOutput();
  readonly stdin = new FakeInput();
  readonly clock = new ManualClock();
  readonly variables: { [name: string]: string } = {};
  readonly dialled: DialRequest[] = [];
  readonly sessions: RpcServerSession[] = [];
  readonly handlers: Handlers<"client">;
  /** None, so that no test touches the machine's own by mistake. */
  authorities: Authorities = NO_AUTHORITIES;
  refusal: CodedError | undefined;
  interrupt: () => void = () => {};

  constructor(handlers: Partial<Handlers<"client">> = {}) {
    this.handlers = clientHandlers(handlers);
  }

  get session(): RpcServerSession {
    return this.sessions.at(-1) as RpcServerSession;
  }

  run(...argv: string[]): Promise<ExitCode> {
    return runCli(argv, this.#environment());
  }

  #environment(): Environment {
    return {
      variables: this.variables,
      stdin: this.stdin,
      stdout: this.stdout,
      stderr: this.stderr,
      clock: this.clock,
      version: "9.8.7",
      authorities: this.authorities,
      dial: (request) => {
        this.dialled.push(request);
        if (this.refusal) return Promise.reject(this.refusal);
        const { near, far } = channelPair();
        const { handlers, clock } = this;
        this.sessions.push(
          new RpcServerSession(far, {
            identity: LOCAL_IDENTITY,
            role: "client",
            handlers,
            clock,
            log: silentLog,
          }),
        );
        return Promise.resolve(near);
      },
      onInterrupt: (handler) => {
        this.interrupt = handler;
        return () => (this.interrupt = () => {});
      },
    };
  }
}

/** For settings that must leave the machine as it is. */
export const NO_AUTHORITIES: Authorities = { create: noAuthority, open: noAuthority };

function noAuthority(): never {
  throw new CliError("failed", "this setting has no authority");
}

/** Lets everything that is due by itself happen. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
