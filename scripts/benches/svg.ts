/** A line chart over categories. */
export interface Chart {
  /** The file's name without its ending. */
  name: string;
  title: string;
  /** What the categories are, such as "guest's memory". */
  across: string;
  unit: string;
  /** Whether the values' axis is logarithmic: for values that differ by orders of magnitude. */
  logarithmic: boolean;
  categories: readonly string[];
  /** One value for each category, where there is one. */
  series: readonly { label: string; values: readonly (number | undefined)[] }[];
}

const WIDTH = 640;
const HEIGHT = 360;
const MARGIN = { top: 34, right: 150, bottom: 46, left: 64 };
/** Distinguishable also by those who see few colours (Okabe and Ito's). */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
const LINEAR_STEPS = 5;

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** A number without digits that say nothing at its size. */
function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2)));
}

/** The next of 1, 2 and 5 times a power of ten. */
function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => step * power >= value * (1 - 1e-9)) ?? 10);
}

interface Scale {
  ticks: number[];
  /** 0 for the axis' lower end, 1 for its upper one. */
  place(value: number): number;
}

function scaleOf({ logarithmic, series }: Chart): Scale {
  const all = series.flatMap(({ values }) => values.filter((value) => value !== undefined));
  const positive = all.filter((value) => value > 0);
  if (!logarithmic || positive.length === 0) {
    const step = roundUp(Math.max(...positive, 1e-9) / LINEAR_STEPS);
    const count = Math.max(1, Math.ceil(Math.max(...positive, 0) / step - 1e-9));
    const ticks = Array.from({ length: count + 1 }, (_, index) => index * step);
    return { ticks, place: (value) => value / (count * step) };
  }
  const low = Math.floor(Math.log10(Math.min(...positive)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...positive))));
  const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  // What is zero lies on the lower end, for a logarithm has no place for it.
  return { ticks, place: (value) => Math.max(0, (Math.log10(Math.max(value, 1e-12)) - low) / (high - low)) };
}

/** The chart as an SVG file, which shows as it is in browsers and documents. */
export function svgOf(chart: Chart): string {
  const { categories, series } = chart;
  const right = WIDTH - MARGIN.right;
  const bottom = HEIGHT - MARGIN.bottom;
  const scale = scaleOf(chart);
  const x = (index: number): number =>
    Math.round(MARGIN.left + ((index + 0.5) / categories.length) * (right - MARGIN.left));
  const y = (value: number): number => Math.round(bottom - scale.place(value) * (bottom - MARGIN.top));
  const text = (at: string, content: string, anchor = "middle"): string =>
    `<text ${at} text-anchor="${anchor}">${escape(content)}</text>`;
  const grid = scale.ticks.flatMap((value) => [
    `<line x1="${MARGIN.left}" x2="${right}" y1="${y(value)}" y2="${y(value)}" stroke="#ddd"/>`,
    text(`x="${MARGIN.left - 8}" y="${y(value) + 4}"`, short(value), "end"),
  ]);
  const names = categories.map((category, index) => text(`x="${x(index)}" y="${bottom + 18}"`, category));
  const lines = series.flatMap(({ label, values }, place) => {
    const colour = COLOURS[place % COLOURS.length] ?? "#000000";
    const points = values.flatMap((value, index) => (value === undefined ? [] : [[x(index), y(value)]]));
    const keyY = MARGIN.top + 8 + place * 18;
    return [
      `<polyline fill="none" stroke="${colour}" stroke-width="2" points="${points.map(([a, b]) => `${a},${b}`).join(" ")}"/>`,
      ...points.map(([a, b]) => `<circle cx="${a}" cy="${b}" r="3.5" fill="${colour}"/>`),
      `<circle cx="${right + 16}" cy="${keyY}" r="4" fill="${colour}"/>`,
      text(`x="${right + 26}" y="${keyY + 4}"`, label, "start"),
    ];
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    text(`x="${MARGIN.left}" y="20" font-size="14" font-weight="bold"`, chart.title, "start"),
    ...grid,
    ...names,
    text(`x="${(MARGIN.left + right) / 2}" y="${HEIGHT - 8}"`, chart.across),
    text(
      `x="14" y="${(MARGIN.top + bottom) / 2}" transform="rotate(-90 14 ${(MARGIN.top + bottom) / 2})"`,
      chart.unit,
    ),
    ...lines,
    "</svg>",
    "",
  ].join("\n");
}
