import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { codeOf, type Clock, type Log } from "../../base/index.js";
import { ImageStore, QemuImg } from "../../disk/index.js";
import { findData } from "../../memory/index.js";
import type { Configuration } from "../configuration/index.js";
import type { Isolation } from "../isolation/isolation.js";
import { writeAtomically } from "../store/files.js";
import type { Paths } from "../store/paths.js";

const ID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/;

/** The host's base disks, where the configuration says or below the state directory. */
export async function openImages(parts: {
  configuration: Configuration;
  paths: Paths;
  isolation: Isolation;
  clock: Clock;
  log: Log;
}): Promise<ImageStore> {
  const { configuration, paths, isolation, clock, log } = parts;
  const configured = configuration.images.directories;
  return ImageStore.open({
    directories: configured ?? [paths.images],
    // What an operator names may be a mount that is not there yet: nothing is put where it would be hidden later.
    makeFirst: configured === undefined,
    host: { id: await ownHostId(paths.hostId), name: configuration.name },
    qemuImg: new QemuImg({ clock, log }),
    findData,
    uid: isolation.toolUid,
    clock,
    log,
  });
}

/** An id for this state directory, made once: hosts that share a directory of images are told apart by it, whatever they are called. */
export async function ownHostId(path: string): Promise<string> {
  try {
    const id = (await readFile(path, "utf8")).trim();
    if (ID.test(id)) return id;
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  const id = randomUUID();
  await writeAtomically(path, `${id}\n`);
  return id;
}
