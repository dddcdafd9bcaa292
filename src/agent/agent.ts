import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { messageOf, type Clock, type Log } from "../base/index.js";
import type { AgentInfo, Handlers } from "../control/index.js";
import { Credentials, Listener } from "../lane/index.js";
import { checkKernel } from "../memory/index.js";
import { agentHandlers } from "./api/agent-handlers.js";
import { openBlocks } from "./blocks/blocks.js";
import { Consoles } from "./api/consoles.js";
import { hostHandlers } from "./api/emulator-handlers.js";
import { guestHandlers } from "./api/guest-handlers.js";
import { imageHandlers } from "./api/image-handlers.js";
import { LogFollowers } from "./api/log-followers.js";
import { peerHandlers } from "./api/peer-handlers.js";
import { Sessions } from "./api/sessions.js";
import { transferHandlers } from "./api/transfer-handlers.js";
import { formatAddress, transportOf, type LoadedConfiguration } from "./configuration/index.js";
import { connectionsTo, startFaultThread, waitingLanes } from "./connections.js";
import { drainTransfers } from "./drain.js";
import { openHostDisks } from "./disks/open-disks.js";
import { settleAllDisks, settleImages } from "./disks/settle-all.js";
import { AgentError } from "./errors.js";
import { EventHub } from "./events.js";
import type { Socketed } from "./faults/messages.js";
import { admissionOf, checkMemoryDirectory, type Admission } from "./guests/admission.js";
import { goOnWithRun } from "./exchange/exchange-runs.js";
import { Exchanges } from "./exchange/exchanges.js";
import { EmulatorCatalogue } from "./guests/emulator-catalogue.js";
import { EmulatorStarter } from "./guests/emulator-starter.js";
import { Launcher } from "./guests/launcher.js";
import { GuestRegistry } from "./guests/registry.js";
import { Isolation } from "./isolation/isolation.js";
import { ImageWorks } from "./images/image-works.js";
import type { Services } from "./services.js";
import { AuditLogs } from "./store/audit-logs.js";
import { forTenants } from "./tenants/gate.js";
import { takeoverHandlers, type Inheritance } from "./takeover.js";
import { BootStore } from "./store/boot-store.js";
import { BootUploads } from "./store/boot-uploads.js";
import { FormerChildren } from "./store/former-children.js";
import { Paths } from "./store/paths.js";
import { StateLock } from "./store/state-lock.js";
import { IncomingTransfers } from "./transfers/incoming-transfers.js";
import { restoreSwaps } from "./swap/settle-swaps.js";
import { Swaps } from "./swap/swaps.js";
import { LaneRoutes } from "./transfers/lane-routes.js";
import { Peers } from "./transfers/peers.js";
import { rehearsalOf } from "./rehearsal/rehearsal-of.js";
import type { Rehearsal } from "./rehearsal/rehearsal.js";
import { recoverTransfers } from "./transfers/recover.js";
import { goOnSharing, restoreSharing } from "./transfers/sharers.js";
import { restoreMigrations } from "./transfers/roll-back.js";
import { TransferBook } from "./transfers/transfer-book.js";
import { AGENT_VERSION } from "./version.js";

/** How long an agent that leaves may take to let go of its directories. */
const LOCK_DEADLINE_MS = 10_000;

export interface AgentOptions {
  configuration: LoadedConfiguration;
  clock: Clock;
  log: Log;
  /** What the agent before this one left, when it left for this one. */
  inheritance?: Inheritance;
  /** Called when another agent asks this one to leave; whoever started it then calls `leave`. */
  onLeave?: () => void;
}

/** A step of stopping, in the reverse order of starting. */
type Undo = () => Promise<void> | void;

/** The agent of one host: every part, plugged together. */
export class Agent {
  readonly #configuration: LoadedConfiguration;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #undo: Undo[] = [];
  readonly #startedAtMs: number;
  readonly #inheritance: Inheritance | undefined;
  readonly #onLeave: () => void;
  #services: Services | undefined;
  #rehearsal: Rehearsal | undefined;
  #incoming: IncomingTransfers | undefined;
  #tcp: Listener | undefined;
  #local: Listener | undefined;
  #takeover: AgentInfo["takeover"];
  /** Another agent takes over: nothing is waited for, and sockets stay open. */
  #leaving = false;
  #accepting = true;
  #stopped: Promise<void> | undefined;
  #hurry: () => void = () => {};

  private constructor(options: AgentOptions) {
    this.#configuration = options.configuration;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#startedAtMs = options.clock.wallMs();
    this.#inheritance = options.inheritance;
    this.#onLeave = options.onLeave ?? (() => {});
  }

  /**
   * Starts an agent: takes over the guests that run, then listens.
   * @throws AgentError, LaneError or MemoryError when it cannot; nothing of it is left then, but guests go on running.
   */
  static async start(options: AgentOptions): Promise<Agent> {
    const agent = new Agent(options);
    try {
      await agent.#start();
      return agent;
    } catch (error) {
      await agent.#undoAll();
      throw error;
    }
  }

  /** Where peers reach it; undefined when they do not. */
  get url(): string | undefined {
    const { advertise, listen } = this.#configuration;
    const transport = transportOf(this.#configuration);
    if (transport === "none") return undefined;
    const scheme = transport === "tls" ? "wss" : "ws";
    return (
      advertise ?? `${scheme}://${formatAddress({ host: listen.host, port: this.#tcp?.port ?? listen.port })}`
    );
  }

  /** Stops: no more commands, some time for running transfers, then everything is closed. Guests run on. A second call ends the waiting. */
  stop(): Promise<void> {
    if (this.#stopped !== undefined) this.#hurry();
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  /** Compiles what the first transfer runs through, from when the agent is ready on, by playing some with itself. Returns at once. */
  rehearse(): void {
    this.#rehearsal?.start();
  }

  /** What taking over from another agent took, if it did. */
  get takeover(): AgentInfo["takeover"] {
    return this.#takeover;
  }

  /** Stops at once for another agent, which goes on with guests and transfers where they are and listens on the same sockets. */
  leave(): Promise<void> {
    this.#leaving = true;
    const stopped = this.stop();
    this.#hurry();
    return stopped;
  }

  async #start(): Promise<void> {
    const { stateDirectory, memoryDirectory, memoryFileSystem } = this.#configuration;
    const stateLock = await this.#lock(stateDirectory, "state");
    this.#undo.push(() => stateLock.release());
    const memoryLock = await this.#lock(memoryDirectory, "memory");
    this.#undo.push(() => memoryLock.release());
    checkMemoryDirectory(memoryDirectory, memoryFileSystem);
    checkKernel();
    const services = await this.#makeServices();
    this.#services = services;
    const { clock, log } = services;
    const uploads = new BootUploads({ boot: services.boot, clock, log });
    this.#undo.push(() => uploads.close());
    const incoming = new IncomingTransfers(services, uploads);
    this.#incoming = incoming;
    this.#undo.push(() => incoming.close());
    await restoreSwaps(services);
    restoreSharing(services);
    await recoverTransfers(services, incoming);
    services.disks.connect(services);
    services.arrivingImages.connect(services, services.disks.store);
    goOnSharing(services);
    await settleAllDisks(services);
    const sessions = this.#makeSessions(services, { incoming, uploads });
    this.#undo.push(() => sessions.close());
    await this.#listen(services, sessions);
    this.#noteTakeover();
    // Only now: an emulator may wait for pages that are sent by this very agent.
    await services.registry.settle();
    await settleImages(services);
    await restoreMigrations(services);
    goOnWithRun(services);
    this.#rehearsal = rehearsalOf(services, () => this.url);
    this.#undo.push(() => this.#rehearsal?.close());
    const { name, socket } = this.#configuration;
    this.#log.info({ name, version: AGENT_VERSION, url: this.url, socket }, "the agent is ready");
  }

  /** From here on memory is served and hosts can connect: no guest has waited for longer because of the takeover. */
  #noteTakeover(): void {
    if (this.#inheritance === undefined) return;
    const { pid, leftUs } = this.#inheritance;
    this.#takeover = { pid, waitedMs: (this.#clock.nowUs() - leftUs) / 1000 };
    this.#log.info(this.#takeover, "took over from the agent before");
  }

  #lock(directory: string, kind: "state" | "memory"): Promise<StateLock> {
    const deadlineMs = this.#inheritance === undefined ? 0 : LOCK_DEADLINE_MS;
    return StateLock.takeSoon(directory, { kind, clock: this.#clock, deadlineMs });
  }

  async #makeServices(): Promise<Services> {
    const configuration = this.#configuration;
    const [clock, log, events] = [this.#clock, this.#log, new EventHub()];
    const paths = new Paths(configuration);
    const boot = await BootStore.open(paths.boot);
    const formerChildren = await FormerChildren.open({ path: paths.formerChildren, clock, log });
    const credentials = this.#loadCredentials();
    const admission = admissionOf(configuration.limits, paths.memory);
    const isolation = await Isolation.open({ settings: configuration.isolation, paths, log });
    this.#undo.push(() => isolation.close());
    const hostDisks = await openHostDisks({ configuration, paths, isolation, clock, log }, this.#undo);
    const source = new Launcher({ paths, isolation, clock, log });
    this.#undo.push(() => source.close());
    const registry = await GuestRegistry.open({
      paths,
      source,
      boot,
      ...hostDisks,
      formerChildren,
      admission,
      events,
      maxGuests: configuration.limits.maxGuests,
      clock,
      log,
    });
    this.#undo.push(() => registry.leaveAll());
    const starter = this.#makeStarter({ source, admission, boot, paths });
    registry.digestsElsewhere.push(() => starter.pool.digests);
    this.#undo.push(() => starter.pool.close());
    const book = new TransferBook({ events, clock });
    this.#undo.push(() => book.close());
    const peers = this.#makePeers({ boot, credentials });
    this.#undo.push(() => peers.close());
    const routes = new LaneRoutes({ isWhole: () => registry.isWhole });
    const blocks = openBlocks({ ...hostDisks, clock, log });
    this.#undo.push(() => blocks.close());
    const faults = startFaultThread(configuration, { clock, log, routes });
    this.#undo.push(() => faults.close());
    const waiting = waitingLanes(configuration, { clock, log, routes, peers, faults, credentials });
    this.#undo.push(() => waiting.close());
    return {
      configuration,
      clock,
      log,
      events,
      paths,
      boot,
      ...hostDisks,
      admission,
      catalogue: new EmulatorCatalogue({ configured: configuration.emulators, log }),
      starter,
      source,
      exchanges: new Exchanges(),
      swaps: new Swaps(),
      isolation,
      registry,
      formerChildren,
      book,
      routes,
      // An agent that has ended has left nothing to pass on.
      relays: new LaneRoutes({ isWhole: () => true }),
      blocks,
      peers,
      ...waiting.lanes,
      faults,
      credentials,
      isAccepting: () => this.#accepting,
      requireAccepting: () => this.#requireAccepting(),
    };
  }

  #makeSessions(
    services: Services,
    { incoming, uploads }: { incoming: IncomingTransfers; uploads: BootUploads },
  ): Sessions {
    const { clock, log, paths } = services;
    const addresses = () => [
      `unix:${this.#configuration.socket}`,
      ...(this.url === undefined ? [] : [this.url]),
    ];
    const audit = new AuditLogs(paths.audit, log);
    const works = new ImageWorks({ clock });
    this.#undo.push(() => works.close());
    const client: Handlers<"client"> = {
      ...agentHandlers(services, {
        startedAtMs: this.#startedAtMs,
        addresses,
        audit,
        rehearsal: () => (this.#rehearsal ? { rehearsal: this.#rehearsal.view() } : {}),
        takeover: () => (this.#takeover === undefined ? {} : { takeover: this.#takeover }),
      }),
      ...guestHandlers(services, { consoles: new Consoles(), logs: new LogFollowers({ paths, clock }) }),
      ...imageHandlers(services, works),
      ...hostHandlers(services),
      ...transferHandlers(services),
      ...takeoverHandlers({ clock, listeners: () => this.#listeners(), leave: this.#onLeave }),
    };
    const peer = peerHandlers(services, { incoming, uploads });
    const gated = forTenants(client, services);
    return new Sessions({ client: gated, peer, events: services.events, audit, clock, log });
  }

  async #listen(services: Services, sessions: Sessions): Promise<void> {
    const { listen, socket, key } = this.#configuration;
    const { credentials } = services;
    const [clock, log] = [this.#clock, this.#log];
    const common = (at: Socketed) => ({ clock, log, ...connectionsTo(services, sessions, at) });
    if (transportOf(this.#configuration) === "none") {
      this.#log.warn(
        "there are no certificates (tls), so this agent is reached through its unix socket only, and has no peers",
      );
    } else {
      const inherited = this.#inheritance?.tcp;
      this.#tcp = await Listener.open({ ...common("tcp"), address: listen, inherited, credentials, key });
      this.#undo.push(() => this.#tcp?.close({ bequeath: this.#leaving }));
    }
    mkdirSync(dirname(socket), { recursive: true, mode: 0o755 });
    // Whoever may open the socket is root already: its permissions stand in for the key.
    const inherited = this.#inheritance?.unix;
    this.#local = await Listener.open({ ...common("unix"), address: { path: socket }, inherited });
    this.#undo.push(() => this.#local?.close({ bequeath: this.#leaving }));
  }

  #listeners(): { kind: "tcp" | "unix"; listener: Listener }[] {
    const tcp = this.#tcp === undefined ? [] : [{ kind: "tcp" as const, listener: this.#tcp }];
    return this.#local === undefined ? tcp : [...tcp, { kind: "unix", listener: this.#local }];
  }

  #makeStarter(parts: {
    source: Launcher;
    admission: Admission;
    boot: BootStore;
    paths: Paths;
  }): EmulatorStarter {
    const { warmEmulators, warmIdleSeconds } = this.#configuration.limits;
    const [clock, log] = [this.#clock, this.#log];
    return new EmulatorStarter({ ...parts, warmEmulators, warmIdleMs: warmIdleSeconds * 1000, clock, log });
  }

  #makePeers(parts: { boot: BootStore; credentials: Credentials | undefined }): Peers {
    const { peers, name, socket, key } = this.#configuration;
    return new Peers({
      ...parts,
      configured: peers,
      ownName: name,
      selfUrl: `unix:${socket}`,
      ownUrl: () => this.url,
      key,
      clock: this.#clock,
      log: this.#log,
    });
  }

  #loadCredentials(): Credentials | undefined {
    const { tls } = this.#configuration;
    if (tls === undefined) return undefined;
    const credentials = Credentials.load(tls, { clock: this.#clock, log: this.#log });
    credentials.watch();
    this.#undo.push(() => credentials.close());
    return credentials;
  }

  #requireAccepting(): void {
    if (this.#accepting) return;
    throw new AgentError(
      "draining",
      `the agent of ${this.#configuration.name} is stopping and takes no new guests or transfers`,
    );
  }

  async #stop(): Promise<void> {
    this.#accepting = false;
    if (this.#services !== undefined) {
      const hurried = new Promise<void>((resolve) => (this.#hurry = resolve));
      await drainTransfers(this.#services, { drainMs: this.#configuration.drainSeconds * 1000, hurried });
      this.#services.book.detachAll();
      this.#incoming?.detach();
    }
    await this.#undoAll();
    this.#log.info("the agent has stopped; guests run on");
  }

  async #undoAll(): Promise<void> {
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        await undo();
      } catch (error) {
        this.#log.error({ problem: messageOf(error) }, "a part of the agent could not be stopped in order");
      }
    }
  }
}
