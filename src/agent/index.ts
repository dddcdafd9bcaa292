export { Agent } from "./agent.js";
export {
  loadConfiguration,
  type Configuration,
  type LoadedConfiguration,
  type Overrides,
} from "./configuration/index.js";
export { AgentError, type AgentErrorCode } from "./errors.js";
