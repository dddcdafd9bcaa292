export * from "./flags.js";
export * from "./load.js";
export * from "./schema.js";
export * from "./transport.js";
