import { messageOf, type Clock, type Identity, type Log } from "../../base/index.js";
import { MAX_FILE_CHUNK_BYTES, RpcClient, type PeerInfo, type PeerView } from "../../control/index.js";
import { dial, isLoopback, type Connection, type Credentials } from "../../lane/index.js";
import { hostOfUrl, parseAddress } from "../configuration/index.js";
import { AgentError } from "../errors.js";
import type { BootStore } from "../store/boot-store.js";
import { LearnedCompression } from "./compression.js";

const DIAL_DEADLINE_MS = 5000;
const CALL_DEADLINE_MS = 5000;
const PUT_DEADLINE_MS = 30_000;

/** A control connection to a peer, shared by everything this agent wants of it. */
export interface Link {
  readonly client: RpcClient;
  /** Who the peer has shown itself to be. */
  readonly identity: Identity;
  name: string | undefined;
}

export interface PeersOptions {
  /** Configured peers: name to `wss://host:port`. */
  configured: Readonly<Record<string, string>>;
  ownName: string;
  /** Where this agent reaches itself, which it does without the network: its unix socket. */
  selfUrl: string;
  /** Where peers reach this agent over TCP; undefined when they do not. */
  ownUrl(): string | undefined;
  /** What this agent dials peers with. */
  credentials: Credentials | undefined;
  key: Buffer | undefined;
  boot: BootStore;
  clock: Clock;
  log: Log;
}

/** The other agents: who they are, and the connections to them. Itself is one of them, for forks on the same host. */
export class Peers {
  readonly compression = new LearnedCompression();
  readonly #options: PeersOptions;
  readonly #links = new Map<string, Promise<Link>>();
  readonly #problems = new Map<string, string>();
  readonly #uploads = new Map<string, Promise<void>>();

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  /**
   * The URL of a host as commands name it: a configured name, this host's own, `host:port`, `wss://host:port` or, where connections are
   * plain, `ws://host:port`.
   * @throws AgentError `no-such-peer`.
   */
  resolve(host: string | undefined): string {
    const { configured, ownName, selfUrl } = this.#options;
    if (host === undefined || host === ownName || host === selfUrl) return selfUrl;
    if (Object.hasOwn(configured, host)) return this.#unlessSelf(withoutSlash(configured[host] as string));
    const [, scheme = this.#scheme, address = ""] = /^(wss?:\/\/)?(.*?)\/?$/.exec(host) ?? [];
    if (parseAddress(address) !== undefined) return this.#unlessSelf(`${scheme}${address}`);
    const known = Object.keys(configured).join(", ");
    throw new AgentError(
      "no-such-peer",
      `${host} is neither a configured peer (${known === "" ? "there are none" : known}) nor HOST:PORT`,
    );
  }

  isSelf(url: string): boolean {
    return url === this.#options.selfUrl;
  }

  /** Where a child at `url` dials its page lanes. @throws AgentError `no-such-peer` when it could not. */
  ownUrlFor(url: string): string {
    const { ownUrl, selfUrl } = this.#options;
    if (this.isSelf(url)) return selfUrl;
    this.requireReachableFrom(url);
    return ownUrl() ?? selfUrl;
  }

  /** @throws AgentError `no-such-peer` when a child at `url` could not dial back. */
  requireReachableFrom(url: string): void {
    if (this.isSelf(url)) return;
    const own = this.#options.ownUrl();
    if (own !== undefined && (isLoopback(hostOfUrl(url)) || !isLoopback(hostOfUrl(own)))) return;
    const where = own === undefined ? "on its unix socket" : `on ${own}`;
    throw new AgentError(
      "no-such-peer",
      `a child on ${url} could not fetch its memory, because this agent listens ${where} only: ` +
        "set tls, and listen to an address the other host reaches",
    );
  }

  /** The connection to a peer, made when there is none. Rejects with why it cannot be. */
  async connect(url: string): Promise<RpcClient> {
    return (await this.link(url)).client;
  }

  /** The connection to a peer, and who that is. Rejects as `connect` does. */
  async link(url: string): Promise<Link> {
    const made = this.#links.get(url) ?? this.#make(url);
    this.#links.set(url, made);
    try {
      const link = await made;
      this.#problems.delete(url);
      return link;
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
    const { credentials, key, clock, log } = this.#options;
    const connection: Connection = await dial({
      url,
      hello: { purpose: "control", role: "peer" },
      credentials,
      key: url.startsWith("ws://") ? key : undefined,
      clock,
      deadlineMs: DIAL_DEADLINE_MS,
    });
    const client = new RpcClient(connection, { clock, log });
    client.onEnd((end) => {
      this.#links.delete(url);
      log.debug({ url, end }, "the connection to a peer has ended");
    });
    return { client, identity: connection.identity, name: undefined };
  }

  /** What `host:port` without a scheme means. */
  get #scheme(): string {
    return this.#options.key === undefined ? "wss://" : "ws://";
  }

  #unlessSelf(url: string): string {
    return url === this.#options.ownUrl() ? this.#options.selfUrl : url;
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
