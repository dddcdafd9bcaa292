import { pino, type Logger } from "pino";

/** Structured log: JSON lines with `guest` and `transfer` ids bound where they apply. */
export type Log = Logger;

/** The levels a configuration may name. */
export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A log that writes JSON lines to standard error, so that standard output stays free for answers. */
export function createLog(level: LogLevel): Log {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ fd: 2, sync: true }),
  );
}

/** A log that drops everything. */
export const silentLog: Log = pino({ level: "silent" });
