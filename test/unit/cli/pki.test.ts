import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Authority } from "../../../src/cli/pki/authority.js";
import { identityOf } from "../../../src/lane/certificate.js";
import { FakeSetting } from "./support.js";

const directory = mkdtempSync(join(tmpdir(), "ramet-pki-"));
after(() => rmSync(directory, { recursive: true }));
const pki = join(directory, "pki");

async function run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
  const setting = new FakeSetting();
  setting.variables.RAMET_PKI = pki;
  setting.authorities = Authority;
  const code = await setting.run("pki", ...argv);
  return { code, out: setting.stdout.text, err: setting.stderr.text };
}

async function done(...argv: string[]): Promise<string> {
  const { code, out, err } = await run(...argv);
  assert.equal(code, 0, err);
  return out;
}

/** Every file below a directory. */
function filesBelow(path: string): string[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

test("there is nothing to issue without an authority", async () => {
  const { code, err } = await run("issue", "a", "--role", "peer", "--address", "a");
  assert.equal(code, 1);
  assert.match(err, /there is no authority in .*\n {2}make one with: ramet pki init/);
});

test("an authority is made once, and everything it makes is its owner's alone", async () => {
  assert.match(await done("init"), /holds a new authority/);
  const before = readFileSync(join(pki, "authority.pem"), "utf8");
  assert.match(await done("init", "--name", "Another"), /holds an authority already/);
  assert.equal(readFileSync(join(pki, "authority.pem"), "utf8"), before);
  await done("issue", "hosta", "--role", "peer", "--address", "hosta,192.0.2.1");
  assert.equal(statSync(pki).mode & 0o777, 0o700);
  const files = filesBelow(pki);
  assert.ok(files.length > 8, files.join(" "));
  for (const file of files) assert.equal(statSync(file).mode & 0o777, 0o600, file);
  assert.deepEqual(readdirSync(join(pki, "issued")), ["hosta"], "nothing half-made is left");
});

test("openssl finds the certificates right, with the names and uses they are to have", async () => {
  const at = join(pki, "issued", "hosta");
  const verify = [
    "verify",
    "-x509_strict",
    "-crl_check",
    "-CAfile",
    `${at}/authority.pem`,
    "-CRLfile",
    `${at}/revoked.pem`,
  ];
  for (const purpose of ["sslserver", "sslclient"])
    execFileSync("openssl", [...verify, "-purpose", purpose, `${at}/certificate.pem`], { stdio: "pipe" });
  const text = execFileSync("openssl", ["x509", "-noout", "-text", "-in", `${at}/certificate.pem`], {
    encoding: "utf8",
  });
  assert.match(text, /URI:ramet:role:peer, DNS:hosta, IP Address:192\.0\.2\.1/);
  assert.match(text, /Subject: O = Ramet, CN = hosta/);
});

test("who has a certificate keeps it, unless it is renewed; the former stays good", async () => {
  const same = ["issue", "hosta", "--role", "peer", "--address", "192.0.2.1", "--address", "hosta"];
  const key = readFileSync(join(pki, "issued", "hosta", "key.pem"), "utf8");
  assert.match(await done(...same), /hosta has this certificate already/);
  assert.equal(readFileSync(join(pki, "issued", "hosta", "key.pem"), "utf8"), key);
  const other = await run("issue", "hosta", "--role", "peer", "--address", "hostb");
  assert.equal(other.code, 1);
  assert.match(other.err, /with other roles, addresses or another tenant\n {2}issue another with --renew/);
  await done(...same, "--renew");
  assert.notEqual(readFileSync(join(pki, "issued", "hosta", "key.pem"), "utf8"), key);
  const { certificates } = JSON.parse(await done("list", "--json")) as { certificates: { state: string }[] };
  assert.deepEqual(
    certificates.map(({ state }) => state),
    ["valid", "valid"],
  );
});

test("a certificate names a tenant, and only one that is a name; an agent's names none", async () => {
  const issued = JSON.parse(
    await done("issue", "carol", "--role", "operate", "--tenant", "acme", "--json"),
  ) as {
    tenant: string;
    files: string;
  };
  assert.equal(issued.tenant, "acme");
  const certificate = new X509Certificate(readFileSync(join(issued.files, "certificate.pem")));
  assert.deepEqual(identityOf(certificate), {
    kind: "certificate",
    name: "O=Ramet, CN=carol",
    roles: ["operate"],
    tenant: "acme",
  });
  const kept = await done("issue", "carol", "--role", "operate", "--tenant", "acme");
  assert.match(kept, /carol has this certificate already/);
  assert.equal((await run("issue", "carol", "--role", "operate")).code, 1);
  assert.equal((await run("issue", "dave", "--role", "operate", "--tenant", "A/B")).code, 2);
  const agent = await run("issue", "hostz", "--role", "peer", "--address", "hostz", "--tenant", "acme");
  assert.match(agent.err, /an agent belongs to no tenant/);
  await done("revoke", "carol");
});

test("revoking takes all of a name, or one by its number, and everybody's list is renewed", async () => {
  await done("issue", "alice", "--role", "observe", "--role", "operate");
  const list = readFileSync(join(pki, "issued", "alice", "revoked.pem"), "utf8");
  const issued = JSON.parse(await done("issue", "alice", "--role", "operate,observe", "--json")) as {
    serial: string;
  };
  assert.match(await done("revoke", issued.serial.toLowerCase()), /^alice [0-9A-F]+ is revoked\n/);
  assert.notEqual(readFileSync(join(pki, "issued", "hosta", "revoked.pem"), "utf8"), list);
  const both = JSON.parse(await done("revoke", "hosta", "--json")) as { revoked: unknown[] };
  assert.equal(both.revoked.length, 2);
  assert.match(await done("revoke", "hosta"), /hosta was revoked before/);
  const listed = await done("list");
  assert.match(listed, /^hosta +revoked +peer +hosta, 192\.0\.2\.1 /m);
  assert.match(listed, /^alice +revoked +observe, operate +- /m);
  const { code, err } = await run("revoke", "nobody");
  assert.equal(code, 1);
  assert.match(err, /no certificate to or with the number nobody/);
  const text = execFileSync("openssl", ["crl", "-noout", "-text", "-in", join(pki, "revoked.pem")], {
    encoding: "utf8",
  });
  assert.equal(text.match(/Serial Number:/g)?.length, 4);
});

test("wrong names, roles and addresses are wrong usage", async () => {
  const cases: [string[], RegExp][] = [
    [["issue", "../x", "--role", "peer"], /characters that are not allowed/],
    [["issue", "a/CN=b", "--role", "peer"], /characters that are not allowed/],
    [["issue", "a", "--role", "king"], /not a role\n {2}roles are observe, operate, admin, peer/],
    [["issue", "a", "--role", "peer"], /needs an address/],
    [["issue", "a", "--role", "peer", "--address", "a b"], /address "a b" has characters/],
    [["issue", "a", "--role", "peer", "--address", "a\nURI.9=ramet:role:admin"], /characters/],
    [["issue", "a"], /--role/],
    [["init", "--name", "a/b"], /characters that are not allowed/],
  ];
  for (const [argv, message] of cases) {
    const { code, err } = await run(...argv);
    assert.equal(code, 2, err);
    assert.match(err, message);
  }
});

test("two at a time are refused, and what a killed one left behind is not in the way", async () => {
  const lock = join(pki, "lock");
  writeFileSync(lock, String(process.pid));
  const { code, err } = await run("revoke", "hosta");
  assert.equal(code, 1);
  assert.match(err, new RegExp(`process ${process.pid} works with the authority`));
  writeFileSync(lock, "4194305");
  await done("revoke", "hosta");
  assert.ok(!existsSync(lock));
});
