import { printable } from "./text.js";

/** A column: its title, and whether its cells stand at the right (numbers). */
export interface Column {
  title: string;
  right?: boolean;
}

/** Lines with aligned columns. The last left-aligned column is not padded. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => row.map(printable))];
  const widths = columns.map((_, index) => Math.max(...cells.map((row) => (row[index] ?? "").length)));
  return cells.map((row) =>
    columns
      .map(({ right }, index) => {
        const cell = row[index] ?? "";
        const width = widths[index] as number;
        return right ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd(),
  );
}

/** `name: value` lines with the values aligned; undefined values are left out. */
export function formatFields(fields: readonly (readonly [string, string | undefined])[]): string[] {
  const present = fields.filter((field): field is readonly [string, string] => field[1] !== undefined);
  const width = Math.max(0, ...present.map(([name]) => name.length)) + 1;
  return present.map(([name, value]) => `${`${name}:`.padEnd(width)} ${printable(value)}`);
}
