import { Hosts, eventually, type Host } from "../../test/support/hosts.js";
import { nextEmulator } from "../../test/support/next-emulator.js";
import { runSample } from "../../test/support/sample-guest.js";
import { SampleGuest } from "./sample.js";
import { showProgress, type Bench } from "./suite.js";

const AGENT_PORT = 7270;
const PORT = 8480;
const MIB = 1024 * 1024;
const US_PER_MS = 1000;
const NEXT = "10.0";

const SIZES = [
  { name: "512MiB", mib: 512 },
  { name: "8GiB", mib: 8192 },
] as const;

/** What the guest has besides memory and a processor. */
const DEVICES = [
  { name: "bare", disks: 0 },
  { name: "disk_net", disks: 1 },
  { name: "4disks_net", disks: 4 },
] as const;

/** How much of its memory the guest has written, and goes on writing, MiB a second. */
const WRITTEN_MIB = 256;
const WRITTEN_RATE = 20;

/** Bringing a guest to a newer emulator and back: how long it stands still, by its memory and devices, and what of that is spent on what. */
export async function measureExchange({ runs, results }: Bench): Promise<void> {
  const hosts = await Hosts.start(1, {
    port: AGENT_PORT,
    configuration: { logLevel: "warn", emulators: [nextEmulator()] },
  });
  const host = hosts.at(0);
  try {
    for (const size of SIZES) {
      for (const devices of DEVICES) {
        const name = `${size.name}_${devices.name}`;
        await boot(host, { mib: size.mib, disks: devices.disks });
        // The first time compiles what the others run, and shows the emulator's device state.
        for (let run = 0; run <= runs; run += 1) {
          for (const emulator of [NEXT, undefined]) {
            const said = await host.call("guest.exchange", {
              name: "guest",
              ...(emulator === undefined ? {} : { emulator }),
            });
            const grownBytes = said.memory.allocatedAfterBytes - said.memory.allocatedBeforeBytes;
            if (grownBytes > MIB) throw new Error(`the memory file grew by ${grownBytes} bytes in the pause`);
            if (run === 0) continue;
            results.add(`exchange_pause_${name}`, "ms", said.pauseUs / US_PER_MS);
            for (const [part, us] of Object.entries(said.parts))
              results.add(`exchange_${part.replace("Us", "")}_${name}`, "ms", us / US_PER_MS);
          }
          showProgress(`exchange ${name}`, run, runs);
        }
        await end(host);
      }
    }
  } finally {
    await hosts.stop();
  }
}

async function boot(host: Host, { mib, disks }: { mib: number; disks: number }): Promise<void> {
  await runSample(host, {
    name: "guest",
    memoryMiB: mib,
    append: "quiet",
    disks: Array.from({ length: disks }, () => ({ sizeBytes: 256 * MIB })),
    ...(disks === 0 ? {} : { hostPort: PORT }),
  });
  // Without a network nobody can have it write.
  if (disks === 0) return;
  const guest = new SampleGuest(`http://${host.address}:${PORT}`);
  await guest.write(WRITTEN_MIB);
  await guest.pace(WRITTEN_RATE);
}

async function end(host: Host): Promise<void> {
  await host.call("guest.kill", { name: "guest" });
  await eventually("the guest is removed", () =>
    host.call("guest.remove", { name: "guest" }).then(
      () => true,
      () => false,
    ),
  );
}
