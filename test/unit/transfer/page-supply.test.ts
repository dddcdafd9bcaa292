import assert from "node:assert/strict";
import { test } from "node:test";
import { CALM_FRAME_PAGES, MAX_FRAME_RUNS, MAX_RUN_PAGES, PAGE_BYTES } from "../../../src/base/index.js";
import type { Instant } from "../../../src/transfer/instant.js";
import { PageSupply } from "../../../src/transfer/page-supply.js";
import type { PageRange } from "../../../src/transfer/ports.js";
import { encodeFrame, type Frame } from "../../../src/wire/index.js";

/** Memory in which a page holds its own index, or is a hole, or is zero and no hole. */
function supplyOf(pageCount: number, kindOf: (page: number) => "data" | "hole" | "zero"): PageSupply {
  const instant = {
    pageCount,
    hasCopy: () => false,
    copies: { pages: 0 },
    read({ first, count }: PageRange, into: Uint8Array) {
      for (let index = 0; index < count; index += 1)
        into.fill(kindOf(first + index) === "data" ? 1 : 0, index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
    },
    nextData(page: number) {
      let first = page;
      while (first < pageCount && kindOf(first) === "hole") first += 1;
      let past = first;
      while (past < pageCount && kindOf(past) !== "hole") past += 1;
      return past > first ? { first, count: past - first } : undefined;
    },
  };
  return new PageSupply({ instant: instant as unknown as Instant, sweep: true });
}

/** Every frame of a sweep, each of which must be one that can be sent. */
function framesOf(supply: PageSupply, sweepPages: number): Extract<Frame, { kind: "pages" }>[] {
  const frames: Extract<Frame, { kind: "pages" }>[] = [];
  for (;;) {
    const frame = supply.next(sweepPages, { compress: false });
    if (frame?.kind !== "pages") return frames;
    encodeFrame(frame, { transfer: 1, sequence: 1 });
    assert.ok(frame.runs.length <= MAX_FRAME_RUNS);
    const data = frame.runs.filter(({ encoding }) => encoding !== "zero");
    assert.ok(data.reduce((sum, { pageCount }) => sum + pageCount, 0) <= sweepPages);
    frames.push({ ...frame, runs: frame.runs.map((run) => ({ ...run, data: run.data.slice() })) });
  }
}

/** The pages of all frames, each once. */
function pagesOf(frames: readonly Extract<Frame, { kind: "pages" }>[]): Map<number, "data" | "zero"> {
  const pages = new Map<number, "data" | "zero">();
  for (const { runs } of frames) {
    for (const { firstPage, pageCount, encoding } of runs) {
      for (let page = firstPage; page < firstPage + pageCount; page += 1) {
        assert.ok(!pages.has(page), `page ${page} is sent once`);
        pages.set(page, encoding === "zero" ? "zero" : "data");
      }
    }
  }
  return pages;
}

test("pages that lie scattered share a frame", () => {
  const supply = supplyOf(1024, (page) => (page % 8 === 0 ? "data" : "hole"));
  const frames = framesOf(supply, 16);
  assert.equal(pagesOf(frames).size, 1024);
  assert.ok(frames.length <= 1024 / 8 / 8 + 1, `${frames.length} frames`);
});

test("long stretches go in frames of several runs, and every page once", () => {
  const supply = supplyOf(4 * CALM_FRAME_PAGES, () => "data");
  const frames = framesOf(supply, CALM_FRAME_PAGES);
  assert.equal(frames.length, 4);
  for (const { runs } of frames) assert.equal(runs.length, CALM_FRAME_PAGES / MAX_RUN_PAGES);
  assert.equal(pagesOf(frames).size, 4 * CALM_FRAME_PAGES);
});

test("a frame never has more runs than it may, whatever alternates", () => {
  const kinds = ["data", "hole", "zero"] as const;
  for (let seed = 1; seed <= 50; seed += 1) {
    const kindOf = (page: number) => kinds[Math.floor((page * seed) / 7) % 3] ?? "hole";
    const pages = pagesOf(framesOf(supplyOf(4096, kindOf), CALM_FRAME_PAGES));
    assert.equal(pages.size, 4096);
    for (const [page, sent] of pages) assert.equal(sent, kindOf(page) === "data" ? "data" : "zero");
  }
});

test("a frame that tells of large holes has less besides", () => {
  const supply = supplyOf(200_000, (page) => (page % 20_000 === 0 ? "data" : "hole"));
  for (const { runs } of framesOf(supply, 16)) {
    const told = runs.reduce((sum, { pageCount }) => sum + pageCount, 0);
    assert.ok(told <= 3 * 16_384, `${told} pages`);
  }
});
