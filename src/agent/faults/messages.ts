import type { LogLevel } from "../../base/index.js";
import type { CredentialFiles, Handed, Hello } from "../../lane/index.js";
import type { Identity } from "../../base/index.js";
import type { SharedFaults } from "../../memory/index.js";
import type { Answers, ChildShare, LaneEnd, SessionShare, TakenPages } from "../../transfer/index.js";
import type { Frame } from "../../wire/index.js";
import type { LaneAddress } from "../transfers/dial-lane.js";

/** What the fault thread is made with. */
export interface FaultThreadSettings {
  tls: CredentialFiles | undefined;
  key: Uint8Array | undefined;
  logLevel: LogLevel;
}

/** Which of the agent's sockets a connection came to. */
export type Socketed = "tcp" | "unix";

/** What the fault thread is told to do. Lanes and children have numbers; a descriptor is the thread's from here on. */
export type Order =
  | { do: "take"; at: Socketed; handed: Handed }
  | { do: "dial"; lane: number; address: LaneAddress }
  | { do: "park"; lane: number }
  | {
      do: "answer";
      lane: number;
      transfer: number;
      pageCount: number;
      share: SessionShare;
      file: number | undefined;
    }
  | { do: "ask"; lane: number; child: number }
  | { do: "send"; lane: number; frame: Frame }
  | { do: "close"; lane: number; end: LaneEnd }
  | {
      do: "fill";
      child: number;
      transfer: number;
      faults: SharedFaults;
      share: ChildShare;
      digests: string | undefined;
    }
  | { do: "settle"; child: number; pages: readonly number[] }
  | { do: "stop"; child: number; gate: SharedArrayBuffer }
  | { do: "reload" }
  | { do: "end" };

/** What the fault thread tells. */
export type Telling =
  /** Once, before all else: the thread's number on this host (gettid(2)). */
  | { is: "thread"; thread: number }
  | { is: "arrived"; lane: number; hello: Hello; identity: Identity; remote: string }
  | { is: "dialled"; lane: number }
  | { is: "undialled"; lane: number; error: { code: string; message: string; fatal: boolean } }
  | { is: "answered"; lane: number; answers: Answers; bytes: number }
  | { is: "frame"; lane: number; frame: Frame; frameBytes: number; bytes: number }
  | { is: "counted"; lane: number; bytes: number }
  | { is: "ended"; lane: number; end: LaneEnd }
  | { is: "taken"; child: number; taken: readonly TakenPages[] }
  | { is: "failed"; child: number; code: string; message: string };
