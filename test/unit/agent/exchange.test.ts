import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { deferred } from "../../../src/base/index.js";
import { ExchangeFile, readExchange, seatsOf } from "../../../src/agent/exchange/exchange-record.js";
import { Exchanges } from "../../../src/agent/exchange/exchanges.js";

let directory: string;
before(() => (directory = mkdtempSync(join(tmpdir(), "ramet-exchange-"))));
after(() => rmSync(directory, { recursive: true, force: true }));

test("an exchange's record says which emulator is the guest's, and which is to be ended", () => {
  const path = join(directory, "exchange.json");
  assert.equal(readExchange(path), undefined);
  assert.deepEqual(seatsOf({}, undefined), { own: "run" });
  assert.deepEqual(seatsOf({ seat: "alt" }, undefined), { own: "alt" });
  const file = new ExchangeFile(path, "alt");
  assert.deepEqual(seatsOf({}, readExchange(path)), { own: "run", ended: "alt" });
  file.write("told");
  assert.deepEqual(seatsOf({}, readExchange(path)), { own: "alt", ended: "run" });
  assert.deepEqual(
    seatsOf({ seat: "alt" }, readExchange(path)),
    { own: "alt", ended: "run" },
    "it was noted already",
  );
  file.takeBack();
  assert.deepEqual(seatsOf({}, readExchange(path)), { own: "run", ended: "alt" });
  file.remove();
  assert.deepEqual(readdirSync(directory), []);
});

test("a record that is not one is refused by its path", () => {
  const path = join(directory, "bad.json");
  writeFileSync(path, '{"version":1,"step":"done","to":"alt"}');
  assert.throws(() => readExchange(path), { code: "bad-record", message: /bad\.json/ });
  rmSync(path);
});

test("an agent that ends gives up what can be, waits for the rest, and begins nothing more", async () => {
  const exchanges = new Exchanges();
  const pause = deferred<void>();
  let isGivenUp = false;
  const done = exchanges.during(async (signal) => {
    await pause.promise;
    isGivenUp = signal.aborted;
    return "done";
  });
  let hasEnded = false;
  const end = exchanges.end().then(() => (hasEnded = true));
  await new Promise<void>((resolve) => setImmediate(resolve));
  assert.equal(hasEnded, false);
  pause.resolve();
  assert.equal(await done, "done");
  await end;
  assert.equal(isGivenUp, true);
  await assert.rejects(
    exchanges.during(async () => {}),
    { code: "draining" },
  );
});
