export { isForTenants, METHOD_ACCESS, TENANT_ACCESS, TOPIC_ACCESS, type TenantMethod } from "./access.js";
export type { ChannelEnd, MessageChannel } from "./channel.js";
export { RpcClient } from "./client.js";
export { decodeMessage, encodeMessage } from "./codec.js";
export { ControlError, RemoteError, type ControlErrorCode } from "./errors.js";
export * from "./limits.js";
export {
  API_VERSION,
  isMethod,
  METHODS,
  type MethodName,
  type MethodOf,
  type Params,
  type ParamsInput,
  type Result,
  type Role,
} from "./methods.js";
export { TOPICS, type AgentInfo, type AuditEntry, type Topic } from "./schema/agent.js";
export {
  ARCHITECTURES,
  forwardText,
  guestName,
  hostAddress,
  type Architecture,
  type ErrorView,
  type Forward,
  type GuestNetwork,
} from "./schema/common.js";
export {
  DISK_CACHES,
  type ArrivalView,
  type ChainOutcome,
  type LoanView,
  type DiskView,
  type GuestDiskView,
  type LayerView,
  type PeerDisk,
  type RequestedDisk,
} from "./schema/disk.js";
export type { InstalledEmulator } from "./schema/emulator.js";
export {
  EXCHANGE_STANDINGS,
  type ExchangedGuest,
  type ExchangeRunView,
  type ExchangeStanding,
} from "./schema/exchange.js";
export { EVENTS, type AnyEvent, type EventData, type EventName } from "./schema/events.js";
export {
  DEFAULT_LOG_LINES,
  DEFAULT_MEMORY_MIB,
  DEFAULT_STOP_DEADLINE_MS,
  GUEST_STATES,
  type ExchangeOutcome,
  type SwapOutcome,
  type GuestState,
  type ResumeOutcome,
  type GuestIsolation,
  type GuestView,
} from "./schema/guest.js";
export {
  IMAGE_FORMATS,
  tenantName,
  type ImageView,
  type LeftPullView,
  type StoredImageView,
} from "./schema/image.js";
export type { BootFile, ChildReport, PeerGuest, PeerInfo, PeerView } from "./schema/peer.js";
export {
  childrenOf,
  isFinal,
  TRANSFER_PHASES,
  type ChildOutcome,
  type PauseParts,
  type StartMarks,
  type TransferKind,
  type TransferPhase,
  type TransferRole,
  type TransferView,
} from "./schema/transfer.js";
export {
  RpcServerSession,
  type AnsweredCall,
  type CallContext,
  type Handlers,
  type ServerSessionOptions,
} from "./server.js";
