import { measureManyHosts } from "./many-hosts.js";
import type { Bench } from "./suite.js";

/** One instant, many children. */
export async function measureFanout(bench: Bench): Promise<void> {
  await measureManyHosts(bench);
}
