import { Command } from "commander";
import { messageOf } from "../../base/index.js";
import { API_VERSION, type AgentInfo } from "../../control/index.js";
import type { Cli } from "../cli.js";
import { formatFields } from "../format/table.js";
import { formatBytes, formatTime, formatUs } from "../format/units.js";

/** `ramet version`: this program and the agent. An agent that is not there is said, and is no failure. */
export function versionCommand(cli: Cli): Command {
  const command = new Command("version").description("show the versions of this program and of the agent");
  return command.action(async () => {
    const context = cli.context(command);
    const version = cli.environment.version;
    let agent: AgentInfo | undefined;
    let problem: string | undefined;
    try {
      agent = await context.call("agent.info", {});
    } catch (error) {
      problem = messageOf(error);
    }
    const result = { ramet: { version, apiVersion: API_VERSION }, agent: agent ?? null };
    context.answer(result, () => [
      `ramet ${version} (API version ${API_VERSION})`,
      ...(agent ? formatAgent(agent) : [`agent: ${problem ?? "unknown"}`]),
    ]);
  });
}

function formatRehearsal({
  phase,
  transfers,
  processorMs,
  problem,
}: NonNullable<AgentInfo["rehearsal"]>): string {
  if (phase === "off") return "off";
  const played = `${transfers} transfers, ${formatUs(processorMs * 1000)} of processor time`;
  return `${phase}: ${problem ?? played}`;
}

function formatAgent(agent: AgentInfo): string[] {
  const { memory } = agent;
  return formatFields([
    [
      "agent",
      `${agent.name}, rametd ${agent.version} (API version ${agent.apiVersion}), process ${agent.pid}`,
    ],
    ["since", formatTime(agent.startedAtMs)],
    ["listens on", agent.addresses.join(", ")],
    ["kernel", agent.kernel],
    ...agent.emulators.map(
      (emulator) =>
        [
          `${emulator.architecture}`,
          `QEMU ${emulator.version}, ${emulator.machine}, ${emulator.accelerator}`,
        ] as const,
    ),
    [
      "memory",
      `${formatBytes(memory.availableBytes)} of ${formatBytes(memory.totalBytes)} available for guests`,
    ],
    ["guests", String(agent.guests)],
    ["transfers", String(agent.transfers)],
    ...(agent.rehearsal === undefined ? [] : [["rehearsal", formatRehearsal(agent.rehearsal)] as const]),
  ]);
}
