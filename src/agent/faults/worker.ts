import { readlinkSync } from "node:fs";
import { basename } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { FaultLanes } from "./fault-lanes.js";
import { assert } from "../../base/index.js";
import type { FaultThreadSettings, Order, Telling } from "./messages.js";

assert(parentPort !== null, "this is what the fault thread runs");
const port = parentPort;
// proc(5): a link to PID/task/TID.
port.postMessage({
  is: "thread",
  thread: Number(basename(readlinkSync("/proc/thread-self"))),
} satisfies Telling);
const lanes = new FaultLanes(workerData as FaultThreadSettings, (telling) => port.postMessage(telling));
port.on("message", (order: Order) => {
  lanes.obey(order);
  // In a thread, this ends the thread alone, with whatever it still waits for.
  if (order.do === "end") void lanes.close().finally(() => process.exit());
});
