/** Loader hooks (node:module, `register`) that put counters into the sources of the decoders as they are imported. */
import type { LoadHook } from "node:module";
import { instrument } from "./instrument.js";

const ROOT = new URL("../../../", import.meta.url).href;

/** Our rooms, what decodes for them in JavaScript, and what stands in for coverage of native code. */
const INSTRUMENTED = ["src/", "node_modules/msgpackr/", "test/fuzz/targets/lz4-reference.ts"];

export const load: LoadHook = async (url, context, nextLoad) => {
  const loaded = await nextLoad(url, context);
  const path = url.startsWith(ROOT) ? url.slice(ROOT.length).replace(/\?.*$/, "") : "";
  if (loaded.format !== "module" || !INSTRUMENTED.some((start) => path.startsWith(start))) return loaded;
  if (loaded.source === undefined) return loaded;
  const source =
    typeof loaded.source === "string" ? loaded.source : Buffer.from(loaded.source as Uint8Array).toString();
  return { ...loaded, source: instrument(source, path).code };
};
