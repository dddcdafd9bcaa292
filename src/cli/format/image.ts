import type { ImageView, LeftPullView, StoredImageView } from "../../control/index.js";
import { formatArrival } from "./disk.js";
import { formatFields, formatTable } from "./table.js";
import { formatBytes, formatMs, formatTime, plural } from "./units.js";

/** Digits of a digest that people are shown where there are many of them: enough to tell images apart, and to name one. */
const SHOWN_DIGITS = 12;

/** What an image is called: its name, or the start of its digest. */
export function imageName({ identifier, digest }: { identifier?: string; digest: string }): string {
  return `image ${identifier ?? digest.slice(0, SHOWN_DIGITS)}`;
}

/** A tenant's images, one on a line. */
export function formatImages(images: readonly ImageView[], nowMs: number): string[] {
  if (images.length === 0) return ["no images; ramet image import FILE makes one"];
  return formatTable(
    [
      { title: "NAME" },
      { title: "DIGEST" },
      { title: "SIZE", right: true },
      { title: "SINCE" },
      { title: "TENANT" },
      { title: "STATE" },
    ],
    images.map((image) => [
      image.identifier ?? "-",
      image.digest.slice(0, SHOWN_DIGITS),
      formatBytes(image.sizeBytes),
      `${formatMs(Math.max(0, nowMs - image.sinceMs))} ago`,
      image.tenant,
      stateOf(image),
    ]),
  );
}

/** One image, a field on a line. */
export function formatImage(image: ImageView): string[] {
  return formatFields([
    ["name", image.identifier ?? "-"],
    ["digest", image.digest],
    ["size", formatBytes(image.sizeBytes)],
    ["tenant", image.tenant],
    ["since", formatTime(image.sinceMs)],
    ["state", stateOf(image)],
    ["problem", image.problem],
  ]);
}

/** All images of a host, one on a line. */
export function formatStored(images: readonly StoredImageView[]): string[] {
  if (images.length === 0) return ["no images; ramet image import FILE makes one"];
  return formatTable(
    [
      { title: "DIGEST" },
      { title: "SIZE", right: true },
      { title: "TAKES", right: true },
      { title: "LAST USED" },
      { title: "OWNERS" },
      { title: "USED BY" },
      { title: "OTHER HOSTS" },
      { title: "STATE" },
    ],
    images.map((image) => [
      image.digest.slice(0, SHOWN_DIGITS),
      formatBytes(image.sizeBytes),
      formatBytes(image.allocatedBytes),
      formatTime(image.lastUsedMs),
      image.owners.map(({ tenant, identifier }) => `${tenant}/${identifier ?? "-"}`).join(", ") || "-",
      image.usedBy.join(", ") || "-",
      image.otherHosts.join(", ") || "-",
      image.problem === undefined ? "good" : "damaged",
    ]),
  );
}

/** What was pruned, or would be. */
export function formatPruned(
  images: readonly StoredImageView[],
  { dryRun, left }: { dryRun: boolean; left: readonly LeftPullView[] },
): string[] {
  const takenBytes = images.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0);
  const what = `${plural(images.length, "image")} ${dryRun ? "would be" : images.length === 1 ? "was" : "were"} deleted`;
  return [
    ...images.map(({ digest, owners }) => {
      const names = owners.map(({ tenant, identifier }) => `${tenant}/${identifier ?? "-"}`).join(", ");
      return `${digest}${names === "" ? "" : `  ${names}`}`;
    }),
    images.length === 0 ? what : `${what}, ${formatBytes(takenBytes)}`,
    ...formatLeft(left, { dryRun }),
  ];
}

function formatLeft(left: readonly LeftPullView[], { dryRun }: { dryRun: boolean }): string[] {
  if (left.length === 0) return [];
  const takenBytes = left.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0);
  return [
    ...left.map(
      ({ digest, lastChangedMs }) => `${digest}  not all of it, since ${formatTime(lastChangedMs)}`,
    ),
    `what had come of ${plural(left.length, "image")} that nobody brings any more ${dryRun ? "would be" : "was"} deleted, ${formatBytes(takenBytes)}`,
  ];
}

function stateOf({ isUsed, problem, arriving }: ImageView): string {
  if (arriving !== undefined) return formatArrival(arriving);
  if (problem !== undefined) return "damaged";
  return isUsed ? "used" : "unused";
}
