import { checkBodyLength, checkFlags, type BodyCodec } from "./body.js";
import { RELAYED_ON_FLAG } from "./numbers.js";

/** Child, on the bulk lane: another child passes on to it what it is given (`on`), or does not any more. */
export interface RelayedFrame {
  kind: "relayed";
  on: boolean;
}

/** Flags: bit 0 on. Body: empty. */
export const relayedCodec: BodyCodec<RelayedFrame> = {
  flags: (frame) => (frame.on ? RELAYED_ON_FLAG : 0),
  bodyBytes: () => 0,
  encode: () => undefined,

  decode(body, { flags }) {
    checkFlags("relayed", flags, RELAYED_ON_FLAG);
    checkBodyLength("relayed", body, 0);
    return { kind: "relayed", on: (flags & RELAYED_ON_FLAG) !== 0 };
  },
};
