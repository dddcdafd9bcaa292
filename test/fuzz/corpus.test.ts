/** The inputs kept in the repository, and some made from them with a fixed seed, go through every decoder. `scripts/fuzz` makes millions. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { buildNative } from "../support/memory-stand-in.js";
import { keptInputs } from "./engine/corpus.js";
import { Coverage } from "./engine/coverage.js";
import { countDescriptors, execute, Fuzzer } from "./engine/fuzzer.js";
import { loadTarget, TARGETS } from "./targets/index.js";

/** Inputs made for each target, all together: a few seconds. */
const MADE = 20_000;

/** Descriptors of the test runner and the collector come and go. */
const DESCRIPTOR_SLACK = 8;

/** All kept inputs together, so that a checkout stays small. */
const MAX_CORPUS_BYTES = 300 * 1024;

const SHARES = TARGETS.reduce((total, { share }) => total + share, 0);

before(() => buildNative());
after(async () => {
  for (const { name } of TARGETS) await (await loadTarget(name)).close?.();
});

for (const { name, share } of TARGETS) {
  test(`${name}: kept inputs are decoded or refused`, async () => {
    const target = await loadTarget(name);
    const kept = keptInputs(target);
    assert.ok(kept.length > 0, `scripts/fuzz --target ${name} --keep makes inputs`);
    for (const { name: file, input } of kept) {
      const { finding } = await execute(target, input);
      assert.equal(finding?.message, undefined, `${file}: ${finding?.message}`);
    }
  });

  test(`${name}: inputs made with seed 1 are decoded or refused`, async () => {
    const target = await loadTarget(name);
    const fuzzer = new Fuzzer(target, { seed: 1, coverage: Coverage.current });
    for (const { input } of keptInputs(target)) fuzzer.corpus.push(input);
    for (const seed of target.seeds()) fuzzer.corpus.push(Buffer.from(seed));
    await execute(target, fuzzer.next());
    const descriptors = countDescriptors();
    for (let made = 0; made < (MADE * share) / SHARES; made += 1) {
      const input = fuzzer.next();
      const { finding } = await execute(target, input);
      assert.equal(finding?.message, undefined, `${input.toString("base64")}: ${finding?.message}`);
    }
    assert.ok(countDescriptors() <= descriptors + DESCRIPTOR_SLACK, "what a decoder opens is closed");
  });
}

test("every target is named as it is listed, and the kept inputs are small", async () => {
  let sizeBytes = 0;
  for (const { name } of TARGETS) {
    const target = await loadTarget(name);
    assert.equal(target.name, name);
    sizeBytes += keptInputs(target).reduce((total, { input }) => total + input.length, 0);
  }
  assert.ok(sizeBytes <= MAX_CORPUS_BYTES, `${sizeBytes} bytes are kept`);
});
