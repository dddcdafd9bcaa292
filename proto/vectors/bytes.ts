/** Bytes as the vectors write them: parts one after the other. */
export type VectorBytes = (string | { repeat: string; times: number })[];

/** Puts the parts together. */
export function bytesOf(parts: VectorBytes): Buffer {
  return Buffer.concat(
    parts.map((part) =>
      typeof part === "string"
        ? Buffer.from(part, "hex")
        : Buffer.from(part.repeat.repeat(part.times), "hex"),
    ),
  );
}

/** Writes bytes as parts; a unit of `unitBytes` bytes that repeats at least four times is written once. */
export function partsOf(bytes: Uint8Array, unitBytes = 8): VectorBytes {
  const hex = Buffer.from(bytes).toString("hex");
  const unitDigits = unitBytes * 2;
  const parts: VectorBytes = [];
  let literal = "";
  for (let at = 0; at < hex.length;) {
    const unit = hex.slice(at, at + unitDigits);
    let times = 1;
    while (unit.length === unitDigits && hex.startsWith(unit, at + times * unitDigits)) times += 1;
    if (times < 4) {
      literal += hex.slice(at, at + 2);
      at += 2;
      continue;
    }
    if (literal !== "") parts.push(literal);
    literal = "";
    parts.push({ repeat: unit, times });
    at += times * unitDigits;
  }
  if (literal !== "") parts.push(literal);
  return parts;
}
