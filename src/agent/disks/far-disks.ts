import { codeOf, tenantOfGuest, type Holder } from "../../base/index.js";
import type { PeerDisk } from "../../control/index.js";
import type { DiskParent } from "../../disk/index.js";
import { isUnderWay, type GuestDisk } from "../../guest/index.js";
import { CALL_DEADLINE_MS } from "../blocks/pull-image.js";
import { AgentError } from "../errors.js";
import type { Guest } from "../guests/guest.js";
import type { Services } from "../services.js";
import type { PrepareParams } from "../transfers/hosted-child.js";
import type { ForkedDisks } from "./guest-disks.js";

/** What the disks of a guest's children on other hosts stand on. A frozen guest's own layers are empty, and not theirs. */
export function layersBelow({ state, config }: Guest): GuestDisk[] {
  if (state !== "frozen") return [...config.disks];
  return config.disks.map((disk) => ({ ...disk, chain: disk.chain.slice(1) }));
}

/** A guest's disks as another host must know them. */
export function peerDisksOf({ disks }: Pick<Services, "disks">, guest: Guest): PeerDisk[] {
  return layersBelow(guest).map(({ name, sizeBytes, cache, iops, bps, chain }) => {
    const image = chain.find(({ format }) => format === "raw")?.id;
    const layers = chain
      .filter(({ format }) => format === "qcow2")
      .map(({ id }) => ({ id, sizeBytes: disks.store.get(id).sizeBytes }));
    return {
      name,
      sizeBytes,
      cache,
      ...(iops === undefined ? {} : { iops }),
      ...(bps === undefined ? {} : { bps }),
      layers,
      ...(image === undefined ? {} : { image }),
    };
  });
}

/** @throws AgentError `not-ready` for a guest whose disks have yet to come from elsewhere. */
export function requireDisksHere(guest: Guest): void {
  const { chain = [] } = guest.config.disks.find((disk) => disk.chain.some(isUnderWay)) ?? {};
  if (chain.length === 0) return;
  throw new AgentError(
    "not-ready",
    `disks of guest ${guest.name} are on their way to this host; it can be forked to another one when they are here (ramet disk list)`,
  );
}

/** The disks of a guest of another host that is forked to this one. */
export class FarDisks implements ForkedDisks {
  readonly hasDisks = true;
  readonly #services: Services;
  readonly #params: PrepareParams;
  readonly #disks: readonly PeerDisk[];
  readonly #holder: Holder;

  constructor(
    services: Services,
    from: { params: PrepareParams; disks: readonly PeerDisk[]; holder: Holder },
  ) {
    this.#services = services;
    this.#params = from.params;
    this.#disks = from.disks;
    this.#holder = from.holder;
  }

  /** Each disk of the child: an empty layer over what is here or will come. @throws AgentError `not-ready`, DiskError, what the other host says. */
  async layFor(child: string): Promise<GuestDisk[]> {
    const { disks } = this.#services;
    const { writes } = this.#params;
    if (writes !== undefined) await disks.sharedWrites.require(writes);
    const over: GuestDisk[] = [];
    try {
      for (const { layers, image, ...disk } of this.#disks) {
        if (image !== undefined) await this.#bringImage(image);
        const top = await this.#expect(layers, image);
        over.push({
          ...named(disk),
          chain: "disk" in top ? disks.store.chainOf(top.disk) : [rawLayer(top.image)],
        });
      }
      const sharedAt = writes === undefined ? {} : { sharedAt: writes.directory };
      return await disks.layOver(over, child, { tenant: this.#tenant, ...sharedAt });
    } catch (error) {
      await disks.removeUnused(this.#disks.flatMap(({ layers }) => layers.map(({ id }) => id)));
      throw error;
    }
  }

  /** The lowest first. @returns what the child's own layer stands on. */
  async #expect(layers: PeerDisk["layers"], image: string | undefined): Promise<DiskParent> {
    const { transfer, token, parentUrl: url, parent: from } = this.#params;
    const arrival = { transfer, token, url, host: from.host, holder: this.#holder };
    let parent: DiskParent | undefined = image === undefined ? undefined : { image };
    for (const { id, sizeBytes } of layers.toReversed()) {
      await this.#services.disks.arrivals.expect(
        { id, sizeBytes, tenant: this.#tenant, ...(parent === undefined ? {} : { parent }) },
        arrival,
      );
      parent = { disk: id };
    }
    if (parent === undefined) throw new AgentError("bad-request", "a disk stands on something");
    return parent;
  }

  /** Has a base disk come that this host lacks; the child runs on it meanwhile. */
  async #bringImage(digest: string): Promise<void> {
    const { images, arrivingImages, peers, log } = this.#services;
    const tenant = this.#tenant;
    if (await images.has(digest)) return this.#assign(digest, tenant);
    const { parentUrl: url, parent: from } = this.#params;
    const client = await peers.connect(url);
    const params = { reference: digest, tenant };
    const { sizeBytes } = await client.call("peer.findImage", params, { deadlineMs: CALL_DEADLINE_MS });
    log.info({ digest, host: from.host }, "a base disk is brought for a child");
    const origins = [{ kind: "host" as const, name: from.host, url }];
    await arrivingImages.bring({ digest, sizeBytes, identifier: undefined, origins }, tenant);
  }

  /** The child's tenant has the base disk that its guest stands on, as it would if it had not been here: from here, too, its guests are forked on. */
  async #assign(digest: string, tenant: string): Promise<void> {
    const { images } = this.#services;
    try {
      await images.find(digest, tenant);
    } catch (error) {
      if (codeOf(error) !== "no-such-image") throw error;
      await images.assign(digest, { tenant, identifier: undefined });
    }
  }

  get #tenant(): string {
    return tenantOfGuest(this.#params.guest.name);
  }
}

function named({
  name,
  sizeBytes,
  cache,
  iops,
  bps,
}: Omit<PeerDisk, "layers" | "image">): Omit<GuestDisk, "chain"> {
  const limits = { ...(iops === undefined ? {} : { iops }), ...(bps === undefined ? {} : { bps }) };
  return { name, sizeBytes, cache, ...limits };
}

/** What it stands on by its digest alone: the store knows where that lies. */
function rawLayer(digest: string): GuestDisk["chain"][number] {
  return { id: digest, format: "raw", path: "/" };
}
