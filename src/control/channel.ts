/** Why a channel ended. `fatal` means that dialling again cannot help. */
export interface ChannelEnd {
  code: string;
  message: string;
  fatal: boolean;
}

/** One ordered, reliable stream of messages to the other side. A connection of the lane room is one. */
export interface MessageChannel {
  /** Hands over one encoded message; the caller no longer touches it. */
  send(message: Uint8Array): void;
  /** Bytes handed over that the machine's network stack has not yet taken. */
  readonly queuedBytes: number;
  /** Must be called once; messages that arrived before are delivered then, in order. */
  attach(handlers: { onFrame(message: Uint8Array): void; onEnd(end: ChannelEnd): void }): void;
  /** Ends the channel; `onEnd` is not called for it. May be called twice. */
  close(end: ChannelEnd): void;
}
