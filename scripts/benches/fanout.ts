import { measureManyHosts } from "./many-hosts.js";
import { measureSameHost } from "./same-host.js";
import type { Bench } from "./suite.js";

/** One instant, many children. */
export async function measureFanout(bench: Bench): Promise<void> {
  await measureSameHost(bench);
  await measureManyHosts(bench);
}
