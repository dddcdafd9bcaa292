/** Imported by Node before anything else: from here on, sources are given counters as they are imported. */
import { register } from "node:module";
import { Coverage } from "./coverage.js";

Coverage.install();
register("./hooks.ts", import.meta.url);
