import { laneConformance } from "../../conformance/lane.js";
import { openPair, settle, until } from "../../support/lane-pair.js";

laneConformance("WebSocket lane", async () => {
  const { child, parent, break: cut, close } = await openPair();
  return { child, parent, break: cut, until, settle, dispose: close };
});
