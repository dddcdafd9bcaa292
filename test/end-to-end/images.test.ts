import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { open, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { codeOf, messageOf, realClock, silentLog } from "../../src/base/index.js";
import { Authority } from "../../src/cli/pki/authority.js";
import { RpcClient, type ParamsInput } from "../../src/control/index.js";
import { Credentials, dial } from "../../src/lane/index.js";
import { filesIn } from "../support/certificates.js";
import { eventually, Hosts, type Host } from "../support/hosts.js";
import { makeRaw, MIB, qemuImg, toQcow2 } from "../support/images.js";
import { runSample } from "../support/sample-guest.js";

const CALL_DEADLINE_MS = 60_000;
const NOW = { unusedForMs: 0 };

const isCode = (code: string) => (error: unknown) => codeOf(error) === code;

describe("two agents with one directory of images", () => {
  let scratch: string;
  let shared: string;
  let hosts: Hosts;
  let a: Host;
  let b: Host;
  const closing: (() => void)[] = [];

  before(async () => {
    scratch = mkdtempSync(join(tmpdir(), "ri-"));
    shared = mkdtempSync(join(scratch, "shared-"));
    hosts = await Hosts.start(2, { tls: true, configuration: { images: { directories: [shared] } } });
    [a, b] = [hosts.at(0), hosts.at(1)];
  });

  after(async () => {
    for (const close of closing) close();
    await hosts.stop();
    rmSync(scratch, { recursive: true, force: true });
  });

  const import_ = (host: Host, params: ParamsInput<"image.import">) => host.call("image.import", params);

  /** A connection of a tenant's own holder. */
  async function asTenant(host: Host, name: string, tenant: string): Promise<RpcClient> {
    const authority = Authority.open(hosts.authorityDirectory, realClock);
    authority.issue({ name, roles: ["admin"], tenant, addresses: [], days: 30 }, { renew: true });
    const credentials = Credentials.load(filesIn(authority.directoryOf(name)), {
      clock: realClock,
      log: silentLog,
    });
    const hello = { purpose: "control", role: "client" } as const;
    const connection = await dial({ url: host.url, hello, credentials, clock: realClock, deadlineMs: 5000 });
    const client = new RpcClient(connection, { clock: realClock, log: silentLog });
    closing.push(() => client.close());
    return client;
  }

  async function ramet(host: Host, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
    const main = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
    const all = [main, "--agent", `unix:${host.socket}`, ...args];
    try {
      const { stdout, stderr } = await promisify(execFile)(process.execPath, all);
      return { code: 0, out: stdout, err: stderr };
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { code, out: stdout, err: stderr };
    }
  }

  test("import one image at the same time, from raw and from qcow2, and end with one copy on both", async () => {
    const raw = await makeRaw(join(scratch, "raw"), { seed: 1, sizeBytes: 64 * MIB, pieces: 30 });
    const qcow2 = toQcow2(raw, join(scratch, "qcow2"), "-c");
    const [one, other] = await Promise.all([
      import_(a, { path: raw, identifier: "base" }),
      import_(b, { path: qcow2, identifier: "base" }),
    ]);
    assert.equal(one.image.digest, other.image.digest);
    assert.deepEqual(
      readdirSync(shared).filter((name) => !name.startsWith(".")),
      [one.image.digest],
    );
    for (const host of [a, b]) {
      const { images } = await host.call("image.list", {});
      assert.deepEqual(
        images.map(({ identifier, digest }) => [identifier, digest]),
        [["base", one.image.digest]],
      );
      await host.call("image.verify", { reference: "base" });
    }
    const disk = join(shared, one.image.digest, "disk.raw");
    assert.deepEqual(await readFile(disk), await readFile(raw));
    assert.ok(statSync(disk).blocks * 512 < 32 * MIB, "holes are kept");
    assert.equal(statSync(disk).uid, 0, "the user that converted it has nothing of it");
  });

  test("are ended in the middle of an import, and leave no half image", async () => {
    const large = join(scratch, "large");
    await writeFile(large, randomBytes(64 * MIB));
    const begun = new Promise<void>((resolve) => {
      a.client.onEvent(({ event, data }) => {
        if (event === "image" && data.work === 7 && data.doneBytes < data.sizeBytes) resolve();
      });
    });
    const importing = import_(a, { path: large, identifier: "half", work: 7 }).catch(
      (error: unknown) => error,
    );
    await begun;
    await a.end("SIGKILL");
    assert.equal(codeOf(await importing), "closed");
    const left = readdirSync(shared).filter((name) => name.startsWith(".unfinished-"));
    assert.equal(left.length, 1, "there was something to leave");
    await assert.rejects(b.call("image.show", { reference: "half" }), isCode("no-such-image"));
    await a.start();
    assert.deepEqual(
      readdirSync(shared).filter((name) => name.startsWith(".")),
      [],
    );
    await import_(a, { path: large, identifier: "whole" });
    await b.call("image.verify", { reference: "whole" });
  });

  test("end an import whose client goes away, and keep nothing of it", async () => {
    const large = join(scratch, "larger");
    await writeFile(large, randomBytes(64 * MIB));
    const connection = await dial({
      url: `unix:${b.socket}`,
      hello: { purpose: "control", role: "client" },
      clock: realClock,
      deadlineMs: 5000,
    });
    const client = new RpcClient(connection, { clock: realClock, log: silentLog });
    const begun = new Promise<void>((resolve) => client.onEvent(() => resolve()));
    const params = { path: large, identifier: "gone", work: 1 };
    const importing = client.call("image.import", params, { deadlineMs: CALL_DEADLINE_MS }).catch(codeOf);
    await begun;
    client.close();
    assert.equal(await importing, "closed");
    await eventually("nothing is left", () => readdirSync(shared).every((name) => !name.startsWith(".")));
    await assert.rejects(b.call("image.show", { reference: "gone" }), isCode("no-such-image"));
  });

  test("keep tenants apart, by their certificates", async () => {
    const { image } = await a.call("image.show", { reference: "base" });
    await import_(a, { path: join(scratch, "raw"), identifier: "golden", tenant: "acme" });
    const acme = await asTenant(a, "alice", "acme");
    const globex = await asTenant(b, "bob", "globex");
    const call = { deadlineMs: CALL_DEADLINE_MS };
    const { images } = await acme.call("image.list", {}, call);
    assert.deepEqual(
      images.map(({ identifier, digest }) => [identifier, digest]),
      [["golden", image.digest]],
    );
    assert.deepEqual((await globex.call("image.list", {}, call)).images, []);
    const said = new Set<string>();
    for (const reference of [
      image.digest,
      image.digest.slice(0, 8),
      "golden",
      "base",
      "f".repeat(64),
      "none",
    ]) {
      // On the other host, which has the same directory: neither seen, nor checked, nor removed.
      for (const method of ["image.show", "image.verify", "image.remove"] as const) {
        const answer = await globex.call(method, { reference }, call).catch((error: unknown) => error);
        assert.equal(codeOf(answer), "no-such-image", method);
        said.add(messageOf(answer).replaceAll(reference, "…"));
      }
    }
    assert.equal((await acme.call("image.list", {}, call)).images.length, 1);
    assert.equal(said.size, 1, "what others have is answered as what nobody has");
    const forbidden = [
      acme.call("image.list", { tenant: "globex" }, call),
      acme.call("image.stored", {}, call),
      acme.call("image.prune", NOW, call),
      acme.call("image.import", { path: "/etc/shadow" }, call),
      acme.call("agent.info", {}, call),
      acme.call("guest.migrate", { name: "web", to: "b" }, call),
    ];
    for (const attempt of forbidden) await assert.rejects(attempt, isCode("forbidden"));
    await acme.call("image.remove", { reference: "golden" }, call);
    assert.deepEqual((await acme.call("image.list", {}, call)).images, []);
    assert.equal((await a.call("image.show", { reference: "base" })).image.sinceMs, image.sinceMs);
  });

  test("refuse what is no image of its own, as root as they are", async () => {
    const overlay = join(scratch, "overlay");
    qemuImg("create", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", overlay, "4M");
    await assert.rejects(import_(a, { path: overlay }), isCode("refers-outside"));
    const cut = toQcow2(join(scratch, "raw"), join(scratch, "cut"));
    const file = await open(cut, "r+");
    await file.truncate(Math.floor(statSync(cut).size / 2));
    await file.close();
    await assert.rejects(import_(a, { path: cut }), isCode("bad-image"));
    await assert.rejects(import_(a, { path: scratch }), isCode("bad-image"));
  });

  test("are used from the command line, and say what to do next", async () => {
    const listed = await ramet(a, "image", "list");
    assert.match(listed.out, /^NAME +DIGEST +SIZE +SINCE +TENANT +STATE\nbase +[0-9a-f]{12} +64 MiB /);
    const imported = await ramet(a, "image", "import", join(scratch, "qcow2"), "--name", "again", "--json");
    assert.equal((JSON.parse(imported.out) as { image: { identifier: string } }).image.identifier, "again");
    assert.match((await ramet(b, "image", "verify", "again")).out, /^image again is what it was\n$/);
    const missing = await ramet(a, "image", "show", "none");
    assert.deepEqual(
      [missing.code, missing.err],
      [4, "ramet: there is no image none; ramet image list shows those there are\n"],
    );
    const refused = await ramet(a, "image", "import", join(scratch, "overlay"));
    assert.equal(refused.code, 5);
    assert.match(refused.err, /make it whole: qemu-img convert/);
    const removed = await ramet(a, "image", "remove", "again");
    assert.match(removed.out, /^image again is removed; its bytes stay until they are pruned/);
    const audit = await a.call("agent.audit", { count: 20 });
    assert.ok(audit.entries.some(({ method }) => method === "image.import"));
  });

  test("prune no base disk that a chain on either host stands on, its agent running or not", async () => {
    const { image } = await a.call("image.show", { reference: "base" });
    const disk = join(shared, image.digest, "disk.raw");
    await runSample(b, { name: "web", disks: [{ image: "base" }] });
    await b.call("guest.fork", { name: "web", names: ["child"] });
    await b.call("guest.kill", { name: "web" });
    await b.call("guest.remove", { name: "web" });
    await assert.rejects(b.call("image.remove", { reference: "base" }), isCode("in-use"));
    const isKept = async () => {
      const { images } = await a.call("image.prune", { ...NOW, dryRun: true });
      assert.ok(!images.some(({ digest }) => digest === image.digest));
      return existsSync(disk);
    };
    assert.ok(await isKept());
    await b.end("SIGKILL");
    assert.ok(await isKept(), "its agent may be away");
    const { images: pruned } = await a.call("image.prune", NOW);
    assert.ok(pruned.length > 0 && pruned.every(({ digest }) => digest !== image.digest));
    assert.ok(existsSync(disk), "what nobody uses was deleted, and it was not");
    await b.start();
    assert.equal((await b.guests()).get("child")?.state, "running");
    const { images } = await b.call("image.prune", { ...NOW, dryRun: true });
    assert.ok(!images.some(({ digest }) => digest === image.digest));
    await b.call("guest.kill", { name: "child" });
    await b.call("guest.remove", { name: "child" });
    await eventually("nobody uses it", async () => {
      const { images: unused } = await a.call("image.prune", { ...NOW, dryRun: true });
      return unused.some(({ digest }) => digest === image.digest);
    });
    assert.ok(existsSync(disk), "prune alone deletes");
  });

  test("prune what nobody uses, once, and not what the other made meanwhile", async () => {
    const { images } = await a.call("image.stored", {});
    const dry = await ramet(a, "image", "prune", "--unused-for", "0s", "--dry-run");
    assert.match(dry.out, new RegExp(`${images.length} images? would be deleted`));
    await assert.rejects(a.call("image.prune", { unusedForMs: -1 }), isCode("bad-params"));
    const young = await b.call("image.prune", { unusedForMs: 24 * 3_600_000 });
    assert.deepEqual(young.images, []);
    const both = await Promise.all([a.call("image.prune", NOW), b.call("image.prune", NOW)]);
    const pruned = both.flatMap((answer) => answer.images.map(({ digest }) => digest));
    assert.deepEqual(pruned.sort(), images.map(({ digest }) => digest).sort());
    assert.deepEqual(readdirSync(shared), []);
    assert.deepEqual(hosts.problems, []);
  });
});
