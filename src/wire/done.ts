import { checkBodyLength, checkFlags, type BodyCodec } from "./body.js";

/** Parent: every page was sent. Child: every page was received. Bulk lane, once in each direction. */
export interface DoneFrame {
  kind: "done";
}

/** Body: empty. */
export const doneCodec: BodyCodec<DoneFrame> = {
  flags: () => 0,
  bodyBytes: () => 0,
  encode: () => undefined,

  decode(body, { flags }) {
    checkFlags("done", flags, 0);
    checkBodyLength("done", body, 0);
    return { kind: "done" };
  },
};
