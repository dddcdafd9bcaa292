import { DEFAULT_TENANT, type Identity } from "../../base/index.js";
import { ControlError, type Handlers, type ImageView, type StoredImageView } from "../../control/index.js";
import type { ImageView as Image, StoredImage } from "../../disk/index.js";
import { pullImage } from "../blocks/pull-image.js";
import type { ImageWorks } from "../images/image-works.js";
import type { Services } from "../services.js";

const PULL_PHASES = { pulling: "pull", complete: "pull", waiting: "wait", full: "full" } as const;

type ImageHandlers = Pick<Handlers<"client">, Extract<keyof Handlers<"client">, `image.${string}`>>;

/** Commands on images. */
export function imageHandlers(services: Services, works: ImageWorks): ImageHandlers {
  const { images, arrivingImages } = services;
  return {
    "image.import": async ({ path, identifier, tenant, format, work }, { session }) => {
      services.requireAccepting();
      const as = { tenant: tenantFor(session.identity, tenant), identifier, format };
      return {
        image: view(await works.run({ session, work }, (each) => images.import(path, { ...as, ...each }))),
      };
    },
    "image.list": async ({ tenant }, { session }) => {
      const whose = tenantFor(session.identity, tenant);
      return { images: [...(await images.list(whose)).map(view), ...arrivingImages.list(whose)] };
    },
    "image.show": async ({ reference, tenant }, { session }) => ({
      image: view(await images.find(reference, tenantFor(session.identity, tenant))),
    }),
    "image.verify": async ({ reference, tenant, work }, { session }) => {
      const as = { tenant: tenantFor(session.identity, tenant) };
      const verify = works.run({ session, work }, ({ signal, onProgress }) =>
        images.verify(reference, {
          ...as,
          signal,
          onProgress: (doneBytes, sizeBytes) => onProgress({ phase: "digest", doneBytes, sizeBytes }),
        }),
      );
      return { image: view(await verify) };
    },
    "image.remove": async ({ reference, tenant }, { session }) => ({
      image: view(await images.remove(reference, tenantFor(session.identity, tenant))),
    }),
    "image.pull": async ({ tenant, work, identifier, ...params }, { session }) => {
      services.requireAccepting();
      const as = { tenant: tenantFor(session.identity, tenant), identifier };
      const pulled = await works.run({ session, work }, ({ signal, onProgress }) =>
        pullImage(services, {
          ...params,
          ...as,
          signal,
          onProgress: ({ phase, hereBytes, sizeBytes }) =>
            onProgress({ phase: PULL_PHASES[phase], doneBytes: hereBytes, sizeBytes }),
        }),
      );
      return { image: view(pulled.image), wireBytes: pulled.wireBytes };
    },
    "image.stored": async () => ({ images: (await images.stored()).map(storedView) }),
    "image.prune": async (options) => {
      services.requireAccepting();
      const left = await arrivingImages.clearLeft(options);
      return { images: (await images.prune(options)).map(storedView), left };
    },
  };
}

/**
 * Whom a command is for: a tenant's own holder is that tenant and nobody else; whoever runs the host may name any.
 * @throws ControlError `forbidden`
 */
function tenantFor(identity: Identity, asked: string | undefined): string {
  if (identity.tenant === undefined) return asked ?? DEFAULT_TENANT;
  if (asked === undefined || asked === identity.tenant) return identity.tenant;
  throw new ControlError(
    "forbidden",
    `${identity.name} belongs to the tenant ${identity.tenant}, and may not ask for another's images`,
  );
}

function view({ identifier, problem, ...image }: Image): ImageView {
  return {
    ...image,
    ...(identifier === undefined ? {} : { identifier }),
    ...(problem === undefined ? {} : { problem }),
  };
}

function storedView({ owners, problem, ...image }: StoredImage): StoredImageView {
  return {
    ...image,
    usedBy: [...image.usedBy],
    otherHosts: [...image.otherHosts],
    owners: owners.map(({ tenant, identifier }) => ({
      tenant,
      ...(identifier === undefined ? {} : { identifier }),
    })),
    ...(problem === undefined ? {} : { problem }),
  };
}
