import type { Clock, Log } from "../base/index.js";
import type { ImageStore } from "../disk/index.js";
import type { Credentials } from "../lane/index.js";
import type { Blocks } from "./blocks/blocks.js";
import type { LoadedConfiguration } from "./configuration/index.js";
import type { ChainWorks } from "./disks/chain-works.js";
import type { GuestDisks } from "./disks/guest-disks.js";
import type { EventHub } from "./events.js";
import type { FaultThreadHandle } from "./faults/fault-thread.js";
import type { Admission } from "./guests/admission.js";
import type { Exchanges } from "./exchange/exchanges.js";
import type { EmulatorCatalogue } from "./guests/emulator-catalogue.js";
import type { EmulatorStarter } from "./guests/emulator-starter.js";
import type { EmulatorSource } from "./guests/launcher.js";
import type { GuestRegistry } from "./guests/registry.js";
import type { ArrivingImages } from "./images/arriving-images.js";
import type { Isolation } from "./isolation/isolation.js";
import type { BootStore } from "./store/boot-store.js";
import type { FormerChildren } from "./store/former-children.js";
import type { Paths } from "./store/paths.js";
import type { LaneRoutes, RelayTaker } from "./transfers/lane-routes.js";
import type { LanesAhead } from "./transfers/lanes-ahead.js";
import type { Peers } from "./transfers/peers.js";
import type { SpareLanes } from "./transfers/spare-lanes.js";
import type { Swaps } from "./swap/swaps.js";
import type { TransferBook } from "./transfers/transfer-book.js";

/** The agent's parts, as its commands see them. Made once by `Agent.start`, which also ends them. */
export interface Services {
  readonly configuration: LoadedConfiguration;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventHub;
  readonly paths: Paths;
  readonly boot: BootStore;
  /** Base disks. */
  readonly images: ImageStore;
  /** Base disks of guests: also those that are on their way. */
  readonly arrivingImages: ArrivingImages;
  readonly disks: GuestDisks;
  readonly chains: ChainWorks;
  readonly admission: Admission;
  readonly catalogue: EmulatorCatalogue;
  readonly starter: EmulatorStarter;
  readonly source: EmulatorSource;
  readonly exchanges: Exchanges;
  readonly swaps: Swaps;
  readonly isolation: Isolation;
  readonly registry: GuestRegistry;
  readonly formerChildren: FormerChildren;
  readonly book: TransferBook;
  readonly routes: LaneRoutes;
  /** The lanes of children that children of this host pass on to. */
  readonly relays: LaneRoutes<RelayTaker>;
  /** Disks between hosts. */
  readonly blocks: Blocks;
  readonly peers: Peers;
  /** Lanes that wait for the transfers of this host's guests to come. */
  readonly spares: SpareLanes;
  /** Lanes that wait for the children of this host to come. */
  readonly lanesAhead: LanesAhead;
  /** What serves faults and has the urgent lanes. */
  readonly faults: FaultThreadHandle;
  /** What this agent shows over TCP and whose certificates it takes; undefined without TLS. */
  readonly credentials: Credentials | undefined;
  /** False once the agent has been told to stop. */
  isAccepting(): boolean;
  /** @throws AgentError `draining` once the agent has been told to stop. */
  requireAccepting(): void;
}
