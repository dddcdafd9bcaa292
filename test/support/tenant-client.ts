import { realClock, silentLog, type AccessRole } from "../../src/base/index.js";
import { Authority } from "../../src/cli/pki/authority.js";
import {
  RpcClient,
  type AnyEvent,
  type MethodName,
  type ParamsInput,
  type Result,
} from "../../src/control/index.js";
import { Credentials, dial } from "../../src/lane/index.js";
import { filesIn } from "./certificates.js";
import type { Host, Hosts } from "./hosts.js";

const CALL_DEADLINE_MS = 60_000;

/** A connection of a tenant's own holder to a host with certificates. */
export class TenantClient {
  readonly client: RpcClient;
  /** All that it was told without asking. */
  readonly events: AnyEvent[] = [];

  private constructor(client: RpcClient) {
    this.client = client;
    client.onEvent((event) => this.events.push(event));
  }

  /** Issues a certificate to `name`, and connects with it. */
  static async open(
    hosts: Hosts,
    host: Host,
    as: { name: string; tenant: string; roles: AccessRole[] },
  ): Promise<TenantClient> {
    const authority = Authority.open(hosts.authorityDirectory, realClock);
    authority.issue({ ...as, addresses: [], days: 30 }, { renew: true });
    const credentials = Credentials.load(filesIn(authority.directoryOf(as.name)), {
      clock: realClock,
      log: silentLog,
    });
    const hello = { purpose: "control", role: "client" } as const;
    const connection = await dial({ url: host.url, hello, credentials, clock: realClock, deadlineMs: 5000 });
    return new TenantClient(new RpcClient(connection, { clock: realClock, log: silentLog }));
  }

  call<Name extends MethodName>(method: Name, params: ParamsInput<Name>): Promise<Result<Name>> {
    return this.client.call(method, params, { deadlineMs: CALL_DEADLINE_MS });
  }

  close(): void {
    this.client.close();
  }
}
