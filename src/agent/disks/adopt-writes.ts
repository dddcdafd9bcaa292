import { codeOf, messageOf, tenantOfGuest } from "../../base/index.js";
import type { Params, Result } from "../../control/index.js";
import { DiskDirectories, DiskError, QemuImg, sharedDisks } from "../../disk/index.js";
import type { Services } from "../services.js";

/** What QEMU's tools say of a file that an emulator has open for writing, on whichever host that is. */
const IS_LOCKED = /lock/;

type Adopted = Result<"disk.adopt">["disks"];

/**
 * Takes what a guest that is kept here has written on another host, which was lost before all of the guest was there: a frozen copy of each of its disks, which stands on what the
 * guest left here. The guest itself, and what lies where hosts share it, stay as they are.
 * @throws AgentError `no-such-guest`; DiskError `not-shared`, `no-such-disk`, `in-use` while an emulator has one of them open, `no-room`, `not-installed`.
 */
export async function adoptWrites(
  services: Services,
  { guest: name, directory }: Params<"disk.adopt">,
): Promise<Adopted> {
  const { disks, registry, clock } = services;
  const guest = registry.find(name);
  disks.sharedWrites.requireConfigured(directory);
  const written = (await sharedDisks(directory)).filter(({ writer }) => writer === guest.id);
  const found = guest.config.disks.map((disk) => {
    const ids = new Set(disk.chain.map(({ id }) => id));
    const record = written.find(
      ({ parent }) => parent !== undefined && "disk" in parent && ids.has(parent.disk),
    );
    if (record?.parent !== undefined) return { name: disk.name, record, parent: record.parent };
    throw new DiskError(
      "no-such-disk",
      `${directory} has nothing that guest ${name} wrote to ${disk.name} elsewhere`,
    );
  });
  for (const { record } of found) await requireAtRest(services, directory, record.id);
  for (const { record, parent } of found) {
    const { id, sizeBytes } = record;
    if (disks.store.has(id)) continue;
    const file = new DiskDirectories(directory).pathOf(id);
    const made = { createdAtMs: clock.wallMs(), tenant: tenantOfGuest(guest.name), adoptedFor: guest.id };
    await disks.store.shared.adopt({ id, sizeBytes, parent, file, ...made });
  }
  return found.map(({ name: disk, record }) => ({ name: disk, id: record.id }));
}

/** Emulators lock what they write, where the file system can do that: a copy of what is written meanwhile would be of no instant. */
async function requireAtRest({ clock, log }: Services, directory: string, id: string): Promise<void> {
  const path = new DiskDirectories(directory).pathOf(id);
  try {
    // Opens it for writing, which nothing shares, as raw: what it holds is not looked at.
    await new QemuImg({ clock, log, program: "qemu-io" }).run({ args: ["-f", "raw", "-c", "length", path] });
  } catch (error) {
    if (codeOf(error) !== "tool-failed" || !IS_LOCKED.test(messageOf(error))) throw error;
    const message = `an emulator has ${path} open for writing: the guest may still run on the other host. End it there (ramet rollback), or switch that host off`;
    throw new DiskError("in-use", message, { cause: error });
  }
}
