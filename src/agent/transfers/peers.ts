import { messageOf, type Clock, type Log } from "../../base/index.js";
import { MAX_FILE_CHUNK_BYTES, RpcClient, type PeerInfo, type PeerView } from "../../control/index.js";
import { dial, type Connection } from "../../lane/index.js";
import { isLoopback, parseAddress } from "../configuration/index.js";
import { AgentError } from "../errors.js";
import type { BootStore } from "../store/boot-store.js";

const DIAL_DEADLINE_MS = 5000;
const CALL_DEADLINE_MS = 5000;
const PUT_DEADLINE_MS = 30_000;

/** A control connection to a peer, shared by everything this agent wants of it. */
interface Link {
  client: RpcClient;
  name: string | undefined;
}

export interface PeersOptions {
  /** Configured peers: name to `ws://host:port`. */
  configured: Readonly<Record<string, string>>;
  ownName: string;
  ownUrl(): string;
  key: Buffer | undefined;
  boot: BootStore;
  clock: Clock;
  log: Log;
}

/** The other agents: who they are, and the connections to them. Itself is one of them, for forks on the same host. */
export class Peers {
  readonly #options: PeersOptions;
  readonly #links = new Map<string, Promise<Link>>();
  readonly #problems = new Map<string, string>();
  readonly #uploads = new Map<string, Promise<void>>();

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  /**
   * The URL of a host as commands name it: a configured name, this host's own, `host:port` or `ws://host:port`.
   * @throws AgentError `no-such-peer`.
   */
  resolve(host: string | undefined): string {
    const { configured, ownName, ownUrl } = this.#options;
    if (host === undefined || host === ownName) return ownUrl();
    if (Object.hasOwn(configured, host)) return withoutSlash(configured[host] as string);
    const address = withoutSlash(host.replace(/^ws:\/\//, ""));
    if (parseAddress(address) !== undefined) return `ws://${address}`;
    const known = Object.keys(configured).join(", ");
    throw new AgentError(
      "no-such-peer",
      `${host} is neither a configured peer (${known === "" ? "there are none" : known}) nor HOST:PORT`,
    );
  }

  isSelf(url: string): boolean {
    return url === this.#options.ownUrl();
  }

  /** @throws AgentError `no-such-peer` when a child at `url` could not dial back. */
  requireReachableFrom(url: string): void {
    const host = (at: string) => parseAddress(at.replace(/^ws:\/\//, ""))?.host ?? "";
    if (isLoopback(host(url)) || !isLoopback(host(this.#options.ownUrl()))) return;
    throw new AgentError(
      "no-such-peer",
      `a child on ${url} could not fetch its memory, because this agent listens on ${this.#options.ownUrl()} only: ` +
        "set listen (and keyFile) to an address the other host reaches",
    );
  }

  /** The connection to a peer, made when there is none. Rejects with why it cannot be. */
  async connect(url: string): Promise<RpcClient> {
    const made = this.#links.get(url) ?? this.#make(url);
    this.#links.set(url, made);
    try {
      const link = await made;
      this.#problems.delete(url);
      return link.client;
    } catch (error) {
      this.#problems.set(url, messageOf(error));
      if (this.#links.get(url) === made) this.#links.delete(url);
      throw error;
    }
  }

  /** Asks a peer who it is. */
  async info(url: string): Promise<PeerInfo> {
    const client = await this.connect(url);
    const info = await client.call("peer.info", {}, { deadlineMs: CALL_DEADLINE_MS });
    const link = await this.#links.get(url);
    if (link !== undefined) link.name = info.name;
    return info;
  }

  /** Times `count` questions, in microseconds each. */
  async ping(url: string, count: number): Promise<{ info: PeerInfo; roundTripsUs: number[] }> {
    const client = await this.connect(url);
    const roundTripsUs: number[] = [];
    let info = await this.info(url);
    for (let turn = 0; turn < count; turn += 1) {
      const beganUs = this.#options.clock.nowUs();
      info = await client.call("peer.info", {}, { deadlineMs: CALL_DEADLINE_MS });
      roundTripsUs.push(this.#options.clock.nowUs() - beganUs);
    }
    return { info, roundTripsUs };
  }

  /** Configured peers, and others there is a connection to. */
  async list(transfersOf: (url: string) => number): Promise<PeerView[]> {
    const named = Object.entries(this.#options.configured).map(([name, url]) => ({
      name,
      url: withoutSlash(url),
    }));
    const others = [...this.#links.keys()].filter(
      (url) => !this.isSelf(url) && !named.some((peer) => peer.url === url),
    );
    const views: PeerView[] = [];
    for (const { name, url } of [...named, ...others.map((url) => ({ name: undefined, url }))]) {
      const link = await this.#links.get(url)?.catch(() => undefined);
      const problem = this.#problems.get(url);
      const shown = name ?? link?.name;
      views.push({
        address: url,
        ...(shown === undefined ? {} : { name: shown }),
        state: link !== undefined ? "connected" : problem === undefined ? "idle" : "unreachable",
        transfers: transfersOf(url),
        ...(problem === undefined || link !== undefined ? {} : { message: problem }),
      });
    }
    return views;
  }

  /** Sends a boot file; when it is on its way to that peer already, waits for that. */
  async putFile(url: string, sha256: string): Promise<void> {
    const key = `${url} ${sha256}`;
    const upload = this.#uploads.get(key) ?? this.#upload(url, sha256);
    this.#uploads.set(key, upload);
    try {
      await upload;
    } finally {
      this.#uploads.delete(key);
    }
  }

  close(): void {
    for (const made of this.#links.values()) {
      made.then(
        ({ client }) => client.close(),
        () => {},
      );
    }
    this.#links.clear();
  }

  async #make(url: string): Promise<Link> {
    const { key, clock, log } = this.#options;
    const connection: Connection = await dial({
      url,
      hello: { purpose: "control", role: "peer" },
      ...(key === undefined ? {} : { key }),
      clock,
      deadlineMs: DIAL_DEADLINE_MS,
    });
    const client = new RpcClient(connection, { clock, log });
    client.onEnd((end) => {
      this.#links.delete(url);
      log.debug({ url, end }, "the connection to a peer has ended");
    });
    return { client, name: undefined };
  }

  async #upload(url: string, sha256: string): Promise<void> {
    const { boot, log } = this.#options;
    const client = await this.connect(url);
    const sizeBytes = await boot.sizeBytes(sha256);
    for (let offset = 0; offset < sizeBytes;) {
      const bytes = await boot.read(sha256, {
        offset,
        maxBytes: Math.min(MAX_FILE_CHUNK_BYTES, sizeBytes - offset),
      });
      const last = offset + bytes.length >= sizeBytes;
      await client.call("peer.putFile", { sha256, offset, bytes, last }, { deadlineMs: PUT_DEADLINE_MS });
      offset += bytes.length;
    }
    log.info({ url, sha256, sizeBytes }, "a boot file was sent to a peer");
  }
}

function withoutSlash(url: string): string {
  return url.replace(/\/$/, "");
}
