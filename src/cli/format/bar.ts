const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"] as const;

/** A bar of `width` characters, filled to `share` (0 to 1) in steps of an eighth of a character. */
export function formatBar(share: number, width: number): string {
  const eighths = Math.floor(Math.min(1, Math.max(0, share)) * width * 8);
  const filled = "█".repeat(eighths >> 3) + EIGHTHS[eighths & 7];
  return filled.padEnd(width, "·");
}
