import type { Clock } from "../base/index.js";
import type { MessageChannel } from "../control/index.js";
import type { CredentialFiles } from "../lane/index.js";
import type { Authority } from "./pki/authority.js";

/** Where text goes: a terminal, a pipe or a file. */
export interface Output {
  write(text: string | Uint8Array): void;
  readonly isTerminal: boolean;
  readonly columns: number;
  readonly rows: number;
}

/** Where input comes from. */
export interface Input {
  readonly isTerminal: boolean;
  /** Delivers input until the returned function is called; `onEnd` when there will be no more. */
  read(handlers: { onData(bytes: Uint8Array): void; onEnd(): void }): () => void;
  /** Stops and restarts delivery. */
  pause(): void;
  resume(): void;
  /** Raw: keys arrive as they are pressed, Ctrl-C among them. Only on a terminal. */
  setRaw(raw: boolean): void;
}

/** What `dial` needs to know to reach an agent. */
export interface DialRequest {
  url: string;
  /** For `ws://`. */
  key: Buffer | undefined;
  /** For `wss://`. */
  credentials: CredentialFiles | undefined;
  deadlineMs: number;
}

/** Authorities for certificates, in directories. */
export type Authorities = Pick<typeof Authority, "create" | "open">;

/** Everything outside of the program, so that tests can stand in for it. */
export interface Environment {
  readonly variables: { readonly [name: string]: string | undefined };
  readonly stdin: Input;
  readonly stdout: Output;
  readonly stderr: Output;
  readonly clock: Clock;
  readonly version: string;
  readonly authorities: Authorities;
  dial(request: DialRequest): Promise<MessageChannel>;
  /** Calls `handler` when the user presses Ctrl-C or the process is told to end. Returns what takes that back. */
  onInterrupt(handler: () => void): () => void;
}
