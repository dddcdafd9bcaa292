/** Text of the agent or of a guest, made safe for a terminal: no control characters, and so no escape sequences. */
export function printable(text: string): string {
  return text.replaceAll("\t", " ").replaceAll(/[\x00-\x1f\x7f-\x9f]/g, "\ufffd");
}
