// Watches a descriptor from a worker thread, and never stops by itself: the worker is terminated, or told to unwatch.
import { createRequire } from "node:module";
import { parentPort, workerData } from "node:worker_threads";

const native = createRequire(import.meta.url)(workerData.addon);
const addresses = new Float64Array(4);
const watcher = native.watch(workerData.fd, addresses, (count) =>
  parentPort.postMessage([...addresses.subarray(0, count)]),
);
parentPort.once("message", () => native.unwatch(watcher));
parentPort.postMessage("watching");
